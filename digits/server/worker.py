"""gunicorn's gevent worker, and what it lacks for strangers: load shedding, time limits for slow clients, bodies
that are read whole, in turn and within a memory limit, and refusals that go through the app like every answer.
gunicorn.conf.py names it; docs/reliability.md says what it promises."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from digits.server import options
from digits.server.body import Body
from digits.server.connections import Buffered, Idle, Server, answer_malformed, seconds_waited
from digits.server.threads import Threads
from digits.serving.errors import Overloaded
from digits.serving.settings import Settings

# for a client that has just connected, or had an answer, to send a request to a worker that stops
LAST_SECONDS = 0.5
# for a client to read its answer, while what it still sends is discarded (RFC 9112, 9.6)
LINGER_SECONDS = 2.0
# being late for a shorter time is no overload: the machine paused, or workers were being replaced
LATE_SECONDS = 0.1
# how long a thread that decodes a picture may hold the interpreter while the loop waits for it
SWITCH_SECONDS = 0.0005
# connections below the limit at which the longest idle one is closed for a new one
SPARE_CONNECTIONS = 16


class Worker(GeventWorker):
    """The worker that gunicorn.conf.py names; docs/settings.md has its settings."""

    wsgi: Callable[..., Any]

    check_config = staticmethod(options.check)

    def init_process(self) -> None:
        # gunicorn looks up some thirty settings a request, each by two calls; a worker's never change
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self.settings = Settings.from_env(os.environ)
        self.max_wait = self.settings.max_wait_ms / 1000
        # bytes of bodies held now, and the most that may be
        self.held, self.max_held = 0, max(64 << 20, 2 * self.settings.max_body_bytes)
        self.idle: dict[Idle, None] = {}
        self.connections, self.late_since = 0, float("inf")
        sys.setswitchinterval(SWITCH_SECONDS)
        super().init_process()

    def server_class(self, listener: Any, *, spawn: Any, **options: Any) -> Server:
        """What accepts a listener's connections; gunicorn calls it as it would call gevent's pywsgi."""
        tls = {name: value for name, value in options.items() if name == "ssl_context"}
        return Server(listener, self.handle, spawn=spawn, **tls)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # gunicorn would answer 500 to paths without it, such as a health check's that comes past the proxy
        os.environ.pop("SCRIPT_NAME", None)
        self.app_answers, self.wsgi = self.wsgi, self.answer
        self.service = getattr(self.app_answers, "extensions", {}).get("digits")
        if self.service:
            self.service.offload = Threads(self.settings.threads, self.max_wait).run
            self.service.give_way = gevent.sleep

    def notify(self) -> None:
        super().notify()
        if self.service:
            self.service.metrics.beat()
        seconds = self.cfg.keepalive if self.alive else LAST_SECONDS
        for idle in [idle for idle in self.idle if time.monotonic() - idle.since > seconds]:
            idle.close_soon()

    def timeout_ctx(self) -> Idle:
        return Idle(self.idle)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self.connections += 1
        if self.connections > self.worker_connections - SPARE_CONNECTIONS and self.idle:
            next(iter(self.idle)).close_soon()
        try:
            super().handle(listener, client, addr)
        finally:
            self.connections -= 1

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        if req.version >= (1, 1) and not any(name == "HOST" for name, _ in req.headers):
            raise errors.InvalidHeader("HOST")  # RFC 9112, 3.2
        req.body = body = Body(req, self)
        client = Buffered(sock)
        if req.method == "POST":
            # predictions wait in line; the loop polls between them, so that health checks overtake them
            gevent.sleep(0)
        try:
            super().handle_request(listener_name, req, client, addr)
            client.flush()
        except TimeoutError as error:
            # the peer's; gunicorn knows a reset and lets it pass
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from error
        except StopIteration:
            client.flush()
            if not body.ended:
                self.held, body.held = self.held - body.held, 0
                util.close_graceful(sock, LINGER_SECONDS, max_drain=1 << 40)
            raise
        finally:
            req.body = body.body
            self.held -= body.held
        # a client whose next request is already there must not keep all others waiting; a timer passes the line
        if req.method != "POST":
            gevent.sleep(1e-6)

    def answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The app's answer; to a POST that comes when the worker is behind, the app's 503."""
        body = environ["wsgi.input"]
        options.split_prefix(environ, self.settings.script_name)
        waited = environ["digits.waited"] = seconds_waited(environ["gunicorn.socket"])
        if environ["REQUEST_METHOD"] == "POST" and self.is_late(waited):
            environ["digits.problem"] = Overloaded()

        def start(*answer: Any) -> Any:
            if body.must_close or not self.alive:
                body.req.force_close()
            return start_response(*answer)

        return self.app_answers(environ, start)

    def is_late(self, waited: float) -> bool:
        """Whether requests have kept waiting longer than DIGITS_MAX_WAIT_MS for some time."""
        if waited <= self.max_wait:
            self.late_since = float("inf")
            return False
        self.late_since = min(self.late_since, time.monotonic())
        return time.monotonic() - self.late_since > LATE_SECONDS

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:
        """Answer what is not HTTP through the app, like any other problem; gunicorn's own way logs the line."""
        ours = isinstance(exc, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName)
        if ours or not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
        else:
            answer_malformed(self.app_answers, client, exc)
            util.close_graceful(client, LINGER_SECONDS, max_drain=1 << 40)
