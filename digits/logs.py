"""Logging as JSON lines on standard output (python-json-logger), one line a request. gunicorn.conf.py takes
`config` for the server's own loggers; app.py calls `register` for the line a request."""

from __future__ import annotations

import logging
import os
import re
from time import perf_counter
from typing import Any

from flask import Flask, Response, g, request

log = logging.getLogger("digits.request")

# a client's id is taken over only in this form: nothing that could forge a log line or fill a disk
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

# asked every few seconds by machines; at info they would bury what people ask
QUIET = frozenset({"live", "ready", "prometheus_metrics"})


def config(level: str = "info") -> dict[str, Any]:
    """For `logging.config.dictConfig`: everything at `level` and above as JSON on standard output."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.orjson.OrjsonFormatter",
                "fmt": ["levelname", "name", "message"],
                "rename_fields": {"levelname": "level", "name": "logger"},
                "timestamp": True,
            }
        },
        "handlers": {
            "stdout": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}
        },
        "root": {"level": "WARNING", "handlers": ["stdout"]},
        "loggers": {
            "digits": {"level": level.upper(), "handlers": ["stdout"], "propagate": False},
            "gunicorn.error": {"level": level.upper(), "handlers": ["stdout"], "propagate": False},
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }


def register(app: Flask) -> None:
    """Give each request an id and, once it is answered, a line in the log."""

    @app.before_request
    def begin() -> None:
        g.started = perf_counter()
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if SANE_ID.fullmatch(given) else os.urandom(16).hex()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        level = logging.DEBUG if request.endpoint in QUIET else logging.INFO
        if log.isEnabledFor(level):
            line = {
                "request_id": g.request_id,
                "method": request.method,
                "route": request.url_rule.rule if request.url_rule else None,
                "status": response.status_code,
                "duration_ms": round((perf_counter() - g.started) * 1000, 3),
            }
            if "digit" in g:
                line |= {"digit": g.digit, "probability": g.probability, "images": g.images}
            log.log(level, "request", extra=line)
        return response
