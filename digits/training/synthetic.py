"""Draws synthetic digits in styles that MNIST lacks, and `python -m digits.training.synthetic FOLDER` the samples
of the drawing page. Each digit consists of a few strokes with random shape, slant, proportions, width and jitter.
It is converted to MNIST's format: bright ink on black, scaled to fit into 20x20, with the centre of mass in the
middle of 28x28.

strokes.json contains the shapes: for each digit the styles in which people write it, each with its strokes. A
stroke is a list of points [x, y] in a unit square, with x to the right and y down. A smooth curve passes through
the points, and a point that is given twice makes a corner.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

# digit -> the styles in which people write it
SHAPES: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("strokes.json").read_text())

CANVAS = 96


def draw(train: int, test: int, seed: int) -> dict[str, np.ndarray]:
    """`train` and `test` digits as x_train, x_test uint8 (n, 28, 28) and y_train, y_test uint8 (n,).

    The same numbers and seed give the same images with the same versions of NumPy and Pillow.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, train + test, dtype=np.uint8)
    images = np.empty((len(labels), 28, 28), np.uint8)
    for i, label in enumerate(labels):
        images[i] = _digit(int(label), rng)
    return {
        "x_train": images[:train],
        "y_train": labels[:train],
        "x_test": images[train:],
        "y_test": labels[train:],
    }


def smooth_digit(label: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The strokes of a handwritten digit: float (n, 2) each, x to the right and y down, with a height of about
    1."""
    styles = SHAPES[str(label)]
    return smooth_strokes(styles[rng.integers(len(styles))]["strokes"], rng)


def smooth_strokes(shape: list[Any], rng: np.random.Generator) -> list[np.ndarray]:
    """The strokes of a shape with random variations: float (n, 2) each, x to the right and y down, with a height
    of about 1.

    shape: the points [x, y] of each stroke, as in strokes.json.
    """
    narrow, slant, turn = rng.uniform(0.5, 0.95), rng.normal(0, 0.22), rng.normal(0, 0.12)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = matrix @ np.array([[1, -slant], [0, 1]]) @ np.diag([narrow, 1])
    strokes = []
    for points in shape:
        moved = np.array(points) - 0.5
        # move points that are given twice together, or the corner would become a loop
        _, same = np.unique(moved, axis=0, return_inverse=True)
        moved = moved + rng.normal(0, 0.035, (len(moved), 2))[same.reshape(-1)]
        strokes.append(_smooth(moved @ matrix.T))
    return strokes


def _digit(label: int, rng: np.random.Generator) -> np.ndarray:
    strokes = smooth_digit(label, rng)
    low = np.min([stroke.min(0) for stroke in strokes], axis=0)
    high = np.max([stroke.max(0) for stroke in strokes], axis=0)
    width = rng.uniform(0.06, 0.22)
    scale = CANVAS * (1 - width - 0.04) / (high - low).max()
    picture = Image.new("L", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(picture)
    radius = width * CANVAS / 2
    for stroke in strokes:
        for x, y in (stroke - (low + high) / 2) * scale + CANVAS / 2:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return _as_mnist(picture, rng)


def _smooth(points: np.ndarray) -> np.ndarray:
    """A Catmull-Rom spline through the points (n, 2), with points close enough to draw dots at them."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    a, b, c, d = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    # at a doubled point there is a corner, so the curve is straight before and after it
    a, d = (
        np.where(np.isclose(near, far).all(2, keepdims=True), near, far) for near, far in ((b, a), (c, d))
    )
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    curves = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    return np.concatenate([curves.reshape(-1, 2) / 2, points[-1:]])


def _as_mnist(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    box = picture.getbbox()
    assert box is not None  # noqa: S101  a stroke always leaves ink
    ink = picture.crop(box)
    ratio = 20 / max(ink.size)
    size = (max(1, round(ink.width * ratio)), max(1, round(ink.height * ratio)))
    ink = ink.resize(size, Image.Resampling.BOX)
    return (centred(np.asarray(ink, np.float32)) * rng.uniform(0.85, 1)).round().astype(np.uint8)


def centred(ink: np.ndarray) -> np.ndarray:
    """The image (28, 28) with the centre of mass of the ink in its middle, as far as there is room.

    ink: float32 (height, width), at most 28 each, from 0 on.
    """
    height, width = ink.shape
    mass = max(float(ink.sum()), 1.0)
    x = round(13.5 - float((ink.sum(0) * np.arange(width)).sum()) / mass)
    y = round(13.5 - float((ink.sum(1) * np.arange(height)).sum()) / mass)
    x, y = min(max(x, 0), 28 - width), min(max(y, 0), 28 - height)
    return np.pad(ink, ((y, 28 - height - y), (x, 28 - width - x)))


def main() -> None:
    """Write 0.png to 9.png, dark on light, to the folder that the command line names."""
    rng = np.random.default_rng(9)
    for label in range(10):
        ink = Image.fromarray(255 - _digit(label, rng))
        ink.save(Path(sys.argv[1], f"{label}.png"), optimize=True)


if __name__ == "__main__":
    main()
