# What the first apply creates, and that optional parts are only created if they are configured.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  allow_public_http = true
  environment       = "prod"
  image_tag         = "abc123"
}

run "the_first_apply_has_a_repository_and_no_service" {
  command = plan
  variables {
    image_tag = ""
  }
  assert {
    condition     = length(aws_ecs_service.service) == 0 && length(aws_ecs_task_definition.service) == 0 && length(aws_cloudwatch_metric_alarm.service) == 0 && length(aws_appautoscaling_target.service) == 0
    error_message = "without an image there must be no service"
  }
  assert {
    condition     = aws_ecr_repository.service.image_tag_mutability == "IMMUTABLE" && aws_ecr_repository.service.image_scanning_configuration[0].scan_on_push
    error_message = "the repository has immutable tags and scans images when they are pushed"
  }
  assert {
    condition     = length(aws_iam_role.deploy) == 0 && length(aws_sns_topic_subscription.email) == 0 && length(aws_lb.main.access_logs) == 0
    error_message = "nothing optional is created by default"
  }
}

run "spot_is_split_by_weight" {
  command = plan
  variables {
    on_demand_base     = 2
    spot_weight        = 75
    access_logs_bucket = "logs-of-someone"
    alarm_email        = "someone@example.org"
  }
  assert {
    condition     = { for s in aws_ecs_service.service[0].capacity_provider_strategy : s.capacity_provider => s.weight } == { FARGATE = 25, FARGATE_SPOT = 75 }
    error_message = "75 of 100 above the base run on Spot"
  }
  assert {
    condition     = one([for s in aws_ecs_service.service[0].capacity_provider_strategy : s.base if s.capacity_provider == "FARGATE"]) == 2
    error_message = "two tasks are on demand"
  }
  assert {
    condition     = aws_lb.main.access_logs[0].enabled && aws_lb.main.access_logs[0].bucket == "logs-of-someone" && aws_sns_topic_subscription.email[0].endpoint == "someone@example.org"
    error_message = "access logs and mail are configured"
  }
}

run "without_spot_all_are_on_demand" {
  command = plan
  variables {
    spot_weight  = 0
    architecture = "ARM64"
  }
  assert {
    condition     = [for s in aws_ecs_service.service[0].capacity_provider_strategy : s.capacity_provider] == ["FARGATE"]
    error_message = "there is no Spot if its weight is 0"
  }
  assert {
    condition     = aws_ecs_task_definition.service[0].runtime_platform[0].cpu_architecture == "ARM64"
    error_message = "tasks have the configured architecture"
  }
}

run "without_api_keys_everyone_may_predict" {
  command = plan
  assert {
    condition     = !contains(jsondecode(aws_ecs_task_definition.service[0].container_definitions)[0].environment[*].name, "DIGITS_API_KEYS")
    error_message = "an empty setting must not reach the service"
  }
}

run "api_keys_reach_the_tasks_as_hashes" {
  command = plan
  variables {
    api_keys = ["sha256:c2aff65aa994f35dd1ea11785331e1f37902dcc1740174f8f52823c518bdf39f", "sha256:0000000000000000000000000000000000000000000000000000000000000000"]
  }
  assert {
    condition     = one([for each in jsondecode(aws_ecs_task_definition.service[0].container_definitions)[0].environment : each.value if each.name == "DIGITS_API_KEYS"]) == join(",", var.api_keys)
    error_message = "both hashes are passed, separated by a comma"
  }
}

run "with_a_certificate_http_redirects" {
  command = plan
  variables {
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/x"
    allowed_cidrs   = ["192.0.2.0/24", "198.51.100.0/24"]
  }
  assert {
    condition     = aws_lb_listener.http.default_action[0].type == "redirect" && aws_lb_listener.http.default_action[0].redirect[0].protocol == "HTTPS" && aws_lb_listener.http.default_action[0].redirect[0].status_code == "HTTP_301"
    error_message = "HTTP is redirected"
  }
  assert {
    condition     = startswith(aws_lb_listener.https[0].ssl_policy, "ELBSecurityPolicy-TLS13-1-2") && aws_lb_listener.https[0].default_action[0].fixed_response[0].status_code == "404"
    error_message = "only TLS 1.2 and 1.3 are allowed, and paths that are not listed get 404"
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.balancer_https : rule.cidr_ipv4]) == toset(var.allowed_cidrs)
    error_message = "port 443 is open to allowed_cidrs"
  }
}
