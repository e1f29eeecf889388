# 1.11 introduced lock files for state in S3, and mocks that apply while planning (tests/)
terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
  # configured by `terraform init` from the output of bootstrap; see docs/aws.md
  backend "s3" {}
}

provider "aws" {
  region = var.region
  default_tags {
    tags = {
      project     = var.name
      environment = var.environment
      managed_by  = "terraform"
    }
  }
}
