"""gunicorn options and path prefixes. digits/server/worker.py calls `check` before the start, and `split_prefix`
for each request, because a proxy may serve the service below a path."""

from __future__ import annotations

import os
import sys
from typing import Any

from digits.serving.settings import Settings

WORKER_CLASS = "digits.server.worker.Worker"
# seconds between the end of the grace time and that of the worker
CUT_OFF_SECONDS = 3


def check(cfg: Any, log: Any) -> None:
    """Log why and exit with 1 if gunicorn's configuration would break a promise of this service."""
    reason = ""
    metrics = Settings.from_env(os.environ).metrics_bind.rpartition(":")[2]
    if "h2" in cfg.http_protocols or cfg.protocol != "http":
        reason = "digits.server.worker only supports HTTP/1.1"
    elif cfg.preload_app:
        # workers would keep the first model and the first API keys, whatever SIGHUP loads
        reason = (
            "--preload is not supported, and not needed: workers share the model that the master has loaded"
        )
    elif metrics and not any(str(bind).rpartition(":")[2] == metrics for bind in cfg.bind):
        reason = (
            "--bind replaces the address of DIGITS_METRICS_BIND: pass that address as another --bind, or set HOST "
            "and PORT instead"
        )
    if reason:
        log.critical(reason)
        sys.exit(1)


def split_prefix(environ: dict[str, Any], prefix: str) -> None:
    """Move the prefix from PATH_INFO to SCRIPT_NAME (PEP 3333) if the path begins with it."""
    if prefix and f"{environ['PATH_INFO']}/".startswith(f"{prefix}/"):
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = prefix, environ["PATH_INFO"].removeprefix(prefix)
