"""How well a network reads: `calibrate` makes its probabilities honest and `sure_threshold` says which are to be
called sure; `evaluate` gives loss, accuracy and calibration error, `auroc` how far outliers are told from digits,
and `confusion_matrix` says which digit is taken for which. train.py calls them after training, the first two on
held-out images that the reported figures don't come from."""

from __future__ import annotations

import keras
import numpy as np

from digits.training.network import folded

# as large as makes predicting fast
BATCH_SIZE = 500
# of the reliability diagram
BINS = 15


def calibrate(network: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Make the probabilities mean what they say: of the answers called 90 % sure, 90 % are right.

    network: with all its outputs, as trained. images: float32 (n, 28, 28, 1) in [0, 1] that it didn't learn from.
    labels: their digits, (n,).

    Label smoothing and augmentation leave a network too modest. One number, the temperature that the scores are
    divided by, sets that right (Guo et al. 2017, arXiv:1706.04599); it goes into the last weights.
    """
    scores = np.log(np.maximum(predict(network, images), 1e-12))

    def loss(temperature: float) -> float:
        served = folded(scores / temperature)
        return float(-np.log(np.maximum(served[np.arange(len(served)), labels], 1e-12)).mean())

    temperature = min(np.geomspace(0.2, 5, 400), key=loss)
    last = network.layers[-2]
    last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])


def evaluate(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """Cross-entropy ("loss"), "accuracy", expected calibration error ("ece"), and which share of the images is
    "sure" and "sure_and_wrong".

    probabilities: of images, float32 (n, 10), by `predict`. labels: their digits, (n,). threshold: the largest
    probability that is not sure is below it.
    """
    right = probabilities[np.arange(len(probabilities)), labels]
    correct, sure = probabilities.argmax(1) == labels, probabilities.max(1) >= threshold
    return {
        "loss": float(-np.log(np.maximum(right, 1e-7)).mean()),
        "accuracy": float(correct.mean()),
        "ece": calibration_error(reliability(probabilities, labels)),
        "sure": float(sure.mean()),
        "sure_and_wrong": float((sure & ~correct).mean()),
    }


def evaluate_outliers(digits: np.ndarray, outliers: np.ndarray, threshold: float) -> dict[str, float]:
    """How well outliers are told from digits, "auroc", and which share of them is "sure".

    digits, outliers: their probabilities, float32 (n, 10), by `predict`.
    """
    largest = outliers.max(1)
    return {"auroc": auroc(digits.max(1), largest), "sure": float((largest >= threshold).mean())}


def predict(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """What the network says of images, float32 (n, 28, 28, 1) in [0, 1]: float32 (n, 10), or as many as it has
    outputs."""
    return network.predict(images, batch_size=BATCH_SIZE, verbose=0)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """How often each digit (row) was read as each (column): int64 (10, 10)."""
    matrix = np.zeros((10, 10), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def sure_threshold(digits: np.ndarray, outliers: np.ndarray, kept: float) -> float:
    """From which largest probability on an answer is called sure, in (0, 1).

    digits, outliers: the largest probabilities of held-out images that are digits and that are none, (n,). kept:
    the share of the digits that is to be sure. Of the thresholds that do so it is the highest, or a lower one that
    already leaves no outlier sure: where the two lie far apart, digits unlike those held out get what is between.
    """
    threshold = float(np.quantile(digits, 1 - kept, method="lower"))
    if len(outliers):
        threshold = min(threshold, float(np.nextafter(outliers.max(), 1)))
    return min(max(threshold, 0.001), 0.999)


def auroc(digits: np.ndarray, outliers: np.ndarray) -> float:
    """The area under the ROC curve: how often a digit's largest probability is above an outlier's, a tie being
    half."""
    ordered = np.sort(outliers)
    below, not_above = (np.searchsorted(ordered, digits, side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(outliers))


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[float, float, int]]:
    """For each of BINS equal ranges of the largest probability that has images: their mean probability, their
    accuracy and their number."""
    largest, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((largest * BINS).astype(int), BINS - 1)
    there = [bins == i for i in np.unique(bins)]
    return [(float(largest[i].mean()), float(right[i].mean()), int(i.sum())) for i in there]


def calibration_error(bins: list[tuple[float, float, int]]) -> float:
    """The expected calibration error of `reliability`'s ranges (Guo et al. 2017): how far probability and accuracy
    are apart on average over the images."""
    total = sum(count for _, _, count in bins)
    return sum(abs(probability - accuracy) * count for probability, accuracy, count in bins) / total
