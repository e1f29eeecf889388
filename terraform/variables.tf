variable "name" {
  description = "Name of the service; the first part of every resource's name."
  type        = string
  default     = "digits"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}$", var.name))
    error_message = "name: 2 to 16 lower-case letters, digits and hyphens, a letter first (load balancers' names are short)."
  }
}

variable "environment" {
  description = "Which deployment this is: dev or prod."
  type        = string
  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "environment: dev or prod."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: a region's name, such as us-east-1."
  }
}

variable "cidr" {
  description = "Address range of the VPC; a /16 to /24."
  type        = string
  default     = "10.20.0.0/16"
  validation {
    condition     = can(cidrnetmask(var.cidr)) && tonumber(try(split("/", var.cidr)[1], 0)) >= 16 && tonumber(try(split("/", var.cidr)[1], 99)) <= 24
    error_message = "cidr: an IPv4 range from /16 to /24."
  }
}

variable "image_tag" {
  # no default: an apply that forgot it would take the service away
  description = "Tag of the image to run, pushed to the ECR repository before. Empty: no service yet, so that the first apply makes the repository."
  type        = string
  validation {
    condition     = var.image_tag == "" || can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "image_tag: a tag that names one image for ever, such as a git revision; not latest."
  }
}

variable "architecture" {
  description = "CPU of the tasks: ARM64 (cheaper) or X86_64; the image must be built for it."
  type        = string
  default     = "X86_64"
  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "architecture: ARM64 or X86_64."
  }
}

variable "cpu" {
  description = "CPU units of a task, 1024 to a vCPU."
  type        = number
  default     = 1024
  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "cpu: 256, 512, 1024, 2048 or 4096."
  }
}

variable "memory" {
  description = "Memory of a task in MB; Fargate takes only some pairs of cpu and memory."
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
    error_message = "memory: not a pair that Fargate has. 256 CPU units go with 512, 1024 or 2048 MB, 512 with 1 to 4 GB, 1024 with 2 to 8, 2048 with 4 to 16, 4096 with 8 to 30."
  }
}

variable "min_tasks" {
  description = "Tasks that always run."
  type        = number
  default     = 1
  validation {
    condition     = var.min_tasks >= 1 && floor(var.min_tasks) == var.min_tasks
    error_message = "min_tasks: a whole number from 1."
  }
}

variable "max_tasks" {
  description = "Tasks that autoscaling may reach: the ceiling of the bill."
  type        = number
  default     = 6
  validation {
    condition     = var.max_tasks >= var.min_tasks && var.max_tasks <= 100 && floor(var.max_tasks) == var.max_tasks
    error_message = "max_tasks: a whole number from min_tasks to 100."
  }
}

variable "on_demand_base" {
  description = "The first tasks, which run on demand and are not interrupted; those above are split by spot_weight."
  type        = number
  default     = 1
  validation {
    condition     = var.on_demand_base >= 0 && var.on_demand_base <= 100 && floor(var.on_demand_base) == var.on_demand_base
    error_message = "on_demand_base: a whole number from 0 to 100."
  }
}

variable "spot_weight" {
  description = "Of a hundred tasks above on_demand_base, how many run on Fargate Spot."
  type        = number
  default     = 80
  validation {
    condition     = var.spot_weight >= 0 && var.spot_weight <= 100 && floor(var.spot_weight) == var.spot_weight
    error_message = "spot_weight: a whole number from 0 to 100."
  }
  # ECS places no task by a capacity provider of weight 0, whatever its base
  validation {
    condition     = var.spot_weight < 100 || var.on_demand_base == 0
    error_message = "spot_weight: at most 99 where on_demand_base is above 0."
  }
}

variable "cpu_target" {
  description = "CPU share in percent that autoscaling keeps."
  type        = number
  default     = 60
  validation {
    condition     = var.cpu_target >= 20 && var.cpu_target <= 90
    error_message = "cpu_target: 20 to 90."
  }
}

variable "requests_per_vcpu" {
  description = "Requests a second and vCPU that autoscaling keeps; cost.py plans with the same number and says where it comes from."
  type        = number
  default     = 500
  validation {
    condition     = var.requests_per_vcpu >= 1
    error_message = "requests_per_vcpu: at least 1."
  }
}

variable "log_level" {
  description = "What the service logs: debug, info, warning or error. info is a line a request, the largest part of a busy service's bill."
  type        = string
  default     = "info"
  validation {
    condition     = contains(["debug", "info", "warning", "error"], var.log_level)
    error_message = "log_level: debug, info, warning or error."
  }
}

variable "certificate_arn" {
  description = "ACM certificate for HTTPS; HTTP is redirected then. Empty: HTTP only."
  type        = string
  default     = ""
  validation {
    condition     = var.certificate_arn == "" || can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "certificate_arn: the ARN of an ACM certificate, or empty."
  }
}

variable "allowed_cidrs" {
  description = "Who may reach the load balancer."
  type        = list(string)
  default     = ["0.0.0.0/0"]
  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for range in var.allowed_cidrs : can(cidrnetmask(range))])
    error_message = "allowed_cidrs: at least one IPv4 range."
  }
}

variable "api_keys" {
  description = "Hashes of the API keys that predictions want, as `make key` prints them; a change replaces the tasks one by one. Empty: everyone may predict."
  type        = list(string)
  default     = []
  validation {
    # what was given stays out of the message: it may be a key, put there by mistake
    condition     = alltrue([for hash in var.api_keys : can(regex("^sha256:[0-9a-fA-F]{64}$", hash))])
    error_message = "api_keys: hashes like sha256:<64 hex digits>, as `make key` prints; never the keys themselves."
  }
}

variable "access_logs_bucket" {
  description = "Bucket for the load balancer's access logs, with the policy that AWS asks for. Empty: none are kept."
  type        = string
  default     = ""
  validation {
    condition     = var.access_logs_bucket == "" || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.access_logs_bucket))
    error_message = "access_logs_bucket: a bucket's name, or empty."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "log_retention_days: a number of days that CloudWatch knows."
  }
}

variable "alarm_email" {
  description = "Who is mailed by alarms. Empty: nobody; the topic is there."
  type        = string
  default     = ""
  validation {
    condition     = var.alarm_email == "" || can(regex("^[^@ ]+@[^@ ]+$", var.alarm_email))
    error_message = "alarm_email: an address, or empty."
  }
}

variable "github_repository" {
  description = "owner/name of the GitHub repository whose main branch may deploy new images through OIDC (bootstrap makes the provider). Empty: none."
  type        = string
  default     = ""
  validation {
    condition     = var.github_repository == "" || can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.github_repository))
    error_message = "github_repository: owner/name, or empty."
  }
}

variable "state_bucket" {
  description = "Bucket of Terraform's state, which the GitHub role reads and writes; needed where github_repository is given."
  type        = string
  default     = ""
  validation {
    condition     = var.github_repository == "" || var.state_bucket != ""
    error_message = "state_bucket: the bucket that bootstrap made; a deployment by GitHub needs it."
  }
}

variable "protect" {
  description = "Keep what must not go by accident: load balancer deletion protection, no forced emptying of bucket and repository."
  type        = bool
  default     = true
}

variable "bulk" {
  description = "Whether Dask's scheduler and workers run for bulk.py; their image is pushed as bulk-<image_tag> before. They cost while they run: take it back after."
  type        = bool
  default     = false
}

variable "bulk_workers" {
  description = "Workers of bulk.py, each one vCPU on Fargate Spot."
  type        = number
  default     = 4
  validation {
    condition     = var.bulk_workers >= 0 && var.bulk_workers <= 1000 && floor(var.bulk_workers) == var.bulk_workers
    error_message = "bulk_workers: a whole number from 0 to 1000."
  }
}

variable "bulk_buckets" {
  description = "Buckets that bulk.py may read and write."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for bucket in var.bulk_buckets : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", bucket))])
    error_message = "bulk_buckets: names of buckets."
  }
  validation {
    condition     = !var.bulk || length(var.bulk_buckets) > 0
    error_message = "bulk_buckets: bulk.py needs at least one bucket to read and write."
  }
}

variable "bulk_tls_secret" {
  description = "ARN of the secret with ca, cert and key that scheduler, workers and runs know each other by; needed where bulk is true."
  type        = string
  default     = ""
  validation {
    condition     = var.bulk ? can(regex("^arn:aws[a-z-]*:secretsmanager:", var.bulk_tls_secret)) : true
    error_message = "bulk_tls_secret: the ARN of a secret in Secrets Manager; docs/bulk.md makes it."
  }
}
