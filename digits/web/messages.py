"""The app's requests and responses: `Request` limits bodies and keeps them in memory, `flag` and `parameter` read
the query, and `json_response` creates the answers of all routes."""

from __future__ import annotations

from io import BytesIO
from typing import IO, Any

import flask
import orjson
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.utils import cached_property

from digits.imaging.formats import TYPES
from digits.web.problems import Problem

# common names of accepted types besides the registered ones
ALIASES = TYPES | {"text/json": "application/json"}


class BodyTooLarge(RequestEntityTooLarge):
    """The body is over its limit, unlike a form over a limit of its own."""


class FormParser(FormDataParser):
    """Werkzeug's parser, but a malformed form is an error and not an empty form, and a form over its limits is not
    called a body over the limit."""

    def parse(self, stream: IO[bytes], mimetype: str, content_length: int | None, options: Any = None) -> Any:
        """The stream, the fields and the files. Raises Problem 400 and 413."""
        self.silent = False
        try:
            return super().parse(stream, mimetype, content_length, options)
        except ValueError:
            # the boundary is not in the body, the end is missing, or the header of a part is not UTF-8
            raise Problem(400, "The form is not valid multipart/form-data in UTF-8.") from None
        except BodyTooLarge:
            raise
        except RequestEntityTooLarge:
            most = (
                f"{self.max_form_parts} parts, or {self.max_form_memory_size} bytes in a field without a file"
            )
            raise Problem(413, f"The form has more than {most}. Send pictures as files.") from None


class Request(flask.Request):
    """A request whose forms stay in memory: nothing a client sends reaches a disk, which may be read-only. The
    whole body is limited anyway."""

    form_data_parser_class = FormParser

    def _get_file_stream(self, *args: Any, **kwargs: Any) -> BytesIO:
        return BytesIO()

    @property
    def mimetype(self) -> str:
        """The type of the body by its registered name; types with the suffix +json are JSON (RFC 6839)."""
        name = super().mimetype
        return "application/json" if name.endswith("+json") else ALIASES.get(name, name)

    @cached_property
    def stream(self) -> IO[bytes]:
        """The body. Raises Problem 415 if it is compressed, and RequestEntityTooLarge if its length is over the
        limit. The worker ends a body of unknown length at the limit (digits/worker/body.py)."""
        if self.environ.get("HTTP_CONTENT_ENCODING", "").strip().lower() not in ("", "identity"):
            raise Problem(415, "Compressed bodies are not accepted.", headers={"Accept-Encoding": "identity"})
        length, limit = self.environ.get("CONTENT_LENGTH") or "0", self.max_content_length or 0
        if self.environ.get("wsgi.input_terminated") and length.isdecimal() and int(length) <= limit:
            # the stream ends by itself, and Werkzeug's limit would double the cost of reading it
            return self.environ["wsgi.input"]
        return super().stream


def json_response(value: object) -> flask.Response:
    """A response with `value` as JSON; NumPy's arrays become lists."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return flask.Response(body, content_type="application/json")


def parameter(request: flask.Request, name: str, default: str | None = None) -> str | None:
    """The value of a parameter, or `default` without one. Raises Problem 422 if there are several."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise refused(name, "given only once", f"{len(values)} values")
    return values[0] if values else default


def flag(request: flask.Request, name: str, on: str = "1", off: str = "0") -> bool:
    """Whether a parameter has the value `on`; without one it is off. Raises Problem 422 for any value but `on` and
    `off`."""
    # most requests have no query
    if not request.query_string:
        return False
    given = parameter(request, name, off) or ""
    if given not in (on, off):
        raise refused(name, f"{off} or {on}", given)
    return given == on


def refused(name: str, allowed: str, found: str) -> Problem:
    """The problem with the value of a parameter: it is `found`, but must be `allowed`."""
    return Problem(422, f"The parameter {name} must be {allowed}.", field=name, found=found[:40])
