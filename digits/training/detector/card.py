"""Writes metrics/detector/trained.json: the detector's version, its files' hashes, data, parameters and figures.
calibrate.py makes the card from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from digits.training.arrays import sha256


def write_card(
    path: Path,
    models: Path,
    parameters: int,
    params: dict[str, Any],
    files: list[Path],
    curve: list[dict[str, float]],
) -> None:
    """Write to `path` what the card says about the detector in the folder `models` and its training.

    files: what the pages were made from. curve: the learning curve, whose last row is the model's.
    """
    h5 = sha256(models / "detector.h5")
    card = {
        "name": "detector",
        "version": h5[:12],
        "h5_sha256": h5,
        "tflite_sha256": sha256(models / "detector.tflite"),
        "parameters": parameters,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "data": {f"{path.parent.name}/{path.name}": sha256(path)[:16] for path in files},
        "params": params,
        "pages": int(curve[-1]["pages"]),
        "held_out": {name: value for name, value in curve[-1].items() if name != "pages"},
    }
    path.write_text(json.dumps(card, indent=2) + "\n")
