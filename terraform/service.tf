resource "aws_ecs_cluster" "main" {
  #checkov:skip=CKV_AWS_65:Container Insights costs more than an idle task; scaling and alarms use free metrics
  name = local.full_name
  setting {
    name  = "containerInsights"
    value = "disabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "main" {
  cluster_name       = aws_ecs_cluster.main.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

resource "aws_cloudwatch_log_group" "service" {
  #checkov:skip=CKV_AWS_158:logs contain no secrets and no images, so an AWS key is enough
  #checkov:skip=CKV_AWS_338:request logs need not be kept for a year; log_retention_days sets how long
  name              = "/ecs/${local.full_name}"
  retention_in_days = var.log_retention_days
}

resource "aws_ecs_task_definition" "service" {
  count  = local.deploy ? 1 : 0
  family = local.full_name
  # keep old revisions: the circuit breaker can't roll back to one that was deregistered
  skip_destroy             = true
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }
  # Fargate has no tmpfs and no configurable shared memory, so temporary files go to a volume of the task
  volume {
    name = "writable"
  }
  container_definitions = jsonencode([{
    name                   = "service"
    image                  = local.image
    essential              = true
    readonlyRootFilesystem = true
    user                   = local.user
    stopTimeout            = local.stop_timeout
    portMappings           = [{ containerPort = local.port, protocol = "tcp" }]
    mountPoints            = [{ sourceVolume = "writable", containerPath = local.writable, readOnly = false }]
    linuxParameters        = { initProcessEnabled = false, capabilities = { drop = ["ALL"] } }
    # hashes of random keys are not secret, so they may appear in the task definition
    environment = concat(length(var.api_keys) == 0 ? [] : [{ name = "DIGITS_API_KEYS", value = join(",", var.api_keys) }], [
      { name = "PORT", value = tostring(local.port) },
      { name = "HOST", value = "0.0.0.0" },
      { name = "DIGITS_GRACE_SECONDS", value = tostring(local.grace_seconds) },
      { name = "DIGITS_LOG_LEVEL", value = var.log_level },
      # set explicitly, because a small task sees more CPUs than it may use
      { name = "WEB_CONCURRENCY", value = tostring(max(1, ceil(var.cpu / 1024))) },
    ])
    healthCheck = {
      command     = ["CMD", "python", "-S", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', ${local.port}, timeout=2); c.request('GET', '${local.live_path}'); raise SystemExit(c.getresponse().status != 200)"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 30
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.service.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "service"
        mode                  = "non-blocking"
        max-buffer-size       = "4m"
      }
    }
  }])
}

locals {
  capacity = {
    FARGATE      = { base = var.on_demand_base, weight = 100 - var.spot_weight }
    FARGATE_SPOT = { base = 0, weight = var.spot_weight }
  }
}

resource "aws_ecs_service" "service" {
  #checkov:skip=CKV_AWS_333:public addresses replace a NAT gateway; only the load balancer can reach the tasks
  count                              = local.deploy ? 1 : 0
  name                               = local.full_name
  cluster                            = aws_ecs_cluster.main.id
  task_definition                    = aws_ecs_task_definition.service[0].arn
  desired_count                      = var.min_tasks
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 30
  propagate_tags                     = "SERVICE"
  enable_ecs_managed_tags            = true
  availability_zone_rebalancing      = "ENABLED"
  wait_for_steady_state              = true
  # without this, changing spot_weight would replace the service instead of updating it
  force_new_deployment = true

  dynamic "capacity_provider_strategy" {
    for_each = { for provider, share in local.capacity : provider => share if share.weight > 0 }
    content {
      capacity_provider = capacity_provider_strategy.key
      base              = capacity_provider_strategy.value.base
      weight            = capacity_provider_strategy.value.weight
    }
  }
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  network_configuration {
    subnets          = aws_subnet.public[*].id
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = true
  }
  load_balancer {
    target_group_arn = aws_lb_target_group.service.arn
    container_name   = "service"
    container_port   = local.port
  }
  lifecycle {
    # autoscaling sets it after the first apply
    ignore_changes = [desired_count]
  }
  # ECS rejects a target group that no load balancer uses yet
  depends_on = [aws_lb_listener_rule.public, aws_ecs_cluster_capacity_providers.main, aws_iam_role_policy.execution]
}

resource "aws_appautoscaling_target" "service" {
  count              = local.deploy ? 1 : 0
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.main.name}/${aws_ecs_service.service[0].name}"
  min_capacity       = var.min_tasks
  max_capacity       = var.max_tasks
}

resource "aws_appautoscaling_policy" "cpu" {
  count              = local.deploy ? 1 : 0
  name               = "${local.full_name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.service[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.service[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.service[0].resource_id
  target_tracking_scaling_policy_configuration {
    target_value       = var.cpu_target
    scale_out_cooldown = 30
    scale_in_cooldown  = 300
    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

resource "aws_appautoscaling_policy" "requests" {
  count              = local.deploy ? 1 : 0
  name               = "${local.full_name}-requests"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.service[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.service[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.service[0].resource_id
  target_tracking_scaling_policy_configuration {
    # per minute and task
    target_value       = floor(var.requests_per_vcpu * 60 * var.cpu / 1024)
    scale_out_cooldown = 30
    scale_in_cooldown  = 300
    predefined_metric_specification {
      predefined_metric_type = "ALBRequestCountPerTarget"
      resource_label         = "${aws_lb.main.arn_suffix}/${aws_lb_target_group.service.arn_suffix}"
    }
  }
}
