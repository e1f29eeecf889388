"""Compiles an .h5 that has no compiled form, in a separate process, which needs TensorFlow and may take minutes.
The result is cached beside the model.

    python -m digits.compiling MODEL.h5  # compiles the file, then sends SIGHUP to the parent, which loads it
"""

from __future__ import annotations

import importlib.util
import logging.config
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from digits import logs, model
from digits.model import Model, ModelError, NotCompiledError

# a network that takes longer to compile is too large for this service
SECONDS = 600

log = logging.getLogger("digits.model")


def load(path: Path) -> Model:
    """Load a model like `digits.model.load`, but compile it if it has no compiled form. Raises ModelError."""
    try:
        return model.load(path)
    except NotCompiledError as error:
        log.warning("compiling the model", extra={"path": str(path), "reason": error.problem})
        sha256, cached = error.sha256, model.cache_of(path, error.sha256)
        compiled = _compile(path, error.h5, cached)
    try:
        cached.parent.mkdir(exist_ok=True)
        beside = cached.with_suffix(f".{os.getpid()}")
        beside.write_bytes(compiled)
        beside.replace(cached)
    except OSError as error:
        # on a read-only or full disk, the next start must compile again
        log.warning("the compiled model is not cached", extra={"path": str(cached), "reason": str(error)})
    return model.without_card(path, sha256, compiled)


def _compile(path: Path, h5: bytes, cached: Path) -> bytes:
    """The compiled form of an .h5. Raises ModelError."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModelError(
            f"{path} has no matching compiled form, and compiling needs TensorFlow, which is not installed. "
            f"Where it is installed, run `python -m digits.training.compile {path}`, and copy {cached.parent}."
        )
    with tempfile.TemporaryDirectory() as folder:
        # a copy, so that the bytes that were hashed are compiled, even if the file changes
        source, target = Path(folder, path.name), Path(folder, "compiled.tflite")
        source.write_bytes(h5)
        command = [sys.executable, "-m", "digits.training.compile", str(source), str(target)]
        root = Path(__file__).resolve().parent.parent
        try:
            done = subprocess.run(
                command, cwd=root, capture_output=True, text=True, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{path} can't be compiled within {SECONDS} s.") from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(f"{path} can't be compiled: {reason.replace(str(source), path.name)}")
        return target.read_bytes()


def main() -> None:
    """Compile the file on the command line. Whether that succeeds or fails, then send SIGHUP to the parent."""
    parent = os.getppid()
    logging.config.dictConfig(logs.config())
    try:
        load(Path(sys.argv[1]))
    except ModelError as error:
        log.error(str(error))
    finally:
        if os.getppid() == parent:
            os.kill(parent, signal.SIGHUP)


if __name__ == "__main__":
    main()
