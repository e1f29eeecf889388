"""The stream from which the app reads a request's body (`wsgi.input`). digits/server/worker.py creates one for
each request. It limits the time and memory that a body takes, reports incomplete bodies as errors, and lets other
requests continue while it reads a large one."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

import gevent

from digits.serving.errors import Overloaded, Problem

if TYPE_CHECKING:
    from digits.server.worker import Worker

# bytes to read before other requests continue; fewer if the body is chunked, as they may be thousands of chunks
READ_SIZE, CHUNKED_READ_SIZE = 1 << 16, 1 << 13
# up to this many unread bytes are discarded to keep the connection open
MAX_UNREAD = 1 << 16


class Body(io.RawIOBase):
    """A binary stream whose reads raise `Problem`: 400 if the body is cut short, 408 if it takes longer than
    DIGITS_RECEIVE_SECONDS, 503 if the worker would hold too many bytes of bodies.

    held: number of bytes read so far. seconds_received: time spent waiting for them, in seconds. ended: whether
    the body has been read completely.
    """

    def __init__(self, req: Any, worker: Worker) -> None:
        self.req, self.worker, self.body = req, worker, req.body
        # bytes still to read; None if chunked
        self.left: int | None = getattr(self.body.reader, "length", None)
        self.deadline = time.monotonic() + worker.settings.receive_seconds
        self.held = 0
        self.seconds_received = 0.0
        self.ended = self.left == 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        parts = []
        while data := self._read(READ_SIZE):
            parts.append(data)
        return b"".join(parts)

    def _read(self, size: int) -> bytes:
        if self.ended or not size:
            return b""
        if self.held:
            gevent.sleep(0)
        size = min(size, CHUNKED_READ_SIZE if self.left is None else READ_SIZE)
        size = size if self.left is None else min(size, self.left)
        begun = time.monotonic()
        try:
            if size <= self.req.unreader.buf.tell() and self.left is not None:
                # already received with the head, as small bodies are, so no timer is needed
                data = self.body.read(size)
            else:
                late = Problem(408, "The request did not arrive in time.")
                with gevent.Timeout(max(self.deadline - begun, 0.001), late):
                    data = self.body.read(size)
        except OSError:
            # the connection was closed in the middle of a body, or reset
            data = b""
            self.left = 1
        finally:
            self.seconds_received += time.monotonic() - begun
        if self.left is None:
            self.ended = not data
        elif len(data) < size:
            self.body.failed = True
            raise Problem(400, "The connection was closed before the request was complete.")
        else:
            self.left -= len(data)
            self.ended = self.left == 0
        self.held += len(data)
        self.worker.held += len(data)
        if self.worker.held > self.worker.max_held:
            raise Overloaded
        return data

    @property
    def must_close(self) -> bool:
        """Whether too much of the body is unread to keep the connection open after the answer."""
        return not self.ended and (self.left is None or self.left > MAX_UNREAD or self.body.failed)
