"""What may be told to gunicorn beside this service's own settings: the worker calls `check` before the start, and
`split_prefix` for each request behind a proxy that serves the service below a path."""

from __future__ import annotations

import os
import sys
from typing import Any

from digits.serving.settings import Settings


def check(cfg: Any, log: Any) -> None:
    """Exit with 1, and log why, where gunicorn's configuration would undo a promise of this service."""
    reason = ""
    metrics = Settings.from_env(os.environ).metrics_bind.rpartition(":")[2]
    if "h2" in cfg.http_protocols or cfg.protocol != "http":
        reason = "digits.server.worker speaks HTTP/1.1 only: for others use another --worker-class"
    elif cfg.preload_app:
        # workers would keep the first model and the first API keys, whatever SIGHUP loads
        reason = "--preload is not supported: workers share what the master has loaded without it"
    elif metrics and not any(str(bind).rpartition(":")[2] == metrics for bind in cfg.bind):
        reason = (
            "--bind replaces the address of DIGITS_METRICS_BIND: give that one by --bind too, or set HOST and "
            "PORT instead"
        )
    if reason:
        log.critical(reason)
        sys.exit(1)


def split_prefix(environ: dict[str, Any], prefix: str) -> None:
    """Move the prefix from PATH_INFO to SCRIPT_NAME (PEP 3333) where the path has it."""
    if prefix and f"{environ['PATH_INFO']}/".startswith(f"{prefix}/"):
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = prefix, environ["PATH_INFO"].removeprefix(prefix)
