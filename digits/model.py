"""The trained network: `load` reads and checks the files of any model, and `Classifier` runs the compiled network
(LiteRT) that classifies images in batches.

The .h5 is the model, and the .tflite beside it is its compiled form, like a .pyc for a .py. This module never
imports TensorFlow, so that processes that serve stay small, start fast and fork safely.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
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
SCALED = np.arange(256, dtype=np.float32) / np.float32(255)

# the network runs on this many images at a time: enough for speed, but few enough not to delay single images
BATCH_SIZE = 32
# fewer images are faster one by one than padded to BATCH_SIZE
PAD_THRESHOLD = 28

# for a model whose card has no sure_threshold
DEFAULT_SURE_THRESHOLD = 0.5

# the shipped model has less than 1 MB
MAX_FILE_BYTES = 1 << 30

# how long the files of a model may disagree, because they are being replaced one by one
SWAP_SECONDS = 2.0


class ModelError(Exception):
    """The model can't be served. The message names the file, the error and what to do."""


class NotCompiledError(ModelError):
    """The .h5 has no compiled form yet. version: the model's. h5: the bytes that were read."""

    def __init__(self, path: Path, h5: bytes, version: str, problem: str) -> None:
        super().__init__(f"{path} has no matching compiled form: {problem}.")
        self.h5, self.version, self.problem = h5, version, problem


def scale(pixels: np.ndarray, top: int = 255) -> np.ndarray:
    """The network's input, float32 (n, 28, 28, 1) in [0, 1], from n images with values from 0 to `top`."""
    # a look-up table gives the same result as dividing, in a sixth of the time
    if pixels.dtype == np.uint8 and top == 255:
        scaled = SCALED[pixels]
    else:
        scaled = pixels.astype(np.float32) / np.float32(top)
    return scaled.reshape(-1, *INPUT)


@dataclass(frozen=True)
class Model:
    """A model that was read and checked: the compiled network, its version and its card.

    version: the first 12 hex digits of the .h5's SHA-256. card: the .json beside it, or for an .h5 without a card
    only its name, version and hash.
    """

    compiled: bytes
    version: str
    card: dict[str, Any]


def load(path: Path) -> Model:
    """Read the .h5 at `path`, the .tflite and .json beside it, and check that they belong together.

    Each file is read only once, and the bytes that were read are hashed, so that no other bytes can be served.
    Raises ModelError, and NotCompiledError for an .h5 whose hash is not in the card, unless it was compiled before
    (digits/compiling.py).
    """
    deadline = time.monotonic() + SWAP_SECONDS
    while True:
        h5 = _read(path)
        if not h5.startswith(HDF5_MAGIC):
            raise ModelError(f"{path} is not an HDF5 file. A model is an .h5 that Keras has saved.")
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
            problem = f"{path.with_suffix('.tflite').name} was not compiled from this {path.name}"
        # training replaces the files one by one; a moment later they match
        if card and time.monotonic() < deadline:
            time.sleep(0.1)
            continue
        if not (cached := cache_of(path, sha256)).exists():
            raise NotCompiledError(path, h5, sha256[:12], problem)
        return without_card(path, sha256, _read(cached))


def cache_of(path: Path, sha256: str) -> Path:
    """Where the compiled form of an .h5 without a card is. sha256: of the .h5, in hex."""
    return path.parent / ".compiled" / f"{sha256}.tflite"


def without_card(path: Path, sha256: str, compiled: bytes) -> Model:
    """The model in an .h5 that has no card. sha256: of the .h5, in hex."""
    return Model(compiled, sha256[:12], {"name": path.stem, "version": sha256[:12], "h5_sha256": sha256})


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{path} can't be read ({error.strerror}). Train a model with `dvc repro`."
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"{path} is too large for a model: it has more than {MAX_FILE_BYTES} bytes.")
    return content


def _card(path: Path) -> dict[str, Any]:
    """The model card; an empty dict if there is none, or if the file is something else."""
    try:
        card = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("the file is not a model card", extra={"path": str(path), "reason": str(error)})
        return {}
    return card if isinstance(card, dict) and "h5_sha256" in card else {}


class Classifier:
    """Runs a model. Threads may share it: a lock lets one run the network at a time.

    One interpreter per thread would not help, because there already is a worker process for each CPU, and each
    pair of interpreters takes some megabytes.
    """

    def __init__(self, model: Model) -> None:
        """Create the interpreters and run one of them.

        Raises ModelError if the network has the wrong shapes or does not end in a softmax, or if the card's
        sure_threshold is not a number in [0, 1].
        """
        self.model = model
        self.version = model.version
        self.card = model.card
        self.sure_threshold = _sure_threshold(model.card)
        self._lock = Lock()
        try:
            self._one = _Network(model.compiled, 1)
            self._many = _Network(model.compiled, BATCH_SIZE)
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
        whole = n - n % BATCH_SIZE
        # the lock is released in between, so that a large batch does not delay single images
        for start in range(0, whole, BATCH_SIZE):
            with self._lock:
                out[start : start + BATCH_SIZE] = self._many(images[start : start + BATCH_SIZE])
        rest = n - whole
        if rest < PAD_THRESHOLD:
            for i in range(whole, n):
                with self._lock:
                    out[i] = self._one(images[i : i + 1])[0]
        else:
            padded = np.zeros((BATCH_SIZE, *INPUT), np.float32)
            padded[:rest] = images[whole:]
            with self._lock:
                out[whole:] = self._many(padded)[:rest]
        return out


def _sure_threshold(card: dict[str, Any]) -> float:
    given = card.get("sure_threshold", DEFAULT_SURE_THRESHOLD)
    # the comparison also excludes NaN, and the type excludes true, which equals 1
    if type(given) not in (int, float) or not 0 <= given <= 1:
        raise ModelError(f"The model card's sure_threshold is {given!r}, but must be a number from 0 to 1.")
    return float(given)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress LiteRT's messages on standard error, which are plain text among lines of JSON."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Network:
    """A LiteRT interpreter for batches of exactly n images."""

    def __init__(self, compiled: bytes, n: int) -> None:
        # one thread, because there already is a worker for each CPU
        self._interpreter = Interpreter(model_content=compiled, num_threads=1)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shapes = [tuple(d["shape_signature"][1:]) for d in (*inputs, *outputs)]
        if shapes != [INPUT, (OUTPUT,)] or any(d["dtype"] is not np.float32 for d in (*inputs, *outputs)):
            raise ValueError(f"its shapes must be float32 (n, 28, 28, 1) -> (n, 10), but are {shapes}")
        self._in, self._out = inputs[0]["index"], outputs[0]["index"]
        self._interpreter.resize_tensor_input(self._in, [n, *INPUT])
        with quiet():
            self._interpreter.allocate_tensors()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._in, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._out)
