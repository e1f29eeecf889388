"""Turns that all workers share: at most so many of them have one at the same time. A turn is a lock on a file, so
the system returns it even if its worker is killed."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gevent

from digits.serving.errors import Overloaded

# seconds between two attempts
PAUSE = 0.01


class Turns:
    """`count` turns, whose files are in `folder`."""

    def __init__(self, folder: Path, count: int) -> None:
        self.paths = [folder / f"turn_{i}.lock" for i in range(count)]

    @contextmanager
    def take(self, max_wait: float) -> Iterator[None]:
        """Hold a turn. Raises Overloaded if none is free within `max_wait` seconds."""
        deadline = time.monotonic() + max_wait
        while (held := self._free()) is None:
            if time.monotonic() > deadline:
                raise Overloaded
            gevent.sleep(PAUSE)
        try:
            yield
        finally:
            os.close(held)

    def _free(self) -> int | None:
        for path in self.paths:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            os.close(fd)
        return None
