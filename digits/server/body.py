"""A request's body as the app reads it (`wsgi.input`): digits/server/worker.py makes one a request. It arrives in
time and whole or becomes a problem, and is read in pieces, so that large bodies take turns."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

import gevent

from digits.serving.errors import Overloaded, Problem

if TYPE_CHECKING:
    from digits.server.worker import Worker

# bytes read before other requests have their turn; of a chunked body fewer, which may still be thousands of chunks
PIECE, CHUNKED_PIECE = 1 << 16, 1 << 13
# bytes that the app left unread and that are discarded to keep the connection
MAX_UNREAD = 1 << 16


class Body(io.RawIOBase):
    """A binary stream whose reads raise `Problem`: 400 if the body is cut short, 408 if it takes longer than
    DIGITS_RECEIVE_SECONDS, 503 if the worker would hold too many bytes of bodies.

    held: bytes read so far. seconds_received: spent waiting for them. ended: whether nothing is left to read.
    """

    def __init__(self, req: Any, worker: Worker) -> None:
        self.req, self.worker, self.body = req, worker, req.body
        # bytes to come; None if only the end will tell
        self.left: int | None = getattr(self.body.reader, "length", None)
        self.deadline = time.monotonic() + worker.settings.receive_seconds
        self.held = 0
        self.seconds_received = 0.0
        self.ended = self.left == 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        pieces = []
        while piece := self._read(PIECE):
            pieces.append(piece)
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        if self.ended or not size:
            return b""
        if self.held:
            gevent.sleep(0)
        size = min(size, CHUNKED_PIECE if self.left is None else PIECE)
        wanted = size if self.left is None else min(size, self.left)
        begun = time.monotonic()
        try:
            if wanted <= self.req.unreader.buf.tell() and self.left is not None:
                # it came with the head, as small ones do: no timer is needed
                piece = self.body.read(wanted)
            else:
                late = Problem(408, "The request did not arrive in time.")
                with gevent.Timeout(max(self.deadline - begun, 0.001), late):
                    piece = self.body.read(wanted)
        except OSError:
            # the end where more is to come, or a reset
            piece = b""
            self.left = 1
        finally:
            self.seconds_received += time.monotonic() - begun
        if self.left is None:
            self.ended = not piece
        elif len(piece) < wanted:
            self.body.failed = True
            raise Problem(400, "The connection ended before the request was whole.")
        else:
            self.left -= len(piece)
            self.ended = self.left == 0
        self.held += len(piece)
        self.worker.held += len(piece)
        if self.worker.held > self.worker.max_held:
            raise Overloaded
        return piece

    @property
    def must_close(self) -> bool:
        """Whether so much of the body is unread that the connection has to end with the answer."""
        return not self.ended and (self.left is None or self.left > MAX_UNREAD or self.body.failed)
