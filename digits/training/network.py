"""The network, built in code: three convolutions, two poolings, two fully connected layers and the output layer.
train.py calls `build`, `normalize` for what the network is given, and `fold` for the network that is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

# the ten digits, and what is none
OUTPUTS, NO_DIGIT = 11, 10
# of the probability of "no digit", so much goes to each of the ten, and so much is shared by what they are among
# themselves: the best guess stays the best, however little is left of it
EVEN, GUESS = 0.09, 0.1


def normalize(images: np.ndarray) -> np.ndarray:
    """The network's input, float32 (n, 28, 28, 1) in [0, 1], of images uint8 (n, 28, 28), 0 to 255."""
    return images[..., None] / np.float32(255)


def momentum(steps: int, at_most: float = 0.995) -> float:
    """How much a moving average over the steps of a run keeps at each of them.

    The more, the steadier it is at the end; but a run of a few hundred steps would end with what it began with.
    """
    return min(at_most, max(0.9, 1 - 20 / steps))


def build(
    filters: Sequence[int], dense: Sequence[int], dropout: Sequence[float], momentum: float = 0.9
) -> keras.Sequential:
    """An untrained network: float32 (n, 28, 28, 1) in [0, 1] -> softmax probabilities float32 (n, OUTPUTS).

    filters: of the three convolutions. dense: units of the two fully connected layers. dropout: share dropped
    before the first and before the second of these. momentum: of the normalisation's moving averages.

    Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) stands between each convolution and its
    activation; when the network is compiled for serving it melts into the convolution and costs nothing.
    """
    return keras.Sequential(
        [
            layers.Input((28, 28, 1), name="image"),
            # a stroke is about three pixels wide: a first look of 5x5 sees both its sides. MNIST leaves the border
            # empty, so nothing is padded
            *_convolution(filters[0], 5, momentum),
            layers.MaxPooling2D(),
            *_convolution(filters[1], 3, momentum),
            layers.MaxPooling2D(),
            *_convolution(filters[2], 3, momentum),
            layers.Flatten(),
            layers.Dropout(dropout[0]),
            layers.Dense(dense[0], use_bias=False),
            layers.BatchNormalization(momentum=momentum),
            layers.Activation("relu"),
            layers.Dropout(dropout[1]),
            layers.Dense(dense[1], activation="relu"),
            layers.Dense(OUTPUTS, name="scores"),
            layers.Softmax(name="probabilities"),
        ],
        name="mnist",
    )


def fold(network: keras.Sequential) -> keras.Model:
    """The network that is served: the same, with the probabilities of the ten digits only, float32 (n, 10), which
    add up to 1. `folded` is its last step in NumPy."""
    image = layers.Input((28, 28, 1), name="image")
    scores = keras.Sequential(network.layers[:-1])(image)
    probabilities = layers.Softmax()(scores)
    digits = np.eye(OUTPUTS, 10, dtype=np.float32)
    no_digit = np.zeros((OUTPUTS, 10), np.float32)
    no_digit[NO_DIGIT] = 1
    guess = layers.Softmax()(_product(scores, digits))
    shared = layers.Multiply()([guess, _product(probabilities, GUESS * no_digit)])
    served = layers.Add()([_product(probabilities, digits + EVEN * no_digit), shared])
    return keras.Model(image, served, name="mnist")


def folded(scores: np.ndarray) -> np.ndarray:
    """The probabilities of the ten digits, (n, 10), by the scores before the softmax, (n, OUTPUTS)."""
    powers = np.exp(scores - scores.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    guess = powers[:, :NO_DIGIT] / powers[:, :NO_DIGIT].sum(1, keepdims=True)
    return probabilities[:, :NO_DIGIT] + probabilities[:, NO_DIGIT:] * (EVEN + GUESS * guess)


def _product(tensor: Any, matrix: np.ndarray) -> Any:
    """The tensor times the matrix, as a layer whose weights it is."""
    layer = layers.Dense(matrix.shape[1], use_bias=False)
    product = layer(tensor)
    layer.set_weights([matrix])
    return product


def _convolution(filters: int, size: int, momentum: float) -> list[layers.Layer]:
    return [
        # the normalisation brings a bias of its own
        layers.Conv2D(filters, size, use_bias=False),
        layers.BatchNormalization(momentum=momentum),
        layers.Activation("relu"),
    ]
