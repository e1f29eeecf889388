"""Finds the digit in a picture of a single one with the detector."""

from __future__ import annotations

import numpy as np

from digits.detector import KINDS, SCORE, Detector, H, W, X, Y
from digits.imaging.find import Box
from digits.reading.search import Search

# probability from which something is the digit, and from which something else is a second one
LEAST, SECOND = 0.4, 0.6
# the second one's height relative to the first one's
SIMILAR = 0.6
# paper around the picture, as a part of its longer side
MARGIN = 4


def locate(detector: Detector, grey: np.ndarray) -> Box | None:
    """The box of the digit in a picture, uint8 (height, width), in its pixels: left, top, right, bottom. Of
    several digits, the box around all, except those that the picture's border cuts off. None if there is none."""
    # a digit that fills its picture is seen better with paper around it
    margin = max(grey.shape) // MARGIN
    paper = int(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    padded = np.pad(grey, margin, constant_values=paper)
    peaks = Search(detector, padded).candidates()
    peaks[:, [X, Y]] -= margin
    probable = peaks[:, SCORE] * (1 - peaks[:, KINDS + 10])
    if probable.max(initial=0) < LEAST:
        return None
    first = peaks[probable.argmax()]
    low, high = peaks[:, [X, Y]] - peaks[:, [W, H]] / 2, peaks[:, [X, Y]] + peaks[:, [W, H]] / 2
    whole = (low > 0).all(1) & (high < grey.shape[::-1]).all(1)
    chosen = (probable >= SECOND) & (peaks[:, H] > SIMILAR * first[H]) & whole
    chosen[probable.argmax()] = True
    left, top = low[chosen].min(0).tolist()
    right, bottom = high[chosen].max(0).tolist()
    return left, top, right, bottom
