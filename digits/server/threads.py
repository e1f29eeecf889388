"""The threads for work that would block a worker's event loop: decoding pictures and large bodies.
digits/server/worker.py creates them and sets `run` as `Service.offload` (digits/serving/service.py)."""

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
    """A pool of `count` threads. A request waits at most `max_wait` seconds for one of them."""

    def __init__(self, count: int, max_wait: float) -> None:
        # one more for work that runs alone
        self.pool = ThreadPool(count + 1)
        self.free, self.alone = BoundedSemaphore(count), BoundedSemaphore(1)
        self.max_wait = max_wait

    def run(self, work: Callable[[], Any], alone: bool = False) -> Any:
        """Run `work` in a thread of the pool and return its result. Raises Overloaded if no thread becomes free in
        time.

        alone: whether the work needs much memory, so that only one such call may run at a time.
        """
        turn = self.alone if alone else self.free
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
    # on other systems a thread has no priority of its own
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    return work()
