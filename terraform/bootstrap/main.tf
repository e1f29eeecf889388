# Applied once per account: the bucket for the Terraform state of everything else, and GitHub's OIDC provider. The state
# of this module stays local; if it is lost, `terraform import` restores it.
terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

variable "region" {
  description = "AWS region of the state's bucket."
  type        = string
  default     = "us-east-1"
}

variable "github" {
  description = "Create GitHub's OIDC provider, which github_repository needs; false if the account has one."
  type        = bool
  default     = false
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { project = "digits", managed_by = "terraform" }
  }
}

resource "aws_s3_bucket" "state" {
  #checkov:skip=CKV_AWS_18:only deployers read the state
  #checkov:skip=CKV_AWS_144:versioning protects against accidental deletion
  #checkov:skip=CKV2_AWS_62:nothing uses event notifications
  #checkov:skip=CKV_AWS_145:encryption with an AWS key (AES256) is enough
  #checkov:skip=CKV2_AWS_61:every version of the state is kept
  bucket_prefix = "digits-terraform-state-"
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  bucket = aws_s3_bucket.state.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket                  = aws_s3_bucket.state.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

data "aws_iam_policy_document" "tls_only" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "state" {
  bucket     = aws_s3_bucket.state.id
  policy     = data.aws_iam_policy_document.tls_only.json
  depends_on = [aws_s3_bucket_public_access_block.state]
}

resource "aws_iam_openid_connect_provider" "github" {
  count          = var.github ? 1 : 0
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

output "bucket" {
  description = "Bucket of the state, for the variable state_bucket."
  value       = aws_s3_bucket.state.id
}

output "backend" {
  description = "Content of terraform/backend.hcl."
  value       = <<-HCL
    bucket       = "${aws_s3_bucket.state.id}"
    region       = "${var.region}"
    encrypt      = true
    use_lockfile = true
  HCL
}
