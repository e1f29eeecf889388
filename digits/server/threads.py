"""The threads for work that would block a worker's event loop: decoding and reading pictures, and decoding large
bodies. digits/server/worker.py creates them and sets `run` as `Service.offload` (digits/serving/service.py)."""

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

# nice value of the threads, so that the event loop, which has 0, comes first
NICE = 5


class Threads:
    """Threads in lanes, so that work of one kind only waits for work of the same kind, and at most `max_wait`
    seconds.

    shared: `count` threads. reading: one thread, for work that takes long; more would only share the CPU. alone:
    one thread, for work that needs much memory.
    """

    def __init__(self, count: int, max_wait: float) -> None:
        self.pool = ThreadPool(count + 2)
        free = {"shared": count, "reading": 1, "alone": 1}
        self.lanes = {lane: BoundedSemaphore(threads) for lane, threads in free.items()}
        self.max_wait = max_wait

    def run(self, work: Callable[[], Any], lane: str = "shared") -> Any:
        """Run `work` in a thread of the lane and return its result. Raises Overloaded if none is free in time."""
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
    # only Linux has a priority for each thread
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    return work()
