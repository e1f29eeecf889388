"""Logging as JSON lines on standard output (python-json-logger); gunicorn.conf.py takes `config` for the whole
process, digits/serving/request_log.py writes the line a request."""

from __future__ import annotations

import logging
from typing import Any

# every record would look up its caller, thread and process, which no line shows: a third of a line's cost
# (Python's Logging HOWTO, "Optimization")
logging._srcfile = None
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def config(level: str = "info") -> dict[str, Any]:
    """For `logging.config.dictConfig`: everything at `level` and above as JSON on standard output."""
    # at debug gunicorn tells what it has read of a request that broke off: a key may be in it
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
