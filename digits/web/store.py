"""The store of collected answers: a folder, or an address of an object store that fsspec knows. A file in
collected/DAY has what is kept of one request; once that is corrected, a file in corrected/DAY has both. Each is
written whole.

A process of its own has the store, so that a slow or hanging one delays no answer. From descriptor 0, a socket,
it reads lines of JSON, each a list of calls `[method, arguments]` of the Store, and answers each line with the
list of their results (digits/web/collect.py).

    python -m digits.web.store ADDRESS MOST_BYTES MOST_DAYS
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

COLLECTED, CORRECTED = "collected", "corrected"
# seconds between two looks at the size and the age of everything
SWEEP_SECONDS = 600.0
# nice value of the process, so that answers come first
NICE = 10
# a temporary file that is older than this many seconds was left by a process that was killed
LEFT_SECONDS = 3600.0
# what the oldest documents are removed down to, as a fraction of the limit, so that not each new one removes one,
# and seconds until a store full of corrections is looked at again
ENOUGH, FULL_SECONDS = 0.95, 10.0
# seconds after the worker's end in which a slow store may take what is left
LAST_SECONDS = 10.0

Document = dict[str, Any]


class Store:
    """A store. Its methods raise OSError, also if it is full of corrections, which are never removed, and what
    else the file system raises. Several processes may use the same store; each learns what the others have written
    when it sweeps.

    Args:
        address: path of a folder, or URL.
        most_bytes: of all files together.
        most_days: age of uncorrected documents.
    """

    def __init__(self, address: str, most_bytes: int, most_days: int) -> None:
        options = {"use_listings_cache": False, "skip_instance_cache": True} if "://" in address else {}
        self.system, root = fsspec.core.url_to_fs(address, **options)
        self.root = root.rstrip("/")
        self.most_bytes, self.most_days = most_bytes, most_days
        self.room, self.full_since = 0, float("-inf")

    def keep(self, document: Document) -> Document:
        """Write what is kept of a request. Returns {"status": 200}."""
        self._write(COLLECTED, document)
        return {"status": 200}

    def correct(self, request_id: str, digits: list[Any], replace: bool, now: str) -> Document:
        """Keep what the pictures of a request show, on the disk before it returns.

        Args:
            request_id, digits, replace: as POST /corrections gets them.
            now: time of the correction in ISO 8601.

        Returns:
            {"status": 200, "pictures": number of those that are corrected}, or what a Problem has: `status`,
            `detail` and further members.
        """
        kept, old = self._find(COLLECTED, request_id), self._find(CORRECTED, request_id)
        # a client may use an id again
        known = kept or old or {"images": len(digits), "pictures": []}
        if len(digits) != known["images"]:
            problem = (
                f"must have an item for each picture of the request, of which there are {known['images']}."
            )
            return _refused(problem, found=f"{len(digits)} items")
        said = [(digits[picture["index"]], picture) for picture in known["pictures"]]
        said = [(digit, picture) for digit, picture in said if digit is not None]
        if not said:
            missing = {"status": 404, "detail": "No picture that this corrects is kept."}
            return missing | {"field": "request_id", "found": request_id}
        for digit, picture in said:
            pages = len(picture["answer"].get("readings", ())) or picture["answer"].get("pages", 1)
            if isinstance(digit, dict | list) and "picture" not in picture:
                return _refused("must not have boxes, because the images were sent as pixels.")
            if isinstance(digit, int) and "pixels" not in picture:
                return _refused("must have text and boxes, because POST /read read the picture line by line.")
            named = [each["page"] for each in digit] if isinstance(digit, list) else [1]
            if max(named) > pages or (isinstance(digit, dict) and pages > 1):
                return _refused(f"must name pages of the file, which has {pages} pages.")
        conflict = 'It has been corrected differently. Send "replace": true to replace that.'
        # both are there if a process was killed between writing one and removing the other
        if not old or old["digits"] != digits or (kept and kept["time"] != old["time"]):
            if old and not replace:
                return {"status": 409, "detail": conflict}
            try:
                document = known | {"digits": digits, "corrected": now}
                self._write(CORRECTED, document, create=not old)
            except FileExistsError:
                # another process was faster
                return {"status": 409, "detail": conflict}
            if old and old["time"][:10] != known["time"][:10]:
                self._remove(self._path(CORRECTED, old))
        if kept:
            self._remove(self._path(COLLECTED, kept))
            self.room += len(json.dumps(kept))
        return {"status": 200, "pictures": len(said)}

    def sweep(self, needed: int = 0) -> None:
        """Remove uncorrected documents that are too old, then the oldest until the rest is within the limit and
        leaves room for `needed` more bytes, if possible."""
        now = datetime.now(UTC)
        first = (now - timedelta(days=self.most_days)).strftime("%Y-%m-%d")
        collected, total = [], 0
        for folder in (COLLECTED, CORRECTED):
            for path, size, changed in self._files(folder):
                left = path.endswith(".tmp") and changed < now.timestamp() - LEFT_SECONDS
                if left or (folder == COLLECTED and path.rsplit("/", 2)[1] < first):
                    self._remove(path)
                    continue
                total += size
                if folder == COLLECTED:
                    collected.append((changed, path, size))
        if total + needed > self.most_bytes:
            for _, path, size in sorted(collected):
                if total + needed <= ENOUGH * self.most_bytes:
                    break
                self._remove(path)
                total -= size
        self.room = self.most_bytes - total

    def _files(self, folder: str) -> list[tuple[str, int, float]]:
        """Path, size and time of the last change of each file."""
        files = []
        for path, facts in self.system.find(f"{self.root}/{folder}", detail=True).items():
            times = (facts.get(name) for name in ("mtime", "LastModified", "created"))
            changed = next((time for time in times if time is not None), 0.0)
            if isinstance(changed, datetime):
                changed = changed.timestamp()
            files.append((path, int(facts["size"] or 0), float(changed)))
        return files

    def _path(self, folder: str, document: Document) -> str:
        return f"{self.root}/{folder}/{document['time'][:10]}/{document['request_id']}.json"

    def _find(self, folder: str, request_id: str) -> Document | None:
        """The newest document of a request."""
        with suppress(FileNotFoundError):
            for day in sorted(self.system.ls(f"{self.root}/{folder}", detail=False), reverse=True):
                with suppress(FileNotFoundError):
                    return json.loads(self.system.cat_file(f"{day.rstrip('/')}/{request_id}.json"))
        return None

    def _remove(self, path: str) -> None:
        # another process may have removed it
        with suppress(FileNotFoundError):
            self.system.rm_file(path)

    def _write(self, folder: str, document: Document, create: bool = False) -> None:
        """Write a file whole, and wait for the disk if it is a correction. create: raise FileExistsError if it is
        there."""
        path, data = self._path(folder, document), json.dumps(document).encode()
        if len(data) > self.room and time.monotonic() - self.full_since > FULL_SECONDS:
            self.sweep(len(data))
            if len(data) > self.room:
                self.full_since = time.monotonic()
        if len(data) > self.room:
            raise OSError("the store is full of corrections")
        if isinstance(self.system, LocalFileSystem):
            _write_file(Path(path), data, create, durable=folder == CORRECTED)
        else:
            self.system.pipe_file(path, data, mode="create" if create else "overwrite")
        self.room -= len(data)


def _write_file(path: Path, data: bytes, create: bool, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = f"{path}.{os.getpid()}.tmp"
    try:
        with open(new, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        (os.link if create else os.replace)(new, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(new)
    # the names of the file, of its day and of the folder of days
    for folder in path.parents[:3] if durable else ():
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _refused(problem: str, **more: str) -> Document:
    return {"status": 422, "detail": f"The field digits {problem}", "field": "digits", **more}


opened = lru_cache(Store)


def result(method: str, arguments: Document) -> Document:
    """What a call of the store on the command line returns, or {"status": 503, "reason": ...}."""
    try:
        store = opened(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        return getattr(store, method)(**arguments)
    except Exception as error:
        # each file system has exceptions of its own, and this process must go on
        return {"status": 503, "reason": f"{type(error).__name__}: {error}"[:300]}


def end_after_the_worker() -> None:
    """End soon after the worker, even if the store hangs."""
    ended = select.poll()
    # only that the other end is closed
    ended.register(0, 0)
    ended.poll()
    time.sleep(LAST_SECONDS)
    os._exit(1)


def main() -> None:
    """Answer until the worker has ended, and keep to the limits even if nothing new arrives."""
    # the worker decides when it ends, which may be after a signal to all
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    threading.Thread(target=end_after_the_worker, daemon=True).start()
    worker = socket.socket(fileno=0)
    # the worker's sockets don't block
    worker.setblocking(True)
    swept = float("-inf")
    with worker.makefile("rwb") as file:
        while True:
            if time.monotonic() - swept > SWEEP_SECONDS:
                result("sweep", {})
                swept = time.monotonic()
            if select.select([worker], [], [], SWEEP_SECONDS)[0]:
                if not (line := file.readline()):
                    return
                file.write(json.dumps([result(*call) for call in json.loads(line)]).encode() + b"\n")
                file.flush()


if __name__ == "__main__":
    main()
