"""Generates load and records the result of every request. It is a separate process, so that it does not
compete with the test for Python's lock. It writes an array with one row per request.

    python tests/support/load.py '{"port": 5000, "connections": 16, "seconds": 5, "out": "fates.npy"}'
"""

from __future__ import annotations

import errno
import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from project import ROOT

# results other than an HTTP status: the connection was refused; it was closed before the end of the answer; there
# was no answer in time; the answer was wrong
REFUSED, LOST, SILENT, WRONG = -1, -2, -3, -4

# sent: seconds on the monotonic clock. took: seconds from connecting (on a persistent connection, from the
# request) to the end of the answer. kept: whether the connection had been used before. version: the model's, 0 if
# unknown
FATE = np.dtype(
    [("sent", "f8"), ("took", "f8"), ("status", "i4"), ("kept", "?"), ("version", "i8"), ("retry", "?")]
)

SAMPLE = (ROOT / "sample_request.json").read_bytes()


def post(body: bytes = SAMPLE, kind: str = "application/json", path: str = "/predict") -> bytes:
    """The bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(eq=False)
class Client:
    """A connection, with the unsent rest of its request and the received part of the answer."""

    socket: socket.socket
    started: float
    unsent: bytes
    answer: bytes = b""
    kept: bool = False
    connected: bool = False
    busy: bool = True


@dataclass
class Load:
    """Sends requests to 127.0.0.1:port for some seconds.

    rate: requests per second, independent of the answers, on at most `connections`; None: each connection sends
    its next request after the answer. keep: whether connections are persistent. expect: bytes that a 200 must
    contain.
    """

    port: int
    connections: int
    seconds: float
    request: bytes = field(default_factory=post)
    rate: float | None = None
    keep: bool = True
    expect: bytes = b'"predicted_digit":7'
    patience: float = 10.0

    def run(self) -> np.ndarray:
        """Send the requests, and return the result of each."""
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.free: deque[Client] = deque()
        self.fates: list[tuple] = []
        begun = time.monotonic()
        self.end = begun + self.seconds
        offered = 0
        if self.rate is None:
            for _ in range(self.connections):
                self.connect()
        while True:
            now = time.monotonic()
            if now < self.end and self.rate is not None:
                due = int((now - begun) * self.rate)
                while offered < due and (self.free or len(self.clients) < self.connections):
                    self.ask(self.free.popleft()) if self.free else self.connect()
                    offered += 1
            if now >= self.end and (
                not any(c.busy for c in self.clients.values()) or now > self.end + self.patience
            ):
                break
            for fd, event in self.poll.poll(0.001 if self.rate and now < self.end else 0.05):
                if client := self.clients.get(fd):
                    self.happened(client, event)
        for client in list(self.clients.values()):
            if client.busy:
                self.ended(client, SILENT)
            else:
                self.forget(client)
        return np.array(self.fates, FATE)

    def connect(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Client(sock, time.monotonic(), self.request)
        code = sock.connect_ex(("127.0.0.1", self.port))
        if code not in (0, errno.EINPROGRESS):
            self.fates.append((client.started, 0.0, REFUSED, False, 0, False))
            sock.close()
            return
        self.clients[sock.fileno()] = client
        self.poll.register(sock, select.EPOLLIN | select.EPOLLOUT)

    def ask(self, client: Client) -> None:
        """Send the next request on a persistent connection."""
        client.started, client.answer, client.kept, client.busy = time.monotonic(), b"", True, True
        client.unsent = self.request
        self.write(client)
        if client.unsent and client.busy:
            self.poll.modify(client.socket, select.EPOLLIN | select.EPOLLOUT)

    def write(self, client: Client) -> None:
        try:
            client.unsent = client.unsent[client.socket.send(client.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # an answer may have arrived anyway
            client.unsent = b""

    def happened(self, client: Client, event: int) -> None:
        if not client.connected:
            code = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.ended(client, REFUSED if code == errno.ECONNREFUSED else LOST)
                return
            client.connected = True
        if event & select.EPOLLOUT and client.unsent:
            self.write(client)
            if not client.unsent:
                self.poll.modify(client.socket, select.EPOLLIN)
        if event & ~select.EPOLLOUT:
            try:
                data = client.socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            client.answer += data
            if not data:
                if client.busy:
                    self.ended(client, LOST)
                else:
                    self.forget(client)
            elif client.busy:
                self.read(client)

    def read(self, client: Client) -> None:
        head, blank, body = client.answer.partition(b"\r\n\r\n")
        if not blank:
            return
        low = head.lower()
        at = low.index(b"\r\ncontent-length:") + 17
        if len(body) < int(low[at : (low + b"\r\n").index(b"\r\n", at)]):
            return
        status = int(head[9:12])
        at = low.find(b"\r\nx-model-version: ")
        version = int(low[at + 19 : at + 31], 16) if at >= 0 else 0
        if status == 200 and self.expect not in body:
            status = WRONG
        self.ended(client, status, version, b"\r\nretry-after:" in low, b"\r\nconnection: close" not in low)

    def ended(
        self, client: Client, status: int, version: int = 0, retry: bool = False, keep: bool = False
    ) -> None:
        now = time.monotonic()
        self.fates.append((client.started, now - client.started, status, client.kept, version, retry))
        client.busy = False
        if keep and self.keep and now < self.end:
            if self.rate is None:
                self.ask(client)
            else:
                self.free.append(client)
            return
        self.forget(client)
        if self.rate is None and now < self.end:
            # after a refusal, retry a little later, like a client
            if status == REFUSED:
                time.sleep(0.001)
            self.connect()

    def forget(self, client: Client) -> None:
        if client in self.free:
            self.free.remove(client)
        self.clients.pop(client.socket.fileno(), None)
        client.socket.close()


class Running:
    """A Load in a separate process."""

    def __init__(self, out: Path, **options: Any) -> None:
        self.out = out
        options = {k: v.decode("latin-1") if isinstance(v, bytes) else v for k, v in options.items()}
        command = [sys.executable, __file__, json.dumps(options | {"out": str(out)})]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        # Python needs some time to start
        assert self.process.stdout
        assert self.process.stdout.readline() == b"begun\n"

    def fates(self) -> np.ndarray:
        """Wait until it has ended, and return the result of each request."""
        assert self.process.wait(200) == 0
        return np.load(self.out)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    out = options.pop("out")
    options |= {k: options[k].encode("latin-1") for k in ("request", "expect") if k in options}
    load = Load(**options)
    print("begun", flush=True)
    np.save(out, load.run())
