"""Writes the detector's card, models/detector.json: its version, its files' hashes, data, parameters and
figures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_card(
    models: Path, parameters: int, params: dict[str, Any], files: list[Path], curve: list[dict[str, float]]
) -> None:
    """Write detector.json beside detector.h5 and detector.tflite.

    files: what the pages were made from. curve: the learning curve, whose last row is the model's.
    """
    network = models / "detector.h5"
    h5 = sha256(network)
    card = {
        "version": h5[:12],
        "sha256": h5,
        "compiled_sha256": sha256(models / "detector.tflite"),
        "parameters": parameters,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "data": {f"{path.parent.name}/{path.name}": sha256(path)[:16] for path in files},
        "params": params,
        "pages": int(curve[-1]["pages"]),
        "held_out": {name: value for name, value in curve[-1].items() if name != "pages"},
    }
    (models / "detector.json").write_text(json.dumps(card, indent=2) + "\n")
