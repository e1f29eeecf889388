"""Model cards: the JSON file beside a model that says what it is, and by their hashes which files belong to it.
What a card says only depends on the model and its data, so that a stage that runs again writes the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from digits.training.arrays import sha256

# of figures in cards and metrics: what differs between processors is smaller
DIGITS = 6


def write_card(path: Path, h5: Path, tflite: Path, **facts: Any) -> dict[str, Any]:
    """Write the card of the model in the files `h5` and `tflite`, and return it. facts: further fields."""
    hashes = {"h5_sha256": sha256(h5), "tflite_sha256": sha256(tflite)}
    card = {"name": h5.stem, "version": hashes["h5_sha256"][:12], **hashes, **facts}
    write_json(path, card)
    return card


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, with figures rounded to DIGITS decimal places."""
    path.write_text(json.dumps(_rounded(content), indent=2) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, DIGITS) if isinstance(value, float) else value
