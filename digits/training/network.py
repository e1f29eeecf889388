"""The network: three convolutions, two max-pooling layers, two fully connected layers and the output layer.
`build` creates the one that is trained, `fold` makes it the one that is served, and `normalize` is their input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

# the ten digits, and one output for images that show no digit
OUTPUTS, NO_DIGIT = 11, 10
# of the probability of "no digit", EVEN is added to each digit, and GUESS is distributed in proportion to the
# digits' probabilities, so that the best guess keeps the highest probability
EVEN, GUESS = 0.09, 0.1


def normalize(images: np.ndarray) -> np.ndarray:
    """The network's input, float32 (n, 28, 28, 1) in [0, 1], from images uint8 (n, 28, 28)."""
    return images[..., None] / np.float32(255)


def momentum(steps: int, at_most: float = 0.995) -> float:
    """The momentum of a moving average over a run with this number of steps.

    A higher momentum makes the average steadier, but in a run of a few hundred steps it would hardly move.
    """
    return min(at_most, max(0.9, 1 - 20 / steps))


def build(
    filters: Sequence[int], dense: Sequence[int], dropout: Sequence[float], momentum: float = 0.9
) -> keras.Sequential:
    """An untrained network: float32 (n, 28, 28, 1) in [0, 1] -> softmax probabilities float32 (n, OUTPUTS).

    filters: of the three convolutions. dense: units of the two fully connected layers. dropout: rates before the
    first and before the second of these. momentum: of the moving averages in batch normalization.

    There is batch normalization (Ioffe and Szegedy 2015, arXiv:1502.03167) between each convolution and its
    activation. Compiling for serving fuses it into the convolution, so it takes no time there.
    """
    return keras.Sequential(
        [
            layers.Input((28, 28, 1), name="image"),
            # strokes are about three pixels wide, so a kernel of 5x5 covers both sides of them. There is no
            # padding, because MNIST's borders are empty
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
    """The network that is served. Its output is the probabilities of the ten digits, float32 (n, 10), which add
    up to 1. `folded` is the last step in NumPy."""
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
    """The probabilities of the ten digits, (n, 10), from the scores before the softmax, (n, OUTPUTS)."""
    powers = np.exp(scores - scores.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    guess = powers[:, :NO_DIGIT] / powers[:, :NO_DIGIT].sum(1, keepdims=True)
    return probabilities[:, :NO_DIGIT] + probabilities[:, NO_DIGIT:] * (EVEN + GUESS * guess)


def _product(tensor: Any, matrix: np.ndarray) -> Any:
    """The product of the tensor and the matrix, as a layer with the matrix as its weights."""
    layer = layers.Dense(matrix.shape[1], use_bias=False)
    product = layer(tensor)
    layer.set_weights([matrix])
    return product


def _convolution(filters: int, size: int, momentum: float) -> list[layers.Layer]:
    return [
        # batch normalization adds a bias
        layers.Conv2D(filters, size, use_bias=False),
        layers.BatchNormalization(momentum=momentum),
        layers.Activation("relu"),
    ]
