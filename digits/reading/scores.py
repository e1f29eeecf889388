"""The scores of hypotheses, which combine the network's probabilities and their shape with weights that
benchmarks/numerals_fit.py has fitted. digits.reading.path calls `scores` and `calibrated`."""

from __future__ import annotations

import math

import numpy as np

# the parts of the probability of "no digit" that are added to each digit, and that are distributed in proportion
# to the digits' probabilities (digits/training/network.py)
EVEN, GUESS = 0.09, 0.1
# lower bounds for the logarithms of probabilities p, and of 1 - p
LEAST, DOUBT = 1e-5, 1e-3
# number of features of a hypothesis' shape (pieces._runs)
SHAPE = 14

# for a digit: two for its probability, those of the shape, and for a 1 and a 1 that is cut out; the same for no
# digit, without the last two
# fmt: off
WEIGHTS = np.array([
    0.646, 0.406, -3.058, -1.020, 0.833, -1.037, 0.445, 1.310, 0.620, -0.529, -6.069, -7.315,
    0.004, -1.236, -3.369, 1.074, -1.464, -0.257, 0.465, 0.154, 0.030, -2.587, -0.648, -2.571,
    -0.260, 1.256, 0.000, 0.000, 1.200, -5.533, 0.084, 2.370, 1.370, -3.136,
])
# fmt: on

# slope and offset for the logit of a line's share
CALIBRATION = 0.975, -0.981


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
    """The features to which WEIGHTS apply, (n, 11, len(WEIGHTS)): for each digit, and last for no digit.

    served: (n, 10), the network's probabilities. shape: (n, SHAPE).
    """
    digits, none = unfold(served)
    probabilities = np.concatenate([digits, none[:, None]], 1)
    out = np.zeros((len(served), 11, len(WEIGHTS)))
    log, other = np.log(np.maximum(probabilities, LEAST)), -np.log(np.maximum(1 - probabilities, DOUBT))
    for options, start in ((slice(0, 10), 0), (slice(10, 11), SHAPE + 4)):
        out[:, options, start] = log[:, options]
        out[:, options, start + 1] = other[:, options]
        out[:, options, start + 2 : start + 2 + SHAPE] = shape[:, None]
    out[:, 1, SHAPE + 2] = 1
    out[:, 1, SHAPE + 3] = np.maximum(shape[:, 1], shape[:, 3])
    return out


def scores(served: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The scores of each hypothesis for each digit, and last for no digit, (n, 11). Higher is better."""
    return features(served, shape) @ WEIGHTS
