"""Connections: accept many at a time, ask the kernel how long a request has waited and whether its client has
left, send an answer in one piece, and answer requests that are not valid HTTP."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.http import errors
from werkzeug.test import create_environ, run_wsgi_app

from digits.web.problems import Problem

# close the connection of a client that reads nothing of its answer for this long (RFC 5482)
USER_TIMEOUT_MS = 20_000

# accept many connections after this many iterations of the event loop in a row that had one
BUSY_ITERATIONS = 16

# the status and the detail of the answer to what gunicorn's parser refuses
STATUSES = {
    errors.LimitRequestLine: (414, "The request line is too long."),
    errors.LimitRequestHeaders: (431, "There are too many headers, or one is too long."),
    errors.ExpectationFailed: (417, "The header Expect must be 100-continue."),
}


class Server(StreamServer):
    """Accepts connections for a worker. When it closes, it still accepts those that wait in the kernel's queue."""

    def __init__(
        self, listener: Any, handle: Callable[..., None], cut_off: Callable[[], None], **options: Any
    ) -> None:
        self.cut_off = cut_off
        # gunicorn asks for the listener's name for every connection, even after the listener was closed
        name = listener.getsockname()
        # the last iteration of the event loop with a new connection, and how many of these were in a row
        self.iteration = self.busy = 0
        if hasattr(socket, "TCP_USER_TIMEOUT") and listener.family != socket.AF_UNIX:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        super().__init__(listener, partial(handle, SimpleNamespace(getsockname=lambda: name)), **options)

    def set_spawn(self, spawn: Any) -> None:
        """Handle a new connection at once, before the predictions that wait, because it may be a health check."""
        super().set_spawn(spawn)
        later: Callable[..., Any] = self._spawn

        def begin(*args: Any) -> None:
            # only the hub can switch to the new greenlet; when the worker stops, the caller is another greenlet
            if gevent.getcurrent() is not gevent.get_hub():
                later(*args)
                return
            greenlet = gevent.Greenlet(*args)
            self.pool.add(greenlet)
            greenlet.switch()

        self._spawn: Callable[..., Any] = begin

    @property
    def max_accept(self) -> int:
        """The number of connections to accept in one iteration of the event loop: one, so that a few connections
        are spread over all workers, but many if some waited in each of the last iterations, because a health check
        may wait behind them."""
        iteration = self.loop.iteration
        self.busy = self.busy + 1 if iteration == self.iteration + 1 else 1
        self.iteration = iteration
        return 1 if self.busy < BUSY_ITERATIONS else 64

    def stop(self, timeout: float | None = None) -> None:
        """Cut off what still runs after the grace time."""
        self.cut_off()
        super().stop(timeout)

    def close(self) -> None:
        """Stop accepting, but still take the connections that already wait, as far as the pool has room."""
        # gunicorn closes a second time if the grace time was too short
        if not self.closed:
            self.stop_accepting()
            with suppress(OSError):
                while not self.full() and (accepted := self.do_read()) is not None:
                    self.do_handle(*accepted)
        super().close()


def seconds_waited(client: Any) -> float:
    """Seconds for which a request has waited in the kernel; 0 if unknown."""
    if not hasattr(socket, "TCP_INFO") or client.family == socket.AF_UNIX:
        return 0.0
    # tcpi_last_data_recv of struct tcp_info (linux/tcp.h), in milliseconds
    (milliseconds,) = struct.unpack_from("I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56), 52)
    return milliseconds / 1000


class DisconnectCheck:
    """Finds out whether a client has disconnected before its answer.

    A client that has only ended its side of the connection is told to continue, which clients ignore. From one
    that has closed it, the answer to that is a reset.
    """

    def __init__(self, client: Any) -> None:
        self.client, self.asked = client, False

    def has_disconnected(self) -> bool:
        """Whether the client has closed or reset its connection."""
        if hasattr(self.client, "pending"):
            # TLS can't look at bytes without reading them
            return False
        self.client.setblocking(False)
        try:
            if self.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return True
            if not self.client.recv(1, socket.MSG_PEEK) and not self.asked:
                self.asked = True
                self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.client.setblocking(True)


def answer_malformed(app: Callable[..., Any], client: Any, error: errors.ParseException) -> None:
    """Answer a request that gunicorn's parser has refused with the app's problem details."""
    default = 400, f"The request is not valid HTTP ({type(error).__name__})."
    # the method and path are unknown
    problem = Problem(*STATUSES.get(type(error), default))
    environ = create_environ() | {"REQUEST_METHOD": "-", "digits.problem": problem}
    body, line, headers = run_wsgi_app(app, environ)
    head = [f"HTTP/1.1 {line}", "Connection: close", *(f"{name}: {value}" for name, value in headers)]
    client.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + b"".join(body))


class Buffered:
    """A client's socket that sends the head and the body of an answer together; gunicorn sends them separately."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.head: bytes | None = None

    def sendall(self, data: bytes) -> None:
        """Keep the first data, and send it together with the next."""
        if self.head is None:
            self.head = data
        else:
            self.client.sendall(self.head + data if self.head else data)
            self.head = b""

    def flush(self) -> None:
        """Send the data that was kept, which is the head of an answer without a body."""
        if self.head:
            self.client.sendall(self.head)
            self.head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)
