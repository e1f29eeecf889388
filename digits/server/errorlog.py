"""gunicorn's own log, of which gunicorn.conf.py takes this class: errors only, as the app logs each request."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger


class ErrorLog(Logger):
    """gunicorn's logger without its access log, whose line it would put together for every request, unread."""

    def access(self, *args: Any) -> None:
        """Nothing: digits/serving/request_log.py writes the line a request."""
