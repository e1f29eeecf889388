"""Answers that the worker's loop (digits/server/worker.py) gives without asking Flask: 503 to a request that
comes when there is more to do than can be done, 408 and 400 to one that never arrives whole. They look
like Flask's, are counted like Flask's, and take microseconds, so that saying no leaves time for those who
are served."""

from __future__ import annotations

import logging
import os
import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from werkzeug.exceptions import HTTPException

from digits.serving.errors import told
from digits.serving.request_log import SANE_ID

log = logging.getLogger("digits.request")

REQUEST_ID = re.compile(rb"\r\nx-request-id:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)


class Refusals:
    """The refusals of the requests to `app`, counted in its metrics; any other WSGI app has none."""

    def __init__(self, app: Any) -> None:
        service = getattr(app, "extensions", {}).get("digits")
        self._metrics = service.metrics if service else None
        self._rule = lru_cache(maxsize=256)(lambda method, path: _rule(app, method, path))

    def __call__(self, request: bytes, status: int, detail: str, *, seconds: float, close: bool) -> bytes:
        """The answer to `request`, all of it or as much as there is, that came `seconds` ago; counts it.

        close: whether the connection ends with it.
        """
        head = request[: request.find(b"\r\n\r\n") + 2]
        method, target = (*head.partition(b"\r\n")[0].decode("latin-1").split(" "), "", "")[:2]
        path = target.partition("?")[0]
        given = REQUEST_ID.search(head)
        sane = given and SANE_ID.fullmatch(name := given[1].decode("latin-1"))
        request_id = name if sane else os.urandom(16).hex()
        if self._metrics:
            route = self._rule(method, path)
            self._metrics.count_request(method, status, route, seconds)
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                # thousands a second may come: the worker tells of all of them in one line
                self._metrics.shed.inc()
            else:
                line = {"request_id": request_id, "method": method, "route": route, "status": status}
                log.info("request", extra=line | {"duration_ms": round(seconds * 1000, 3)})
        return _answer(status, detail, path, request_id, close)

    def malformed(self, status: int, reason: str, request_id: str) -> bytes:
        """The answer to what gunicorn's parser would not read, which has neither path nor method that is known."""
        return _answer(
            status, f"The request is not HTTP that is taken here ({reason}).", "", request_id, True
        )

    def beat(self) -> None:
        """To be called about once a second: the metrics that nobody's request brings up to date."""
        if self._metrics:
            self._metrics.beat()


def _answer(status: int, detail: str, path: str, request_id: str, close: bool) -> bytes:
    status, kind, body = told(status, detail, path, request_id)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: gunicorn\r\n"
        f"Connection: {'close' if close else 'keep-alive'}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\n"
    )
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head += "Retry-After: 1\r\n"
    return head.encode("latin-1") + b"\r\n" + body


def _rule(app: Any, method: str, path: str) -> str:
    """Flask's URL rule, "none" if there is none."""
    try:
        rule, _ = app.url_map.bind("localhost").match(path, method, return_rule=True)
    except HTTPException:
        return "none"
    return rule.rule
