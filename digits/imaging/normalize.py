from __future__ import annotations

import cv2
import numpy as np

# strokes as wide as MNIST's, of the 20 pixels a digit is high; others are brought there
MIN_STROKE, MAX_STROKE = 1.5, 4.6


def to_mnist(ink):
    """uint8 (28,28)"""
    before = ink.shape
    ink = normalize_stroke(ink)
    height, width = ink.shape
    ratio = 20 / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    pixels = cv2.resize(ink, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    peak = float(np.sort(pixels, axis=None)[-5:][0])
    pixels = np.minimum(pixels * (255 / max(peak, 1 / 255)), 255)
    moments = cv2.moments(pixels)
    x = round(13.5 - moments["m10"] / max(moments["m00"], 1e-6))
    y = round(13.5 - moments["m01"] / max(moments["m00"], 1e-6))
    x, y = min(max(x, 0), 28 - size[0]), min(max(y, 0), 28 - size[1])
    image = np.zeros((28, 28), np.uint8)
    image[y : y + size[1], x : x + size[0]] = pixels.round()
    return image


def normalize_stroke(ink):
    area = float(ink.sum())
    padded = cv2.copyMakeBorder(ink, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    edge = cv2.norm(padded[1:], padded[:-1], cv2.NORM_L1) + cv2.norm(
        padded[:, 1:], padded[:, :-1], cv2.NORM_L1
    )
    pixel = max(ink.shape) / 20
    wide = 2 * 1.27 * area / max(edge, 1e-6) / pixel
    if wide < MIN_STROKE:
        grow = round((MIN_STROKE - wide) * pixel / 2)
        if grow:
            ink = cv2.copyMakeBorder(ink, grow, grow, grow, grow, cv2.BORDER_CONSTANT)
            return cv2.dilate(ink, np.ones((2 * grow + 1, 2 * grow + 1), np.uint8))
    elif wide > MAX_STROKE:
        shrink = round((wide - MAX_STROKE) * pixel / 2)
        if shrink:
            thin = cv2.erode(ink, np.ones((2 * shrink + 1, 2 * shrink + 1), np.uint8))
            if thin.sum() > 0.2 * area:
                return thin
    return ink
