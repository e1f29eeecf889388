"""How many clients each worker has, in memory that all workers share, so that whoever has fewer lets the next one
in. digits/server/master.py makes it before gunicorn forks; digits/server/worker.py writes and asks.

The kernel wakes every worker for a newcomer and the quickest takes it, which may be the same one all the time:
then it has all the work and another CPU none.
"""

from __future__ import annotations

import mmap

# instead of a count: no worker there that lets anyone in
NOBODY = 2**31 - 1


class Shares:
    """Counts of clients, int32, one for each of `slots` workers.

    One aligned word is written and read at once, so nobody locks; a count that is microseconds old does no harm.
    """

    def __init__(self, slots: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * slots)).cast("i")
        for slot in range(slots):
            self.put(slot, NOBODY)

    def put(self, slot: int, count: int) -> None:
        """Worker `slot` has `count` clients, or is NOBODY. Ignores a slot that it has no room for."""
        if slot < len(self._counts):
            self._counts[slot] = count

    def least(self) -> int:
        """The clients of the worker that has fewest; NOBODY if there is none."""
        return min(self._counts)
