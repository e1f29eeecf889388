"""gunicorn's threaded worker with a short way for small POSTs: one that has arrived whole is answered by the
loop that found it, with no thread between. gunicorn.conf.py is to name it: "digits.worker.Worker".

Why: the network takes a fraction of a millisecond, no more than handing a request to a thread and back
(a queue, a pipe, two switches of the GIL). One at a time, in the order the kernel reports them, also keeps
the tail short and lets no connection starve. Whatever could make the loop wait (a new connection, a body that
is large, chunked or still on its way, a client that does not read its answers, TLS) goes to gunicorn's
threads as before. Parsing, limits, timeouts and graceful stop are gunicorn's own code either way.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import termios
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

# holds an image as JSON (2 to 4 KB) with a browser's headers; larger requests cost more than a thread does
SMALL = 8192

# a client that lets an answer wait so long is cut off; only one that stopped reading makes the loop wait
SEND_SECONDS = 1

# only decides which way a request takes; what its headers mean is decided by gunicorn's parser
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,4})[ \t]*(?=\r\n)", re.IGNORECASE)
SLOW = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade)", re.IGNORECASE)

# what gunicorn's parser refuses is 400 but for these; also an unknown transfer coding, the client's mistake
STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
}


def arrived_whole(client: socket.socket) -> bool:
    """Whether one small POST waits in `client`'s buffer in full, so that reading it cannot block.

    Looks (MSG_PEEK) without taking. False when unsure, for example with two lengths or none.
    """
    try:
        waiting = client.recv(SMALL, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    end = waiting.find(b"\r\n\r\n")
    if end < 0 or not waiting.startswith(b"POST "):
        return False
    head = waiting[: end + 2]
    lengths = LENGTH.findall(head)
    return len(lengths) == 1 and len(waiting) >= end + 4 + int(lengths[0]) and not SLOW.search(head)


def reads_answers(client: socket.socket) -> bool:
    """Whether all that was sent has been received, so that a small answer fits into the kernel's buffer."""
    try:
        (unsent,) = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return False
    return unsent == 0


def limit_sending(client: socket.socket, seconds: int) -> None:
    """Make a blocked send fail after `seconds`; 0 lets it wait for ever."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, 0))


class Worker(ThreadWorker):
    """gthread that answers small whole POSTs in its loop."""

    def on_client_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """A kept-alive connection has something to read: answer at once, or leave it to a thread."""
        if self.cfg.is_ssl or conn.is_http2 or not arrived_whole(client) or not reads_answers(client):
            super().on_client_socket_readable(conn, client)
            return
        self.keepalived_conns.remove(conn)
        limit_sending(client, SEND_SECONDS)
        goes_on = self.handle(conn)
        if goes_on and self.alive and not conn.parser.unreader.buf.getvalue():
            # stays registered with the poller: two system calls less a request
            limit_sending(client, 0)
            conn.sock.setblocking(False)
            conn.set_timeout()
            self.keepalived_conns.append(conn)
            return
        self.poller.unregister(client)
        if goes_on:
            limit_sending(client, 0)
        # the rest (another request is already read, a stop, a closed connection) as if a thread had answered
        done: Future[bool] = Future()
        done.set_result(goes_on)
        self.finish_request(conn, done)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what is no HTTP as any other problem, and log only what kind of mistake it is.

        gunicorn's own way tells the line at fault, in which a key or pixels may be, to the log.
        """
        ours = isinstance(exc, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName)
        if ours or not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status, reason = STATUSES.get(type(exc), HTTPStatus.BAD_REQUEST), type(exc).__name__
        request_id = os.urandom(16).hex()
        self.log.warning(
            "not HTTP", extra={"request_id": request_id, "reason": reason, "status": status.value}
        )
        problem = {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": f"The request is not HTTP that is taken here ({reason}).",
            "request_id": request_id,
        }
        body = json.dumps(problem, separators=(",", ":")).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\n"
            f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-ID: {request_id}\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            write_nonblock(client, head.encode() + body)
