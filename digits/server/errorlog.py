"""gunicorn's logger, as gunicorn.conf.py sets it: without an access log, because the app logs each request."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger


class ErrorLog(Logger):
    """gunicorn's logger without its access log, for which it would format a line that nobody reads."""

    def access(self, *args: Any) -> None:
        """Do nothing; digits/serving/request_log.py logs requests."""
