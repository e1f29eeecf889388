"""Reads a shard in a process of its own with limits on memory and processor time, because a few kilobytes can
hold a picture, archive or table that takes gigabytes or hours. A picture over a limit costs its row, and a file
that can't be unpacked within them costs its remaining rows."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import count, islice
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from digits.bulk.pictures import Item, ItemError, only
from digits.bulk.shards import Shard
from digits.bulk.tasks import Job, add_model, rows_here
from digits.imaging.decode import data_bytes
from digits.model import ModelError

# seconds of processor time for one picture: to read its bytes, and to decode and classify it
SECONDS = 30
# memory in addition to what the process has at its start: the largest picture takes 250 MB, and files that are
# fetched together up to 160 MB
MEMORY = 1 << 30
# the status and the detail of an ItemError
Error = tuple[int, str]
_local = threading.local()


class Reader:
    """A process that reads shards. versions: of the model and of the detector that it has."""

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        # the system's allocator asks for no more than is needed, unlike Arrow's own
        environ = os.environ | {"PYTHONPATH": path, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        limits = (theirs.fileno(), SECONDS, MEMORY)
        command = [sys.executable, "-m", "digits.bulk.isolated", *map(str, limits)]
        self.process = subprocess.Popen(command, env=environ, pass_fds=[theirs.fileno()])
        theirs.close()
        self.versions = "", ""
        atexit.register(self.close)

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()
        atexit.unregister(self.close)


def rows_apart(
    shard: Shard, job: Job, wanted: frozenset[str] | None = None
) -> Generator[list[dict[str, Any]], None, None]:
    """The same as `digits.bulk.tasks.rows_here`, but read in another process. Raises ModelError if the model can't
    be run, and RuntimeError if a store does not answer, or if the process ends for another reason than its limits.
    """
    if shard.kind == "files" and wanted:
        shard, wanted = only(shard, wanted), None
    # the items with rows, those to read, and the errors of those over a limit
    done, end = 0, None
    over, lost = dict[str, Error](), None
    while True:
        reader = start(job)
        rest = (only(shard, set(shard.urls[done:])), 0) if shard.kind == "files" else (shard, done)
        state: tuple[str, Any] = ("sent", None)
        try:
            reader.pipe.send((*rest, job, wanted, end, over, lost))
            while (state := reader.pipe.recv())[0] != "end":
                if state[0] == "rows":
                    done += len(state[1])
                    yield state[1]
                elif state[0] == "error":
                    raise state[1]
            return
        except (EOFError, ConnectionError):
            code = reader.process.wait()
            stopped = code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
            if not stopped and state[0] == "picture" and state[1] not in over:
                over[state[1]] = _error(code, state[1])
            elif not stopped and state[0] == "read" and shard.kind != "files" and lost is None:
                end, lost = state[1], (shard.urls[0], _error(code, shard.urls[0]))
            else:
                raise RuntimeError(f"The process that reads {shard.name} has ended ({code}).") from None
        except GeneratorExit:
            reader.close()
            raise


def _error(code: int, path: str) -> Error:
    """Why the process ended while it read a picture or file."""
    if code == -signal.SIGXCPU:
        return 422, f"{path} takes more than {SECONDS} s of processor time."
    what = f"needs more than {MEMORY >> 20} MB of memory, or can't be decoded"
    return 413, f"{path} {what}. Found: exit code {code}."


def start(job: Job) -> Reader:
    """This thread's process, with the model. It is started again if it has ended. Raises RuntimeError if it can't
    be started, and ModelError if the model can't be run."""
    reader: Reader | None = getattr(_local, "reader", None)
    if reader is None or reader.process.poll() is not None:
        reader = _local.reader = Reader()
    if reader.versions != (job.version, job.detector):
        try:
            reader.pipe.send((job.models, job))
            error = reader.pipe.recv()[1]
        except (EOFError, ConnectionError):
            code = reader.process.wait()
            raise RuntimeError(f"The process that reads the pictures does not start ({code}).") from None
        if error:
            raise error
        reader.versions = job.version, job.detector
    return reader


def _serve(pipe: Connection, seconds: int, memory: int) -> None:
    """Read shards for the other end of the pipe until it is closed, within the limits. A message is a name and a
    value: "read" with an item's number and "picture" with its path say what begins; "rows", "end" and "error" with
    an exception follow."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limited = False
    while True:
        request = pipe.recv()
        try:
            if isinstance(request[0], list):
                models, job = request
                for model in models:
                    add_model(model)
                job.networks()
                # systems without /proc have no such limit
                if (held := data_bytes()) and not limited:
                    resource.setrlimit(resource.RLIMIT_DATA, (held + memory, held + memory))
                    limited = True
            else:
                for rows in _rows(pipe, seconds, *request):
                    pipe.send(("rows", rows))
            pipe.send(("end", None))
        except ConnectionError:
            raise
        except ModelError as error:
            pipe.send(("error", error))
        except Exception as error:
            # not every exception can be sent
            pipe.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))


def _rows(
    pipe: Connection,
    seconds: int,
    shard: Shard,
    done: int,
    job: Job,
    wanted: frozenset[str] | None,
    end: int | None,
    over: dict[str, Error],
    lost: tuple[str, Error] | None,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a shard.

    Args:
        pipe: to the process that asks for them.
        seconds: of processor time for each picture.
        done: number of the first item.
        end: number of the item before which to end; None for the last.
        over: the errors of pictures that are over a limit, by their paths.
        lost: the path and the error of a file whose remaining items are over a limit.
    """

    def begin(what: str, value: Any) -> None:
        pipe.send((what, value))
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + seconds, resource.RLIM_INFINITY))

    def watch(items: Iterator[Item]) -> Iterator[Item]:
        deque(islice(items, done), 0)
        for number in count(done) if end is None else range(done, end):
            begin("read", number)
            if (item := next(items, None)) is None:
                break
            error = over.get(item.path)
            yield Item(item.path, ItemError(*error)) if error else item
        if lost:
            yield Item(lost[0], ItemError(*lost[1]))

    return rows_here(shard, job, wanted, watch, lambda path: begin("picture", path))


if __name__ == "__main__":
    with suppress(EOFError, ConnectionError):
        _serve(Connection(int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
