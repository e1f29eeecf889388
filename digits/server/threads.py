"""The threads that do what would hold up a worker's event loop: decoding and reading pictures, decoding large
bodies. digits/server/worker.py makes them and lends `run` to the app, as digits/serving/service.py says."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

from digits.serving.errors import Overloaded

# of the threads, where the event loop's is 0
NICE = 5


class Threads:
    """Threads in lanes, so that work of one kind waits for its like only, and at most `max_wait` seconds.

    shared: `count` threads. reading: one, for what takes long; more would only share the CPU. alone: one, for what
    needs much memory.
    """

    def __init__(self, count: int, max_wait: float) -> None:
        self.pool = ThreadPool(count + 2)
        free = {"shared": count, "reading": 1, "alone": 1}
        self.lanes = {lane: BoundedSemaphore(threads) for lane, threads in free.items()}
        self.max_wait = max_wait

    def run(self, work: Callable[[], Any], lane: str = "shared") -> Any:
        """What `work` returns, from a thread of the lane. Raises Overloaded if none becomes free in time."""
        turn = self.lanes[lane]
        if not turn.acquire(timeout=self.max_wait):
            raise Overloaded
        try:
            result = self.pool.apply(wrap_errors(Exception, _give_way_to_loop), (work,))
        finally:
            turn.release()
        if isinstance(result, Exception):
            raise result
        return result


def _give_way_to_loop(work: Callable[[], Any]) -> Any:
    # elsewhere a thread has no priority of its own
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    return work()
