"""Checks images that are sent as pixels."""

from __future__ import annotations

import numpy as np

from digits.imaging.ink import MIN_CONTRAST


def blank(pixels: np.ndarray, top: int = 255) -> tuple[int, str] | None:
    """The index of the first of n blank images, and the problem with it; None if none is blank.

    pixels: values from 0 to `top`. The network has not been trained with blank images, and takes them for a 1 with
    high probability.
    """
    least = MIN_CONTRAST * top / 255
    # a faster way for a single image
    if len(pixels) == 1 and pixels.max() - pixels.min() >= least:
        return None
    rows = pixels.reshape(len(pixels), -1)
    highest, lowest = rows.max(1), rows.min(1)
    faint = np.flatnonzero(highest - lowest < least)
    if not len(faint):
        return None
    first = int(faint[0])
    if top == 255 and lowest[first] < highest[first] <= 1:
        return first, "has values from 0 to 1: multiply them by 255."
    return first, "is blank: its pixels hardly differ."
