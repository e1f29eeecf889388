"""Logging as lines of JSON on standard output (python-json-logger). A reader that stalls does not stop the
program: lines for which there is no room are dropped and counted."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import sys
from contextlib import suppress
from typing import Any

# don't look up the caller, thread and process of records, which takes a third of the time and is not logged
# (Python's Logging HOWTO, "Optimization")
logging._srcfile = None
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False

# the record that tells how many lines were dropped
DROPPED = {"name": "digits.logs", "levelname": "WARNING", "msg": "log lines dropped"}
# bytes of lines that a pipe may hold for its reader, where the system can set it
PIPE_BYTES = 1 << 18


class Stdout(logging.StreamHandler[Any]):
    """Writes lines to standard output, but drops those for which a pipe, socket or terminal has no room."""

    # lines that this process has dropped, and how many of them another line has told
    dropped = reported = 0

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        # the rest of a line of which only a part had room
        self.rest = b""
        self.fd = _without_blocking()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line if there is room, after one with the number of lines that were dropped before."""
        if self.fd is None:
            super().emit(record)
            return
        try:
            line = self.format(record)
            told = DROPPED | {"lines": Stdout.dropped - Stdout.reported}
            if told["lines"] and self._write(self.fd, self.format(logging.makeLogRecord(told))):
                Stdout.reported = Stdout.dropped
            Stdout.dropped += not self._write(self.fd, line)
        except Exception:
            self.handleError(record)

    def _write(self, fd: int, line: str) -> bool:
        """Whether there was room for a part of the line; the rest is written before the next one."""
        data = f"{line}\n".encode("utf-8", "replace")
        try:
            while self.rest:
                self.rest = self.rest[os.write(fd, self.rest) :]
            self.rest = data[os.write(fd, data) :]
        except OSError:
            # a full pipe or disk, or a reader that has ended
            return False
        return True


def _without_blocking() -> int | None:
    """A descriptor of standard output that does not block, or None if it has no descriptor."""
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        with suppress(OSError, AttributeError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            # an open file of our own, because other programs may expect that writing to theirs blocks
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            os.set_blocking(fd, False)
    return fd


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
        "handlers": {"stdout": {"()": "digits.logs.Stdout", "formatter": "json"}},
        "root": {"level": "WARNING", "handlers": ["stdout"]},
        "loggers": {
            "digits": {"level": level.upper(), "handlers": ["stdout"], "propagate": False},
            "gunicorn.error": {"level": server, "handlers": ["stdout"], "propagate": False},
        },
    }
