"""The pipeline's `data` stage: `python -m digits.training.data` gets the training and test images from Keras, from
a local file or from digits/training/synthetic.py, verifies them, and writes them to data/digits.npz."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from digits.training.arrays import DIGITS, Arrays, write
from digits.training.mnist import MNIST_SHA256, verify
from digits.training.stage import StageError, read_params, run
from digits.training.synthetic import draw

OFFLINE = """MNIST could not be downloaded: {error}
You can
  - use a copy of mnist.npz: set MNIST_NPZ=/path/to/mnist.npz (or the option --npz)
  - use synthetic digits, which need no network: dvc exp run -S data.source=synthetic"""


@dataclass(frozen=True)
class Synthetic:
    """The number of images of each set, and the seed."""

    train: int
    test: int
    seed: int


@dataclass(frozen=True)
class Params:
    """`data` in params.yaml. source: mnist or synthetic."""

    source: str
    synthetic: Synthetic


def from_file(path: Path) -> Arrays:
    """Read MNIST from a local mnist.npz. Raises StageError if it is missing, damaged or another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in MNIST_SHA256}
    except FileNotFoundError:
        raise StageError(f"{path} does not exist.") from None
    except Exception as error:
        # damaged files can raise almost any exception
        raise StageError(f"{path} can't be read as an .npz file: {error}") from None
    verify(arrays, str(path))
    return arrays


def from_keras() -> Arrays:
    """Get MNIST from Keras, which downloads it once and shows its progress. Raises StageError if that fails."""
    # the import takes seconds and is only needed here
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    # Keras sets no timeout, and a dead connection would block forever
    socket.setdefaulttimeout(30)
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:
        # some errors have no message
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StageError(OFFLINE.format(error=reason)) from None
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    verify(arrays, "What Keras downloaded")
    return arrays


def main() -> None:
    """Get the images that params.yaml names, and write data/digits.npz."""
    params = read_params("data", Params)
    parser = argparse.ArgumentParser(description="Get the training and test images.")
    parser.add_argument("--source", choices=["mnist", "synthetic"], default=params.source)
    parser.add_argument(
        "--npz", default=os.environ.get("MNIST_NPZ"), help="a local mnist.npz (or set MNIST_NPZ)"
    )
    parser.add_argument("--out", type=Path, default=DIGITS.path)
    args = parser.parse_args()
    if args.source == "synthetic":
        arrays = draw(**asdict(params.synthetic))
    elif args.source != "mnist":
        raise StageError(f"params.yaml: data.source is {args.source!r}, but must be mnist or synthetic.")
    elif args.npz:
        arrays = from_file(Path(args.npz))
    else:
        arrays = from_keras()
    write({name: arrays[name] for name in DIGITS.arrays}, args.out)
    print(
        f"{args.source}: {len(arrays['x_train'])} training and {len(arrays['x_test'])} test images in {args.out}"
    )


if __name__ == "__main__":
    run(main)
