output "url" {
  description = "Where the service answers. With a certificate, point the name that it is for here by a CNAME or alias record."
  value       = "${local.https ? "https" : "http"}://${aws_lb.main.dns_name}"
}

output "repository_url" {
  description = "Where images are pushed to."
  value       = aws_ecr_repository.service.repository_url
}

output "platform" {
  description = "What Docker is to build the image for."
  value       = var.architecture == "ARM64" ? "linux/arm64" : "linux/amd64"
}

output "dvc_remote" {
  description = "For dvc remote add."
  value       = "s3://${aws_s3_bucket.data.id}/dvc"
}

output "cluster" {
  description = "Name of the ECS cluster, of the service in it and of its task definition's family."
  value       = aws_ecs_cluster.main.name
}

output "log_group" {
  description = "Where the service's log lines are."
  value       = aws_cloudwatch_log_group.service.name
}

output "alarm_topic" {
  description = "ARN of the topic that alarms go to."
  value       = aws_sns_topic.alarms.arn
}

output "deploy_role" {
  description = "Role that GitHub Actions assume, or null."
  value       = one(aws_iam_role.deploy[*].arn)
}

output "bulk_run" {
  description = "What aws ecs run-task needs for a run of bulk.py: task definition, subnets and security group, or null."
  value = local.bulk == 0 ? null : {
    task_definition = aws_ecs_task_definition.bulk["run"].family
    network         = "awsvpcConfiguration={subnets=[${join(",", aws_subnet.public[*].id)}],securityGroups=[${aws_security_group.bulk[0].id}],assignPublicIp=ENABLED}"
  }
}
