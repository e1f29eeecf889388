"""The stream from which the app reads a request's body (`wsgi.input`). It limits the time and memory that a
body takes, reports incomplete bodies as errors, and lets other requests continue while it reads a large one."""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http.body import ChunkedReader

from digits.web.messages import BodyTooLarge
from digits.web.problems import Overloaded, Problem
from digits.web.settings import Settings

# bytes to read before other requests continue
READ_SIZE = 1 << 16
# the same for forms, whose parts are parsed meanwhile: 16 KiB may be 300 of them, which take about 10 ms
FORM_SIZE = 1 << 14
# a body with more chunks than the first number must have more bytes in each than the second on average, because
# each takes as long as some hundred bytes; others continue after each GIVE_WAY chunks, half a millisecond
FREE_CHUNKS, LEAST_CHUNK, GIVE_WAY = 4096, 64, 64
# up to this many unread bytes are discarded to keep the connection open
MAX_UNREAD = 1 << 16
# bodies of up to the first number of bytes have room for the second number that larger ones can't take
SMALL_BODY, SMALL_ROOM = 1 << 16, 8 << 20
# the room for larger ones, in addition to one of the largest size
MORE_ROOM = 16 << 20
# a body is not dropped for others in its first second
NEW_SECONDS = 1.0


class Room:
    """The memory that a worker has for bodies, small and large ones separately."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.most = {False: SMALL_ROOM, True: settings.max_body_bytes + MORE_ROOM}
        self.used = {False: 0, True: 0}
        self.bodies: set[Body] = set()

    def hold(self, body: Body, size: int) -> None:
        """Count `size` more bytes of a body. If there is no room, drop the slowest that is still arriving; raise
        Overloaded if that does not suffice."""
        self.used[body.large] -= body.held
        body.held += size
        large = body.large
        self.used[large] += body.held
        self.bodies.add(body)
        while self.used[large] > self.most[large]:
            slow = [each for each in self.bodies if each.large == large and each.may_drop()]
            if not slow or slow == [body]:
                raise Overloaded
            slowest = min(slow, key=Body.rate)
            self.leave(slowest)
            slowest.drop()

    def leave(self, body: Body) -> None:
        """Count a body no longer, because it was dropped or its request is answered."""
        self.used[body.large] -= body.held
        self.bodies.discard(body)
        body.held = 0


class Chunks(ChunkedReader):
    """gunicorn's reader of chunked bodies. It also raises BodyTooLarge before it reads a chunk over the limit, and
    Problem 400 if most of the body is framing, and lets other requests continue by number of chunks."""

    def __init__(self, req: Any, limit: int) -> None:
        super().__init__(req, req.unreader)
        self.limit, self.count, self.size = limit, 0, 0

    def parse_chunk_size(self, unreader: Any, data: Any = None) -> tuple[int, Any]:
        """The size of the next chunk, and the bytes that have been read after it."""
        size, rest = super().parse_chunk_size(unreader, data)
        self.count += 1
        self.size += size
        if self.size > self.limit:
            raise BodyTooLarge
        if self.count > FREE_CHUNKS and size and self.size < LEAST_CHUNK * self.count:
            raise Problem(400, "The body consists of very many small chunks. Send larger ones.")
        if self.count % GIVE_WAY == 0:
            gevent.sleep(0)
        return size, rest


class Body(io.RawIOBase):
    """A binary stream whose reads raise `Problem`: 400 if the body is cut short, 408 if it takes longer than
    DIGITS_RECEIVE_SECONDS or is dropped for others, 503 if there is no room for it.

    Attributes:
        held: number of bytes read so far.
        seconds_received: time spent waiting for them, in seconds.
        ended: whether the body has been read completely.
    """

    def __init__(self, req: Any, room: Room) -> None:
        self.req, self.room, self.body = req, room, req.body
        # bytes still to read; None if chunked
        self.left: int | None = getattr(self.body.reader, "length", None)
        if isinstance(self.body.reader, ChunkedReader):
            self.body.reader = Chunks(req, room.settings.max_body_bytes)
        self.begun = time.monotonic()
        self.held = 0
        self.seconds_received = 0.0
        self.ended = self.left == 0
        self.dropped = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(min(len(buffer), FORM_SIZE))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        first = self._read(READ_SIZE)
        if self.ended:
            return first
        # without a list of parts, which would take the memory twice
        parts = io.BytesIO(first)
        parts.seek(0, io.SEEK_END)
        while data := self._read(READ_SIZE):
            parts.write(data)
        return parts.getvalue()

    def _read(self, size: int) -> bytes:
        if self.ended or not size:
            return b""
        if self.held:
            gevent.sleep(0)
        size = min(size, READ_SIZE)
        size = size if self.left is None else min(size, self.left)
        begun = time.monotonic()
        try:
            if size <= self.req.unreader.buf.tell() and self.left is not None:
                # already received with the head, as small bodies are, so no timer is needed
                data = self.body.read(size)
            else:
                late = Problem(408, "The request did not arrive in time.")
                deadline = self.begun + self.room.settings.receive_seconds
                with gevent.Timeout(max(deadline - begun, 0.001), late):
                    data = self.body.read(size)
        except OSError:
            # the connection was closed in the middle of a body, or reset
            data = b""
            self.left = 1
        finally:
            self.seconds_received += time.monotonic() - begun
        if self.dropped:
            raise Problem(408, "The request arrived too slowly while others needed its room.")
        if self.left is None:
            self.ended = not data
        elif len(data) < size:
            self.body.failed = True
            raise Problem(400, "The connection was closed before the request was complete.")
        else:
            self.left -= len(data)
            self.ended = self.left == 0
        self.room.hold(self, len(data))
        return data

    @property
    def large(self) -> bool:
        """Whether it counts as a large body so far."""
        return self.held > SMALL_BODY

    def may_drop(self) -> bool:
        """Whether the body is still arriving and not new."""
        return not self.ended and time.monotonic() - self.begun > NEW_SECONDS

    def rate(self) -> float:
        """The bytes that have arrived a second."""
        return self.held / (time.monotonic() - self.begun)

    def drop(self) -> None:
        """End the body, so that its request gets 408."""
        self.dropped = True
        with suppress(OSError):
            self.req.unreader.sock.shutdown(socket.SHUT_RD)

    @property
    def must_close(self) -> bool:
        """Whether too much of the body is unread to keep the connection open after the answer."""
        return not self.ended and (self.left is None or self.left > MAX_UNREAD or self.body.failed)
