"""The files of arrays that one stage of the pipeline writes and others read: data/digits.npz, the data set, and
data/images.npz, the images that are made from it. Equal arrays give files with equal bytes, so that DVC's hash
tells whether anything has changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digits.training.stage import ROOT, StageError, outputs

Arrays = dict[str, np.ndarray]
IMAGE = ("u", (28, 28))
LABEL = ("u", ())
INDEX = ("i", ())


@dataclass(frozen=True)
class Layout:
    """What a file contains. path: where it is by default. stage: the stage that writes it.

    arrays: for each array, the kind of its dtype, and its shape after the first axis.
    """

    path: Path
    stage: str
    arrays: dict[str, tuple[str, tuple[int, ...]]]


# uint8 images (n, 28, 28), bright on black, and their digits, uint8 (n,)
DIGITS = Layout(
    ROOT / "data" / "digits.npz",
    "data",
    {"x_train": IMAGE, "y_train": LABEL, "x_test": IMAGE, "y_test": LABEL},
)
# training, calibration, validation: indices of the images of the data set that are used for each. digits,
# digit_labels: further digits to train with. outliers: images to train with that show no digit, sorted by kind.
# calibration_outliers, validation_outliers: images that show no digit, made from the images held out for each.
# validation_kinds: the kind of each of the latter. facts: one JSON text: the parameters ("params") and the data
# set's hash ("data_sha256")
IMAGES = Layout(
    ROOT / "data" / "images.npz",
    "images",
    {
        "training": INDEX,
        "calibration": INDEX,
        "validation": INDEX,
        "digits": IMAGE,
        "digit_labels": LABEL,
        "outliers": IMAGE,
        "calibration_outliers": IMAGE,
        "validation_outliers": IMAGE,
        "validation_kinds": ("U", ()),
        "facts": ("U", ()),
    },
)


def read(layout: Layout, path: Path | None = None) -> Arrays:
    """The arrays of a file, by default those of `layout.path`.

    Raises StageError if the file is missing, damaged, or another one.
    """
    path = path or layout.path
    make = f"Run `dvc repro {layout.stage}`."
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise StageError(f"{path} is missing. {make}") from None
    except Exception as error:
        # damaged files can raise almost any exception, from BadZipFile to struct.error
        raise StageError(f"{path} can't be read ({type(error).__name__}). Delete it. {make}") from None
    for name, (kind, shape) in layout.arrays.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind != kind or array.ndim == 0 or array.shape[1:] != shape:
            raise StageError(
                f"{path} was not written by the stage `{layout.stage}`: see {name} in it. {make}"
            )
    return arrays


def read_both(images: Path) -> tuple[Arrays, Arrays, dict[str, Any]]:
    """The arrays of data/digits.npz and of the file `images`, and what the latter says about itself ("facts").

    Raises StageError as `read` does, and if the images were made from other data.
    """
    arrays, made = read(DIGITS), read(IMAGES, images)
    facts = json.loads(str(made["facts"][0]))
    if facts["data_sha256"] != sha256(DIGITS.path):
        raise StageError(f"{images} was made from other data than {DIGITS.path}. Run `dvc repro images`.")
    return arrays, made, facts


def write(arrays: Arrays, path: Path) -> None:
    """Replace a file of arrays, uncompressed and in the order of `arrays`."""
    with outputs(path.parent, path.name) as new, (new / path.name).open("wb") as file:
        # NumPy gives all members of the file the same date
        np.savez(file, allow_pickle=False, **arrays)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
