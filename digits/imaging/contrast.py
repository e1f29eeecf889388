"""Evens out the light of a grey picture for the detector, in training as in reading."""

from __future__ import annotations

import cv2
import numpy as np


def normalize(grey: np.ndarray) -> np.ndarray:
    """The network's input for a grey picture, uint8 (h, w): float32 (h, w) from -1.5 to 2.5.

    The local mean is subtracted and the local contrast made equal; ink may be brighter or darker than paper.
    """
    picture = grey.astype(np.float32) / 255
    difference = picture - _mean(picture, 49, 25)
    # sums of squares leave tiny negative numbers
    contrast = np.sqrt(np.maximum(_mean(difference * difference, 81, 49), 0))
    return np.asarray(np.clip(difference / (contrast + 0.02), -3, 5) / 2, np.float32)


def _mean(picture: np.ndarray, *sides: int) -> np.ndarray:
    for side in sides:
        picture = cv2.blur(picture, (side, side), borderType=cv2.BORDER_REPLICATE)
    return picture
