"""Collecting answers and corrections, if DIGITS_COLLECT is set. They wait in a bounded queue for the process that
has the store (digits/web/store.py). If the queue is full or the store fails, what was to be kept is dropped and
counted, and the answer is not delayed. A correction is acknowledged once it is in the store."""

from __future__ import annotations

import atexit
import base64
import logging
import os
import queue
import random
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from flask import g, request
from gevent.monkey import get_original

from digits.web.metrics import Metrics
from digits.web.problems import Overloaded, Problem
from digits.web.settings import ROOT, Settings

# bytes and number of the calls that may wait in a worker
MOST_BYTES, MOST_CALLS = 16 << 20, 1000
# calls that are sent to the store's process at once, and seconds to wait for more, because waking another process
# takes longer than a call
AT_ONCE, GATHER_SECONDS = 256, 0.1
# an answer may still be in the queue of another worker, so a correction looks for it again after so many seconds
AGAIN = (0.05, 0.1, 0.2, 0.4, 0.8)
# seconds within which the store must take a correction
STORE_SECONDS = 10.0
# corrections that may wait at the same time, because each may look through the days several times
CORRECTIONS_AT_ONCE = 16
# seconds between two log lines about dropped answers, and until the store's process is started again
LOG_SECONDS, RESTART_SECONDS = 60.0, 1.0
# seconds that a worker waits for its queue when it ends
LAST_SECONDS = 2.0

# gevent's would wait for children that are none of its own
_waitpid = get_original("os", "waitpid")

log = logging.getLogger("digits.collect")


class Call:
    """A call of a method of Store in the store's process, and its result once that has come."""

    def __init__(self, method: str, **arguments: Any) -> None:
        self.method, self.json = method, orjson.dumps((method, arguments))
        self.returned = threading.Event()
        self.result: dict[str, Any] = {"status": 503, "reason": "no answer"}


class Collector:
    """A worker's queue of calls, and the process that makes them."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.waiting: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self.held, self.lock = 0, threading.Lock()
        self.logged, self.dropped = float("-inf"), 0
        self.corrections = threading.BoundedSemaphore(CORRECTIONS_AT_ONCE)
        self.store: tuple[socket.socket, Any] | None = None
        self.pid: int | None = None
        threading.Thread(target=self._run, daemon=True).start()
        atexit.register(self.flush)

    def chosen(self, unsure: bool) -> bool:
        """Whether to keep a picture of this request: if it is unsure or `?keep=1`, and a share of the others."""
        return unsure or g.get("keep", False) or random.random() < self.settings.collect_share  # noqa: S311

    def keep(self, version: str, images: int, pictures: list[dict[str, Any]]) -> None:
        """Put the chosen pictures of this request into the queue.

        Args:
            version: that of the model that answered.
            images: number of pictures in the request.
            pictures: the index, the answer, and what `seen` and `sent` return, of each chosen one.
        """
        if pictures:
            document = {
                "request_id": g.request_id,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "route": request.path,
                "model_version": version,
                "images": images,
                "pictures": pictures,
            }
            if not self._put(Call("keep", document=document)):
                self._drop("queue", f"more than {MOST_CALLS} requests or {MOST_BYTES} bytes are waiting")

    def correct(self, request_id: str, digits: list[Any], replace: bool) -> dict[str, Any]:
        """The result of `Store.correct`, which is waited for. Raises Problem 503."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        if not self.corrections.acquire(timeout=self.settings.max_wait_ms / 1000):
            raise Overloaded
        try:
            for seconds in (0.0, *AGAIN):
                time.sleep(seconds)
                call = Call("correct", request_id=request_id, digits=digits, replace=replace, now=now)
                if not self._put(call):
                    raise Overloaded
                call.returned.wait(STORE_SECONDS)
                if call.result["status"] != 404:
                    break
        finally:
            self.corrections.release()
        if call.result["status"] == 503:
            log.error("correction not kept", extra={"reason": call.result["reason"]})
            again = {"Retry-After": "10"}
            raise Problem(503, "The correction can't be kept at the moment.", headers=again)
        return call.result

    def flush(self) -> None:
        """Wait until the queue is empty, but not long."""
        deadline = time.monotonic() + LAST_SECONDS
        while self.held and time.monotonic() < deadline:
            time.sleep(0.01)

    def _put(self, call: Call) -> bool:
        with self.lock:
            if self.held + len(call.json) > MOST_BYTES or self.waiting.qsize() >= MOST_CALLS:
                return False
            self.held += len(call.json)
        self.waiting.put(call)
        return True

    def _run(self) -> None:
        """Make the calls that wait, as long as the worker lives."""
        with suppress(OSError):
            # at once, because it also removes what is too old
            self._start()
        while True:
            calls = [self.waiting.get()]
            time.sleep(GATHER_SECONDS)
            calls += [self.waiting.get() for _ in range(min(AT_ONCE - 1, self.waiting.qsize()))]
            for call, result in zip(calls, self._results(calls), strict=True):
                if result["status"] == 200:
                    (self.metrics.collected if call.method == "keep" else self.metrics.corrected).inc()
                elif call.method == "keep":
                    self._drop("store", result["reason"])
                call.result = result
                call.returned.set()
            with self.lock:
                self.held -= sum(len(call.json) for call in calls)

    def _results(self, calls: list[Call]) -> list[dict[str, Any]]:
        """Send calls to the store's process, and return their results."""
        try:
            store, results = self.store or self._start()
            store.sendall(b"[%b]\n" % b",".join(call.json for call in calls))
            return orjson.loads(results.readline())
        except (OSError, ValueError):
            if self.store:
                self.store[0].close()
            self.store = None
            time.sleep(RESTART_SECONDS)
            return [{"status": 503, "reason": "the store's process has ended"}] * len(calls)

    def _start(self) -> tuple[socket.socket, Any]:
        """Start the store's process, and return the connection to it and the stream of its results."""
        if self.pid:
            with suppress(OSError):
                _waitpid(self.pid, os.WNOHANG)
        settings = self.settings
        near, far = socket.socketpair()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        limits = str(settings.collect_bytes), str(settings.collect_days)
        # not subprocess, which gevent replaces by one that waits for all children of the worker
        with far:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "digits.web.store", settings.collect, *limits],
                os.environ | {"PYTHONPATH": path},
                file_actions=[(os.POSIX_SPAWN_DUP2, far.fileno(), 0)],
                setpgroup=0,
            )
        self.store = near, near.makefile("rb")
        return self.store

    def _drop(self, where: str, reason: str) -> None:
        self.metrics.not_collected[where].inc()
        self.dropped += 1
        if time.monotonic() - self.logged > LOG_SECONDS:
            log.warning("not collected", extra={"reason": reason, "requests": self.dropped})
            self.logged, self.dropped = time.monotonic(), 0


def seen(image: np.ndarray) -> dict[str, str]:
    """What to keep of an image that the network got, float32 (28, 28, 1) in [0, 1]: its pixels as bytes."""
    return {"pixels": base64.b64encode((image * 255).round().astype(np.uint8).tobytes()).decode()}


def sent(picture: bytes) -> dict[str, str]:
    """What to keep of a file: all of it."""
    return {"picture": base64.b64encode(picture).decode()}
