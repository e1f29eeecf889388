"""The worker class. It extends gunicorn's gevent worker by what a public service needs: load shedding, time
limits for slow clients, limits on the memory for bodies, and refusals that the app answers like other requests.
docs/reliability.md lists its promises."""

from __future__ import annotations

import errno
import gc
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import gevent.socket
from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from digits.web import inherited
from digits.web.problems import Overloaded, Problem
from digits.web.settings import Settings
from digits.worker.body import Body, Room
from digits.worker.connections import Buffered, Server, answer_malformed, seconds_waited
from digits.worker.master import CUT_OFF_SECONDS
from digits.worker.processes import Processes

# when the worker stops, idle connections get this long to send a request
LAST_SECONDS = 0.5
# time for a client to read its answer while the rest of its request is discarded (RFC 9112, 9.6)
LINGER_SECONDS = 2.0
# shorter periods of long waits don't count as overload: the machine paused, or workers were replaced
LATE_SECONDS = 0.1
# gevent looks for new requests after others have run for this long
SWITCH_SECONDS = 0.0005
# with fewer free connections than this, the one that has been idle longest is closed for each new one
SPARE_CONNECTIONS = 16


class Worker(GeventWorker):
    """gunicorn's gevent worker with this service's limits; docs/settings.md describes its settings."""

    wsgi: Callable[..., Any]
    # of its metrics files; the master's hook pre_fork sets it
    slot = 0

    # checking the connections once a second is cheaper than gunicorn's timer for each request
    timeout_ctx = nullcontext

    def init_process(self) -> None:
        inherited.slot = self.slot
        # gunicorn looks up about thirty settings per request, with two calls each; in a worker they never change
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self.cfg.__dict__["graceful_timeout"] -= CUT_OFF_SECONDS
        # a log configuration turns the access log on, but the app logs each request
        self.log.access = lambda *answer: None
        self.settings = Settings.from_env(os.environ)
        self.room = Room(self.settings)
        self.answering: set[gevent.Greenlet] = set()
        # when each connection that waits for a request began to, longest first
        self.idle: dict[Any, float] = {}
        self.connections, self.late_since = 0, float("inf")
        sys.setswitchinterval(SWITCH_SECONDS)
        super().init_process()

    def server_class(self, listener: Any, *, spawn: Any, **options: Any) -> Server:
        """Create the server that accepts a listener's connections; gunicorn calls it like gevent's pywsgi."""
        tls = {name: value for name, value in options.items() if name == "ssl_context"}
        return Server(listener, self.handle, self.cut_off, spawn=spawn, **tls)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # gunicorn would answer 500 to paths without the prefix, such as a health check that bypasses the proxy
        os.environ.pop("SCRIPT_NAME", None)
        self.app_answers, self.wsgi = self.wsgi, self.answer
        self.service = getattr(self.app_answers, "extensions", {}).get("digits")
        if self.service:
            folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
            self.processes = Processes(self.service.app, self.settings, folder)
            self.service.offload = self.processes.run
        # what lives as long as the process needs no garbage collection
        gc.collect()
        gc.freeze()

    def notify(self) -> None:
        super().notify()
        if self.service:
            self.service.metrics.beat()
            self.processes.end_idle()
        latest = time.monotonic() - (self.cfg.keepalive if self.alive else LAST_SECONDS)
        for client in [client for client, since in self.idle.items() if since < latest]:
            self.close_idle(client)

    def close_idle(self, client: Any) -> None:
        """End the wait for a connection's next request; one that has already arrived is still answered."""
        del self.idle[client]
        with suppress(OSError):
            gevent.socket.socket.shutdown(client, gevent.socket.SHUT_RD)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self.connections += 1
        if self.connections > self.worker_connections - SPARE_CONNECTIONS and self.idle:
            self.close_idle(next(iter(self.idle)))
        self.idle[client] = time.monotonic()
        try:
            super().handle(listener, client, addr)
        finally:
            self.idle.pop(client, None)
            self.connections -= 1

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        if req.version >= (1, 1) and not any(name == "HOST" for name, _ in req.headers):
            raise errors.InvalidHeader("HOST")  # RFC 9112, 3.2
        self.idle.pop(sock, None)
        req.body = body = Body(req, self.room)
        client = Buffered(sock)
        if req.method == "POST":
            # predictions wait in line; the loop polls between them, so that health checks overtake them
            gevent.sleep(0)
        try:
            super().handle_request(listener_name, req, client, addr)
            client.flush()
        except TimeoutError as error:
            # the client timed out; gunicorn ignores a reset
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from error
        except StopIteration:
            client.flush()
            if not body.ended:
                self.room.leave(body)
                util.close_graceful(sock, LINGER_SECONDS, max_drain=1 << 40)
            raise
        finally:
            req.body = body.body
            self.room.leave(body)
            self.idle[sock] = time.monotonic()
        # let others continue, even if this client's next request has arrived: a timer ends after the next poll, so
        # every connection gets its turn
        gevent.sleep(1e-6)

    def answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Call the app, which answers a POST with 503 if the worker is overloaded."""
        body = environ["wsgi.input"]
        prefix, path = self.settings.script_name, environ["PATH_INFO"]
        if prefix and f"{path}/".startswith(f"{prefix}/"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = prefix, path.removeprefix(prefix)
        waited = environ["digits.waited"] = seconds_waited(environ["gunicorn.socket"])
        if environ["REQUEST_METHOD"] == "POST" and self.is_late(waited):
            environ["digits.problem"] = Overloaded()

        def start(*answer: Any) -> Any:
            if body.must_close or not self.alive:
                body.req.force_close()
            return start_response(*answer)

        current = gevent.getcurrent()
        self.answering.add(current)
        try:
            return self.app_answers(environ, start)
        finally:
            self.answering.discard(current)

    def cut_off(self) -> None:
        """Let the app answer the requests that are still running when the grace time ends."""
        for greenlet in self.answering:
            greenlet.kill(
                Problem(503, "The service has stopped before the request was answered."), block=False
            )

    def is_late(self, waited: float) -> bool:
        """Whether requests have waited longer than DIGITS_MAX_WAIT_MS for more than LATE_SECONDS."""
        if waited <= self.settings.max_wait_ms / 1000:
            self.late_since = float("inf")
            return False
        self.late_since = min(self.late_since, time.monotonic())
        return time.monotonic() - self.late_since > LATE_SECONDS

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:
        """Let the app answer requests that are not valid HTTP, because gunicorn would not log and count them."""
        ours = isinstance(exc, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName)
        if ours or not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
        else:
            answer_malformed(self.app_answers, client, exc)
            util.close_graceful(client, LINGER_SECONDS, max_drain=1 << 40)
