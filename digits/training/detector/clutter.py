"""Draws on a sheet what is no digit: ruled and squared paper, hatching, scribbles, dots, stamps, blots and
shapes."""

from __future__ import annotations

import cv2
import numpy as np

from digits.training.detector.glyphs import Rng, Strokes, pick
from digits.training.detector.sheet import SCALE, Point, Sheet
from digits.training.drawings import blot, invented, scribble, shape, texture

DRAWINGS = {"scribble": scribble, "shape": shape, "blot": blot, "invented": invented, "texture": texture}


def ruled(sheet: Sheet, rng: Rng, pitch: float, first: float, tone: int) -> None:
    """Horizontal lines from `first` down, every `pitch` sheet pixels, sometimes with a margin or double
    lines."""
    width = SCALE * rng.uniform(0.3, 1.3)
    ys = np.arange(first - np.ceil(first / pitch) * pitch, sheet.height, max(pitch, 6))
    sheet.lines([np.array([[0, y], [sheet.width, y]]) for y in ys], tone, width)
    if rng.random() < 0.15:
        x = rng.uniform(0.02, 0.3) * sheet.width
        sheet.lines([np.array([[x, 0], [x, sheet.height]])], tone, width)


def squared(sheet: Sheet, rng: Rng, pitch: float, tone: int) -> None:
    """Squared paper or dots in a grid."""
    begin = rng.uniform(0, pitch, 2)
    xs, ys = np.arange(begin[0], sheet.width, pitch), np.arange(begin[1], sheet.height, pitch)
    if rng.random() < 0.15:
        for y in ys.astype(int):
            sheet.ink[y : y + 2][:, xs.astype(int)] = tone
        return
    width = SCALE * rng.uniform(0.25, 0.8)
    down = [np.array([[x, 0], [x, sheet.height]]) for x in xs]
    sheet.lines(down + [np.array([[0, y], [sheet.width, y]]) for y in ys], tone, width)


def hatching(sheet: Sheet, rng: Rng, area: tuple[float, float, float, float], tone: int) -> None:
    """Parallel lines in an area x0, y0, x1, y1, straight or by hand, sometimes crossed."""
    x0, y0, x1, y1 = area
    middle, reach = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), float(np.hypot(x1 - x0, y1 - y0)) / 2
    pitch = SCALE * rng.uniform(2.5, 14)
    shaky = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.0
    for angle in rng.uniform(0, np.pi) + np.array([0.0, rng.uniform(0.6, 2.2)])[: 1 + (rng.random() < 0.35)]:
        along, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        lines = []
        for at in np.arange(-reach, reach, pitch):
            jitter = rng.normal(0, shaky * pitch, 4)
            begin = middle + aside * (at + jitter[0]) - along * (reach + jitter[1] * 3)
            end = middle + aside * (at + jitter[2]) + along * (reach + jitter[3] * 3)
            lines.append(np.array([begin, end]))
        layer = Sheet(np.zeros_like(sheet.ink))
        layer.lines(lines, tone, SCALE * rng.uniform(0.4, 2.2))
        left, top, right, bottom = (max(0, int(edge)) for edge in area)
        sheet.paste(layer.ink[top:bottom, left:right], left, top)


def drawing(
    sheet: Sheet, strokes: Strokes, rng: Rng, size: float, at: Point, weights: dict[str, float]
) -> None:
    """Something drawn.

    Args:
        strokes: for the signs in a stamp.
        size: in the sheet's pixels.
        at: x and y of its upper left corner, or of a stamp's middle.
        weights: of each of DRAWINGS and of `curve`, `dots` and `stamp`.
    """
    x, y = at
    drawn = pick(rng, weights)
    tone = int(rng.integers(100, 256))
    if drawn == "curve":
        count = int(rng.integers(3, 9))
        points = np.cumsum(rng.normal(0, size / 3, (count, 2)), 0) + np.array(at)
        fine = cv2.resize(points.astype(np.float32), (2, count * 8), interpolation=cv2.INTER_CUBIC)
        sheet.lines([fine], tone, SCALE * rng.uniform(0.6, 3))
    elif drawn == "dots":
        for dot in rng.uniform(0, size * 2, (int(rng.integers(1, 30)), 2)) + np.array(at):
            cv2.circle(sheet.ink, dot.astype(int).tolist(), int(rng.integers(1, 4)), tone, -1, cv2.LINE_AA)
    elif drawn == "stamp":
        axes = (int(size * rng.uniform(0.6, 1.5)), int(size * rng.uniform(0.4, 1.2)))
        angle = float(rng.uniform(-40, 40))
        for less in range(int(rng.integers(1, 3))):
            inner = max(2, axes[0] - 8 * less), max(2, axes[1] - 8 * less)
            pen = int(rng.integers(1, 5))
            cv2.ellipse(sheet.ink, (int(x), int(y)), inner, angle, 0, 360, tone, pen, cv2.LINE_AA)
        for _ in range(int(rng.integers(0, 6))):
            mask = strokes.sign(0.1, rng).mask
            small = cv2.resize(mask, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
            left, top = x + rng.uniform(-0.7, 0.5) * axes[0], y + rng.uniform(-0.5, 0.3) * axes[1]
            sheet.paste(small, int(left), int(top))
    else:
        picture = DRAWINGS[drawn](rng)
        wide = size * rng.uniform(0.7, 1.5)
        picture = cv2.resize(picture, (max(4, int(wide)), max(4, int(size))), interpolation=cv2.INTER_AREA)
        sheet.paste((picture * (tone / 255)).astype(np.uint8), int(x), int(y))
