"""Sends shards to Dask's workers and monitors them: `read_shards` submits a few for each worker, submits those
of a lost scheduler again, and reports progress. A `Cluster` is either processes on this machine or the workers
of another scheduler."""

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
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TextIO

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, Worker, WorkerPlugin, wait
from distributed.comm import CommClosedError
from distributed.security import Security

from digits.bulk.isolated import rows_apart
from digits.bulk.shards import Shard, UsageError
from digits.bulk.tasks import Job, add_model, read_shard
from digits.model import Model

# the number of shards submitted per worker: while one is read, the next one is sent
AHEAD = 2
# for shards that fail; if a worker dies, Dask itself retries its shard three times
RETRIES = 2
# how long to wait for a scheduler to be restarted
WAIT_SECONDS = 300.0
# what calls raise when the connection to the scheduler is lost
LOST = (CancelledError, CommClosedError, OSError)


class ModelPlugin(WorkerPlugin):
    """Gives a model to each worker, also to those that join later."""

    def __init__(self, model: Model) -> None:
        self.model = model
        # two runs with different models may share a scheduler
        self.name = f"digits-{model.version}"

    def setup(self, worker: Worker) -> None:
        """Keep the model in the worker's process."""
        add_model(self.model)


class Work(NamedTuple):
    """A shard to read. failed_of: the name of a finished part in which only the failed rows are read again."""

    shard: Shard
    failed_of: str | None = None


class Cluster:
    """The workers of the scheduler at `address`, or if it is None, `workers` processes on this machine, which only
    talk to those who have a TLS key that is made for this run and only kept in memory.

    Raises UsageError if no scheduler answers.
    """

    def __init__(self, address: str | None, workers: int | None = None) -> None:
        self.address, self._own = address, None
        if address is None:
            # the profiler samples every worker's stack 100 times a second, and is not used. Without routes, the
            # HTTP servers answer nobody on this machine
            routes: dict[str, Any] = {
                f"distributed.{kind}.http.routes": [] for kind in ("scheduler", "worker")
            }
            dask.config.set({"distributed.worker.profile.enabled": False} | routes)
            # logs of the workers would interrupt the progress line; `read_shards` reports failures anyway
            os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
            # a folder in /tmp that other users can't have created before
            self._folder = TemporaryDirectory(prefix="bulk-")
            self._own = LocalCluster(
                n_workers=workers or CPU_COUNT,
                threads_per_worker=1,
                processes=True,
                # anyone who can connect to a scheduler can run code
                security=Security.temporary(),
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                local_directory=self._folder.name,
                silence_logs=logging.ERROR,
            )
        self._client: Client | None = None
        try:
            self.client(wait_seconds=10)
        except UsageError:
            self.close()
            raise

    def client(self, wait_seconds: float = WAIT_SECONDS) -> Client:
        """A connected client. Raises UsageError if the scheduler does not answer within the time."""
        deadline = time.monotonic() + wait_seconds
        while self._client is None or self._client.status != "running":
            self.drop()
            try:
                self._client = Client(self._own or self.address, timeout=5)
            except (OSError, TypeError, ValueError) as error:
                # retrying does not help if the address is wrong or the TLS key is missing
                if time.monotonic() > deadline or not isinstance(error, OSError):
                    advice = "Start one, and run the same command again to resume."
                    raise UsageError(f"There is no scheduler at {self.address} ({error}). {advice}") from None
                time.sleep(0.5)
        return self._client

    def drop(self) -> None:
        """Close the connection. `client` then opens a new one."""
        if self._client is not None:
            self._client.close(timeout=2)
            self._client = None

    def close(self) -> None:
        """Close the connection, and stop the processes on this machine."""
        self.drop()
        if self._own is not None:
            self._own.close(timeout=10)
            self._folder.cleanup()


class Progress:
    """Reports the progress of a run: on a terminal one line that is updated every second, elsewhere a line of JSON
    every ten seconds. pictures: their number, None if it is not known in advance."""

    def __init__(self, work: Sequence[Work], pictures: int | None, stream: TextIO = sys.stderr) -> None:
        self.begun = time.monotonic()
        self.total, self.bytes = pictures, sum(each.shard.bytes for each in work)
        self.shards, self.shards_done, self.bytes_done = len(work), 0, 0
        self.counts = {"pictures": 0, "failed": 0, "unsure": 0}
        self._stream, self._terminal = stream, stream.isatty()
        self._shown = self.begun if not self._terminal else 0.0

    def finished(self, shard: Shard, metadata: dict[str, Any]) -> None:
        """Count a finished shard. metadata: that of its part."""
        self.shards_done += 1
        self.bytes_done += shard.bytes
        for name in self.counts:
            self.counts[name] += metadata[name]

    def show(self, workers: int) -> None:
        """Report the progress, unless that was done only recently."""
        now = time.monotonic()
        if now - self._shown >= (1 if self._terminal else 10):
            self._shown = now
            self._write(self._figures(workers), end=False)

    def end(self, **more: Any) -> None:
        """Report the result of the run. more: further fields."""
        self._write(self._figures(None) | more, end=True)

    def say(self, text: str) -> None:
        """Write a message on a line of its own."""
        line = f"\r\x1b[K{text}\n" if self._terminal else json.dumps({"message": text}) + "\n"
        self._stream.write(line)
        self._stream.flush()

    def _figures(self, workers: int | None) -> dict[str, Any]:
        spent = time.monotonic() - self.begun
        figures: dict[str, Any] = dict(self.counts)
        figures |= {"of": self.total, "shards": self.shards_done, "of_shards": self.shards}
        rate = self.counts["pictures"] / max(spent, 1e-3)
        figures |= {"seconds": round(spent, 1), "per_second": round(rate, 1)}
        if workers is not None:
            figures["workers"] = workers
            done = self.bytes_done / self.bytes if self.bytes else self.shards_done / max(self.shards, 1)
            figures["seconds_left"] = round(spent / done - spent) if done else None
        return figures

    def _write(self, figures: dict[str, Any], end: bool) -> None:
        if not self._terminal:
            self._stream.write(json.dumps(figures) + "\n")
        else:
            of = f" of {figures['of']:,}" if figures["of"] is not None else ""
            left = figures.get("seconds_left")
            words = [
                f"{figures['pictures']:,}{of} pictures",
                f"{figures['failed']:,} failed",
                f"{figures['unsure']:,} unsure",
                f"{figures['per_second']:,.0f}/s",
                *([f"{figures['workers']} workers"] if "workers" in figures else []),
                f"{left // 60}:{left % 60:02d} left" if left is not None else f"{figures['seconds']} s",
            ]
            self._stream.write(f"\r\x1b[K{' · '.join(words)}" + ("\n" if end else ""))
        self._stream.flush()


def read_shards(
    work: Sequence[Work], job: Job, cluster: Cluster, progress: Progress
) -> list[tuple[Shard, str]]:
    """Have all shards read. Returns the shards that could not be read, and why.

    Raises UsageError if the scheduler is lost and not restarted.
    """
    waiting, running = deque(work), dict[Future, Work]()
    failed: list[tuple[Shard, str]] = []
    prepared = None
    while waiting or running:
        client = cluster.client()
        try:
            if client is not prepared:
                for model in job.models:
                    client.register_plugin(ModelPlugin(model))
                prepared = client
            workers = client.nthreads()
            while waiting and len(running) < AHEAD * max(len(workers), 2):
                each = waiting.popleft()
                # a new key each time, so that Dask does not take the task for one of a lost scheduler
                name = f"{each.shard.name}-{uuid.uuid4().hex[:8]}"
                task = (read_shard, each.shard, job, each.failed_of, rows_apart)
                running[client.submit(*task, key=name, retries=RETRIES, pure=False)] = each
            progress.show(len(workers))
            done: set[Future] = set()
            with suppress(TimeoutError):
                done = wait(list(running), timeout=1, return_when="FIRST_COMPLETED").done
        except LOST:
            progress.say(f"The connection to {cluster.address} is lost. Waiting for a scheduler.")
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
                # from the part, because the worker with the result may have died since
                progress.finished(each.shard, parts.metadata(each.failed_of or parts.name(each.shard)))
            except FileNotFoundError:
                waiting.append(each)
    return failed


def _skip_finished(waiting: deque[Work], job: Job, progress: Progress) -> None:
    """Drop shards that were finished, but not reported, before the scheduler was lost."""
    parts = job.parts
    names = {key: name for name, (key, run) in parts.existing().items() if run == parts.run}
    for each in list(waiting):
        if each.failed_of is None and each.shard.key in names:
            waiting.remove(each)
            progress.finished(each.shard, parts.metadata(names[each.shard.key]))
