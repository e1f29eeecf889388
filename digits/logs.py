"""Logging as lines of JSON on standard output (python-json-logger). gunicorn.conf.py uses `config`, and
digits/serving/request_log.py writes the line for each request."""

from __future__ import annotations

import logging
from typing import Any

# don't look up the caller, thread and process of records, which takes a third of the time and is not logged
# (Python's Logging HOWTO, "Optimization")
logging._srcfile = None
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def config(level: str = "info") -> dict[str, Any]:
    """The argument of `logging.config.dictConfig` for JSON on standard output, at `level` and above."""
    # at debug, gunicorn would log the bytes of incomplete requests, which may contain a key
    server = "INFO" if level == "debug" else level.upper()
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
            "gunicorn.error": {"level": server, "handlers": ["stdout"], "propagate": False},
        },
    }
