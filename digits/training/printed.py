"""Digits of fonts for training, printed and in handwriting. Letters in the same fonts are among the outliers, so
without these digits a network would take everything that is printed for an outlier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from digits.training.outliers import as_prepared, in_mnist_form


def digits_of_fonts(
    count: int, seed: int, draw: Callable[[str, np.random.Generator], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (count, 28, 28) in MNIST's format and their digits uint8 (count,). They only depend on the
    seed.

    draw: the picture of a digit in one of the fonts, uint8 (height, width), bright on black.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    images = np.empty((count, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        image = None
        while image is None:
            picture = draw(str(label), rng)
            image = as_prepared(picture, rng) if rng.random() < 0.6 else in_mnist_form(picture, rng)
        images[i] = image
    return images, labels
