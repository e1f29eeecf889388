"""The training and test images. `python -m digits.training.data`, the pipeline's `data` stage, gets them from
Keras, from a local file or from digits/training/synthetic.py, verifies them and writes them to one canonical
file. train.py calls `load`, which reads that file, and `split`, which selects the held-out images.

MNIST's authors: LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist/ (CC BY-SA 3.0).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import yaml

Arrays = dict[str, np.ndarray]

ROOT = Path(__file__).resolve().parents[2]
CANONICAL = ROOT / "data" / "digits.npz"

# SHA-256 of the four published files (IDX: a header, followed by the bytes)
MNIST_SHA256 = {
    "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

OFFLINE = """MNIST could not be downloaded: {error}
You can
  - use a copy of mnist.npz: set MNIST_NPZ=/path/to/mnist.npz (or the option --npz)
  - use synthetic digits, which need no network: dvc exp run -S data.source=synthetic"""


class DataError(Exception):
    """The images can't be read or are not the expected ones. The message says what to do."""


def idx_sha256(array: np.ndarray) -> str:
    """SHA-256 of a uint8 array as an IDX file: 0, 0, type 8, number of dimensions, their sizes (big-endian),
    bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def verify(arrays: Arrays, where: str) -> None:
    """Raise DataError unless `arrays` are exactly MNIST's x_train, y_train, x_test and y_test."""
    for name, sha256 in MNIST_SHA256.items():
        if name not in arrays:
            raise DataError(f"{where} is not MNIST: it has no {name}.")
        array = arrays[name]
        if array.dtype != np.uint8 or idx_sha256(array) != sha256:
            raise DataError(f"{where} is not MNIST: its {name} differs from the published file.")


def from_file(path: Path) -> Arrays:
    """Read MNIST from a local mnist.npz. Raises DataError if it is missing, damaged or another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in MNIST_SHA256}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read as an .npz file: {error}") from None
    verify(arrays, str(path))
    return arrays


def from_keras() -> Arrays:
    """Get MNIST from Keras, which downloads it once and shows its progress. Raises DataError if that fails."""
    # the import takes seconds and is only needed here
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    # Keras sets no timeout, and a dead connection would block forever
    socket.setdefaulttimeout(30)
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:
        # some errors have no message
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(OFFLINE.format(error=reason)) from None
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    verify(arrays, "What Keras downloaded")
    return arrays


def write(arrays: Arrays, path: Path) -> None:
    """Write the canonical file, uncompressed and with a fixed order, so that equal arrays give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{name: arrays[name] for name in MNIST_SHA256})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path = CANONICAL) -> Arrays:
    """The arrays in the canonical file: x_train, x_test uint8 (n, 28, 28); y_train, y_test uint8 (n,), 0 to 9.

    Raises DataError if the file is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in MNIST_SHA256}
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Run `dvc repro` or `python -m digits.training.data`.") from None


def origin(arrays: Arrays) -> str:
    """The name of the arrays' source in the model card: "mnist" or "synthetic"."""
    return "mnist" if idx_sha256(arrays["x_train"]) == MNIST_SHA256["x_train"] else "synthetic"


def split(
    n: int, validation: int, calibration_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide `n` images into those for training, calibration and validation. Returns their indices, int64, in
    random order.

    validation: the number of images that are not for training. calibration_fraction: the fraction of these for
    calibration. Raises DataError if any of the three would be empty.
    """
    calibration = round(calibration_fraction * validation)
    if not 0 < calibration < validation < n:
        raise DataError(
            f"{n} images are too few for training, calibration and validation: "
            f"params.yaml has validation: {validation} and calibration_fraction: {calibration_fraction}."
        )
    order = np.random.default_rng(seed).permutation(n)
    return order[validation:], order[:calibration], order[calibration:validation]


def main() -> None:
    """Get the images that params.yaml names, and write the canonical file."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["data"]
    parser = argparse.ArgumentParser(description="Get the training and test images.")
    parser.add_argument("--source", choices=["mnist", "synthetic"], default=params["source"])
    parser.add_argument(
        "--npz", default=os.environ.get("MNIST_NPZ"), help="a local mnist.npz (or set MNIST_NPZ)"
    )
    parser.add_argument("--out", type=Path, default=CANONICAL)
    args = parser.parse_args()
    try:
        if args.source == "synthetic":
            from digits.training.synthetic import draw

            arrays = draw(**params["synthetic"])
        elif args.npz:
            arrays = from_file(Path(args.npz))
        else:
            arrays = from_keras()
        write(arrays, args.out)
    except DataError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{args.out} can't be written: {error.strerror}")
    print(
        f"{args.source}: {len(arrays['x_train'])} training and {len(arrays['x_test'])} test images in {args.out}"
    )


if __name__ == "__main__":
    main()
