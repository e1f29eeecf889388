variable "name" {
  description = "Name of the service; every resource's name starts with it."
  type        = string
  default     = "digits"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}$", var.name))
    error_message = "name must be 2 to 16 lower-case letters, digits and hyphens, and start with a letter (AWS limits the length of load balancer names)."
  }
}

variable "environment" {
  description = "Which deployment this is: dev or prod."
  type        = string
  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "environment must be dev or prod."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be the name of a region, such as us-east-1."
  }
}

variable "cidr" {
  description = "Address range of the VPC, /16 to /24."
  type        = string
  default     = "10.20.0.0/16"
  validation {
    condition     = can(cidrnetmask(var.cidr)) && tonumber(try(split("/", var.cidr)[1], 0)) >= 16 && tonumber(try(split("/", var.cidr)[1], 99)) <= 24
    error_message = "cidr must be an IPv4 range from /16 to /24."
  }
}

variable "image_tag" {
  # no default: an apply that omits it would remove the service
  description = "Tag of the image to run, which must be in the ECR repository. Empty: no service; the first apply needs this to create the repository."
  type        = string
  validation {
    condition     = var.image_tag == "" || can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "image_tag must always name the same image, as a git revision does; latest is not allowed."
  }
}

variable "architecture" {
  description = "CPU of the tasks: ARM64 (cheaper) or X86_64; the image must be built for it."
  type        = string
  default     = "X86_64"
  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "architecture must be ARM64 or X86_64."
  }
}

variable "cpu" {
  description = "CPU units of a task; 1024 are one vCPU."
  type        = number
  default     = 1024
  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "cpu must be 256, 512, 1024, 2048 or 4096."
  }
}

variable "memory" {
  description = "Memory of a task in MB; Fargate accepts only some combinations of cpu and memory."
  type        = number
  default     = 2048
  validation {
    condition = contains(lookup({
      256  = [512, 1024, 2048]
      512  = [for gb in range(1, 5) : gb * 1024]
      1024 = [for gb in range(2, 9) : gb * 1024]
      2048 = [for gb in range(4, 17) : gb * 1024]
      4096 = [for gb in range(8, 31) : gb * 1024]
    }, var.cpu, []), var.memory)
    error_message = "memory does not fit cpu. Fargate allows 512, 1024 or 2048 MB with 256 CPU units, 1 to 4 GB with 512, 2 to 8 GB with 1024, 4 to 16 GB with 2048, and 8 to 30 GB with 4096."
  }
}

variable "min_tasks" {
  description = "Minimum number of tasks."
  type        = number
  default     = 1
  validation {
    condition     = var.min_tasks >= 1 && floor(var.min_tasks) == var.min_tasks
    error_message = "min_tasks must be a whole number of at least 1."
  }
}

variable "max_tasks" {
  description = "Maximum number of tasks, which limits the bill."
  type        = number
  default     = 6
  validation {
    condition     = var.max_tasks >= var.min_tasks && var.max_tasks <= 100 && floor(var.max_tasks) == var.max_tasks
    error_message = "max_tasks must be a whole number from min_tasks to 100."
  }
}

variable "on_demand_base" {
  description = "Number of tasks that run on demand and are not interrupted; spot_weight divides the others."
  type        = number
  default     = 1
  validation {
    condition     = var.on_demand_base >= 0 && var.on_demand_base <= 100 && floor(var.on_demand_base) == var.on_demand_base
    error_message = "on_demand_base must be a whole number from 0 to 100."
  }
}

variable "spot_weight" {
  description = "Percentage of the tasks above on_demand_base that run on Fargate Spot."
  type        = number
  default     = 80
  validation {
    condition     = var.spot_weight >= 0 && var.spot_weight <= 100 && floor(var.spot_weight) == var.spot_weight
    error_message = "spot_weight must be a whole number from 0 to 100."
  }
  # ECS places no tasks on a capacity provider with weight 0, whatever its base
  validation {
    condition     = var.spot_weight < 100 || var.on_demand_base == 0
    error_message = "spot_weight must be at most 99 if on_demand_base is above 0."
  }
}

variable "cpu_target" {
  description = "CPU usage in percent that autoscaling aims at."
  type        = number
  default     = 60
  validation {
    condition     = var.cpu_target >= 20 && var.cpu_target <= 90
    error_message = "cpu_target must be from 20 to 90."
  }
}

variable "requests_per_vcpu" {
  description = "Requests per second and vCPU that autoscaling aims at; cost.py uses the same number and explains it."
  type        = number
  default     = 500
  validation {
    condition     = var.requests_per_vcpu >= 1
    error_message = "requests_per_vcpu must be at least 1."
  }
}

variable "log_level" {
  description = "Log level of the service: debug, info, warning or error. At info each request is logged, which is the largest part of a busy service's bill."
  type        = string
  default     = "info"
  validation {
    condition     = contains(["debug", "info", "warning", "error"], var.log_level)
    error_message = "log_level must be debug, info, warning or error."
  }
}

variable "certificate_arn" {
  description = "ARN of an ACM certificate for HTTPS, to which HTTP is then redirected. Empty: HTTP only."
  type        = string
  default     = ""
  validation {
    condition     = var.certificate_arn == "" || can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of an ACM certificate, or empty."
  }
}

variable "allowed_cidrs" {
  description = "IPv4 ranges that may reach the load balancer."
  type        = list(string)
  default     = ["0.0.0.0/0"]
  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for range in var.allowed_cidrs : can(cidrnetmask(range))])
    error_message = "allowed_cidrs must be IPv4 ranges, at least one."
  }
}

variable "api_keys" {
  description = "Hashes of the API keys that predictions require, as printed by `make key`; a change replaces the tasks one by one. Empty: no key is required."
  type        = list(string)
  default     = []
  validation {
    # the message leaves the value out: it may be a key, put there by mistake
    condition     = alltrue([for hash in var.api_keys : can(regex("^sha256:[0-9a-fA-F]{64}$", hash))])
    error_message = "api_keys must be hashes like sha256:<64 hex digits>, as printed by `make key`, never the keys themselves."
  }
}

variable "allow_public_http" {
  description = "Confirms that anyone on the internet may call the service, over HTTP and without an API key."
  type        = bool
  default     = false
  validation {
    condition     = var.allow_public_http || var.certificate_arn != "" || length(var.api_keys) > 0 || !contains(var.allowed_cidrs, "0.0.0.0/0")
    error_message = "The service would be open to the internet over HTTP without API keys. Set certificate_arn, api_keys or narrower allowed_cidrs, or confirm it with allow_public_http = true."
  }
}

variable "access_logs_bucket" {
  description = "Bucket for the load balancer's access logs, with the policy that AWS requires. Empty: no access logs."
  type        = string
  default     = ""
  validation {
    condition     = var.access_logs_bucket == "" || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.access_logs_bucket))
    error_message = "access_logs_bucket must be the name of a bucket, or empty."
  }
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "log_retention_days must be a number of days that CloudWatch supports."
  }
}

variable "alarm_email" {
  description = "Email address that receives alarms. Empty: alarms only go to the topic."
  type        = string
  default     = ""
  validation {
    condition     = var.alarm_email == "" || can(regex("^[^@ ]+@[^@ ]+$", var.alarm_email))
    error_message = "alarm_email must be an email address, or empty."
  }
}

variable "github_repository" {
  description = "owner/name of the GitHub repository whose main branch may deploy through OIDC (bootstrap creates the provider). Empty: none."
  type        = string
  default     = ""
  validation {
    condition     = var.github_repository == "" || can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.github_repository))
    error_message = "github_repository must be owner/name, or empty."
  }
}

variable "state_bucket" {
  description = "Bucket of Terraform's state, which the GitHub role reads and writes; required with github_repository."
  type        = string
  default     = ""
  validation {
    condition     = var.github_repository == "" || var.state_bucket != ""
    error_message = "state_bucket must be the bucket that bootstrap created if github_repository is set."
  }
}

variable "protect" {
  description = "Protect against accidental deletion: the load balancer can't be deleted, and a bucket or repository only when it is empty."
  type        = bool
  default     = true
}

variable "bulk" {
  description = "Whether to run Dask's scheduler and workers for bulk.py; their image must be pushed as bulk-<image_tag>. They cost money while they run."
  type        = bool
  default     = false
}

variable "bulk_workers" {
  description = "Number of workers for bulk.py, each with one vCPU on Fargate Spot."
  type        = number
  default     = 4
  validation {
    condition     = var.bulk_workers >= 0 && var.bulk_workers <= 1000 && floor(var.bulk_workers) == var.bulk_workers
    error_message = "bulk_workers must be a whole number from 0 to 1000."
  }
}

variable "bulk_buckets" {
  description = "Buckets that bulk.py may read and write."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for bucket in var.bulk_buckets : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", bucket))])
    error_message = "bulk_buckets must be names of buckets."
  }
  validation {
    condition     = !var.bulk || length(var.bulk_buckets) > 0
    error_message = "bulk_buckets must have at least one bucket if bulk is true."
  }
}

variable "bulk_tls_secret" {
  description = "ARN of the secret with the TLS keys ca, cert and key for bulk.py's scheduler, workers and runs; required with bulk."
  type        = string
  default     = ""
  validation {
    condition     = var.bulk ? can(regex("^arn:aws[a-z-]*:secretsmanager:", var.bulk_tls_secret)) : true
    error_message = "bulk_tls_secret must be the ARN of a secret in Secrets Manager; see docs/bulk.md."
  }
}
