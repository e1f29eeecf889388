"""Ink from paper, for reader's eyes: `find_ink` gives the ink of a whole picture, on even or uneven ground,
without ruled lines. Called by digits.reading.read."""

from __future__ import annotations

import cv2
import numpy as np

from digits.imaging.find import MIN_CONTRAST, components, fit_background, shrink

# pixels of the longer side with which the ground is looked at
GROUND_SIZE = 480
# of the picture's longer side: on uneven ground, what is wider is no stroke
STROKE = 0.08
# of the strongest departure: a pixel of even ground departs less from its plane
EVEN = 0.2
# of all pixels: so many must be on an even ground's plane, and no more may depart to the other side
MIN_EVEN, MAX_OTHER = 0.55, 0.02
# above it a pixel is ink
INK = 0.35
# of the picture's longer side, and pixels: a straight run of ink so long is a rule; it is no thicker than this
RULE, MIN_RULE, RULE_THICKNESS = 0.2, 40, 0.012


def find_ink(grey: np.ndarray) -> np.ndarray | None:
    """How much each pixel is ink, float32 (height, width) in [0, 1]; None where there is none.

    grey: uint8 (height, width).
    """
    departs = _departs(cv2.GaussianBlur(grey, (3, 3), 0) if min(grey.shape) > 60 else grey)
    ink = _strength(departs)
    return None if ink is None else without_rules(ink)


def _departs(grey: np.ndarray) -> np.ndarray:
    """How far each pixel is on the ink's side of its ground, uint8."""
    small = shrink(grey, GROUND_SIZE)
    smooth = cv2.medianBlur(small, 3)
    slope, level = fit_background(smooth)
    plane = slope + np.float32(level)
    away = smooth - plane
    strong = max(float(np.percentile(np.abs(away), 99.5)), MIN_CONTRAST)
    dark, bright = away < -EVEN * strong, away > EVEN * strong
    size = grey.shape[1], grey.shape[0]
    other, own = sorted((dark.mean(), bright.mean()))
    if 1 - own - other >= MIN_EVEN and other <= MAX_OTHER:
        ground = np.clip(cv2.resize(plane, size), 0, 255).astype(np.uint8)
        is_dark = dark.mean() > bright.mean()
        return cv2.subtract(ground, grey) if is_dark else cv2.subtract(grey, ground)
    kernel = np.ones((int(STROKE * max(small.shape)) | 1,) * 2, np.uint8)
    closed, opened = (cv2.morphologyEx(smooth, op, kernel) for op in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN))
    thin = kernel[::2, ::2]
    darks, brights = (cv2.morphologyEx(smooth, op, thin) for op in (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT))
    if cv2.norm(darks) >= cv2.norm(brights):
        return cv2.subtract(cv2.resize(closed, size), grey)
    return cv2.subtract(grey, cv2.resize(opened, size))


def _strength(departs: np.ndarray) -> np.ndarray | None:
    """`departs`, uint8, scaled so that paper's noise is 0 and ink 1, by what is strong nearby."""
    counts = cv2.calcHist([departs], [0], None, [256], [0, 256]).ravel()
    strong = 255 - int(np.searchsorted(np.cumsum(counts[::-1]), max(4, departs.size // 16_000)))
    paper = np.cumsum(counts[: max(1, strong // 2)])
    noise = int(np.searchsorted(paper, paper[-1] / 2))
    least = max(MIN_CONTRAST, 5 * noise)
    if strong < least:
        return None
    # a pencil beside a marker is judged by itself
    size = departs.shape[1], departs.shape[0]
    step = max(1, max(departs.shape) // 100)
    few = cv2.dilate(departs, np.ones((step, step), np.uint8))[step // 2 :: step, step // 2 :: step]
    near = cv2.GaussianBlur(cv2.dilate(few, np.ones((5, 5), np.uint8)), (5, 5), 0)
    near = np.maximum(near, max(least, 0.25 * strong)).astype(np.float32)
    scale = cv2.resize(1 / (0.75 * near), size)
    return np.clip((departs - np.float32(max(2.5 * noise, 0))) * scale, 0, 1)


def without_rules(ink: np.ndarray) -> np.ndarray:
    """The ink without ruled lines: long runs that are thin across. Where a stroke crosses one, it stays.

    (As staff lines are taken from music by their vertical runs: Dalitz et al. 2008,
    doi:10.1109/TPAMI.2007.70749.)
    """
    mask = (ink > INK).astype(np.uint8)
    longest = max(ink.shape)
    thick, long = max(3, round(RULE_THICKNESS * longest)), max(MIN_RULE, round(RULE * longest))
    rules = np.zeros_like(mask)
    for axis in (0, 1):
        across = np.ones((thick + 1, 1) if axis == 0 else (1, thick + 1), np.uint8)
        thin = mask - cv2.morphologyEx(mask, cv2.MORPH_OPEN, across)
        gap = np.ones((3, 3 * thick) if axis == 0 else (3 * thick, 3), np.uint8)
        found = components(cv2.morphologyEx(thin, cv2.MORPH_CLOSE, gap))
        width, height = found.boxes[:, 2] - found.boxes[:, 0], found.boxes[:, 3] - found.boxes[:, 1]
        run, rise = (width, height) if axis == 0 else (height, width)
        straight = np.zeros(len(found.areas) + 1, np.uint8)
        straight[1:] = (run >= long) & (rise < run / 4) & (found.areas > 0.5 * run)
        rules |= np.minimum(thin, straight[found.labels])
    if not rules.any():
        return ink
    # a rule's faint rim goes with it, what is left of the strokes keeps its own
    rim = cv2.dilate(rules, np.ones((5, 5), np.uint8))
    strokes = np.minimum(cv2.dilate(mask - rules, np.ones((3, 3), np.uint8)), 1 - rules)
    return np.where((rim == 1) & (strokes == 0), np.float32(0), ink)
