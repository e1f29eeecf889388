"""Tells how much each pixel of a picture is ink, and how much paper."""

from __future__ import annotations

import cv2
import numpy as np

# there already is a worker process for each CPU, so OpenCV's threads would only compete
cv2.setNumThreads(1)

# minimum contrast of writing, of 255
MIN_CONTRAST = 14
# maximum width of strokes as a fraction of the picture's longer side: a digit that fills the picture and is drawn
# with a marker is this wide where strokes meet
WIDE_STROKE = 0.6

LEVELS = np.arange(256, dtype=np.float32)


def from_border(grey: np.ndarray) -> np.ndarray | None:
    """How much each pixel of a picture in even light is ink, float32 (height, width) in [0, 1]. None if there is
    no writing. grey: uint8 (height, width).

    The background consists of the plane of the border, and of everything too wide for a stroke. Ink is darker or
    brighter than it, whichever differs more.
    """
    smooth = cv2.medianBlur(grey, 3)
    slope, level = _border(smooth)
    if slope is not None:
        grey = cv2.subtract(grey, slope, dtype=cv2.CV_8U)
        smooth = cv2.medianBlur(grey, 3)
    levels = np.full_like(grey, level)
    if cv2.norm(cv2.subtract(grey, levels)) > cv2.norm(cv2.subtract(levels, grey)):
        grey, smooth, level = cv2.bitwise_not(grey), cv2.bitwise_not(smooth), 255 - level
    # the median keeps a noisy pixel from changing its surroundings; outside the border, assume paper
    kernel = np.ones((int(WIDE_STROKE * max(grey.shape)) | 1,) * 2, np.uint8)
    background = cv2.dilate(smooth, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=level)
    return scaled(cv2.subtract(cv2.erode(background, kernel), grey))


def _border(grey: np.ndarray) -> tuple[np.ndarray | None, int]:
    """The plane of the brightness along the border of a picture: its slope, float32 (height, width), which is 0 in
    the middle, or None if it is even, and its level there, 0 to 255.

    The least median of squares (Rousseeuw 1984, doi:10.1080/01621459.1984.10477105) tolerates ink on nearly half
    of the border. More ink than that on the border is rare, even in a tight crop.
    """
    height, width = grey.shape
    levels = _rim(grey)
    middle = int(np.median(levels))
    if np.ptp(levels) < MIN_CONTRAST:
        return None, middle
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    few = slice(None, None, max(1, max(grey.shape) // 24))
    places = np.stack([_rim(x)[few], _rim(y)[few]], 1)
    # OpenCV fits affine maps robustly, so fit the map that moves each place aside by its brightness
    moved = places.copy()
    moved[:, 0] += levels[few]
    fit, _ = cv2.estimateAffine2D(places, moved, method=cv2.LMEDS)
    if fit is None:
        return None, middle
    a, b, c = (fit[0] - (1, 0, 0)).astype(np.float32)
    level = round(min(max(float(c + a * width / 2 + b * height / 2), 0), 255))
    return (x - width / 2) * a + (y - height / 2) * b, level


def _rim(array: np.ndarray) -> np.ndarray:
    """The first and the last row and column."""
    return np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])


def scaled(departs: np.ndarray) -> np.ndarray | None:
    """Differences from the background, uint8, scaled so that the paper's noise is 0 and ink is 1: float32. None if
    there is no writing."""
    counts = cv2.calcHist([departs], [0], None, [256], [0, 256]).ravel()
    # use the few pixels that differ most, because a single one may be a scratch
    few = max(4, departs.size // 16_000)
    strong = 255 - int(np.searchsorted(np.cumsum(counts[::-1]), few))
    # estimate the noise from the paper only, because a tight crop is mostly ink
    paper = np.cumsum(counts[: max(1, strong // 2)])
    noise = int(np.searchsorted(paper, paper[-1] / 2))
    if strong < max(MIN_CONTRAST, 5 * noise):
        return None
    low = max(0.12 * strong, min(2.5 * noise, 0.4 * strong))
    table = np.clip((LEVELS - np.float32(low)) * np.float32(1 / (0.85 * strong - low)), 0, 1)
    return cv2.LUT(departs, table)
