"""What the app's requests and responses have in common: `Request`, which app.py sets as the request class, limits
the body and keeps it in memory, and `json_response` is what the routes answer with."""

from __future__ import annotations

from io import BytesIO
from typing import IO, Any

import flask
import orjson
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.utils import cached_property
from werkzeug.wsgi import LimitedStream

from digits.serving.errors import Problem


class Request(flask.Request):
    """A request whose forms stay in memory: nothing a client sends reaches a disk, which may be read-only.

    The whole body is limited anyway.
    """

    def _get_file_stream(self, *args: Any, **kwargs: Any) -> BytesIO:
        return BytesIO()

    @cached_property
    def stream(self) -> IO[bytes]:
        """The body. Raises Problem 415 if it is compressed, and RequestEntityTooLarge, as it is read if its length
        is not known before."""
        if self.environ.get("HTTP_CONTENT_ENCODING", "").strip().lower() not in ("", "identity"):
            raise Problem(415, "Compressed bodies are not accepted.", headers={"Accept-Encoding": "identity"})
        length = self.environ.get("CONTENT_LENGTH", "")
        limit = self.max_content_length or 0
        if not self.environ.get("wsgi.input_terminated"):
            return super().stream
        if not length:
            bounded: Any = BoundedStream(self.environ["wsgi.input"], limit, is_max=True)
            return bounded
        # it ends by itself, and Werkzeug's limit would double its cost
        return self.environ["wsgi.input"] if length.isdecimal() and int(length) <= limit else super().stream


def json_response(value: object, status: int = 200) -> flask.Response:
    """A response with `value` as JSON; NumPy's arrays become lists."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return flask.Response(body, status, content_type="application/json")


class BoundedStream(LimitedStream):
    """A stream that raises RequestEntityTooLarge where Werkzeug's own cuts what it reads at once to the limit."""

    def readall(self) -> bytes:
        data = super().readall()
        if self.is_exhausted and self._stream.read(1):
            raise RequestEntityTooLarge
        return data
