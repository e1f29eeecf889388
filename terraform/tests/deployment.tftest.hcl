# What dev.tfvars and prod.tfvars deploy. A test file can't use a .tfvars file, so each is parsed as YAML after replacing
# = by a colon.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  allow_public_http = true
  image_tag         = "abc123"
  dev               = yamldecode(replace(file("dev.tfvars"), "=", ":"))
  prod              = yamldecode(replace(file("prod.tfvars"), "=", ":"))
}

run "dev" {
  command = plan
  variables {
    environment        = var.dev.environment
    cpu                = var.dev.cpu
    memory             = var.dev.memory
    min_tasks          = var.dev.min_tasks
    max_tasks          = var.dev.max_tasks
    on_demand_base     = var.dev.on_demand_base
    spot_weight        = var.dev.spot_weight
    protect            = var.dev.protect
    log_retention_days = var.dev.log_retention_days
  }
  assert {
    condition     = length(aws_ecs_service.service) == 1 && length(aws_cloudwatch_metric_alarm.service) == 5
    error_message = "there is a service with its alarms"
  }
  assert {
    condition     = !aws_lb.main.enable_deletion_protection && aws_ecr_repository.service.force_delete && aws_s3_bucket.data.force_destroy
    error_message = "dev may be destroyed"
  }
  assert {
    condition     = aws_appautoscaling_target.service[0].min_capacity == 1 && aws_appautoscaling_target.service[0].max_capacity == 2
    error_message = "dev has one task, and a second under load"
  }
  assert {
    condition     = aws_appautoscaling_policy.requests[0].target_tracking_scaling_policy_configuration[0].target_value == 7500
    error_message = "500 requests a second and vCPU are 7,500 a minute for a quarter of one"
  }
  assert {
    condition     = { for s in aws_ecs_service.service[0].capacity_provider_strategy : s.capacity_provider => s.weight } == { FARGATE_SPOT = 100 }
    error_message = "dev runs on Spot, and has no capacity provider with weight 0, on which ECS would place no tasks"
  }
  assert {
    condition     = aws_cloudwatch_log_group.service.retention_in_days == 7
    error_message = "dev's logs are kept for a week"
  }
}

run "prod" {
  command = plan
  variables {
    environment    = var.prod.environment
    cpu            = var.prod.cpu
    memory         = var.prod.memory
    min_tasks      = var.prod.min_tasks
    max_tasks      = var.prod.max_tasks
    on_demand_base = var.prod.on_demand_base
    spot_weight    = var.prod.spot_weight
    protect        = var.prod.protect
  }
  assert {
    condition     = length(aws_ecs_service.service) == 1 && length(aws_cloudwatch_metric_alarm.service) == 5
    error_message = "there is a service with its alarms"
  }
  assert {
    condition     = aws_lb.main.enable_deletion_protection && !aws_ecr_repository.service.force_delete && !aws_s3_bucket.data.force_destroy
    error_message = "prod is protected"
  }
  assert {
    condition     = aws_appautoscaling_target.service[0].min_capacity == 2 && aws_appautoscaling_target.service[0].max_capacity == 20
    error_message = "prod has 2 to 20 tasks"
  }
  assert {
    condition     = aws_appautoscaling_policy.requests[0].target_tracking_scaling_policy_configuration[0].target_value == 30000
    error_message = "500 requests a second and vCPU are 30,000 a minute"
  }
  assert {
    condition     = { for s in aws_ecs_service.service[0].capacity_provider_strategy : s.capacity_provider => s.weight } == { FARGATE = 20, FARGATE_SPOT = 80 }
    error_message = "80 of 100 tasks that autoscaling adds to prod are Spot"
  }
  assert {
    condition     = aws_appautoscaling_policy.requests[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].resource_label == "app/digits-prod/0123456789abcdef/targetgroup/digits-prod/0123456789abcdef"
    error_message = "requests are counted for this load balancer and target group"
  }
  assert {
    condition     = aws_ecs_service.service[0].deployment_circuit_breaker[0].enable && aws_ecs_service.service[0].deployment_circuit_breaker[0].rollback && aws_ecs_task_definition.service[0].skip_destroy
    error_message = "a failed deployment is rolled back to a revision that still exists"
  }
}
