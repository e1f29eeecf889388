"""Runs stages of the pipeline one after the other in one process, because TensorFlow takes seconds to start. Run
it in a copy of the project. The argument is JSON, a dictionary of runs, and it prints their outcomes as JSON.

A run has "argv", a script or module with its arguments. "files" are changed before, and restored afterwards:
path -> null (removed), {"text": ...}, or {"copy": another path, "part": how much of it}. "disk" is the size in
bytes above which no file can be written, as on a full disk. With "stop", the run gets SIGINT once it has printed a
line.

An outcome has what was "printed" on either stream, the exit "code", and the paths that were "changed" in data/,
models/ and metrics/.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

ROOT = Path.cwd()
FOLDERS = ("data", "models", "metrics")


def contents() -> dict[str, bytes]:
    """The files that stages write: path -> content."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)): path.read_bytes() for path in found}


def change(path: Path, how: dict[str, Any] | None) -> None:
    """Remove or replace a file."""
    if how is None:
        path.unlink()
    elif "text" in how:
        path.write_text(how["text"])
    else:
        whole = (ROOT / how["copy"]).read_bytes()
        path.write_bytes(whole[: int(len(whole) * how.get("part", 1))])


def outcome(argv: list[str], disk: int | None = None, stop: bool = False) -> dict[str, Any]:
    """Run a script or module."""
    printed = bytearray()

    def listen() -> None:
        while part := os.read(out, 1 << 16):
            if stop and not printed:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            printed.extend(part)

    out, into = os.pipe()
    kept, code = (os.dup(1), os.dup(2)), 0
    os.dup2(into, 1)
    os.dup2(into, 2)
    os.close(into)
    listener = threading.Thread(target=listen)
    listener.start()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if disk is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, limits[1]))
    sys.argv = argv
    try:
        if argv[0].endswith(".py"):
            runpy.run_path(argv[0], run_name="__main__")
        else:
            runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        # as Python does at the end
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
        code = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sys.stdout.flush()
    sys.stderr.flush()
    for stream, old in enumerate(kept, 1):
        os.dup2(old, stream)
        os.close(old)
    listener.join()
    os.close(out)
    return {"printed": printed.decode(), "code": code}


def main() -> None:
    # if the tests run in the background they ignore SIGINT, and so would this process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, str(ROOT))
    outcomes: dict[str, Any] = {}
    for name, run in json.loads(sys.argv[1]).items():
        files = run.pop("files", {})
        with tempfile.TemporaryDirectory() as kept:
            for i, (path, how) in enumerate(files.items()):
                shutil.copy(path, Path(kept, str(i)))
                change(Path(path), how)
            before = contents()
            outcomes[name] = outcome(**run)
            after = contents()
            changed = [path for path in before | after if before.get(path) != after.get(path)]
            outcomes[name]["changed"] = changed
            for i, path in enumerate(files):
                shutil.copy(Path(kept, str(i)), path)
    outcomes["modules"] = list(sys.modules)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
