"""fastapi_litert.py with Prometheus metrics for all workers, a JSON log line and a request id for each request,
like this service."""

import logging
import os
import tempfile
import time

# must be set before prometheus_client is imported
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(dir="/dev/shm"))

from fastapi_litert import app as plain
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app, multiprocess
from pythonjsonlogger.orjson import OrjsonFormatter

LABELS = ("method", "status", "path")
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
requests = Counter("http_request_total", "Requests answered", LABELS)
duration = Histogram("http_request_duration_seconds", "Time to answer a request", LABELS, buckets=SECONDS)
inference = Histogram("inference_seconds", "Time for the network", buckets=SECONDS)
decode = Histogram("decode_seconds", "Time to read a body", buckets=SECONDS)
digits = Counter("predictions_total", "Images by digit", ("digit",))
in_progress = Gauge("requests_in_progress", "Requests now", multiprocess_mode="livesum")

log = logging.getLogger("request")
handler = logging.StreamHandler()
handler.setFormatter(OrjsonFormatter(["levelname", "name", "message"], timestamp=True))
log.addHandler(handler)
log.setLevel("INFO")

registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
plain.mount("/metrics", make_asgi_app(registry))


async def app(scope, receive, send):
    """Give each request an id, measure, count and log it."""
    if scope["type"] != "http":
        await plain(scope, receive, send)
        return
    begun = time.perf_counter()
    request_id = os.urandom(16).hex()
    status = 500
    in_progress.inc()

    async def observed(message):
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
        await send(message)

    try:
        await plain(scope, receive, observed)
    finally:
        in_progress.dec()
        seconds = time.perf_counter() - begun
        labels = (scope["method"], str(status), scope["path"])
        requests.labels(*labels).inc()
        duration.labels(*labels).observe(seconds)
        # updates as many series per request as this service
        inference.observe(seconds)
        decode.observe(seconds)
        digits.labels("7").inc()
        line = {"request_id": request_id, "method": scope["method"], "route": scope["path"], "status": status}
        log.info("request", extra=line | {"duration_ms": round(seconds * 1000, 3)})
