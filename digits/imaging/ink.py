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


def fit_background(grey: np.ndarray) -> tuple[np.ndarray, int]:
    """Fit a plane to the brightness along the border of `grey`, uint8 (height, width). Returns its slope, float32
    (height, width), which is 0 in the middle, and its level there, 0 to 255.

    The least median of squares (Rousseeuw 1984, doi:10.1080/01621459.1984.10477105) tolerates ink on nearly half
    of the border. More ink than that on the border is rare, even in a tight crop.
    """
    height, width = grey.shape
    step = max(1, max(height, width) // 24)
    # places (x, y) along the four sides
    x, y = np.arange(0, width, step, dtype=np.float32), np.arange(0, height, step, dtype=np.float32)
    places = np.zeros((2 * (x.size + y.size), 2), np.float32)
    places[: x.size, 0] = places[x.size : 2 * x.size, 0] = x
    places[x.size : 2 * x.size, 1] = height - 1
    places[2 * x.size : -y.size, 1] = places[-y.size :, 1] = y
    places[-y.size :, 0] = width - 1
    levels = np.concatenate([grey[0, ::step], grey[-1, ::step], grey[::step, 0], grey[::step, -1]])
    # OpenCV fits affine maps robustly, so fit the map that moves each place aside by its brightness
    moved = places.copy()
    moved[:, 0] += levels
    fit, _ = cv2.estimateAffine2D(places, moved, method=cv2.LMEDS)
    if fit is None:
        return np.zeros(grey.shape, np.float32), int(np.median(levels))
    a, b, c = (fit[0] - (1, 0, 0)).tolist()
    across = (np.arange(width, dtype=np.float32) - np.float32(width / 2)) * np.float32(a)
    down = (np.arange(height, dtype=np.float32) - np.float32(height / 2)) * np.float32(b)
    level = round(min(max(c + a * width / 2 + b * height / 2, 0), 255))
    return down[:, None] + across, level


def from_border(grey: np.ndarray) -> np.ndarray | None:
    """How much each pixel of a picture in even light is ink, float32 (height, width) in [0, 1]. None if there is
    no writing. grey: uint8 (height, width).

    The background consists of the plane of the border, and of everything too wide for a stroke. Ink is darker or
    brighter than it, whichever differs more.
    """
    smooth = cv2.medianBlur(grey, 3)
    slope, level = fit_background(smooth)
    if max(abs(float(slope[0, 0])), abs(float(slope[0, -1]))) >= 1:
        grey = cv2.subtract(grey, slope, dtype=cv2.CV_8U)
        smooth = cv2.medianBlur(grey, 3)
    levels = np.full_like(grey, level)
    if cv2.norm(cv2.subtract(grey, levels)) > cv2.norm(cv2.subtract(levels, grey)):
        grey, smooth, level = cv2.bitwise_not(grey), cv2.bitwise_not(smooth), 255 - level
    # the median keeps a noisy pixel from changing its surroundings; outside the border, assume paper
    kernel = np.ones((int(WIDE_STROKE * max(grey.shape)) | 1,) * 2, np.uint8)
    background = cv2.dilate(smooth, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=level)
    return scaled(cv2.subtract(cv2.erode(background, kernel), grey))


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
