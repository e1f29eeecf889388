"""Assembles the training images: the digits of the data set, and those that the other modules in this package
make. train.py calls `sources`, and params.yaml sets the fraction of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from digits.training import outliers, synthetic
from digits.training.augment import low_resolution
from digits.training.network import NO_DIGIT, OUTPUTS
from digits.training.printed import digits_of_fonts

ONE_HOT = np.eye(OUTPUTS, dtype=np.float32)


def sources(x: np.ndarray, y: np.ndarray, params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """All training images, uint8 (n, 28, 28), their labels, float32 (n, OUTPUTS), as probabilities of each digit
    and of no digit, and the number of outliers, which are the last images.

    x, y: the data set's training images, uint8 (n, 28, 28) in random order, and their digits, uint8 (n,).
    """
    drawn = synthetic.draw(round(params["synthetic_fraction"] * len(x)), 0, params["seed"])
    printed = digits_of_fonts(round(params["printed_fraction"] * len(x)), params["seed"])
    n = round(params["low_resolution_fraction"] * len(x))
    strange = params["outliers"]
    count = round(strange["fraction"] * strange["sets"] * len(x))
    no_digits = outliers.draw(count, x, y, params["seed"], strange["kinds"])
    many = sum(map(len, no_digits.values()))
    # outliers are sorted by kind, so that each set has the same fraction of every kind
    images = [x, drawn["x_train"], printed[0], low_resolution(x[:n], params["seed"]), *no_digits.values()]
    labels = [y, drawn["y_train"], printed[1], y[:n], np.full(many, NO_DIGIT)]
    return np.concatenate(images), ONE_HOT[np.concatenate(labels)], many
