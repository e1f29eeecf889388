# Every validation of a variable refuses invalid values, and accepts values just inside the limits. A run only passes if
# all variables in expect_failures fail. A variable that is compared with another is only validated if that is valid.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  allow_public_http = true
  environment       = "prod"
  image_tag         = "abc123"
}

run "refuses_nonsense" {
  command = plan
  variables {
    name               = "Digits"
    environment        = "staging"
    region             = "frankfurt"
    cidr               = "10.0.0.0/28"
    image_tag          = "latest"
    architecture       = "arm"
    cpu                = 300
    min_tasks          = 0
    on_demand_base     = -1
    cpu_target         = 99
    requests_per_vcpu  = 0
    log_level          = "loud"
    certificate_arn    = "my-certificate"
    allowed_cidrs      = ["anyone"]
    api_keys           = ["NeTRdKzXh2RQaEHNWHjadtzEbTUzfcnmz_K58nAt7AM"]
    access_logs_bucket = "Logs/here"
    log_retention_days = 8
    alarm_email        = "nobody"
    github_repository  = "digits"
  }
  expect_failures = [
    var.name, var.environment, var.region, var.cidr, var.image_tag, var.architecture, var.cpu, var.min_tasks,
    var.on_demand_base, var.cpu_target, var.requests_per_vcpu, var.log_level, var.certificate_arn, var.allowed_cidrs,
    var.api_keys, var.access_logs_bucket, var.log_retention_days, var.alarm_email, var.github_repository,
  ]
}

run "refuses_what_is_out_of_range" {
  command = plan
  variables {
    memory         = 2000
    max_tasks      = 101
    on_demand_base = 0
    spot_weight    = 101
    cidr           = "10.0.0.0"
    allowed_cidrs  = []
  }
  expect_failures = [var.memory, var.max_tasks, var.spot_weight, var.cidr, var.allowed_cidrs]
}

run "refuses_what_does_not_fit_together" {
  command = plan
  variables {
    cpu               = 1024
    memory            = 1024
    min_tasks         = 5
    max_tasks         = 4
    on_demand_base    = 1
    spot_weight       = 100
    github_repository = "someone/digits"
  }
  expect_failures = [var.memory, var.max_tasks, var.spot_weight, var.state_bucket]
}

run "takes_the_smallest" {
  command = plan
  variables {
    name           = "mn"
    cidr           = "10.0.0.0/24"
    cpu            = 256
    memory         = 512
    min_tasks      = 1
    max_tasks      = 1
    on_demand_base = 0
    spot_weight    = 100
    cpu_target     = 20
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.service[0].container_definitions)[0].environment[index(jsondecode(aws_ecs_task_definition.service[0].container_definitions)[0].environment[*].name, "WEB_CONCURRENCY")].value == "1"
    error_message = "a quarter of a vCPU has one worker"
  }
}

run "takes_the_largest" {
  command = plan
  variables {
    name        = "digits-of-people"
    cpu         = 4096
    memory      = 30720
    min_tasks   = 100
    max_tasks   = 100
    spot_weight = 0
    cpu_target  = 90
  }
  assert {
    condition     = length(aws_lb.main.name) <= 32 && length(aws_lb_target_group.service.name) <= 32 && length(aws_s3_bucket.data.bucket_prefix) <= 37
    error_message = "names are within AWS's limits on lengths"
  }
}

run "refuses_to_be_open_to_everyone_unless_that_is_confirmed" {
  command = plan
  variables {
    allow_public_http = false
  }
  expect_failures = [var.allow_public_http]
}

run "accepts_https_without_a_confirmation" {
  command = plan
  variables {
    allow_public_http = false
    certificate_arn   = "arn:aws:acm:us-east-1:123456789012:certificate/x"
  }
}

run "accepts_api_keys_without_a_confirmation" {
  command = plan
  variables {
    allow_public_http = false
    api_keys          = ["sha256:c2aff65aa994f35dd1ea11785331e1f37902dcc1740174f8f52823c518bdf39f"]
  }
}

run "accepts_narrower_ranges_without_a_confirmation" {
  command = plan
  variables {
    allow_public_http = false
    allowed_cidrs     = ["192.0.2.0/24"]
  }
}
