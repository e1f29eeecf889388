"""The threads that do what would hold up a worker's event loop: decoding pictures and large bodies. digits/server/
worker.py makes them and lends `run` to the app, as digits/serving/service.py says."""

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
    """`count` threads, for one of which a request waits at most `max_wait` seconds."""

    def __init__(self, count: int, max_wait: float) -> None:
        # one more for what runs alone
        self.pool = ThreadPool(count + 1)
        self.free, self.alone = BoundedSemaphore(count), BoundedSemaphore(1)
        self.max_wait = max_wait

    def run(self, work: Callable[[], Any], alone: bool = False) -> Any:
        """What `work` returns, from a thread of the pool. Raises Overloaded if none becomes free in time.

        alone: at most one such piece of work at a time, as it needs much memory.
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
    # elsewhere a thread has no priority of its own
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    return work()
