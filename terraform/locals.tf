# Values that have to agree with the service; tests/deploy/test_terraform.py compares them with gunicorn.conf.py,
# digits/web/settings.py, the Dockerfile and the routes of app.py.
locals {
  full_name = "${var.name}-${var.environment}"
  port      = 5000

  # health checks: the load balancer's before it sends traffic, and the one by which ECS replaces a task
  ready_path = "/health/ready"
  live_path  = "/health/live"

  # the public paths; the load balancer answers 404 to all others, including /metrics. An allow-list, because a
  # deny-list could be bypassed by encoding a path differently (/%6detrics)
  public_paths = [
    "/", "/predict", "/read", "/corrections", "/model", "/openapi.json", "/docs", "/docs/*", "/static/*", "/health/*",
    "/v1/*", "/v2", "/v2/*", "/ping", "/invocations",
  ]

  # the service keeps idle connections open for longer than the load balancer, so it never closes one that is in use
  service_keepalive_seconds = 75
  idle_timeout_seconds      = 60

  # a task that stops gets no new requests for deregistration_delay, then SIGTERM and grace_seconds to answer the
  # requests it has accepted; ECS kills it stop_timeout after SIGTERM
  deregistration_delay = 20
  grace_seconds        = 30
  stop_timeout         = 60

  deploy   = var.image_tag != ""
  https    = var.certificate_arn != ""
  image    = "${aws_ecr_repository.service.repository_url}:${var.image_tag}"
  user     = "10001"
  writable = "/tmp"
}
