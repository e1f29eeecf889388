# bulk.py on Fargate, if bulk = true (docs/bulk.md): Dask's scheduler and workers as services, and a task definition for
# a run. They communicate over TLS, can't be reached from elsewhere, and may read and write the buckets in bulk_buckets.
# dask-cloudprovider is not used, because by default its scheduler is open to the internet.
locals {
  bulk = var.bulk && local.deploy ? 1 : 0
  # the ports of the scheduler, the worker and its nanny
  bulk_ports     = { from = 8786, to = 8788 }
  bulk_scheduler = "tls://scheduler.${local.full_name}.internal:${local.bulk_ports.from}"
  bulk_commands = {
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--port", tostring(local.bulk_ports.from), "--no-dashboard"]
    worker = [
      "-m", "distributed.cli.dask_worker", local.bulk_scheduler, "--nthreads", "1", "--no-dashboard", "--local-directory", local.writable,
      "--worker-port", "8787", "--nanny-port", "8788", "--death-timeout", "300",
    ]
    # each run overrides the command with its own inputs
    run = ["bulk.py", "--help"]
  }
  bulk_secrets = merge({ CA_FILE = "ca" }, merge([
    for role in ["SCHEDULER", "WORKER", "CLIENT"] : { "${role}__CERT" = "cert", "${role}__KEY" = "key" }
  ]...))
}

resource "aws_ecs_task_definition" "bulk" {
  for_each                 = local.bulk == 1 ? local.bulk_commands : {}
  family                   = "${local.full_name}-bulk-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  # a process needs one vCPU, and 0.4 GB for the largest picture
  cpu                = 1024
  memory             = 2048
  execution_role_arn = aws_iam_role.execution.arn
  task_role_arn      = each.key == "scheduler" ? aws_iam_role.task.arn : aws_iam_role.bulk[0].arn
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }
  volume {
    name = "writable"
  }
  container_definitions = jsonencode([{
    name                   = "bulk"
    image                  = "${aws_ecr_repository.service.repository_url}:bulk-${var.image_tag}"
    command                = each.value
    essential              = true
    readonlyRootFilesystem = true
    user                   = local.user
    stopTimeout            = local.stop_timeout
    portMappings           = each.key == "scheduler" ? [{ containerPort = local.bulk_ports.from, protocol = "tcp" }] : []
    mountPoints            = [{ sourceVolume = "writable", containerPath = local.writable, readOnly = false }]
    linuxParameters        = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    environment = [
      { name = "DASK_SCHEDULER_ADDRESS", value = local.bulk_scheduler },
      { name = "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", value = "True" },
      { name = "AWS_DEFAULT_REGION", value = var.region },
    ]
    # Dask accepts keys as well as names of files
    secrets = [for name, key in local.bulk_secrets : {
      name = "DASK_DISTRIBUTED__COMM__TLS__${name}", valueFrom = "${var.bulk_tls_secret}:${key}::"
    }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.service.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "bulk-${each.key}"
        mode                  = "non-blocking"
        max-buffer-size       = "4m"
      }
    }
  }])
}

resource "aws_service_discovery_private_dns_namespace" "bulk" {
  count       = local.bulk
  name        = "${local.full_name}.internal"
  description = "Name by which the workers find the scheduler"
  vpc         = aws_vpc.main.id
}

resource "aws_service_discovery_service" "scheduler" {
  count = local.bulk
  name  = "scheduler"
  dns_config {
    namespace_id = aws_service_discovery_private_dns_namespace.bulk[0].id
    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}

resource "aws_ecs_service" "bulk" {
  #checkov:skip=CKV_AWS_333:public addresses instead of a NAT gateway; nothing but the tasks themselves may reach them
  for_each        = local.bulk == 1 ? { scheduler = 1, worker = var.bulk_workers } : {}
  name            = "${local.full_name}-bulk-${each.key}"
  cluster         = aws_ecs_cluster.main.id
  task_definition = aws_ecs_task_definition.bulk[each.key].arn
  desired_count   = each.value
  # never run two schedulers, because all workers of a run must be connected to one
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100
  propagate_tags                     = "SERVICE"
  # an interrupted worker is replaced and its shard is read again, but an interrupted scheduler costs minutes
  capacity_provider_strategy {
    capacity_provider = each.key == "scheduler" ? "FARGATE" : "FARGATE_SPOT"
    weight            = 1
  }
  network_configuration {
    subnets          = aws_subnet.public[*].id
    security_groups  = [aws_security_group.bulk[0].id]
    assign_public_ip = true
  }
  dynamic "service_registries" {
    for_each = each.key == "scheduler" ? [aws_service_discovery_service.scheduler[0].arn] : []
    content {
      registry_arn = service_registries.value
    }
  }
  depends_on = [aws_ecs_cluster_capacity_providers.main, aws_iam_role_policy.bulk_secret]
}

resource "aws_security_group" "bulk" {
  count       = local.bulk
  name        = "${local.full_name}-bulk"
  description = "Dask's scheduler and workers: from each other only"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "bulk" {
  count                        = local.bulk
  security_group_id            = aws_security_group.bulk[0].id
  description                  = "From each other"
  referenced_security_group_id = aws_security_group.bulk[0].id
  ip_protocol                  = "tcp"
  from_port                    = local.bulk_ports.from
  to_port                      = local.bulk_ports.to
}

resource "aws_vpc_security_group_egress_rule" "bulk" {
  count                        = local.bulk
  security_group_id            = aws_security_group.bulk[0].id
  description                  = "To each other"
  referenced_security_group_id = aws_security_group.bulk[0].id
  ip_protocol                  = "tcp"
  from_port                    = local.bulk_ports.from
  to_port                      = local.bulk_ports.to
}

resource "aws_vpc_security_group_egress_rule" "bulk_https" {
  count             = local.bulk
  security_group_id = aws_security_group.bulk[0].id
  description       = "S3, ECR, CloudWatch, Secrets Manager"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# runs read pictures, write parts, and remove parts of older runs
resource "aws_iam_role" "bulk" {
  count              = local.bulk
  name               = "${local.full_name}-bulk"
  assume_role_policy = data.aws_iam_policy_document.ecs_assume.json
}

data "aws_iam_policy_document" "bulk" {
  count = local.bulk
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [for bucket in var.bulk_buckets : "arn:${data.aws_partition.current.partition}:s3:::${bucket}"]
  }
  statement {
    sid       = "ReadAndWrite"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [for bucket in var.bulk_buckets : "arn:${data.aws_partition.current.partition}:s3:::${bucket}/*"]
  }
}

resource "aws_iam_role_policy" "bulk" {
  count  = local.bulk
  name   = "buckets"
  role   = aws_iam_role.bulk[0].id
  policy = data.aws_iam_policy_document.bulk[0].json
}

data "aws_iam_policy_document" "bulk_secret" {
  count = local.bulk
  statement {
    sid       = "Keys"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.bulk_tls_secret]
  }
}

resource "aws_iam_role_policy" "bulk_secret" {
  count  = local.bulk
  name   = "bulk-keys"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.bulk_secret[0].json
}
