"""Compiles a trained .h5 for serving: `python -m digits.compile IN.h5 OUT.tflite`. train.py calls `compile_h5`
for what it trained; digits/model.py starts it in a process of its own for an .h5 that someone dropped in.

An .h5 can carry code (Lambda layers, custom classes; CVE-2025-9905: Keras ignores safe_mode for HDF5), so its
description is read and checked before Keras may touch it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import h5py


class CompileError(Exception):
    """The .h5 can't be compiled; the message says why."""


def check(path: Path) -> None:
    """Raise CompileError unless `path` is an .h5 model of Keras's own layers, none of which runs code from it."""
    try:
        with h5py.File(path, "r") as file:
            config = json.loads(file.attrs["model_config"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CompileError(f"{path} is not a model that Keras saved as HDF5: {error}") from None
    for part in _parts(config):
        name = part.get("class_name")
        if name == "Lambda" or name == "__lambda__":
            raise CompileError(f"{path} has a Lambda layer, which would run code out of the file.")
        module = part.get("module")
        if part.get("registered_name") and ">" in str(part["registered_name"]):
            raise CompileError(f"{path} has a layer that is not Keras's own: {part['registered_name']}")
        if module is not None and module != "builtins" and str(module).split(".")[0] != "keras":
            raise CompileError(f"{path} has a layer that is not Keras's own: {module}.{name}")


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


def compile_h5(path: Path) -> bytes:
    """The .tflite of an .h5: float32 (n, 28, 28, 1) -> float32 (n, 10). Raises CompileError."""
    check(path)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    try:
        network = keras.models.load_model(path, compile=False)
    except Exception as error:
        raise CompileError(f"{path} can't be loaded by this Keras: {str(error).splitlines()[0]}") from None
    shapes = network.input_shape, network.output_shape
    if shapes != ((None, 28, 28, 1), (None, 10)):
        raise CompileError(
            f"{path} has shapes {shapes[0]} -> {shapes[1]}; (None, 28, 28, 1) -> (None, 10) is wanted."
        )
    # the converter prints its work to standard output, which belongs to whoever calls
    with redirect_stdout(StringIO()):
        return tf.lite.TFLiteConverter.from_keras_model(network).convert()


def main() -> None:
    """Compile the file that the command line names."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m digits.compile IN.h5 OUT.tflite")
    try:
        Path(sys.argv[2]).write_bytes(compile_h5(Path(sys.argv[1])))
    except (CompileError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
