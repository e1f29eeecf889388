resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:an alarm only holds a metric and its value; a customer-managed key would cost more than the alarms
  name = "${local.full_name}-alarms"
}

resource "aws_sns_topic_subscription" "email" {
  count     = var.alarm_email == "" ? 0 : 1
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

locals {
  of_target   = { LoadBalancer = aws_lb.main.arn_suffix, TargetGroup = aws_lb_target_group.service.arn_suffix }
  of_balancer = { LoadBalancer = aws_lb.main.arn_suffix }
  alarms = {
    errors = {
      description = "The service answered more than 5 requests with 5xx within five minutes"
      metric      = "HTTPCode_Target_5XX_Count", statistic = "Sum", threshold = 5, periods = 1, period = 300
      comparison  = "GreaterThanThreshold", missing = "notBreaching", dimensions = local.of_target
    }
    unanswered = {
      description = "The load balancer got no answer from the service to more than 5 requests within five minutes (502, 503, 504)"
      metric      = "HTTPCode_ELB_5XX_Count", statistic = "Sum", threshold = 5, periods = 1, period = 300
      comparison  = "GreaterThanThreshold", missing = "notBreaching", dimensions = local.of_balancer
    }
    slow = {
      description = "More than one request in a hundred takes longer than half a second"
      metric      = "TargetResponseTime", statistic = "p99", threshold = 0.5, periods = 3, period = 60
      comparison  = "GreaterThanThreshold", missing = "notBreaching", dimensions = local.of_target
    }
    unhealthy = {
      description = "A task does not answer its health check"
      metric      = "UnHealthyHostCount", statistic = "Maximum", threshold = 0, periods = 5, period = 60
      comparison  = "GreaterThanThreshold", missing = "notBreaching", dimensions = local.of_target
    }
    # the maximum over the load balancer's nodes, because a zone without a task is no reason for an alarm
    none_healthy = {
      description = "No task is healthy; the service is down"
      metric      = "HealthyHostCount", statistic = "Maximum", threshold = 1, periods = 2, period = 60
      comparison  = "LessThanThreshold", missing = "breaching", dimensions = local.of_target
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "service" {
  for_each            = local.deploy ? local.alarms : {}
  alarm_name          = "${local.full_name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/ApplicationELB"
  metric_name         = each.value.metric
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  period              = each.value.period
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  dimensions          = each.value.dimensions
}
