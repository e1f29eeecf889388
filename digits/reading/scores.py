"""The scores of hypotheses, which combine the network's probabilities with the features from pieces.py and
context.py. digits.reading.path calls `scores` and `calibrated`. benchmarks/numerals_fit.py has fitted the weights
in scores.json."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

# the parts of the probability of "no digit" that are added to each digit, and that are distributed in proportion
# to the digits' probabilities (digits/training/network.py)
EVEN, GUESS = 0.09, 0.1
# lower bounds for the logarithms of probabilities p, and of 1 - p, and the factor that brings them to about 1
LEAST, DOUBT, LOG = 1e-5, 1e-3, 1 / 3
# the index of the score for no digit
NONE = 10

FITTED = Path(__file__).with_suffix(".json")
_fitted = json.loads(FITTED.read_bytes())
# a linear function of the features, (features,), plus a hidden layer, (features, units), (units,) and (units,)
LINEAR, HIDDEN, BIAS, OUTPUT = (
    np.array(_fitted[name], np.float32) for name in ("linear", "hidden", "bias", "output")
)
# slope and offset for the logit of a line's share
CALIBRATION: tuple[float, float] = tuple(_fitted["calibration"])


def calibrated(probability: float) -> float:
    """The probability that a line is correct, from its share among all readings, both in [0, 1].

    Platt scaling (1999, "Probabilistic outputs for support vector machines"), fitted by `make numbers-fit` on
    strings of MNIST's training digits.
    """
    share = min(max(probability, 1e-6), 1 - 1e-6)
    slope, offset = CALIBRATION
    return 1 / (1 + math.exp(-slope * math.log(share / (1 - share)) - offset))


def unfold(served: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of each digit, (n, 10), and of no digit, (n,), from the network's probabilities, (n, 10).
    This reverses `folded` in digits/training/network.py.
    """
    none = np.clip(served.min(1) / EVEN, 0, 1)
    share = (1 - none) / np.maximum(1 - (1 - GUESS) * none, 1e-6)
    digits = np.maximum(served - EVEN * none[:, None], 0) * share[:, None]
    return digits, none


def features(served: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The features of each hypothesis for each digit, and last for no digit, float32 (n, 11, 15 + number).

    served: (n, 10), the network's probabilities. shape: (n, number), the other features.
    """
    digits, none = unfold(served)
    probabilities = np.concatenate([digits, none[:, None]], 1)
    log = LOG * np.log(np.maximum(probabilities, LEAST))
    doubt = -LOG * np.log(np.maximum(1 - probabilities, DOUBT))
    every = np.broadcast_to(shape[:, None], (len(shape), NONE + 1, shape.shape[1]))
    same = np.ones((1, NONE + 1))
    parts = [log, doubt, log[:, NONE:] * same, doubt[:, :NONE].max(1, keepdims=True) * same]
    kinds = np.broadcast_to(np.eye(NONE + 1), (len(shape), NONE + 1, NONE + 1))
    return np.concatenate([np.stack(parts, 2), every, kinds], 2, dtype=np.float32)


def scores(served: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The scores of each hypothesis for each digit, and last for no digit, (n, 11). Higher is better."""
    x = features(served, shape)
    return x @ LINEAR + np.tanh(x @ HIDDEN + BIAS) @ OUTPUT
