"""Groups connected components into lines of text. digits.reading.read calls `find_lines`, which sorts them from
top to bottom and from left to right. Lines may slant."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from digits.imaging.find import components
from digits.reading.paper import INK

# maximum slant of lines in degrees
MAX_SLANT = 12
# minimum height of a digit in pixels
MIN_HEIGHT = 7
# a picture with more components has no lines
MOST_COMPONENTS = 12_000
# relative to the typical height: higher components are not digits, and lower ones are only parts of digits
TOO_HIGH, PART = 3.5, 0.45
# the maximum width of a vertical bar relative to its height, and the maximum height of a 1 relative to other
# digits
BAR, BAR_HEIGHT = 0.17, 1.25
# the minimum height of a digit in a frame, relative to the frame's
ENCLOSED = 0.4
# components that fill this fraction of both of the picture's sides are not digits, unless there is only one
FRAME = 0.9


class Layout(NamedTuple):
    """The connected components of a picture's ink, and its lines.

    ink: float32 (height, width) in [0, 1]. labels: int32 (height, width), 0 for no component. boxes: int32 (n,
    4), left, top, right, bottom of label i + 1. areas: int32 (n,). lines: indices into boxes, from left to right.
    heights: the height of each line's digits in pixels. typical: the typical height of digits in pixels. marks:
    indices of components that are too large or too small to be digits.
    """

    ink: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    lines: list[np.ndarray]
    heights: list[float]
    typical: float
    marks: np.ndarray


def find_lines(ink: np.ndarray | None, least: float = 0) -> Layout | None:
    """The lines of components in `ink`, float32 (height, width) in [0, 1]. None if `ink` is None.

    least: return no lines if the typical height of digits in pixels is lower than this.
    """
    if ink is None:
        return None
    labels, boxes, areas = components(ink > INK)
    labels = labels.astype(np.int32)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    possible = (height >= MIN_HEIGHT) & (areas >= 8)
    possible &= (width < FRAME * ink.shape[1]) | (height < FRAME * ink.shape[0]) | (len(areas) == 1)
    encloses = _encloses(boxes, areas, possible)
    possible &= ~encloses
    if not possible.any() or possible.sum() > MOST_COMPONENTS:
        return Layout(ink, labels, boxes, areas, [], [], 1.0, np.flatnonzero((areas > 30) & ~possible))
    typical = _weighted_median(height[possible], height[possible])
    if typical < least:
        return Layout(ink, labels, boxes, areas, [], [], typical, np.empty(0, np.intp))
    digits = possible & (height <= TOO_HIGH * typical) & (height >= PART * typical)
    bars = digits & (width < BAR * height)
    if (digits & ~bars).any():
        # the remains of a box's sides are higher than the digits in it, but a 1 is not
        digits &= ~bars | (height <= BAR_HEIGHT * np.percentile(height[digits & ~bars], 75))
    lines = _chain(boxes, np.flatnonzero(digits))
    lines, heights, parts = _with_parts(boxes, lines, height, areas, digits)
    marks = ((areas > 0.02 * typical**2) & ~digits & ~parts) | encloses
    return Layout(ink, labels, boxes, areas, lines, heights, typical, np.flatnonzero(marks))


def _encloses(boxes: np.ndarray, areas: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Which components are frames. They fill little of their box, and a component that may be a digit is inside
    it."""
    out = np.zeros(len(areas), bool)
    size = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    hollow = np.flatnonzero(possible & (areas < 0.4 * size))
    inner = np.flatnonzero(possible)
    if len(hollow) * len(inner) > 4_000_000:
        hollow = hollow[np.argsort(-size[hollow])][:300]
    for i in hollow:
        left, top, right, bottom = boxes[i]
        b = boxes[inner]
        inside = (b[:, 0] > left) & (b[:, 1] > top) & (b[:, 2] < right) & (b[:, 3] < bottom)
        out[i] = (inside & (b[:, 3] - b[:, 1] > ENCLOSED * (bottom - top))).any()
    return out


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def slant_of(boxes: np.ndarray) -> float:
    """The slope (dy / dx) of the lines of boxes (n, 4), at which most boxes are level with others."""
    if len(boxes) > 250:
        boxes = boxes[np.random.default_rng(0).permutation(len(boxes))[:250]]
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    height = np.median(boxes[:, 3] - boxes[:, 1])
    first, second = np.triu_indices(len(boxes), 1)
    dx, dy = (x[second] - x[first]) / height, (y[second] - y[first]) / height
    near = (np.abs(dx) < 12) & (np.abs(dx) > 0.3)
    dx, dy = dx[near], dy[near]
    slopes = np.tan(np.radians(np.arange(-MAX_SLANT, MAX_SLANT + 0.1, 0.5)))
    level = [np.exp(-((dy - slope * dx) ** 2) / 0.05).sum() - abs(slope) for slope in slopes]
    return float(slopes[int(np.argmax(level))])


def _chain(boxes: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """Add each component, from left to right, to the line whose last component is level with it."""
    slope = slant_of(boxes[chosen]) if len(chosen) > 1 else 0.0
    chosen = chosen[np.argsort(boxes[chosen, 0] + boxes[chosen, 2])]
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    height = (boxes[:, 3] - boxes[:, 1]).astype(float)
    lines: list[list[int]] = []
    last = np.zeros((len(chosen), 3))
    for i in chosen:
        open_lines = last[: len(lines)]
        away = np.abs(y[i] - open_lines[:, 1] - slope * (x[i] - open_lines[:, 0]))
        larger = np.maximum(open_lines[:, 2], height[i])
        smaller = np.minimum(open_lines[:, 2], height[i])
        away = np.where((smaller > 0.33 * larger) & (away < 0.55 * larger), away / larger, np.inf)
        if len(lines) and np.isfinite(away).any():
            best = int(np.argmin(away))
            lines[best].append(int(i))
        else:
            best = len(lines)
            lines.append([int(i)])
        # the mean of the last digits is steadier than the place of the last one
        recent = lines[best][-3:]
        mean = sum(y[k] - slope * (x[k] - x[i]) for k in recent) / len(recent)
        last[best] = x[i], mean, sorted(height[k] for k in recent)[len(recent) // 2]
    # sort by the height at which each line would cross the left border
    lines.sort(key=lambda line: float(np.mean(y[line] - slope * x[line])))
    return [np.array(line) for line in lines]


def _with_parts(
    boxes: np.ndarray, lines: list[np.ndarray], height: np.ndarray, areas: np.ndarray, digits: np.ndarray
) -> tuple[list[np.ndarray], list[float], np.ndarray]:
    """Add small components that may be parts of digits to the lines. Returns the lines, the height of each, and
    which components were added."""
    parts = np.zeros(len(boxes), bool)
    heights = [float(np.percentile(height[line], 70)) for line in lines]
    small = np.flatnonzero(~digits & (areas >= 4) & (height < 1.2 * max(heights, default=0)))
    if not lines or not small.size:
        return lines, heights, parts
    owner = np.concatenate([np.full(len(line), i) for i, line in enumerate(lines)])
    flat = np.concatenate(lines)
    added: list[list[int]] = [[] for _ in lines]
    tall = np.array(heights)
    for i in small:
        gap_x = np.maximum(0, np.maximum(boxes[flat, 0] - boxes[i, 2], boxes[i, 0] - boxes[flat, 2]))
        gap_y = np.maximum(0, np.maximum(boxes[flat, 1] - boxes[i, 3], boxes[i, 1] - boxes[flat, 3]))
        near = int(np.argmin(gap_x + gap_y))
        h = tall[owner[near]]
        if (
            gap_x[near] < 0.4 * h
            and gap_y[near] < 0.3 * h
            and height[i] < 0.9 * h
            and areas[i] > 0.004 * h * h
        ):
            added[owner[near]].append(int(i))
            parts[i] = True
    out = []
    for line, more in zip(lines, added, strict=True):
        both = np.concatenate([line, np.array(more, int)])
        out.append(both[np.argsort(boxes[both, 0] + boxes[both, 2])])
    return out, heights, parts
