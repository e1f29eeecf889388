"""Which components of the ink stand in one line: `find_lines` puts them in reading order, from top to bottom
and from left to right, also where lines slant. Called by digits.reading.read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from digits.imaging.find import components
from digits.reading.paper import INK

# degrees that lines may slant
MAX_SLANT = 12
# pixels: what is less high is no digit
MIN_HEIGHT = 7
# of components; beyond, a picture shows no numbers
MOST_COMPONENTS = 12_000
# of the typical height: what is so much higher is no digit, what is less high is but a part of one
TOO_HIGH, PART = 3.5, 0.45
# of the picture's side: so wide and high is no digit among others
FRAME = 0.9


class Layout(NamedTuple):
    """A picture's ink in components, and the lines these stand in.

    ink: float32 (height, width) in [0, 1]. labels: int32 (height, width), 0 where there is no component.
    boxes: int32 (n, 4), left, top, right, bottom of label i + 1. areas: int32 (n,). lines: indices into
    boxes, from left to right. heights: of each line's digits, in pixels. marks: indices of what is too large
    or small to be a digit.
    """

    ink: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    lines: list[np.ndarray]
    heights: list[float]
    marks: np.ndarray


def find_lines(ink: np.ndarray) -> Layout:
    """The lines of components in `ink`, float32 (height, width) in [0, 1]."""
    labels, boxes, areas = components(ink > INK)
    labels = labels.astype(np.int32)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    possible = (height >= MIN_HEIGHT) & (areas >= 8)
    possible &= (width < FRAME * ink.shape[1]) | (height < FRAME * ink.shape[0]) | (len(areas) == 1)
    encloses = _encloses(boxes, areas, possible)
    possible &= ~encloses
    if not possible.any() or possible.sum() > MOST_COMPONENTS:
        return Layout(ink, labels, boxes, areas, [], [], np.flatnonzero((areas > 30) & ~possible))
    typical = _weighted_median(height[possible], height[possible])
    digits = possible & (height <= TOO_HIGH * typical) & (height >= PART * typical)
    lines = _chain(boxes, np.flatnonzero(digits))
    lines, heights, parts = _with_parts(boxes, lines, height, areas, digits)
    marks = ((areas > 0.02 * typical**2) & ~digits & ~parts) | encloses
    return Layout(ink, labels, boxes, areas, lines, heights, np.flatnonzero(marks))


def _encloses(boxes: np.ndarray, areas: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Which components are frames: much of another is inside their box, and they fill little of it."""
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
        out[i] = (inside & (size[inner] > 0.08 * size[i])).any()
    return out


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def slant_of(boxes: np.ndarray) -> float:
    """The slope (dy / dx) of the lines that boxes (n, 4) stand in: with it, most of them are level with
    others."""
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
    """Components put to the line whose last one is level with them, from left to right."""
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
        # the place of a line is steadier than that of its last digit
        recent = lines[best][-3:]
        mean = np.mean(y[recent] - slope * (x[recent] - x[i]))
        last[best] = x[i], mean, np.median(height[recent])
    # by where each would cross the left border
    lines.sort(key=lambda line: float(np.mean(y[line] - slope * x[line])))
    return [np.array(line) for line in lines]


def _with_parts(
    boxes: np.ndarray, lines: list[np.ndarray], height: np.ndarray, areas: np.ndarray, digits: np.ndarray
) -> tuple[list[np.ndarray], list[float], np.ndarray]:
    """The lines with small components that may be parts of their digits, each line's height, and which these
    are."""
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
