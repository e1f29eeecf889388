"""The trained networks: `load` reads and checks a model's files, `Network` runs a compiled network (LiteRT), and
`Classifier` classifies images with it in batches.

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
    """The .h5 has no compiled form yet.

    Args:
        path: of the .h5.
        h5: the bytes that were read.
        sha256: their hash, in hex.
        problem: why the .tflite beside it is none.
    """

    def __init__(self, path: Path, h5: bytes, sha256: str, problem: str) -> None:
        super().__init__(f"{path} has no matching compiled form: {problem}.")
        self.h5, self.sha256, self.problem = h5, sha256, problem


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
    """A model that was read and checked."""

    compiled: bytes  # the content of the .tflite
    version: str  # the first 12 hex digits of the .h5's SHA-256
    card: dict[str, Any]  # the .json, or for an .h5 without a card only its name, version and hash


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
            raise NotCompiledError(path, h5, sha256, problem)
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
            f"{path} can't be read ({error.strerror}). Train a model with `make train`."
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
    """Runs a model. Threads may share it.

    One interpreter per thread would not help, because there already is a worker process for each CPU, and each
    pair of interpreters takes some megabytes.
    """

    def __init__(self, model: Model) -> None:
        """Create the interpreters and run them.

        Raises ModelError if the network has the wrong shapes or does not end in a softmax, or if the card's
        sure_threshold is not a number in [0, 1].
        """
        self.model, self.version, self.card = model, model.version, model.card
        sure = model.card.get("sure_threshold", DEFAULT_SURE_THRESHOLD)
        # the comparison also excludes NaN, and the type excludes true, which equals 1
        if type(sure) not in (int, float) or not 0 <= sure <= 1:
            raise ModelError(
                f"The model card's sure_threshold is {sure!r}, but must be a number from 0 to 1."
            )
        self.sure_threshold = float(sure)
        try:
            self._one, self._many = (Network(model.compiled, INPUT, (OUTPUT,)) for _ in range(2))
            answers = self.probabilities(np.zeros((BATCH_SIZE + 1, *INPUT), np.float32))
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"The compiled model can't be run: {error}") from None
        if not np.allclose(answers.sum(1), 1, atol=1e-3):
            raise ModelError(
                f"The model {model.card.get('name', '')} ({model.version}) does not end in a softmax: its ten "
                "outputs do not add up to 1. Add keras.layers.Softmax() at its end and save it again."
            )

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """float32 (n, 10), the probability of each digit, for images float32 (n, 28, 28, 1) in [0, 1]."""
        if len(images) == 1:
            return self._one(images)
        out = np.empty((len(images), OUTPUT), np.float32)
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            if len(batch) < PAD_THRESHOLD:
                for i in range(len(batch)):
                    out[start + i] = self._one(batch[i : i + 1])[0]
            else:
                padded = batch if len(batch) == BATCH_SIZE else np.resize(batch, (BATCH_SIZE, *INPUT))
                out[start : start + BATCH_SIZE] = self._many(padded)[: len(batch)]
        return out


class Network:
    """Runs a compiled network for inputs of any size that it takes. A lock lets one thread run it at a time."""

    def __init__(self, compiled: bytes, takes: tuple[int, ...], gives: tuple[int, ...]) -> None:
        """Create the interpreter. takes, gives: the last sides of the input and of the output.

        Raises ValueError for a damaged network or one of other shapes.
        """
        # one thread, because there already is a worker for each CPU
        self._interpreter = Interpreter(model_content=compiled, num_threads=1)
        details = [*self._interpreter.get_input_details(), *self._interpreter.get_output_details()]
        shapes = [tuple(each["shape_signature"].tolist()) for each in details]
        ends = [shape[-len(end) :] for shape, end in zip(shapes, (takes, gives), strict=False)]
        if (
            len(shapes) != 2
            or ends != [takes, gives]
            or any(each["dtype"] is not np.float32 for each in details)
        ):
            raise ValueError(f"its shapes must be float32 ..., {takes} -> ..., {gives}, but are {shapes}")
        self._in, self._out = (each["index"] for each in details)
        self._lock, self._shape = Lock(), ()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The output for an input, both float32. Raises RuntimeError, also if there is no memory."""
        with self._lock:
            # if anything fails, begin anew
            shape, self._shape = self._shape, ()
            if values.shape != shape:
                self._interpreter.resize_tensor_input(self._in, values.shape)
                with _quiet():
                    self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(self._in, values)
            self._interpreter.invoke()
            self._shape = values.shape
            return self._interpreter.get_tensor(self._out)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress LiteRT's messages on standard error, which are plain text among lines of JSON."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
