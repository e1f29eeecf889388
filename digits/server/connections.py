"""Connections as digits/server/worker.py needs them: accepted many at a time, closed while they are idle, asked
how long their request has waited, and answered when what they send is not HTTP."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.http import errors
from werkzeug.test import create_environ, run_wsgi_app

from digits.serving.errors import Problem

# a peer that takes nothing of its answer for so long is gone (RFC 5482)
USER_TIMEOUT_MS = 20_000

# of a worker: as long as it has no more, workers share newcomers evenly
FEW_CONNECTIONS = 40

STATUSES = {
    errors.LimitRequestLine: (HTTPStatus.REQUEST_URI_TOO_LONG, "The request line is too long."),
    errors.LimitRequestHeaders: (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "The headers are too many or too long.",
    ),
    errors.ExpectationFailed: (
        HTTPStatus.EXPECTATION_FAILED,
        "The header Expect may only be 100-continue.",
    ),
}


class Server(StreamServer):
    """Accepts connections for a worker; also those that the kernel has already accepted when it closes."""

    def __init__(self, listener: Any, handle: Callable[..., None], **options: Any) -> None:
        # gunicorn asks for the listener's name with every connection, also when it is closed
        name = listener.getsockname()
        if hasattr(socket, "TCP_USER_TIMEOUT") and listener.family != socket.AF_UNIX:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        super().__init__(listener, partial(handle, SimpleNamespace(getsockname=lambda: name)), **options)

    def set_spawn(self, spawn: Any) -> None:
        """Begin with a new connection at once, not behind the predictions that wait in line: it may be a health
        check's."""
        super().set_spawn(spawn)
        later: Callable[..., Any] = self._spawn

        def begin(*args: Any) -> None:
            # only the loop may be left in the middle; the worker itself accepts when it stops
            if gevent.getcurrent() is not gevent.get_hub():
                later(*args)
                return
            greenlet = gevent.Greenlet(*args)
            self.pool.add(greenlet)
            greenlet.switch()

        self._spawn: Callable[..., Any] = begin

    @property
    def max_accept(self) -> int:
        """Connections to accept in a turn of the loop: one while there are few, so that all workers get some; many
        when there are many, as a turn then takes long."""
        return 1 if len(self.pool) < FEW_CONNECTIONS else 64

    def close(self) -> None:
        """Stop accepting, but first hand over the connections that are waiting, as far as the pool has room."""
        # gunicorn closes a second time where the grace time was too short
        if not self.closed:
            self.stop_accepting()
            with suppress(OSError):
                while not self.full() and (accepted := self.do_read()) is not None:
                    self.do_handle(*accepted)
        super().close()


class Idle:
    """The wait of a connection for its next request, as a context. `waiting` holds those that wait, longest first.

    Cheaper than a gevent.Timeout, of which each request would start a timer: the worker looks once a second.
    """

    def __init__(self, waiting: dict[Idle, None]) -> None:
        self.waiting = waiting

    def __enter__(self) -> Idle:
        self.greenlet, self.since = gevent.getcurrent(), time.monotonic()
        self.waiting[self] = None
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        self.waiting.pop(self, None)
        return isinstance(error, gevent.Timeout)

    def close_soon(self) -> None:
        """Close the connection, unless its next request is there before the loop's next turn."""
        gevent.get_hub().loop.run_callback(self._close)

    def _close(self) -> None:
        if self in self.waiting:
            self.greenlet.throw(gevent.Timeout())


def seconds_waited(client: Any) -> float:
    """How long a request has lain in the kernel; 0 if unknown."""
    if not hasattr(socket, "TCP_INFO") or client.family == socket.AF_UNIX:
        return 0.0
    # tcpi_last_data_recv of struct tcp_info (linux/tcp.h), in milliseconds
    (milliseconds,) = struct.unpack_from("I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56), 52)
    return milliseconds / 1000


def answer_malformed(app: Callable[..., Any], client: Any, error: errors.ParseException) -> None:
    """Send a client the app's problem for what gunicorn's parser refused to read."""
    no_http = HTTPStatus.BAD_REQUEST, f"The request is not valid HTTP ({type(error).__name__})."
    status, detail = STATUSES.get(type(error), no_http)
    problem = Problem(status.value, detail)
    # no method and no path: it is not known what was asked for
    environ = create_environ() | {"REQUEST_METHOD": "-", "digits.problem": problem}
    body, line, headers = run_wsgi_app(app, environ)
    head = [f"HTTP/1.1 {line}", "Connection: close", *(f"{name}: {value}" for name, value in headers)]
    client.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + b"".join(body))


class Buffered:
    """A client's socket that sends the head of an answer and its body at once, where gunicorn sends one by one."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.head: bytes | None = None

    def sendall(self, data: bytes) -> None:
        """Keep what comes first; send it with what comes next."""
        if self.head is None:
            self.head = data
        else:
            self.client.sendall(self.head + data if self.head else data)
            self.head = b""

    def flush(self) -> None:
        """Send what is kept: the head of an answer without a body, or of a file."""
        if self.head:
            self.client.sendall(self.head)
            self.head = b""

    def sendfile(self, *args: Any, **options: Any) -> int:
        """Send a file, after what is kept."""
        self.flush()
        return self.client.sendfile(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)
