# Named once; tests/test_terraform.py compares them with gunicorn.conf.py, digits/serving/settings.py, the Dockerfile and
# the routes of app.py.
locals {
  full_name = "${var.name}-${var.environment}"
  port      = 5000

  # what the load balancer asks before it sends traffic, and what ECS asks before it replaces a task
  ready_path = "/health/ready"
  live_path  = "/health/live"

  # what the world may ask for; everything else, /metrics above all, is 404 at the load balancer. A list of what is
  # allowed, since a list of what is not could be passed by writing a path another way (/%6detrics)
  public_paths = [
    "/", "/predict", "/model", "/openapi.json", "/docs", "/docs/*", "/static/*", "/health/*", "/v1/*", "/v2", "/v2/*",
  ]

  # the service keeps idle connections open for longer than the load balancer: the one who closes is the balancer
  service_keepalive_seconds = 75
  idle_timeout_seconds      = 60

  # a task that goes gets no new requests for so long, then SIGTERM and so long to answer what was accepted;
  # ECS kills after stop_timeout
  deregistration_delay = 20
  grace_seconds        = 30
  stop_timeout         = 60

  deploy   = var.image_tag != ""
  https    = var.certificate_arn != ""
  image    = "${aws_ecr_repository.service.repository_url}:${var.image_tag}"
  user     = "10001"
  writable = "/tmp"
}
