"""The network, built in code: three convolutions, two poolings, two fully connected layers and the output layer.
train.py calls `build`, and `normalize` for what the network is given."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

# Keras's 0.99 remembers for so long that a run of a few hundred steps ends with the statistics it began with
MOMENTUM = 0.9


def normalize(images: np.ndarray) -> np.ndarray:
    """The network's input, float32 (n, 28, 28, 1) in [0, 1], of images uint8 (n, 28, 28), 0 to 255."""
    return images[..., None] / np.float32(255)


def build(filters: Sequence[int], dense: Sequence[int], dropout: Sequence[float]) -> keras.Sequential:
    """An untrained network: float32 (n, 28, 28, 1) in [0, 1] -> softmax probabilities float32 (n, 10).

    filters: of the three convolutions. dense: units of the two fully connected layers. dropout: share dropped
    before the first and before the second of these.

    Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) stands between each convolution and its
    activation; when the network is compiled for serving it melts into the convolution and costs nothing.
    """
    return keras.Sequential(
        [
            layers.Input((28, 28, 1), name="image"),
            # a stroke is about three pixels wide: a first look of 5x5 sees both its sides. MNIST leaves the border
            # empty, so nothing is padded
            *_convolution(filters[0], 5),
            layers.MaxPooling2D(),
            *_convolution(filters[1], 3),
            layers.MaxPooling2D(),
            *_convolution(filters[2], 3),
            layers.Flatten(),
            layers.Dropout(dropout[0]),
            layers.Dense(dense[0], use_bias=False),
            layers.BatchNormalization(momentum=MOMENTUM),
            layers.Activation("relu"),
            layers.Dropout(dropout[1]),
            layers.Dense(dense[1], activation="relu"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="mnist",
    )


def _convolution(filters: int, size: int) -> list[layers.Layer]:
    return [
        # the normalisation brings a bias of its own
        layers.Conv2D(filters, size, use_bias=False),
        layers.BatchNormalization(momentum=MOMENTUM),
        layers.Activation("relu"),
    ]
