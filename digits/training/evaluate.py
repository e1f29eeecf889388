"""How well a network reads: `calibrate` makes its probabilities honest, `evaluate` gives loss and accuracy, and
`confusion_matrix` says which digit is taken for which. train.py calls them after training,
`calibrate` on validation images that the reported figures don't come from."""

from __future__ import annotations

import keras
import numpy as np

# as large as makes predicting fast
BATCH_SIZE = 500


def calibrate(network: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Make the probabilities mean what they say: of the answers called 90 % sure, 90 % are right.

    images: float32 (n, 28, 28, 1) in [0, 1] that the network didn't learn from. labels: their digits, (n,).

    Label smoothing and augmentation leave a network too modest. One number, the temperature that the scores are
    divided by, sets that right and changes no answer (Guo et al. 2017, arXiv:1706.04599); it goes into the last
    layer's weights.
    """
    scores = np.log(np.maximum(network.predict(images, batch_size=BATCH_SIZE, verbose=0), 1e-12))

    def loss(temperature: float) -> float:
        divided = scores / temperature
        right = divided[np.arange(len(divided)), labels]
        return float((np.log(np.exp(divided).sum(1)) - right).mean())

    temperature = min(np.geomspace(0.2, 5, 400), key=loss)
    last = network.layers[-1]
    last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])


def evaluate(
    network: keras.Model, images: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """Cross-entropy ("loss") and "accuracy", and the digit predicted for each image, int64 (n,).

    images: float32 (n, 28, 28, 1) in [0, 1]. labels: their digits, (n,).
    """
    probabilities = network.predict(images, batch_size=BATCH_SIZE, verbose=0)
    right = probabilities[np.arange(len(probabilities)), labels]
    predicted = probabilities.argmax(1)
    loss = float(-np.log(np.maximum(right, 1e-7)).mean())
    return {"loss": loss, "accuracy": float((predicted == labels).mean())}, predicted


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """How often each digit (row) was read as each (column): int64 (10, 10)."""
    matrix = np.zeros((10, 10), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix
