resource "aws_lb" "main" {
  #checkov:skip=CKV2_AWS_20:with a certificate the listener redirects; checkov does not see it in the dynamic block
  #checkov:skip=CKV2_AWS_28:a WAF costs more than the service; docs/aws.md says when to add one
  #checkov:skip=CKV_AWS_91:access logs are optional (access_logs_bucket)
  #checkov:skip=CKV_AWS_150:the variable protect sets deletion protection
  name                       = local.full_name
  load_balancer_type         = "application"
  internal                   = false
  subnets                    = aws_subnet.public[*].id
  security_groups            = [aws_security_group.balancer.id]
  idle_timeout               = local.idle_timeout_seconds
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  enable_deletion_protection = var.protect
  dynamic "access_logs" {
    for_each = var.access_logs_bucket == "" ? [] : [var.access_logs_bucket]
    content {
      bucket  = access_logs.value
      prefix  = local.full_name
      enabled = true
    }
  }
}

resource "aws_lb_target_group" "service" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; the tasks accept connections only from it
  name                          = local.full_name
  port                          = local.port
  protocol                      = "HTTP"
  target_type                   = "ip"
  vpc_id                        = aws_vpc.main.id
  deregistration_delay          = local.deregistration_delay
  load_balancing_algorithm_type = "least_outstanding_requests"
  health_check {
    path                = local.ready_path
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "http" {
  #checkov:skip=CKV_AWS_2:HTTP is served only if there is no certificate
  #checkov:skip=CKV_AWS_103:there is no TLS on port 80
  #checkov:skip=CKV2_AWS_20:with a certificate this redirects
  load_balancer_arn = aws_lb.main.arn
  port              = 80
  protocol          = "HTTP"
  dynamic "default_action" {
    for_each = local.https ? ["redirect"] : []
    content {
      type = "redirect"
      redirect {
        port        = "443"
        protocol    = "HTTPS"
        status_code = "HTTP_301"
      }
    }
  }
  dynamic "default_action" {
    for_each = local.https ? [] : [local.not_found]
    content {
      type = "fixed-response"
      fixed_response {
        content_type = default_action.value.content_type
        message_body = default_action.value.message_body
        status_code  = default_action.value.status_code
      }
    }
  }
}

resource "aws_lb_listener" "https" {
  count             = local.https ? 1 : 0
  load_balancer_arn = aws_lb.main.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn
  default_action {
    type = "fixed-response"
    fixed_response {
      content_type = local.not_found.content_type
      message_body = local.not_found.message_body
      status_code  = local.not_found.status_code
    }
  }
}

# a rule can hold at most five paths
resource "aws_lb_listener_rule" "public" {
  for_each     = { for i, paths in chunklist(local.public_paths, 5) : tostring(i + 1) => paths }
  listener_arn = local.https ? aws_lb_listener.https[0].arn : aws_lb_listener.http.arn
  priority     = tonumber(each.key)
  condition {
    path_pattern {
      values = each.value
    }
  }
  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.service.arn
  }
}

locals {
  not_found = {
    content_type = "application/json"
    message_body = jsonencode({ type = "about:blank", title = "Not Found", status = 404 })
    status_code  = "404"
  }
}
