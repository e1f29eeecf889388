"""Converts the digit's ink to an image like MNIST's. MNIST's authors scaled each digit to fit into 20x20 pixels
without changing its aspect ratio, and placed its centre of mass in the middle of 28x28, with bright ink on black
(LeCun et al. 1998, "Gradient-based learning applied to document recognition", III.A). Before that, strokes that
are much thinner or thicker than MNIST's are widened or narrowed."""

from __future__ import annotations

import cv2
import numpy as np

# the widths of MNIST's strokes, in pixels of a digit of 20 pixels' height
MIN_STROKE, MAX_STROKE = 1.5, 4.6
# strokes are not narrowed if less than this fraction of the ink would be left
MIN_LEFT = 0.2
# scale to the fifth brightest pixel, because the brightest may be noise
PEAK = 5


def to_mnist(ink: np.ndarray) -> np.ndarray:
    """The digit in MNIST's format, uint8 (28, 28). ink: float32 (height, width) in [0, 1], cropped to the
    digit."""
    ink = _with_usual_strokes(ink)
    height, width = ink.shape
    ratio = 20 / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    pixels = cv2.resize(ink, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    peak = float(np.sort(pixels, axis=None)[-PEAK:][0])
    pixels = np.minimum(pixels * (255 / max(peak, 1 / 255)), 255)
    image = np.zeros((28, 28), np.uint8)
    image[: size[1], : size[0]] = pixels.round()
    # of the whole image, because OpenCV would take an array of two columns for the corners of a polygon
    moments = cv2.moments(image)
    mass = max(moments["m00"], 1e-6)
    x = min(max(round(13.5 - moments["m10"] / mass), 0), 28 - size[0])
    y = min(max(round(13.5 - moments["m01"] / mass), 0), 28 - size[1])
    return np.roll(image, (y, x), (0, 1))


def _with_usual_strokes(ink: np.ndarray) -> np.ndarray:
    """Widen or narrow strokes that are much thinner or thicker than MNIST's. Widening enlarges the crop."""
    area = float(ink.sum())
    padded = cv2.copyMakeBorder(ink, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    # the length of all edges, which is twice that of the strokes, from the differences between neighbours
    edge = cv2.norm(padded[1:], padded[:-1], cv2.NORM_L1) + cv2.norm(
        padded[:, 1:], padded[:, :-1], cv2.NORM_L1
    )
    pixel = max(ink.shape) / 20
    # slanted edges count up to 1.4 times their length, 1.27 times on average
    stroke = 2 * 1.27 * area / max(edge, 1e-6) / pixel
    if stroke < MIN_STROKE and (grow := round((MIN_STROKE - stroke) * pixel / 2)):
        ink = cv2.copyMakeBorder(ink, grow, grow, grow, grow, cv2.BORDER_CONSTANT)
        return cv2.dilate(ink, np.ones((2 * grow + 1, 2 * grow + 1), np.uint8))
    if stroke > MAX_STROKE and (shrink := round((stroke - MAX_STROKE) * pixel / 2)):
        thin = cv2.erode(ink, np.ones((2 * shrink + 1, 2 * shrink + 1), np.uint8))
        if thin.sum() > MIN_LEFT * area:
            return thin
    return ink
