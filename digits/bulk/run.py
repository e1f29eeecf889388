"""Hands shards to Dask's workers and follows them: `read_shards` keeps a few for each worker on their way,
takes up again what a lost worker or scheduler held, and tells how far it is. cli.py calls it with a
`Cluster`, which is this machine's processes or a scheduler elsewhere."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any, NamedTuple, TextIO

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, wait
from distributed.comm import CommClosedError

from digits.bulk.inputs import Shard, UsageError
from digits.bulk.tasks import Job, read_shard

# shards on their way for each worker: one is read while the next one is sent
AHEAD = 2
# of a shard that fails; Dask itself tries a shard again whose worker died, three times
RETRIES = 2
# for a scheduler that is started anew
WAIT_SECONDS = 300.0
LOST = (CancelledError, CommClosedError, OSError)


class Work(NamedTuple):
    """A shard to read. failed_of: a finished part, of which only the failed rows are read again."""

    shard: Shard
    failed_of: str | None = None


class Cluster:
    """Workers: those of the scheduler at `address`, or processes of this machine's own, as many as `workers`.

    Raises UsageError if there is no scheduler.
    """

    def __init__(self, address: str | None, workers: int | None = None) -> None:
        self.address, self._own = address, None
        if address is None:
            # a profile of every worker's stack, 100 times a second, which nobody looks at
            dask.config.set({"distributed.worker.profile.enabled": False})
            # the workers' own logs would get between the lines of progress, which tell of failures, too
            os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
            self._own = LocalCluster(
                n_workers=workers or CPU_COUNT,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:8787",
                silence_logs=logging.ERROR,
            )
        self._client: Client | None = None
        try:
            self.client(wait_seconds=10)
        except UsageError:
            self.close()
            raise

    def client(self, wait_seconds: float = WAIT_SECONDS) -> Client:
        """A client that is connected. Raises UsageError if the scheduler does not come within the time."""
        deadline = time.monotonic() + wait_seconds
        while self._client is None or self._client.status != "running":
            self.drop()
            try:
                self._client = Client(self._own or self.address, timeout=5)
            except (OSError, TypeError, ValueError) as error:
                # a wrong address, or no key for TLS, will not come right
                if time.monotonic() > deadline or not isinstance(error, OSError):
                    raise UsageError(
                        f"There is no scheduler at {self.address} ({error}). When there is one, the same "
                        "command resumes the run."
                    ) from None
                time.sleep(0.5)
        return self._client

    def drop(self) -> None:
        """Give the connection up; the next client is a new one."""
        if self._client is not None:
            self._client.close(timeout=2)
            self._client = None

    def close(self) -> None:
        """End the connection, and the processes that are its own."""
        self.drop()
        if self._own is not None:
            self._own.close(timeout=10)


class Progress:
    """Tells how far a run is: a line that is written over on a terminal, each second; elsewhere a line of
    JSON every ten seconds. pictures: how many there are, None if that is not known before."""

    def __init__(self, work: Sequence[Work], pictures: int | None, stream: TextIO = sys.stderr) -> None:
        self.begun = time.monotonic()
        self.total, self.bytes = pictures, sum(each.shard.bytes for each in work)
        self.shards, self.shards_done, self.bytes_done = len(work), 0, 0
        self.counts = {"pictures": 0, "failed": 0, "unsure": 0}
        self._stream, self._terminal = stream, stream.isatty()
        self._shown = self.begun if not self._terminal else 0.0

    def finished(self, shard: Shard, about: dict[str, Any]) -> None:
        """A shard is done; about: what its part tells of itself."""
        self.shards_done += 1
        self.bytes_done += shard.bytes
        for name in self.counts:
            self.counts[name] += about[name]

    def show(self, workers: int) -> None:
        """Tell it, if it is time."""
        now = time.monotonic()
        if now - self._shown >= (1 if self._terminal else 10):
            self._shown = now
            self._write(self._told(workers), end=False)

    def end(self, **more: Any) -> None:
        """Tell it for the last time."""
        self._write(self._told(None) | more, end=True)

    def say(self, text: str) -> None:
        """Tell something else."""
        line = f"\r\x1b[K{text}\n" if self._terminal else json.dumps({"message": text}) + "\n"
        self._stream.write(line)
        self._stream.flush()

    def _told(self, workers: int | None) -> dict[str, Any]:
        spent = time.monotonic() - self.begun
        told: dict[str, Any] = dict(self.counts)
        told |= {"of": self.total, "shards": self.shards_done, "of_shards": self.shards}
        told |= {
            "seconds": round(spent, 1),
            "per_second": round(self.counts["pictures"] / max(spent, 1e-3), 1),
        }
        if workers is not None:
            told["workers"] = workers
            done = self.bytes_done / self.bytes if self.bytes else self.shards_done / max(self.shards, 1)
            told["seconds_left"] = round(spent / done - spent) if done else None
        return told

    def _write(self, told: dict[str, Any], end: bool) -> None:
        if not self._terminal:
            self._stream.write(json.dumps(told) + "\n")
        else:
            of = f" of {told['of']:,}" if told["of"] is not None else ""
            left = told.get("seconds_left")
            words = [
                f"{told['pictures']:,}{of} pictures",
                f"{told['failed']:,} failed",
                f"{told['unsure']:,} unsure",
                f"{told['per_second']:,.0f}/s",
                *([f"{told['workers']} workers"] if "workers" in told else []),
                f"{left // 60}:{left % 60:02d} left" if left is not None else f"{told['seconds']} s",
            ]
            self._stream.write(f"\r\x1b[K{' · '.join(words)}" + ("\n" if end else ""))
        self._stream.flush()


def read_shards(
    work: Sequence[Work], job: Job, cluster: Cluster, progress: Progress
) -> list[tuple[Shard, str]]:
    """Have all shards read; those that could not be, and why.

    Raises UsageError if the scheduler is lost and does not come back.
    """
    waiting, running = deque(work), dict[Future, Work]()
    failed: list[tuple[Shard, str]] = []
    while waiting or running:
        client = cluster.client()
        try:
            workers = client.nthreads()
            while waiting and len(running) < AHEAD * max(len(workers), 2):
                each = waiting.popleft()
                # the name is its own: one that was lost with a scheduler must not stand for it
                name = f"{each.shard.name}-{uuid.uuid4().hex[:8]}"
                future = client.submit(
                    read_shard, each.shard, job, each.failed_of, key=name, retries=RETRIES, pure=False
                )
                running[future] = each
            progress.show(len(workers))
            done = _done(running)
        except LOST:
            progress.say(f"The connection to {cluster.address} is lost; waiting for a scheduler.")
            cluster.drop()
            waiting.extendleft(reversed(running.values()))
            running.clear()
            cluster.client()
            _skip_finished(waiting, job, progress)
            continue
        parts = job.parts
        for future in done:
            each = running.pop(future)
            if future.status == "error":
                error = future.exception()
                failed.append((each.shard, f"{type(error).__name__}: {error}"))
                progress.say(f"{each.shard.name} can't be read: {failed[-1][1]}")
                continue
            try:
                # the part tells it, for the worker that has the answer may be gone by now
                progress.finished(each.shard, parts.about(each.failed_of or parts.name(each.shard)))
            except FileNotFoundError:
                waiting.append(each)
    return failed


def _done(running: dict[Future, Work]) -> set[Future]:
    """The shards that are done, after a second at most. Raises CancelledError if the scheduler is lost."""
    try:
        done: set[Future] = wait(list(running), timeout=1, return_when="FIRST_COMPLETED").done
        return done
    except TimeoutError:
        return set()


def _skip_finished(waiting: deque[Work], job: Job, progress: Progress) -> None:
    """Drop what was finished before the scheduler could tell."""
    parts = job.parts
    names = {key: name for name, (key, run) in parts.there().items() if run == parts.run}
    for each in list(waiting):
        if each.failed_of is None and each.shard.key in names:
            waiting.remove(each)
            progress.finished(each.shard, parts.about(names[each.shard.key]))
