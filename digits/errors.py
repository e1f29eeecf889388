"""One shape for every error the service answers with: problem details in JSON (RFC 9457). Decoders raise
`Problem`; app.py registers `register` so that Flask's own errors and faults take the same shape."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import orjson
from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.http import HTTP_STATUS_CODES

log = logging.getLogger("digits")

# how other protocols tell an error, by the first part of their paths: (status, detail) -> (status, JSON object)
shapes: dict[str, Callable[[int, str], tuple[int, dict[str, Any]]]] = {}

# what is read, and thrown away, of a body that is too large
DRAIN_BYTES, DRAIN_SECONDS = 32 << 20, 2.0


class Problem(Exception):
    """What is wrong with a request, to be answered as `application/problem+json`.

    status: HTTP status, 4xx or 5xx. detail: one sentence for the client. headers: sent along.
    Everything in `extra` (field, found, ...) becomes a member of the JSON object.
    """

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


def answer(status: int, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> Response:
    """The problem as a response; `type` being about:blank, `title` is the status's phrase (RFC 9457, 4.2.1).

    Under a path of another protocol it takes that protocol's shape.
    """
    # what a client sent may hold half characters (lone surrogates), which no UTF-8 answer can
    detail = detail.encode("utf-8", "replace").decode()
    if shape := shapes.get(request.path.split("/", 2)[1]):
        status, told = shape(status, detail)
        return Response(orjson.dumps(told), status, headers, content_type="application/json")
    body = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": request.path,
        "request_id": g.get("request_id"),
        **extra,
    }
    # a path may hold bytes that are no UTF-8; orjson refuses such a str, the answer must not fail for it
    body["instance"] = body["instance"].encode("utf-8", "replace").decode()
    return Response(orjson.dumps(body), status, headers, content_type="application/problem+json")


def _drain() -> None:
    """Read on for a while: most clients that are cut off while they send report a reset, not the answer."""
    if (request.content_length or 0) > DRAIN_BYTES:
        # it would be cut off anyway; and a length that nobody means to send would be waited for
        return
    deadline = monotonic() + DRAIN_SECONDS
    with suppress(OSError, ParseException):
        for _ in range(DRAIN_BYTES >> 16):
            if monotonic() > deadline or not request.environ["wsgi.input"].read(1 << 16):
                return


def register(app: Flask) -> None:
    """Make `app` answer each Problem, HTTP error and fault with problem details."""

    @app.errorhandler(Problem)
    def problem(error: Problem) -> Response:
        return answer(error.status, error.detail, error.headers, **error.extra)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        headers = {
            k: v for k, v in error.get_headers() if k.lower() not in ("content-type", "content-length")
        }
        detail = error.description or ""
        if isinstance(error, RequestEntityTooLarge):
            _drain()
            detail = (
                f"The body is larger than the {app.config['MAX_CONTENT_LENGTH']} bytes that are accepted."
            )
        return answer(status, detail, headers)

    @app.errorhandler(ParseException)
    def not_http(error: ParseException) -> Response:
        # a chunked body is parsed as it is read; gunicorn closes the connection, where it goes on is unknown
        return answer(400, f"The body is not HTTP ({type(error).__name__}).")

    @app.errorhandler(Exception)
    def fault(error: Exception) -> Response:
        log.error("fault", exc_info=error, extra={"request_id": g.get("request_id")})
        return answer(500, "The service failed to answer; the request id finds the fault in its log.")
