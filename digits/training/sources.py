"""What the network learns from: the data set's digits, and what is made of them and beside them by the other
modules here. train.py calls `sources`; params.yaml says how much of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from digits.training import outliers, synthetic
from digits.training.augment import low_resolution
from digits.training.network import NO_DIGIT, OUTPUTS
from digits.training.printed import digits_of_fonts

ONE_HOT = np.eye(OUTPUTS, dtype=np.float32)


def sources(x: np.ndarray, y: np.ndarray, params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """What the network learns from: images, uint8 (n, 28, 28), their labels, float32 (n, OUTPUTS), a probability
    for each digit and for none, and how many of the images, the last ones, are outliers.

    x, y: the data set's training images, uint8 (n, 28, 28) in random order, and their digits, uint8 (n,).
    """
    drawn = synthetic.draw(round(params["synthetic_fraction"] * len(x)), 0, params["seed"])
    printed = digits_of_fonts(round(params["printed_fraction"] * len(x)), params["seed"])
    n = round(params["low_resolution_fraction"] * len(x))
    strange = params["outliers"]
    count = round(strange["fraction"] * strange["sets"] * len(x))
    no_digits = outliers.draw(count, x, y, params["seed"], strange["kinds"])
    many = sum(map(len, no_digits.values()))
    # in order of their kinds, so that each of the sets has its share of every kind
    images = [x, drawn["x_train"], printed[0], low_resolution(x[:n], params["seed"]), *no_digits.values()]
    labels = [y, drawn["y_train"], printed[1], y[:n], np.full(many, NO_DIGIT)]
    return np.concatenate(images), ONE_HOT[np.concatenate(labels)], many
