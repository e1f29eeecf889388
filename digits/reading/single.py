"""Finds the digit in a picture of a single one with the detector."""

from __future__ import annotations

import numpy as np

from digits.detector import KINDS, SCORE, Detector, H, W, X, Y
from digits.imaging.find import Box
from digits.reading.search import Search

# probability from which something is the digit
LEAST = 0.3
# the probability and the height of a second one, relative to the first one's
SECOND, SIMILAR = 0.65, 0.6
# paper around the picture, as a part of its longer side
MARGIN = 4
# pixels of the longer side of the sample in which the paper's brightness is found
SAMPLE_SIDE = 256


def locate(detector: Detector, grey: np.ndarray) -> Box | None:
    """The box of the digit in a picture, uint8 (height, width), in its pixels: left, top, right, bottom. Of
    several digits, the box around all, except those that the picture's border cuts off. None if there is none."""
    # a digit that fills its picture is seen better with paper around it, the colour of most of the picture
    margin, step = max(grey.shape) // MARGIN, -(-max(grey.shape) // SAMPLE_SIDE)
    paper = int(np.median(grey[::step, ::step]))
    padded = np.pad(grey, margin, constant_values=paper)
    peaks = Search(detector, padded).candidates()
    peaks[:, [X, Y]] -= margin
    half, sides = peaks[:, [W, H]] / 2, grey.shape[::-1]
    low, high = peaks[:, [X, Y]] - half, peaks[:, [X, Y]] + half
    # of what the border cuts off, only the part inside counts
    inside = (np.clip(high, 0, sides) - np.clip(low, 0, sides)).prod(1) / (high - low).prod(1)
    probable = peaks[:, SCORE] * (1 - peaks[:, KINDS + 10]) * inside
    if probable.max(initial=0) < LEAST:
        return None
    first = peaks[probable.argmax()]
    whole = (low > 0).all(1) & (high < sides).all(1)
    chosen = (probable >= SECOND * probable.max()) & (peaks[:, H] > SIMILAR * first[H]) & whole
    chosen[probable.argmax()] = True
    left, top = low[chosen].min(0).tolist()
    right, bottom = high[chosen].max(0).tolist()
    return left, top, right, bottom
