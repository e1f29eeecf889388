# A deployment as dev.tfvars or prod.tfvars describes it: `terraform test -var-file=prod.tfvars`.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  image_tag = "abc123"
}

run "the_service_is_planned_whole" {
  command = plan
  assert {
    condition     = length(aws_ecs_service.service) == 1 && length(aws_cloudwatch_metric_alarm.service) == 5
    error_message = "a service and its alarms"
  }
  assert {
    condition     = aws_lb.main.enable_deletion_protection == var.protect && aws_ecr_repository.service.force_delete == !var.protect && aws_s3_bucket.data.force_destroy == !var.protect
    error_message = "protection follows protect"
  }
  assert {
    condition     = aws_ecs_service.service[0].deployment_circuit_breaker[0].enable && aws_ecs_service.service[0].deployment_circuit_breaker[0].rollback && aws_ecs_task_definition.service[0].skip_destroy
    error_message = "a failed deployment rolls back, to a revision that is still there"
  }
  assert {
    condition     = aws_appautoscaling_target.service[0].max_capacity == var.max_tasks && aws_appautoscaling_target.service[0].min_capacity == var.min_tasks
    error_message = "max_tasks is the ceiling"
  }
  assert {
    condition     = aws_appautoscaling_policy.requests[0].target_tracking_scaling_policy_configuration[0].target_value == var.requests_per_vcpu * 60 * var.cpu / 1024
    error_message = "requests a minute follow the size of a task"
  }
  assert {
    condition     = aws_appautoscaling_policy.requests[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].resource_label == "app/digits-prod/0123456789abcdef/targetgroup/digits-prod/0123456789abcdef"
    error_message = "requests are counted for this balancer and target group"
  }
  assert {
    condition     = sum([for s in aws_ecs_service.service[0].capacity_provider_strategy : s.weight]) == 100 && alltrue([for s in aws_ecs_service.service[0].capacity_provider_strategy : s.weight > 0])
    error_message = "weights add up, and none is 0: ECS would not place by it"
  }
}
