# Dask for bulk.py: only with bulk = true, and then with TLS, access to the named buckets, and no access from outside.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  allow_public_http = true
  environment       = "prod"
  image_tag         = "abc123"
  bulk              = true
  bulk_workers      = 6
  bulk_buckets      = ["scans", "digits-out"]
  bulk_tls_secret   = "arn:aws:secretsmanager:us-east-1:123456789012:secret:digits-bulk-AbCdEf"
}

run "nothing_unless_asked_for" {
  command = plan
  variables {
    bulk = false
  }
  assert {
    condition     = length(aws_ecs_task_definition.bulk) == 0 && length(aws_ecs_service.bulk) == 0 && length(aws_iam_role.bulk) == 0 && length(aws_security_group.bulk) == 0 && length(aws_iam_role_policy.bulk_secret) == 0 && length(aws_service_discovery_private_dns_namespace.bulk) == 0
    error_message = "bulk = false must create nothing"
  }
}

run "bulk" {
  command = plan
  assert {
    condition     = keys(aws_ecs_task_definition.bulk) == ["run", "scheduler", "worker"] && { for name, service in aws_ecs_service.bulk : name => service.desired_count } == { scheduler = 1, worker = 6 }
    error_message = "there is one scheduler, the requested number of workers, and a task definition for runs"
  }
  assert {
    condition     = one(aws_ecs_service.bulk["worker"].capacity_provider_strategy).capacity_provider == "FARGATE_SPOT" && one(aws_ecs_service.bulk["scheduler"].capacity_provider_strategy).capacity_provider == "FARGATE"
    error_message = "workers run on Spot, the scheduler does not"
  }
  assert {
    condition     = alltrue([for service in aws_ecs_service.bulk : length(service.load_balancer) == 0])
    error_message = "no load balancer forwards to them"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.bulk[0].cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.bulk[0].cidr_ipv6 == null && aws_vpc_security_group_ingress_rule.bulk[0].from_port == 8786 && aws_vpc_security_group_ingress_rule.bulk[0].to_port == 8788
    error_message = "they only accept connections from each other"
  }
  assert {
    condition     = alltrue([for each in aws_ecs_task_definition.bulk : toset(jsondecode(each.container_definitions)[0].secrets[*].name) == toset([for name in ["CA_FILE", "SCHEDULER__CERT", "SCHEDULER__KEY", "WORKER__CERT", "WORKER__KEY", "CLIENT__CERT", "CLIENT__KEY"] : "DASK_DISTRIBUTED__COMM__TLS__${name}"])])
    error_message = "each gets the TLS keys"
  }
  assert {
    condition     = contains(jsondecode(aws_ecs_task_definition.bulk["scheduler"].container_definitions)[0].command, "tls") && contains(jsondecode(aws_ecs_task_definition.bulk["worker"].container_definitions)[0].command, "tls://scheduler.digits-prod.internal:8786")
    error_message = "they use TLS"
  }
  assert {
    condition     = toset(flatten([for statement in data.aws_iam_policy_document.bulk[0].statement : statement.resources])) == toset(["arn:aws:s3:::scans", "arn:aws:s3:::scans/*", "arn:aws:s3:::digits-out", "arn:aws:s3:::digits-out/*"])
    error_message = "they can only access the named buckets"
  }
  assert {
    condition     = !anytrue([for action in flatten([for statement in data.aws_iam_policy_document.bulk[0].statement : statement.actions]) : strcontains(action, "*")])
    error_message = "every action is named"
  }
  assert {
    condition     = output.bulk_run.task_definition == "digits-prod-bulk-run"
    error_message = "the task definition for runs is an output"
  }
}

run "a_bucket_is_needed" {
  command = plan
  variables {
    bulk_buckets = []
  }
  expect_failures = [var.bulk_buckets]
}

run "keys_are_needed" {
  command = plan
  variables {
    bulk_tls_secret = ""
  }
  expect_failures = [var.bulk_tls_secret]
}
