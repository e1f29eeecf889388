output "url" {
  description = "URL of the service. With a certificate, point its domain name here with a CNAME or alias record."
  value       = "${local.https ? "https" : "http"}://${aws_lb.main.dns_name}"
}

output "repository_url" {
  description = "URL of the repository that images are pushed to."
  value       = aws_ecr_repository.service.repository_url
}

output "platform" {
  description = "Platform that Docker must build the image for."
  value       = var.architecture == "ARM64" ? "linux/arm64" : "linux/amd64"
}

output "dvc_remote" {
  description = "URL for dvc remote add."
  value       = "s3://${aws_s3_bucket.data.id}/dvc"
}

output "cluster" {
  description = "Name of the ECS cluster, its service and its task definition family."
  value       = aws_ecs_cluster.main.name
}

output "log_group" {
  description = "CloudWatch log group of the service."
  value       = aws_cloudwatch_log_group.service.name
}

output "alarm_topic" {
  description = "ARN of the SNS topic that alarms go to."
  value       = aws_sns_topic.alarms.arn
}

output "deploy_role" {
  description = "ARN of the role that GitHub Actions assumes, or null."
  value       = one(aws_iam_role.deploy[*].arn)
}

output "bulk_run" {
  description = "Arguments of aws ecs run-task for a run of bulk.py: task definition and network, or null."
  value = local.bulk == 0 ? null : {
    task_definition = aws_ecs_task_definition.bulk["run"].family
    network         = "awsvpcConfiguration={subnets=[${join(",", aws_subnet.public[*].id)}],securityGroups=[${aws_security_group.bulk[0].id}],assignPublicIp=ENABLED}"
  }
}
