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


def sources(x: np.ndarray, y: np.ndarray, params: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the network learns from, all of it shuffled together: pairs of images, uint8 (n, 28, 28), and labels,
    float32 (n, OUTPUTS), a probability for each digit and for none.

    x, y: the data set's training images, uint8 (n, 28, 28) in random order, and their digits, uint8 (n,).
    """
    drawn = synthetic.draw(round(params["synthetic_fraction"] * len(x)), 0, params["seed"])
    printed = digits_of_fonts(round(params["printed_fraction"] * len(x)), params["seed"])
    n = round(params["low_resolution_fraction"] * len(x))
    strange = params["outliers"]
    no_digits = outliers.draw(round(strange["fraction"] * len(x)), x, y, params["seed"], strange["kinds"])
    return [
        (x, ONE_HOT[y]),
        (drawn["x_train"], ONE_HOT[drawn["y_train"]]),
        (printed[0], ONE_HOT[printed[1]]),
        (low_resolution(x[:n], params["seed"]), ONE_HOT[y[:n]]),
        *((images, ONE_HOT[np.full(len(images), NO_DIGIT)]) for images in no_digits.values()),
    ]
