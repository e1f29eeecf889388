"""gunicorn's threaded worker with a loop of its own, in which nobody waits for a client and nothing waits for
long. gunicorn.conf.py names it: "digits.server.worker.Worker".

The loop alone reads and sends, and never blocks: a request is taken up once it has arrived whole, its answer is
collected and sent as the client takes it. So a slow or broken client costs memory and a descriptor, never a
thread. Small predictions are answered by the loop itself, for handing one to a thread and back takes as long as
the network; whatever may take long (pictures, batches, pages, metrics) goes to gunicorn's threads.

What has arrived stands in a queue. Who would have to wait there longer than DIGITS_MAX_WAIT_MS is told so at
once (503, digits/server/refusals.py), for microseconds instead of a prediction's time; health checks go
first. Parsing, its limits, the heartbeat and signals are gunicorn's own code.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import Any

from gunicorn.http import errors
from gunicorn.workers.gthread import TConn, ThreadWorker

from digits.server import master
from digits.server.heads import LENGTH, Parser
from digits.server.refusals import Refusals
from digits.server.share import NOBODY
from digits.serving.settings import Settings

# holds an image as JSON (2 to 4 KB) with a browser's headers; larger requests cost more than a thread does
SMALL = 8192
# a string that is longer may be a picture, of which a few kilobytes can take a fifth of a second
SHORT = 128
# a request line and headers that are longer than this are for gunicorn's parser to refuse
LONGEST_HEAD = 65536
# bytes of bodies under way or at work that a worker holds at most, where one body is not larger
MOST_HELD = 64 << 20
# of a body that the app did not read, thrown away to keep the connection
MOST_UNREAD = 65536

# the share of DIGITS_MAX_WAIT_MS up to which a queue is no overload
LITTLE = 0.2

# of the threads, where the loop's is 0
THREAD_NICE = 5
# for a worker with fewer clients to let newcomers in, and how often to look whether it has
LEAVE_SECONDS = 0.015
LOOK_SECONDS = 0.001
# clients that a turn lets in at most, and requests that it reads of clients whose last one was refused
MOST_A_TURN = 64
# who has asked nothing for so long, and who has not said a whole request in so long, makes no work
QUIET_SECONDS = 1.0
FRESH_SECONDS = 0.05
# how long the loop answers before it looks for what has come meanwhile
TURN_SECONDS = 0.005
# the client may have sent its next request already when a stopping worker would close the connection
LINGER_SECONDS = 2.0
# for a client to read what was sent before the connection ends, while what it still sends is thrown away
CLOSE_SECONDS = 2.0
# for a client to take more of its answer
TAKE_SECONDS = 20.0
# connections that wait for that at once
MOST_CLOSING = 512
# a newcomer may take the place of a connection that has not said a whole request for so long
SLOW_SECONDS = 2.0

HEALTH = (b"GET /health/", b"GET /v2/health/", b"HEAD /health/", b"HEAD /v2/health/")
BUSY = (503, "There is more to do than can be done now; try again in a second.")
LATE = (408, "The request did not arrive in time.")
SHORTER = (400, "The connection ended before the request was whole.")

# what gunicorn's parser refuses is 400 but for these; also an unknown transfer coding, the client's mistake
STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
}

UNKNOWN = -1
LAST_CHUNK = re.compile(rb"\r\n0+[ \t]*(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n")


def extent(received: bytes) -> int:
    """Bytes of the first request in `received`: 0 if that is still to come, UNKNOWN if only a parser can tell.

    Decides no more than when and where it is parsed; anything odd (two lengths, chunked) is UNKNOWN.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0 if len(received) <= LONGEST_HEAD else UNKNOWN
    head = received[: end + 2].lower()
    if b"\r\ntransfer-encoding" in head:
        return UNKNOWN
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return end + 4
    stated = LENGTH.match(head, at)
    if stated is None or b"\r\ncontent-length" in head[stated.end(1) :]:
        return UNKNOWN
    return end + 4 + int(stated[1])


def chunked_whole(received: bytes, start: int) -> bool:
    """Whether a chunked request's last chunk, and the trailers after it, lie in `received` from `start` on.

    May be deceived by a body that holds the same bytes; the parser then finds it cut short and refuses it.
    """
    return LAST_CHUNK.search(received, start) is not None


def is_quick(request: bytes) -> bool:
    """Whether answering takes about a millisecond: a small POST of pixels, as JSON or raw, without a picture."""
    if len(request) > SMALL or not request.startswith(b"POST "):
        return False
    end = request.find(b"\r\n\r\n")
    head, body = request[:end].lower(), request[end + 4 :]
    if b"\r\ncontent-type: application/json" in head:
        # no backslash: every quote begins or ends a string, so all strings are among the odd parts
        return b"\\" not in body and max(map(len, body.split(b'"')[1::2]), default=0) < SHORT
    return b"\r\ncontent-type: application/octet-stream" in head and b"\r\ninference-header" not in head


class Collected:
    """What gunicorn takes for the client's socket while it answers: keeps what is sent, has nothing to read."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)

    def send(self, data: bytes) -> int:
        self.parts.append(data)
        return len(data)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        file.seek(offset)
        return self.send(file.read(count))

    def recv(self, size: int) -> bytes:
        return b""

    def gettimeout(self) -> float:
        return 0.0

    def _nothing(self, *args: Any) -> None:
        pass

    setblocking = settimeout = shutdown = close = _nothing


class Connection(TConn):
    """A client: its socket, what it has sent of a request, and what it is still to get of an answer."""

    def __init__(self, cfg: Any, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(cfg, Collected(), address, server)
        client.setblocking(False)
        self.client_socket = client
        self.parser = Parser(cfg, (), address)
        self.initialized = True
        # requests that were read are in the parser's buffer, `have` bytes; the first is `need` bytes long.
        # While it is sent, `have` is what is left of an answer
        self.have = self.need = self.scanned = 0
        # since: its request arrived, or it began to wait. waited: seconds before the loop saw it
        self.since = self.deadline = self.waited = 0.0
        # among whose connections it waits; None while it is answered
        self.group: dict[Connection, None] | None = None
        self.watched = 0
        # cut: answered without its whole body. refusal: instead of an answer. goes_on: after its answer
        self.cut = self.continued = False
        self.refusal: tuple[int, str] | None = None
        self.goes_on = True
        # its last request was refused for there being too much to do
        self.shed = False
        # quick: the loop answers it. may_refuse: when there is too much to do. seconds: a thread took for it
        self.quick = self.may_refuse = False
        self.seconds = 0.0

    def next_request(self) -> None:
        """Forget the request that was answered; another may already lie in the buffer."""
        self.need = self.scanned = 0
        self.waited = 0.0
        self.cut = self.continued = False
        self.shed = self.refusal is BUSY
        self.refusal = None

    def send(self) -> bool:
        """Send as much of the answer as the client takes now; whether that was all. OSError if it is gone."""
        if not self.sock.parts:
            return True
        data = b"".join(self.sock.parts)
        try:
            sent = self.client_socket.send(data)
        except BlockingIOError:
            sent = 0
        self.sock.parts = [data[sent:]] if sent < len(data) else []
        return not self.sock.parts


class Worker(ThreadWorker):
    """gthread whose loop reads, sorts, refuses and sends, and answers what is quick."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Stop at start where gunicorn is told to speak what this loop does not."""
        if cfg.is_ssl or "h2" in cfg.http_protocols or cfg.proxy_protocol != "off" or cfg.protocol != "http":
            log.critical(
                "digits.server.worker speaks HTTP/1.1 only: for TLS, HTTP/2 or PROXY take --worker-class gthread"
            )
            sys.exit(1)

    def init_process(self) -> None:
        # gunicorn looks up some thirty settings a request, each by two calls; a worker's never change
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        settings = Settings.from_env(os.environ)
        self.max_wait = settings.max_wait_ms / 1000
        self.receive_seconds = settings.receive_seconds
        self.max_body = settings.max_body_bytes
        self.most_held = max(MOST_HELD, 2 * settings.max_body_bytes)
        # what waits to be answered by the loop: first what goes first
        self.first: deque[Connection] = deque()
        self.queue: deque[Connection] = deque()
        # in threads or waiting for one; bytes held; seconds that a quick and any other prediction usually takes
        self.pooled = self.held = 0
        self.quick_seconds = self.pool_seconds = 0.001
        # connections that wait for their client, the longest first; quiet are those that have been idle for long
        self.quiet: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        self.arriving: dict[Connection, None] = {}
        self.sending: dict[Connection, None] = {}
        self.closing: dict[Connection, None] = {}
        self.waiting = (self.quiet, self.idle, self.arriving, self.sending, self.closing)
        # being answered, though the client will ask no more
        self.ended: set[Connection] = set()
        self.now = time.monotonic()
        # newcomers to let in at once while there are more of them, turn after turn
        self.at_once = 1
        self.newcomers = False
        self.to_read = MOST_A_TURN
        # when to accept again, if it does not; since when newcomers have been left to others
        self.look_again, self.left_since = 0.0, math.inf
        self.refused = self.turned_down = 0
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.cfg.threads, initializer=stand_back)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.refusals = Refusals(self.wsgi)

    # the loop

    def run(self) -> None:
        """Serve until told to stop, then finish what has been begun."""
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self.set_accept_enabled(True)
        next_second = 0.0
        while self.alive:
            self.turn()
            if (now := time.monotonic()) >= next_second:
                next_second = now + 1
                if not self.is_parent_alive():
                    break
                self.every_second(now)
        self.stop()
        self.tpool.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()

    def stop(self) -> None:
        """Answer all that was accepted, and close what has nothing more to say, within the grace time."""
        # so also when the master is gone
        self.alive = False
        self.set_accept_enabled(False)
        self.share()
        # whoever the kernel has let in is answered too; from then on it lets nobody in
        for listener in self.sockets:
            listener.setblocking(False)
            self.at_once = self.cfg.backlog
            self.accept(listener)
            listener.close()
        now = time.monotonic()
        # the master kills at the end of the grace time
        deadline = now + max(self.cfg.graceful_timeout - 1, 0.5)
        for conn in (*self.quiet, *self.idle, *(conn for conn in self.arriving if not conn.have)):
            conn.deadline = min(conn.deadline, now + LINGER_SECONDS)
        while self.nr_conns and now < deadline:
            self.turn(0.05)
            now = time.monotonic()
            self.expire(now)
        for conn in chain.from_iterable(map(tuple, self.waiting)):
            self.close(conn)

    def turn(self, wait: float = 1.0) -> None:
        """Look once what has come and been finished, then answer for a few milliseconds."""
        self.notify()
        self.now = time.monotonic()
        if self.alive and not self._accepting:
            if self.now >= self.look_again:
                self.set_accept_enabled(True)
            wait = min(wait, max(0.0, self.look_again - self.now))
        self.share()
        try:
            events = self.poller.select(0 if self.first or self.queue else wait)
        except InterruptedError:
            return
        self.now = now = time.monotonic()
        self.newcomers = False
        self.to_read = MOST_A_TURN
        for key, _ in events:
            key.data(key.fileobj)
        if not self.newcomers and self._accepting:
            self.at_once, self.left_since = 1, math.inf
        self.share()
        # taking in and refusing get half the time at most, or nobody would be answered
        now = time.monotonic()
        until = now + max(TURN_SECONDS, now - self.now)
        while self.first or (self.queue and now < until):
            conn = (self.first or self.queue).popleft()
            if conn.quick and conn.refusal is None and self.too_late(now - conn.since, self.queued_seconds()):
                conn.refusal = BUSY
            if conn.refusal is not None:
                self.refuse(conn)
                now = time.monotonic()
                continue
            conn.goes_on = self.handle(conn)
            self.finish(conn)
            begun, now = now, time.monotonic()
            if conn.quick:
                self.quick_seconds = towards(self.quick_seconds, now - begun)

    def every_second(self, now: float) -> None:
        """Close what has waited too long, and tell of what was refused."""
        self.expire(now)
        for conn in [conn for conn in self.idle if conn.since < now - QUIET_SECONDS]:
            del self.idle[conn]
            conn.group = self.quiet
            self.quiet[conn] = None
        self.refusals.beat()
        if self.refused:
            self.log.warning("%d requests refused in a second: more to do than can be done", self.refused)
        if self.turned_down:
            self.log.warning(
                "no descriptor or memory for a connection, %d times in a second", self.turned_down
            )
        self.refused = self.turned_down = 0

    def expire(self, now: float) -> None:
        """Close the connections whose client let its time pass; one that began a request is told so."""
        for group in self.waiting:
            for conn in [conn for conn in group if conn.deadline <= now]:
                if group is self.arriving and conn.have:
                    self.leave(conn)
                    conn.cut, conn.refusal = True, LATE
                    self.refuse(conn)
                else:
                    self.close(conn)

    # connections

    def accept(self, listener: Any) -> None:
        """Let clients in: one, and twice as many a turn while still more are waiting, so that workers share."""
        self.newcomers = True
        for _ in range(self.at_once):
            if self.leaves_newcomer():
                return
            try:
                client, address = listener.accept()
            except BlockingIOError:
                self.at_once = 1
                return
            except ConnectionAbortedError:
                continue
            except OSError:
                # no more descriptors or memory: make room, and look again in a second at the latest
                self.turned_down += 1
                if not self.make_room(0):
                    self.set_accept_enabled(False)
                    self.look_again = self.now + 1
                return
            self.nr_conns += 1
            conn = Connection(self.cfg, client, address, listener.getsockname())
            conn.waited = waited(client)
            conn.since = self.now - conn.waited
            if self.nr_conns > self.worker_connections and not self.make_room(SLOW_SECONDS):
                self.deny(conn)
                continue
            self.join(conn, self.arriving, self.receive_seconds)
            self.readable(conn)
        self.at_once = min(2 * self.at_once, MOST_A_TURN)

    def leaves_newcomer(self) -> bool:
        """Whether another worker has fewer clients and is to be given a moment to let the newcomer in."""
        if master.shares is None or not self.alive:
            return False
        clients, least = self.share(), master.shares.least()
        # of many, half as many again are as good as even, and it takes fewer turns to let them in
        if clients <= least + least // 2:
            return False
        self.left_since = min(self.left_since, self.now)
        if self.now - self.left_since > LEAVE_SECONDS:
            return False
        self.set_accept_enabled(False)
        self.look_again = self.now + LOOK_SECONDS
        return True

    def clients(self) -> int:
        """Connections that make work or may do so any moment: not those that wait for a slow client."""
        fresh = 0
        for conn in reversed(self.arriving):
            if conn.since < self.now - FRESH_SECONDS:
                break
            fresh += 1
        slow = len(self.quiet) + len(self.arriving) - fresh + len(self.sending) + len(self.closing)
        return self.nr_conns - slow - len(self.ended)

    def share(self) -> int:
        """Tell the other workers how many clients this one has, and return that.

        They are told of twice as many while it has something to answer before it can look for newcomers, for then
        it is not worth waiting for.
        """
        clients = self.clients()
        if master.shares is not None:
            told = 2 * clients + 2 if self.first or self.queue else clients
            master.shares.put(self.slot, told if self.alive else NOBODY)
        return clients

    def make_room(self, slow: float) -> bool:
        """Close the connection that has been idle longest, or has had its answer, or takes longer than `slow`."""
        oldest = next(chain(self.quiet, self.idle, self.closing), None)
        if oldest is None:
            oldest = next(iter(self.arriving), None)
            if oldest is None or self.now - oldest.since < slow:
                return False
        self.close(oldest)
        return True

    def deny(self, conn: Connection) -> None:
        """There are as many connections as there may be, and all are at work: refuse one unheard."""
        with contextlib.suppress(OSError):
            conn.parser.unreader.buf.write(conn.client_socket.recv(LONGEST_HEAD))
        conn.cut, conn.refusal = True, BUSY
        self.refuse(conn)

    def join(self, conn: Connection, group: dict[Connection, None], seconds: float) -> None:
        """Let `conn` wait for its client, at most so long."""
        conn.group = group
        if group is self.idle and not self.alive:
            seconds = min(seconds, LINGER_SECONDS)
        conn.deadline = self.now + seconds
        conn.since = self.now
        group[conn] = None
        self.watch(conn, selectors.EVENT_WRITE if group is self.sending else selectors.EVENT_READ)

    def leave(self, conn: Connection) -> None:
        """`conn` waits for its client no more."""
        if conn.group is not None:
            del conn.group[conn]
            conn.group = None

    def watch(self, conn: Connection, events: int) -> None:
        """Be called when `conn` can be read or written; 0: not at all."""
        if events == conn.watched:
            return
        if conn.watched:
            self.poller.unregister(conn.client_socket)
        if events:
            call = self.finish if events == selectors.EVENT_WRITE else self.readable
            self.poller.register(conn.client_socket, events, partial(_call, call, conn))
        conn.watched = events

    def close(self, conn: Connection) -> None:
        """End a connection at once."""
        self.leave(conn)
        self.watch(conn, 0)
        self.hold(conn, 0)
        self.ended.discard(conn)
        self.nr_conns -= 1
        conn.client_socket.close()

    def hold(self, conn: Connection, size: int) -> None:
        """`conn` holds so many bytes from now on; what is small is not worth counting."""
        if conn.have > SMALL:
            self.held -= conn.have
        if size > SMALL:
            self.held += size
        conn.have = size

    def readable(self, conn: Connection) -> None:
        """The client has sent something, or has ended its side."""
        if conn.group is None:
            # more than one request, or the end; to be looked at when this one is answered
            self.watch(conn, 0)
            with contextlib.suppress(OSError):
                if not conn.client_socket.recv(1, socket.MSG_PEEK):
                    self.ended.add(conn)
            return
        if conn.group is self.sending:
            return
        if conn.shed:
            # whoever asks again at once must not keep the loop from the others, and from a health check
            if not self.to_read:
                return
            self.to_read -= 1
        try:
            data = conn.client_socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self.close(conn)
            return
        if conn.group is self.closing:
            if not data:
                self.close(conn)
        elif not data:
            if conn.have:
                self.leave(conn)
                conn.cut, conn.refusal = True, SHORTER
                self.refuse(conn)
            else:
                self.close(conn)
        else:
            conn.parser.unreader.buf.write(data)
            self.hold(conn, conn.have + len(data))
            if conn.have >= conn.need:
                self.sort(conn)
            elif self.held > self.most_held:
                self.take_up(conn, BUSY)

    def sort(self, conn: Connection) -> None:
        """Find out whether a whole request is there and who is to answer it."""
        received = conn.parser.unreader.buf.getvalue()
        need = conn.need = extent(received)
        if need == UNKNOWN:
            conn.need = 0
            end = received.find(b"\r\n\r\n") + 2
            head = received[:end].lower()
            start, conn.scanned = max(conn.scanned - SMALL, end), len(received)
            if b"\r\ntransfer-encoding" not in head or b"\r\ncontent-length" in head:
                # to be refused by the parser
                conn.cut = True
            elif not chunked_whole(received, start) and len(received) <= self.max_body + LONGEST_HEAD:
                self.await_more(conn, received)
                return
            else:
                conn.cut = len(received) > self.max_body + LONGEST_HEAD
        elif need > self.max_body + LONGEST_HEAD:
            # the app refuses it by its length alone
            conn.cut = True
        elif not need or len(received) < need:
            self.await_more(conn, received)
            return
        conn.since = self.now - conn.waited
        conn.quick = not conn.cut and need > 0 and is_quick(received[:need])
        conn.may_refuse = received.startswith(b"POST ")
        if received.startswith(HEALTH) and len(received) == need:
            self.take_up(conn, None, self.first)
        elif conn.quick:
            self.take_up(conn, BUSY if self.will_be_late(conn, self.queued_seconds()) else None)
        elif conn.may_refuse and self.will_be_late(conn, self.pooled_seconds()):
            self.take_up(conn, BUSY)
        else:
            self.leave(conn)
            self.pooled += 1
            self.enqueue_req(conn)

    def await_more(self, conn: Connection, received: bytes) -> None:
        """The request is not whole yet."""
        if conn.group is not self.arriving:
            self.leave(conn)
            self.join(conn, self.arriving, self.receive_seconds)
        if self.held > self.most_held:
            self.take_up(conn, BUSY)
        elif not conn.continued and b"\r\nexpect:" in received[: received.find(b"\r\n\r\n") + 2].lower():
            conn.continued = True
            conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            with contextlib.suppress(OSError):
                conn.send()

    def take_up(
        self, conn: Connection, refusal: tuple[int, str] | None, queue: deque[Connection] | None = None
    ) -> None:
        """A request is to be answered by the loop, or refused."""
        self.leave(conn)
        conn.refusal = refusal
        conn.cut = conn.cut or (refusal is not None and not 0 < conn.need <= conn.have)
        (self.first if refusal else self.queue if queue is None else queue).append(conn)

    def queued_seconds(self) -> float:
        """How long the loop will take for what it has in its queue."""
        return len(self.queue) * self.quick_seconds

    def pooled_seconds(self) -> float:
        """How long the threads will take for what they have."""
        return self.pooled * self.pool_seconds / self.cfg.threads

    def will_be_late(self, conn: Connection, ahead: float) -> bool:
        """Whether a request that has so many seconds of work ahead is to be refused at once.

        Half of the time that it may wait is kept in hand, for the work may take longer than it usually does: to be
        refused after waiting is worse.
        """
        return self.too_late(conn.waited + 2 * ahead, ahead)

    def too_late(self, waited: float, queued: float) -> bool:
        """Whether what waits so long, while so many seconds of work are queued, is to be refused.

        Not where little is queued: then the machine stood still for a while, or workers were being replaced, which
        is no overload and made worse by refusing.
        """
        return waited > self.max_wait and queued > self.max_wait * LITTLE

    # answers

    def refuse(self, conn: Connection) -> None:
        """Answer `conn.refusal` instead of the request."""
        assert conn.refusal is not None  # noqa: S101
        request = conn.parser.unreader.take_buffered()
        conn.goes_on = self.alive and not conn.cut and conn.need > 0 and keeps_alive(request)
        if conn.goes_on:
            conn.parser.unreader.buf.write(request[conn.need :])
        if conn.refusal is BUSY:
            self.refused += 1
        seconds = time.monotonic() - conn.since
        conn.sock.send(self.refusals(request, *conn.refusal, seconds=seconds, close=not conn.goes_on))
        self.finish(conn)

    def finish(self, conn: Connection) -> None:
        """Send the answer as far as the client takes it; once it is gone, the connection goes on or ends."""
        try:
            gone = conn.send()
        except OSError:
            self.close(conn)
            return
        self.leave(conn)
        self.hold(conn, 0)
        if not gone:
            self.hold(conn, len(conn.sock.parts[0]))
            self.join(conn, self.sending, TAKE_SECONDS)
            return
        if conn.goes_on:
            conn.next_request()
            self.hold(conn, conn.parser.unreader.buf.tell())
            if conn.have:
                self.sort(conn)
            else:
                self.join(conn, self.idle, self.cfg.keepalive)
            return
        try:
            conn.client_socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(conn)
            return
        self.join(conn, self.closing, CLOSE_SECONDS)
        if len(self.closing) > MOST_CLOSING:
            self.close(next(iter(self.closing)))

    # gunicorn's own, where they differ

    def enqueue_req(self, conn: Connection) -> None:
        """Leave a request to the threads."""
        future = self.tpool.submit(self.work, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def work(self, conn: Connection) -> bool:
        """In a thread: answer a request, if it is not too late for that; whether the connection goes on."""
        begun = time.monotonic()
        if conn.may_refuse and self.too_late(begun - conn.since, self.pooled_seconds()):
            conn.refusal = BUSY
            return False
        goes_on = bool(self.handle(conn))
        # the loop sends what is left, and notices a client that is gone
        with contextlib.suppress(OSError):
            conn.send()
        conn.seconds = time.monotonic() - begun
        return goes_on

    def finish_request(self, conn: Connection, done: Future[bool]) -> None:
        """In the loop: a thread is done with a request."""
        self.pooled -= 1
        conn.goes_on = not done.cancelled() and done.exception() is None and done.result()
        if conn.refusal is not None:
            self.refuse(conn)
            return
        if conn.may_refuse:
            self.pool_seconds = towards(self.pool_seconds, conn.seconds)
        self.finish(conn)

    def handle_request(self, req: Any, conn: Connection) -> bool:
        # RFC 9112, 3.2, which gunicorn leaves to the app
        if req.version >= (1, 1) and not any(name == "HOST" for name, _ in req.headers):
            raise errors.InvalidHeader("HOST")
        # 100 Continue was sent when it was of use
        req._expected_100_continue = False
        if conn.cut:
            req.force_close()
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        if not keepalive or conn.parser.unreader.buf.tell() > MOST_UNREAD:
            return False
        return super()._keepalive_after(conn, keepalive)

    def handle_error(self, req: Any, client: Collected, addr: Any, exc: Exception) -> None:
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
        client.send(self.refusals.malformed(status.value, reason, request_id))


def keeps_alive(request: bytes) -> bool:
    """Whether a client expects its connection to go on after a refusal; False when unsure."""
    head = request[: request.find(b"\r\n\r\n") + 2].lower()
    return head.partition(b"\r\n")[0].endswith(b" http/1.1") and b"\r\nconnection: close" not in head


def towards(usual: float, seconds: float) -> float:
    """`usual`, following the median of `seconds`: one pause of the machine must not look like slow predictions."""
    if seconds > 4 * usual:
        # far off, as at first: in larger steps
        return usual * 1.25
    return usual * (1.05 if seconds > usual else 1 / 1.05)


def stand_back() -> None:
    """Let the loop go before this thread, so that reading, refusing and health checks do not wait for pictures."""
    # elsewhere a thread has no priority of its own
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), THREAD_NICE)


def waited(client: socket.socket) -> float:
    """Seconds since a new connection's first bytes came, before it was accepted; 0 if unknown."""
    if not hasattr(socket, "TCP_INFO") or client.family == socket.AF_UNIX:
        return 0.0
    # tcpi_last_data_recv of struct tcp_info (linux/tcp.h), in milliseconds
    (milliseconds,) = struct.unpack_from("I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56), 52)
    return milliseconds / 1000


def _call(call: Any, conn: Connection, _fileobj: Any) -> None:
    call(conn)
