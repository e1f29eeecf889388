# Lets GitHub Actions on one repository's main branch deploy a new image without a stored key: push the image, then
# `terraform apply -refresh=false`, which registers a task definition and updates the service. Everything else is
# changed by a person. The OIDC provider exists once per account, so bootstrap creates it.
locals {
  github       = var.github_repository == "" ? 0 : 1
  account      = data.aws_caller_identity.current.account_id
  arn          = "arn:${data.aws_partition.current.partition}"
  ecs          = "${local.arn}:ecs:${var.region}:${local.account}"
  state_object = "${local.arn}:s3:::${var.state_bucket}/${local.full_name}.tfstate"
}

data "aws_iam_policy_document" "github_assume" {
  #checkov:skip=CKV_AWS_358:checkov sees the empty default of github_repository; tests/github.tftest.hcl checks the claim
  count = local.github
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = ["${local.arn}:iam::${local.account}:oidc-provider/token.actions.githubusercontent.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = ["repo:${var.github_repository}:ref:refs/heads/main"]
    }
  }
}

resource "aws_iam_role" "deploy" {
  count              = local.github
  name               = "${local.full_name}-deploy"
  assume_role_policy = data.aws_iam_policy_document.github_assume[0].json
}

data "aws_iam_policy_document" "deploy" {
  #checkov:skip=CKV_AWS_111:registering a task definition can't be limited to a resource; running it needs PassRole, which is limited to two roles
  #checkov:skip=CKV_AWS_356:as above
  count = local.github
  statement {
    sid = "KnowsNoResources"
    actions = [
      "ecr:GetAuthorizationToken", "ecs:RegisterTaskDefinition", "ecs:DescribeTaskDefinition",
      "ec2:DescribeAvailabilityZones",
    ]
    resources = ["*"]
  }
  statement {
    sid = "Push"
    actions = [
      "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:GetDownloadUrlForLayer",
      "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart", "ecr:DescribeImages",
    ]
    resources = [aws_ecr_repository.service.arn]
  }
  statement {
    sid       = "TagRevision"
    actions   = ["ecs:TagResource"]
    resources = ["${local.ecs}:task-definition/${local.full_name}:*"]
  }
  statement {
    sid = "Update"
    actions = [
      "ecs:UpdateService", "ecs:DescribeServices", "ecs:ListServiceDeployments", "ecs:DescribeServiceDeployments",
    ]
    resources = [
      "${local.ecs}:service/${local.full_name}/${local.full_name}",
      "${local.ecs}:service-deployment/${local.full_name}/${local.full_name}/*",
    ]
  }
  statement {
    sid       = "PassRoles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.task.arn, aws_iam_role.execution.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
  statement {
    sid       = "FindState"
    actions   = ["s3:ListBucket"]
    resources = ["${local.arn}:s3:::${var.state_bucket}"]
  }
  statement {
    sid       = "WriteState"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [local.state_object]
  }
  statement {
    sid       = "LockState"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = ["${local.state_object}.tflock"]
  }
}

resource "aws_iam_role_policy" "deploy" {
  count  = local.github
  name   = "bring-out-images"
  role   = aws_iam_role.deploy[0].id
  policy = data.aws_iam_policy_document.deploy[0].json
}
