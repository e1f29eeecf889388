"""The processes in which a worker decodes and reads pictures and decodes large bodies. Unlike a thread, a
process can be ended: when its work exceeds a budget of CPU time or memory, when the client has left, or when
others wait and it has had its share.

The worker starts a fork server while it is small and has no connections. That forks the others on demand, which
therefore share its memory. They get work and return results as pickles over a socket."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pickle
import resource
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import cv2
import gevent
import gevent.socket
from flask import Flask, has_request_context, request
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original

from digits.imaging.decode import data_bytes
from digits.web.problems import Overloaded, Problem
from digits.web.settings import Settings
from digits.worker.connections import DisconnectCheck

# nice value of the processes, so that the event loops, which have 0, come first
NICE = 5
# seconds between two checks of running work
TICK = 0.1
# seconds between two attempts to get a permit
PAUSE = 0.01
# work may take this many CPU seconds although others wait for its process
FAIR_SECONDS = 1.0
# work that needs more bytes of memory than this waits for a permit that all workers share
ORDINARY_BYTES = 40_000_000
# the same for a large body, so that a batch of 1,024 images as JSON is ordinary
LARGE_BODY_BYTES = 64_000_000
# a process that keeps more memory than this after its work is replaced
MAX_KEPT_BYTES = 16_000_000

# the processes have no event loop
_fork, _waitpid, _close = get_original("os", ["fork", "waitpid", "close"])
_signal, _socket = get_original("signal", "signal"), get_original("socket", "socket")


class Child:
    """A process that does one piece of work at a time."""

    def __init__(self, fork_server: Any) -> None:
        self.socket, far = gevent.socket.socketpair()
        self.file = self.socket.makefile("rwb")
        try:
            with far:
                socket.send_fds(fork_server, [b"+"], [far.fileno()])
            self.pid: int = _load(self.file)
        except BaseException:
            self.close()
            raise

    def cpu_seconds(self) -> float:
        """The CPU time that the process has used; on other systems than Linux, the time that has passed."""
        with suppress(OSError, AttributeError):
            # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) computes it
            return time.clock_gettime((~self.pid << 3) | 2)
        return time.monotonic()

    def end(self) -> None:
        """Kill the process. Its id can't belong to another, because it stays a zombie until the next fork."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Close the socket, at which the process ends when its work is done."""
        with suppress(OSError):
            self.file.close()
        self.socket.close()


class Lane:
    """Work of one kind, which only waits for work of the same kind.

    Args:
        count: how much work may run at the same time.
        max_wait: seconds after which Overloaded is raised.
        share: of CPU seconds, which work may take although others wait for it.
        most_bytes: of memory that work may take; with more it goes to the lane `huge`.
    """

    def __init__(
        self, count: int, max_wait: float, most_bytes: int = ORDINARY_BYTES, share: float = FAIR_SECONDS
    ) -> None:
        self.turn, self.max_wait, self.waiting = BoundedSemaphore(count), max_wait, 0
        self.most_bytes, self.share = most_bytes, share

    @contextmanager
    def hold(self, max_wait: float) -> Iterator[None]:
        """Have a turn. Raises Overloaded after `max_wait` seconds without one."""
        self.waiting += 1
        try:
            if not self.turn.acquire(timeout=max_wait):
                raise Overloaded
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.turn.release()


class SharedSemaphore:
    """A semaphore of `count` permits that all workers share. Each permit is a lock on a file in `folder`, so the
    system releases it even if its worker is killed."""

    def __init__(self, folder: Path, count: int) -> None:
        self.files = [os.open(folder / f"turn_{i}.lock", os.O_RDWR | os.O_CREAT, 0o600) for i in range(count)]

    @contextmanager
    def hold(self, max_wait: float) -> Iterator[None]:
        """Hold a permit; a worker must not hold two. Raises Overloaded after `max_wait` seconds without one."""
        deadline = time.monotonic() + max_wait
        while (held := next(filter(_locked, self.files), None)) is None:
            if time.monotonic() > deadline:
                raise Overloaded
            gevent.sleep(PAUSE)
        try:
            yield
        finally:
            fcntl.flock(held, fcntl.LOCK_UN)


def _locked(file: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


class Processes:
    """Runs work for a worker's requests.

    Lanes: `shared` has DIGITS_PROCESSES. `bodies` has one, for decoding the largest bodies. `reading` has one,
    because more would only share the CPU, and work may wait for it as long as reading may take. `huge` has one,
    for work that needs more than ORDINARY_BYTES, and holds one of the permits that all workers share.
    """

    def __init__(self, app: Flask, settings: Settings, folder: Path) -> None:
        self.app, self.settings = app, settings
        self.huge_work = SharedSemaphore(folder, settings.huge_pictures)
        max_wait = settings.max_wait_ms / 1000
        self.lanes = {
            "shared": Lane(settings.processes, max_wait),
            "bodies": Lane(1, max_wait, LARGE_BODY_BYTES),
            # a page of handwriting takes seconds; two that ended each other would never be read
            "reading": Lane(1, max(max_wait, settings.cpu_seconds), share=settings.cpu_seconds / 2),
            "huge": Lane(1, max_wait),
        }
        self.idle: list[Child] = []
        self._start()

    def _start(self) -> None:
        self.fork_server, far = gevent.socket.socketpair()
        self.pid: int = _fork()
        if not self.pid:
            _serve_forks(far.fileno(), self.app)
        far.close()

    def close(self) -> None:
        while self.idle:
            self.idle.pop().end()
        self.fork_server.close()
        _waitpid(self.pid, 0)

    def run(self, work: Callable[[], Any], lane: str = "shared") -> Any:
        """Do `work`, which must be picklable, in a process and return its result, or raise its exception.

        Raises Problem: 413 and 422 for work over the budget of memory or CPU time, 503 if no process is free in
        time or others waited too long, 400 if the client has left.
        """
        own, huge, most = self.lanes[lane], self.lanes["huge"], self.settings.max_unpacked_bytes
        with suppress(MemoryError), own.hold(own.max_wait):
            return self._run(work, own, own.most_bytes, own.share)
        # the worker has a copy of the body too
        held = getattr(request.environ["wsgi.input"], "held", 0) if has_request_context() else 0
        with huge.hold(own.max_wait), self.huge_work.hold(own.max_wait), suppress(MemoryError):
            return self._run(work, huge, most - held, own.share)
        detail = f"Decoding the request takes more than the {most} bytes of memory that it may use."
        raise Problem(413, detail)

    def _run(self, work: Callable[[], Any], lane: Lane, most_bytes: int, share: float) -> Any:
        child = self.idle.pop() if self.idle else self._child()
        keep = False
        try:
            begun, cpu_begun = time.monotonic(), child.cpu_seconds()
            try:
                pickle.dump((most_bytes, work), child.file)
                child.file.flush()
                self._watch(child, lane, begun, cpu_begun, share)
                result, error, keep = _load(child.file)
            except (EOFError, OSError, pickle.UnpicklingError):
                # allocating failed where a library can't say so, or it has crashed
                raise MemoryError from None
        finally:
            if keep:
                self.idle.append(child)
            else:
                child.end()
        if error is not None:
            raise error
        return result

    def _child(self) -> Child:
        try:
            return Child(self.fork_server)
        except (EOFError, OSError):
            # somebody has killed the fork server, which has a share of their memory
            self.close()
            self._start()
            return Child(self.fork_server)

    def _watch(self, child: Child, lane: Lane, begun: float, cpu_begun: float, share: float) -> None:
        """Wait until the result begins to arrive. Raises Problem if the work must end before."""
        check = DisconnectCheck(request.environ["gunicorn.socket"]) if has_request_context() else None
        most = self.settings.cpu_seconds
        while True:
            with suppress(TimeoutError):
                gevent.socket.wait_read(child.socket.fileno(), TICK, TimeoutError())
                return
            spent = child.cpu_seconds() - cpu_begun
            if spent > most:
                raise Problem(422, f"The picture takes more than the {most} s of CPU time that it may use.")
            if check and check.has_disconnected():
                raise Problem(400, "The connection was closed before the request was answered.")
            if (lane.waiting and spent > share) or time.monotonic() - begun > 10 * most:
                raise Overloaded

    def end_idle(self) -> None:
        """End the process that has been idle longest; the worker calls it once a second."""
        if self.idle:
            self.idle.pop(0).end()


def _load(reader: Any) -> Any:
    """The next pickle of a stream between a worker and its processes."""
    # without its method `peek`, with which pickle would wait for bytes after the pickle
    only = SimpleNamespace(read=reader.read, readinto=reader.readinto, readline=reader.readline)
    return pickle.load(only)  # noqa: S301


def _serve_forks(control: int, app: Flask) -> NoReturn:
    """The fork server: forks a process for each socket that arrives, until the worker ends."""
    try:
        # gevent's would look for the event loop's watchers
        os.close = _close
        # no signal for the worker may end them before the worker does
        os.setpgid(0, 0)
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            stops = number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
            _signal(number, signal.SIG_IGN if stops else signal.SIG_DFL)
        # connections and listeners must end with the worker
        os.closerange(3, control)
        os.closerange(control + 1, os.sysconf("SC_OPEN_MAX"))
        os.set_blocking(control, True)
        os.nice(NICE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with _socket(fileno=control) as receiver, app.app_context():
            while fds := socket.recv_fds(receiver, 1, 1)[1]:
                with suppress(ChildProcessError):
                    while _waitpid(-1, os.WNOHANG)[0]:
                        pass
                if not _fork():
                    _close(control)
                    _work(fds[0])
                _close(fds[0])
    finally:
        os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _work(fd: int) -> NoReturn:
    """The process that does work, until the worker closes the socket."""
    with suppress(BaseException):
        os.set_blocking(fd, True)
        # what the fork server had freed would otherwise add to the budget
        _trim()
        rest = data_bytes()
        with open(fd, "rb", closefd=False) as reader, open(fd, "wb") as writer:
            pickle.dump(os.getpid(), writer)
            writer.flush()
            while True:
                most_bytes, work = _load(reader)
                _limit(rest + most_bytes)
                result, error = _attempt(work)
                del work
                _limit(None)
                if data_bytes() - rest > MAX_KEPT_BYTES:
                    _trim()
                pickle.dump((result, error, data_bytes() - rest < MAX_KEPT_BYTES), writer)
                writer.flush()
                del result, error
    os._exit(0)


def _trim() -> None:
    """Return memory that was freed to the system; glibc keeps up to 64 MB of it."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _limit(most_bytes: int | None) -> None:
    """Limit the memory of this process; systems without /proc/self/statm have no such limit."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if data_bytes():
        resource.setrlimit(resource.RLIMIT_DATA, (hard if most_bytes is None else most_bytes, hard))


def _attempt(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except (MemoryError, SystemError):
        # orjson can't say that it has no memory
        return None, MemoryError()
    except cv2.error as error:
        no_memory = error.code == cv2.Error.StsNoMem or "bad_alloc" in str(error)
        return None, MemoryError() if no_memory else error
    except Exception as error:
        # the traceback is not pickled, but its text is
        error.add_note(traceback.format_exc())
        return None, error
