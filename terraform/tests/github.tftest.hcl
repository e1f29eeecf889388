# Permissions: the roles of the tasks, and of GitHub Actions if it may deploy.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  allow_public_http = true
  environment       = "prod"
  image_tag         = "abc123"
}

run "roles_are_narrow" {
  command = plan
  variables {
    github_repository = "someone/digits"
    state_bucket      = "digits-terraform-state-x"
  }
  assert {
    condition = alltrue([
      for s in concat(data.aws_iam_policy_document.execution.statement, data.aws_iam_policy_document.deploy[0].statement) :
      !anytrue([for action in s.actions : strcontains(action, "*")])
    ])
    error_message = "every action is named"
  }
  assert {
    condition = toset(flatten([
      for s in concat(data.aws_iam_policy_document.execution.statement, data.aws_iam_policy_document.deploy[0].statement) :
      s.actions if contains(s.resources, "*")
    ])) == toset(["ecr:GetAuthorizationToken", "ecs:RegisterTaskDefinition", "ecs:DescribeTaskDefinition", "ec2:DescribeAvailabilityZones"])
    error_message = "only actions that can't be limited to a resource are allowed on all"
  }
  assert {
    condition     = aws_iam_role_policy.execution.role == aws_iam_role.execution.id && aws_iam_role_policy.deploy[0].role == aws_iam_role.deploy[0].id && aws_ecs_task_definition.service[0].task_role_arn == aws_iam_role.task.arn
    error_message = "the role of the tasks has no policy"
  }
  assert {
    condition     = toset(flatten([for c in data.aws_iam_policy_document.github_assume[0].statement[0].condition : c.values])) == toset(["sts.amazonaws.com", "repo:someone/digits:ref:refs/heads/main"])
    error_message = "only the repository's main branch may deploy"
  }
  assert {
    condition     = one([for s in data.aws_iam_policy_document.deploy[0].statement : s.resources if s.sid == "WriteState"]) == toset(["arn:aws:s3:::digits-terraform-state-x/digits-prod.tfstate"])
    error_message = "it can only write the state of this deployment"
  }
  assert {
    condition     = one(flatten([for s in data.aws_iam_policy_document.deploy[0].statement : [for c in s.condition : c.values] if contains(s.actions, "iam:PassRole")])) == "ecs-tasks.amazonaws.com"
    error_message = "roles can only be passed to ECS tasks"
  }
}
