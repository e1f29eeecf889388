"""Errors as problem details in JSON (RFC 9457). Views and decoders raise `Problem`. Flask's own errors and
unexpected exceptions get the same format."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import Response, current_app, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.http import HTTP_STATUS_CODES

from digits.imaging.errors import Kind, PictureError

log = logging.getLogger("digits")

# the status of the answer to each kind of picture that can't be read
STATUSES: dict[Kind, int] = {"large": 413, "format": 415, "content": 422}
# how the names of parts of a request end, which are no fields
PARTS = ("the body", "the CSV")
# maximum length in characters of the path and the detail, which may contain a client's values
MAX_TEXT = 300


class Problem(Exception):
    """An error to answer a request with, as `application/problem+json`.

    Args:
        status: HTTP status, 4xx or 5xx.
        detail: a sentence for the client.
        headers: of the answer.
        extra: further members of the JSON object (field, found, ...).
    """

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        # all arguments but those by name, as pickles of exceptions need them
        super().__init__(status, detail)
        self.status, self.detail, self.headers, self.extra = status, detail, headers or {}, extra

    @classmethod
    def of(cls, field: str, problem: str, status: int = 422, **extra: Any) -> Problem:
        """A problem with a field of the request, or with a part of its body.

        Args:
            field: its name, such as images[3], "the body" or "image 3 of the body".
            problem: the rest of a sentence that begins with the name, such as "is empty.".
            status: HTTP status, 4xx.
            extra: further members of the JSON object.
        """
        subject = field[0].upper() + field[1:] if field.endswith(PARTS) else f"The field {field}"
        return cls(status, f"{subject} {problem}", field=field, **extra)


class Overloaded(Problem):
    """The refusal of a request because of overload (load shedding)."""

    def __init__(self) -> None:
        super().__init__(503, "The service is overloaded; retry in one second.", headers={"Retry-After": "1"})


def answer(error: Exception) -> Response:
    """The response to a request that has raised `error`. `type` is about:blank and `title` the status's phrase
    (RFC 9457, 4.2.1). Under the path of another protocol it has that protocol's format.
    """
    problem, path = of_exception(error), request.path
    detail = _shortened(problem.detail)
    error_format = current_app.config["ERROR_FORMATS"].get(path.split("/", 2)[1] if "/" in path else "")
    if error_format:
        status, formatted = error_format(problem.status, detail)
        return Response(orjson.dumps(formatted), status, problem.headers, content_type="application/json")
    body = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": detail,
        "instance": _shortened(path),
        "request_id": g.get("request_id"),
        **problem.extra,
    }
    kind = "application/problem+json"
    return Response(orjson.dumps(body), problem.status, problem.headers, content_type=kind)


def of_exception(error: Exception) -> Problem:
    """The problem that an exception is answered with."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, PictureError):
        return Problem.of(error.name, error.problem, STATUSES[error.kind], **error.extra)
    if isinstance(error, RequestEntityTooLarge):
        most = current_app.config["MAX_CONTENT_LENGTH"]
        return Problem(413, f"The body is larger than the {most} bytes that are accepted.")
    if isinstance(error, HTTPException):
        detail = error.description or ""
        detail = why_not_found(detail) if isinstance(error, NotFound) else detail
        return Problem(error.code or 500, detail, headers=dict(error.get_headers()))
    if isinstance(error, ParseException):
        # chunked bodies are parsed while they are read; gunicorn closes the connection, because the end is unknown
        return Problem(400, f"The chunked body is not valid HTTP ({type(error).__name__}).")
    log.error("fault", exc_info=error, extra={"request_id": g.get("request_id")})
    return Problem(500, "An internal error occurred. The log has its details under the request id.")


def why_not_found(detail: str) -> str:
    """What is wrong with a path that no route has: a slash at its end, or else `detail`."""
    path, adapter = request.path.rstrip("/"), current_app.create_url_adapter(request)
    if path != request.path and adapter and adapter.allowed_methods(path):
        return f"The path must not end with a slash: use {request.script_root}{path}."
    return detail


def make_relative(redirect: Response) -> None:
    """Redirect to a path, because the service does not know the scheme and the host that clients use. Flask does
    not let error handlers do this."""
    path = urlsplit(redirect.headers["Location"])._replace(scheme="", netloc="").geturl()
    # not two slashes, after which a host would follow
    redirect.headers["Location"] = "/" + path.lstrip("/")
    # its page has a link with a host
    redirect.set_data(b"")


def _shortened(text: str) -> str:
    # a client's text may contain lone surrogates, which UTF-8 can't encode
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
