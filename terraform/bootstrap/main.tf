# Once an account: the bucket that holds Terraform's state of everything else, and GitHub's identity provider. Its own
# state stays local; if it is lost, `terraform import` brings back these few resources.
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
  description = "AWS region of the state."
  type        = string
  default     = "us-east-1"
}

variable "github" {
  description = "Make GitHub's OIDC provider, which the role of github_repository needs; false where the account has it."
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
  #checkov:skip=CKV_AWS_18:state is read by deployers only
  #checkov:skip=CKV_AWS_144:versioning keeps what is lost by mistake
  #checkov:skip=CKV2_AWS_62:nothing waits for its events
  #checkov:skip=CKV_AWS_145:AES256 by AWS's key is enough
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
  description = "The state's bucket; for the variable state_bucket."
  value       = aws_s3_bucket.state.id
}

output "backend" {
  description = "What terraform/backend.hcl is to hold."
  value       = <<-HCL
    bucket       = "${aws_s3_bucket.state.id}"
    region       = "${var.region}"
    encrypt      = true
    use_lockfile = true
  HCL
}
