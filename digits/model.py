"""The trained network as the service uses it: `load` reads a model's files and checks them, `Classifier` runs
the compiled network (LiteRT) on batches of images. digits/server/master.py makes one for all workers,
app.py in tests.

The .h5 is the model; the .tflite beside it is its compiled form, as a .pyc is a .py's. TensorFlow is never
imported here: a process that serves stays small, starts at once and forks safely.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

log = logging.getLogger("digits.model")

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
INPUT, OUTPUT = (28, 28, 1), 10

# a batch runs in pieces of this size: large enough for speed, small enough that a single image waits little
PIECE = 32
# a rest of fewer images is cheaper one by one than filled up to a piece
FEW = 28

# the least probability of a sure answer, for a model whose card has no sure_threshold
SURE = 0.5

# of a file; a model of this kind has a few
MOST_BYTES = 1 << 30
# a network that takes longer is none for a service
COMPILE_SECONDS = 600

# how long files that are just being replaced (three renames) may disagree
SWAP_SECONDS = 2.0


class ModelError(Exception):
    """The model can't be served; the message says which file, what is wrong with it and what to do."""


class NotCompiledError(ModelError):
    """The .h5 has no compiled form yet, and the caller wants none made. version: the model's."""

    def __init__(self, path: Path, version: str) -> None:
        super().__init__(f"{path} is not compiled.")
        self.version = version


@dataclass(frozen=True)
class Model:
    """A model that was read and checked: the compiled network, its version and its card.

    version: the first 12 hex digits of the .h5's SHA-256. card: models/mnist.json, or for an .h5 without a
    card of its own just name, version and hash.
    """

    compiled: bytes
    version: str
    card: dict[str, Any]


def load(path: Path, compiled_only: bool = False) -> Model:
    """Read the .h5 at `path`, the .tflite and .json beside it, and check that they belong together.

    Each file is read once and what was read is hashed, so that nothing can be swapped in between. An .h5 that
    the card does not name is compiled in a process of its own, which needs TensorFlow and may take minutes;
    compiled_only: raise NotCompiledError instead, unless that was done before. Raises ModelError.
    """
    deadline = time.monotonic() + SWAP_SECONDS
    while True:
        h5 = _read(path)
        if not h5.startswith(HDF5_MAGIC):
            raise ModelError(f"{path} is not an HDF5 file: give DIGITS_MODEL an .h5 that Keras saved.")
        sha256 = hashlib.sha256(h5).hexdigest()
        card = _card(path.with_suffix(".json"))
        if card.get("h5_sha256") != sha256:
            problem = f"{path.with_suffix('.json').name} was not written for this {path.name}"
        elif not path.with_suffix(".tflite").exists():
            problem = f"there is no {path.with_suffix('.tflite').name}"
        else:
            compiled = _read(path.with_suffix(".tflite"))
            if hashlib.sha256(compiled).hexdigest() == card.get("tflite_sha256"):
                return Model(compiled, sha256[:12], card)
            problem = f"{path.with_suffix('.tflite').name} is not what was compiled from {path.name}"
        # training replaces the files one after another; a moment later they fit
        if card and time.monotonic() < deadline:
            time.sleep(0.1)
            continue
        cached = path.parent / ".compiled" / f"{sha256}.tflite"
        if cached.exists():
            compiled = _read(cached)
        elif compiled_only:
            raise NotCompiledError(path, sha256[:12])
        else:
            compiled = _compile(path, h5, cached, problem)
        return Model(compiled, sha256[:12], {"name": path.stem, "version": sha256[:12], "h5_sha256": sha256})


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path} can't be read ({error.strerror}): train one with `dvc repro`.") from None
    if len(content) > MOST_BYTES:
        raise ModelError(f"{path} has more than {MOST_BYTES} bytes: that is no model of digits.")
    return content


def _card(path: Path) -> dict[str, Any]:
    """The model card; without one, or where another file has its name, nothing."""
    try:
        card = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("the file is no model card", extra={"path": str(path), "reason": str(error)})
        return {}
    return card if isinstance(card, dict) and "h5_sha256" in card else {}


def _compile(path: Path, h5: bytes, cached: Path, problem: str) -> bytes:
    """The .tflite of an .h5 by digits.training.compile, kept as `cached`. problem: why it has to be compiled."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModelError(
            f"{path} has no compiled form that fits, and compiling needs TensorFlow, which is not installed. "
            f"Where it is, run: python -m digits.training.compile {path}, and bring {cached.parent} along."
        )
    log.warning("compiling the model", extra={"path": str(path), "reason": problem})
    with tempfile.TemporaryDirectory() as folder:
        # what was hashed is what gets compiled, whatever happens to the file meanwhile
        source, target = Path(folder, path.name), Path(folder, "compiled.tflite")
        source.write_bytes(h5)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "digits.training.compile", str(source), str(target)],
                cwd=Path(__file__).resolve().parent.parent,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMPILE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{path} can't be compiled within {COMPILE_SECONDS} s.") from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(f"{path} can't be compiled: {reason.replace(str(source), path.name)}")
        compiled = target.read_bytes()
    try:
        cached.parent.mkdir(exist_ok=True)
        beside = cached.with_suffix(f".{os.getpid()}")
        beside.write_bytes(compiled)
        beside.replace(cached)
    except OSError as error:
        # a read-only or full disk costs the next start some seconds, no more
        log.warning("the compiled model is not kept", extra={"path": str(cached), "reason": str(error)})
    return compiled


class Classifier:
    """Runs a model. Threads may share it: one batch piece is computed at a time.

    A lock rather than an interpreter a thread: there is a worker process for every CPU already, and each pair
    of interpreters holds some megabytes of activations.
    """

    def __init__(self, model: Model) -> None:
        """Build the interpreters and let one answer.

        Raises ModelError if the network is of another shape, or the card's sure_threshold is no number in [0, 1].
        """
        self.version = model.version
        self.card = model.card
        self.sure_threshold = _sure_threshold(model.card)
        self._lock = Lock()
        try:
            self._one = _Network(model.compiled, 1)
            self._piece = _Network(model.compiled, PIECE)
            answer = self.probabilities(np.zeros((1, *INPUT), np.float32))
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"The compiled model can't be run: {error}") from None
        if not np.isclose(answer.sum(), 1, atol=1e-3):
            raise ModelError(
                f"The model {model.card.get('name', '')} ({model.version}) does not end in a softmax: its ten "
                "outputs do not add up to 1. Add keras.layers.Softmax() at its end and save it again."
            )

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """float32 (n, 10), the probability of each digit, for images float32 (n, 28, 28, 1) in [0, 1]."""
        n = len(images)
        if n == 1:
            with self._lock:
                return self._one(images)
        out = np.empty((n, OUTPUT), np.float32)
        whole = n - n % PIECE
        # the lock is let go between pieces so that a large batch does not hold up single images
        for start in range(0, whole, PIECE):
            with self._lock:
                out[start : start + PIECE] = self._piece(images[start : start + PIECE])
        rest = n - whole
        if rest < FEW:
            for i in range(whole, n):
                with self._lock:
                    out[i] = self._one(images[i : i + 1])[0]
        else:
            padded = np.zeros((PIECE, *INPUT), np.float32)
            padded[:rest] = images[whole:]
            with self._lock:
                out[whole:] = self._piece(padded)[:rest]
        return out


def _sure_threshold(card: dict[str, Any]) -> float:
    given = card.get("sure_threshold", SURE)
    # NaN is not within the limits either, and true would pass for 1
    if type(given) not in (int, float) or not 0 <= given <= 1:
        raise ModelError(f"The model card's sure_threshold is {given!r}; a number from 0 to 1 is wanted.")
    return float(given)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep LiteRT's greeting, plain text on standard error, out of logs that are JSON otherwise."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Network:
    """One LiteRT interpreter for batches of exactly n images."""

    def __init__(self, compiled: bytes, n: int) -> None:
        # one thread: the workers share the CPUs, and threads inside each would only fight for them
        self._interpreter = Interpreter(model_content=compiled, num_threads=1)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shapes = [tuple(d["shape_signature"][1:]) for d in (*inputs, *outputs)]
        if shapes != [INPUT, (OUTPUT,)] or any(d["dtype"] is not np.float32 for d in (*inputs, *outputs)):
            raise ValueError(f"float32 (n, 28, 28, 1) -> (n, 10) is wanted, its shapes are {shapes}")
        self._in, self._out = inputs[0]["index"], outputs[0]["index"]
        self._interpreter.resize_tensor_input(self._in, [n, *INPUT])
        with _quiet():
            self._interpreter.allocate_tensors()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._in, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._out)
