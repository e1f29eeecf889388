# Access from the network: listeners, paths, ports, security groups, and the data bucket.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  allow_public_http = true
  environment       = "prod"
  image_tag         = "abc123"
}

run "without_a_certificate_http_serves" {
  command = plan
  assert {
    condition     = length(aws_lb_listener.https) == 0 && length(aws_vpc_security_group_ingress_rule.balancer_https) == 0
    error_message = "port 443 is closed without a listener"
  }
  assert {
    condition     = aws_lb_listener.http.default_action[0].type == "fixed-response" && aws_lb_listener.http.default_action[0].fixed_response[0].status_code == "404"
    error_message = "paths that are not listed get 404, and /metrics is not listed"
  }
  assert {
    condition     = toset(flatten([for rule in aws_lb_listener_rule.public : [for c in rule.condition : c.path_pattern[0].values]])) == toset(local.public_paths)
    error_message = "every public path is forwarded, and no other"
  }
  assert {
    condition     = !anytrue([for path in local.public_paths : startswith(path, "/m") && path != "/model" || startswith(path, "/*") || startswith(path, "*")])
    error_message = "no pattern reaches /metrics"
  }
  assert {
    condition     = alltrue([for rule in aws_lb_listener_rule.public : length(one(rule.condition).path_pattern[0].values) <= 5])
    error_message = "a rule has at most five paths"
  }
  assert {
    condition     = aws_lb_target_group.service.port == local.port && aws_vpc_security_group_ingress_rule.tasks_balancer.from_port == local.port && aws_vpc_security_group_ingress_rule.tasks_balancer.to_port == local.port && aws_vpc_security_group_egress_rule.balancer_tasks.to_port == local.port && one(aws_ecs_service.service[0].load_balancer).container_port == local.port && jsondecode(aws_ecs_task_definition.service[0].container_definitions)[0].portMappings[0].containerPort == local.port
    error_message = "one port everywhere"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.tasks_balancer.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.tasks_balancer.cidr_ipv6 == null
    error_message = "tasks accept traffic from a security group, and from no address range"
  }
  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "the default security group lets nothing through"
  }
  assert {
    condition     = aws_lb_target_group.service.health_check[0].path == "/health/ready" && aws_lb.main.idle_timeout < local.service_keepalive_seconds && local.stop_timeout > local.grace_seconds && local.stop_timeout <= 120
    error_message = "the health check's path and the idle and stop timeouts agree; Fargate's longest stop timeout is two minutes"
  }
  assert {
    condition     = aws_lb.main.drop_invalid_header_fields && aws_lb.main.desync_mitigation_mode == "strictest"
    error_message = "the load balancer drops malformed headers"
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.data.block_public_acls && aws_s3_bucket_public_access_block.data.block_public_policy && aws_s3_bucket_public_access_block.data.ignore_public_acls && aws_s3_bucket_public_access_block.data.restrict_public_buckets
    error_message = "the data bucket is private"
  }
  assert {
    condition     = aws_s3_bucket_versioning.data.versioning_configuration[0].status == "Enabled" && one(one(aws_s3_bucket_server_side_encryption_configuration.data.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "the data bucket is versioned and encrypted"
  }
  assert {
    condition     = one(data.aws_iam_policy_document.tls_only.statement).effect == "Deny" && one(one(data.aws_iam_policy_document.tls_only.statement).condition).variable == "aws:SecureTransport"
    error_message = "the data bucket refuses plain HTTP"
  }
}
