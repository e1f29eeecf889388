"""MNIST as its authors published it: LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist/ (CC BY-SA 3.0).
`verify` compares arrays with the published files, so that a copy from anywhere can be used."""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from digits.training.arrays import Arrays
from digits.training.stage import StageError

# SHA-256 of the four published files (IDX: a header, followed by the bytes)
MNIST_SHA256 = {
    "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def idx_sha256(array: np.ndarray) -> str:
    """SHA-256 of a uint8 array as an IDX file: 0, 0, type 8, number of dimensions, their sizes (big-endian),
    bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def verify(arrays: Arrays, where: str) -> None:
    """Raise StageError unless `arrays` are exactly MNIST's x_train, y_train, x_test and y_test."""
    for name, sha256 in MNIST_SHA256.items():
        if name not in arrays:
            raise StageError(f"{where} is not MNIST: it has no {name}.")
        array = arrays[name]
        if array.dtype != np.uint8 or idx_sha256(array) != sha256:
            raise StageError(f"{where} is not MNIST: its {name} differs from the published file.")


def origin(arrays: Arrays) -> str:
    """The name of the data set in the model card: "mnist" or "synthetic"."""
    return "mnist" if idx_sha256(arrays["x_train"]) == MNIST_SHA256["x_train"] else "synthetic"
