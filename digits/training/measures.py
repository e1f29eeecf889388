"""What a network's answers are worth, computed from its probabilities: the loss, the accuracy, the calibration
error, how well outliers are distinguished from digits, and the threshold of sure answers."""

from __future__ import annotations

import math

import numpy as np

# number of bins in the reliability diagram
BINS = 15


def evaluate(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """Cross-entropy ("loss"), "accuracy", expected calibration error ("ece"), and the fractions of the images
    that are "sure" and "sure_and_wrong".

    Args:
        probabilities: float32 (n, 10).
        labels: the digits, (n,).
        threshold: answers are sure if their largest probability is at least this.
    """
    right = probabilities[np.arange(len(probabilities)), labels]
    correct, sure = probabilities.argmax(1) == labels, probabilities.max(1) >= threshold
    return {
        "loss": float(-np.log(np.maximum(right, 1e-7)).mean()),
        "accuracy": float(correct.mean()),
        "ece": calibration_error(reliability(probabilities.max(1), correct)),
        "sure": float(sure.mean()),
        "sure_and_wrong": float((sure & ~correct).mean()),
    }


def evaluate_outliers(digits: np.ndarray, outliers: np.ndarray, threshold: float) -> dict[str, float]:
    """How well outliers are distinguished from digits ("auroc"), and the fraction of outliers that is "sure".

    digits, outliers: their probabilities, float32 (n, 10).
    """
    largest = outliers.max(1)
    return {"auroc": auroc(digits.max(1), largest), "sure": float((largest >= threshold).mean())}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The number of images by actual digit (row) and predicted digit (column), int64 (10, 10)."""
    matrix = np.zeros((10, 10), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def sure_threshold(digits: np.ndarray, outliers: np.ndarray, kept: float) -> float:
    """The threshold in (0, 1) from which an answer's largest probability is sure.

    It is the highest threshold for that many digits, or a lower one if that makes no outlier sure either. If all
    outliers have much lower probabilities than digits, other digits thus have a margin. It has four decimal
    places, because further ones depend on the processor.

    Args:
        digits, outliers: the largest probabilities of held-out digits and outliers, (n,).
        kept: the fraction of the digits that should be sure.
    """
    threshold = math.floor(float(np.quantile(digits, 1 - kept, method="lower")) * 1e4)
    if len(outliers):
        threshold = min(threshold, math.floor(float(outliers.max()) * 1e4) + 1)
    return min(max(threshold, 10), 9990) / 1e4


def auroc(digits: np.ndarray, outliers: np.ndarray) -> float:
    """The area under the ROC curve: how often a digit's largest probability is above an outlier's. Ties count
    half."""
    ordered = np.sort(outliers)
    below, not_above = (np.searchsorted(ordered, digits, side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(outliers))


def reliability(largest: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """The mean probability, the accuracy and the number of images in each bin that is not empty. The bins divide
    [0, 1] into BINS equal ranges.

    Args:
        largest: the largest probability of each image, (n,).
        right: whether its digit is the right one, bool (n,).
    """
    bins = np.minimum((largest * BINS).astype(int), BINS - 1)
    there = [bins == i for i in np.unique(bins)]
    return [(float(largest[i].mean()), float(right[i].mean()), int(i.sum())) for i in there]


def calibration_error(bins: list[tuple[float, float, int]]) -> float:
    """The expected calibration error (Guo et al. 2017): the mean difference between probability and accuracy.
    bins: from `reliability`."""
    total = sum(count for _, _, count in bins)
    return sum(abs(probability - accuracy) * count for probability, accuracy, count in bins) / total
