"""How good a hypothesis is: `scores` weighs what the network says of it with its shape, by weights that
benchmarks/numerals_fit.py fitted. Called by digits.reading.read."""

from __future__ import annotations

import math

import numpy as np

# the share of "no digit" that the network's ten outputs have each (digits/training/network.py), and the
# likelier ones among them
EVEN, GUESS = 0.09, 0.1
# in logarithms: of probabilities, and of what they lack of 1
LEAST, DOUBT = 1e-5, 1e-3
# numbers in a hypothesis' shape (pieces._runs)
SHAPE = 14

# by the shape's numbers: for a digit, for none; and for a 1, and a 1 that is cut out
# fmt: off
WEIGHTS = np.array([
    0.646, 0.406, -3.058, -1.020, 0.833, -1.037, 0.445, 1.310, 0.620, -0.529, -6.069, -7.315,
    0.004, -1.236, -3.369, 1.074, -1.464, -0.257, 0.465, 0.154, 0.030, -2.587, -0.648, -2.571,
    -0.260, 1.256, 0.000, 0.000, 1.200, -5.533, 0.084, 2.370, 1.370, -3.136,
])
# fmt: on


# of a line's probability: slope and offset of its logit
CALIBRATION = 0.975, -0.981


def calibrated(probability: float) -> float:
    """How often a line is right that has this share among all readings of its hypotheses, both in [0, 1].

    Platt's scaling (1999, "Probabilistic outputs for support vector machines"), fitted by `make numbers-fit` on
    strings made of MNIST's training digits.
    """
    share = min(max(probability, 1e-6), 1 - 1e-6)
    slope, offset = CALIBRATION
    return 1 / (1 + math.exp(-slope * math.log(share / (1 - share)) - offset))


def unfold(served: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of each digit, (n, 10), and of no digit, (n,), from what the network answers, (n, 10).

    Each of its ten has EVEN of what is no digit, the likelier ones GUESS among them
    (digits/training/network.py).
    """
    none = np.clip(served.min(1) / EVEN, 0, 1)
    share = (1 - none) / np.maximum(1 - (1 - GUESS) * none, 1e-6)
    digits = np.maximum(served - EVEN * none[:, None], 0) * share[:, None]
    return digits, none


def features(served: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """What WEIGHTS weigh, (n, 11, len(WEIGHTS)): for each digit, and last for none.

    served: (n, 10), what the network answers. shape: (n, SHAPE).
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
    """Of each hypothesis being each digit, and last none, (n, 11); higher is better."""
    return features(served, shape) @ WEIGHTS
