"""Digits drawn by the computer: train.py calls `draw` for a few beside MNIST's, in styles that MNIST lacks;
digits/training/data.py for the pipeline's `synthetic` source, where MNIST can't be had; tests train on
them, and `python -m digits.training.synthetic FOLDER` makes the drawing page's samples. Each digit is a
few strokes whose shape, slant, proportions, width and jitter vary, brought into MNIST's form: ink bright
on black, fitted in 20x20, centred by mass in 28x28."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# the ways people write a digit, each a list of strokes, each a list of points (x, y) in a unit square that a
# smooth curve passes through; a point given twice makes a corner
SHAPES: dict[int, list[list[list[tuple[float, float]]]]] = {
    0: [[[(0.5, 0), (0.1, 0.25), (0.05, 0.7), (0.45, 1), (0.9, 0.75), (0.95, 0.3), (0.55, 0.0)]]],
    1: [
        [[(0.5, 0), (0.5, 0.5), (0.5, 1)]],
        [[(0.25, 0.25), (0.4, 0.15), (0.55, 0), (0.55, 0), (0.55, 0.5), (0.55, 1)]],
        # with a long upstroke, as taught in much of Europe
        [[(0.15, 0.4), (0.4, 0.2), (0.65, 0), (0.65, 0), (0.65, 0.5), (0.65, 1)]],
        [[(0.0, 0.55), (0.35, 0.3), (0.7, 0), (0.7, 0), (0.68, 0.5), (0.66, 1)]],
        # with a foot
        [
            [(0.25, 0.3), (0.4, 0.18), (0.55, 0), (0.55, 0), (0.55, 0.5), (0.55, 0.98)],
            [(0.15, 1), (0.5, 0.98), (0.95, 0.98)],
        ],
    ],
    2: [
        [[(0.1, 0.25), (0.45, 0), (0.85, 0.25), (0.6, 0.6), (0.1, 1), (0.1, 1), (0.5, 0.98), (0.95, 0.97)]],
        [
            [
                (0.1, 0.2),
                (0.5, 0),
                (0.85, 0.3),
                (0.5, 0.75),
                (0.15, 0.95),
                (0.1, 0.8),
                (0.35, 0.78),
                (0.65, 0.95),
                (0.95, 0.9),
            ]
        ],
        # narrow, so that it is told from a 1 with a foot
        [[(0.2, 0.22), (0.5, 0), (0.72, 0.22), (0.5, 0.65), (0.15, 1), (0.15, 1), (0.5, 0.98), (0.95, 0.97)]],
    ],
    3: [
        [
            [
                (0.15, 0.1),
                (0.55, 0),
                (0.85, 0.2),
                (0.45, 0.47),
                (0.45, 0.47),
                (0.9, 0.7),
                (0.55, 1),
                (0.1, 0.9),
            ]
        ],
        [
            [
                (0.1, 0.02),
                (0.85, 0.02),
                (0.85, 0.02),
                (0.45, 0.42),
                (0.45, 0.42),
                (0.9, 0.65),
                (0.6, 1),
                (0.1, 0.9),
            ]
        ],
    ],
    4: [
        [[(0.25, 0), (0.1, 0.5), (0.1, 0.5), (0.5, 0.53), (0.9, 0.5)], [(0.8, 0.05), (0.75, 0.5), (0.7, 1)]],
        [[(0.7, 1), (0.7, 0.5), (0.72, 0), (0.72, 0), (0.05, 0.65), (0.05, 0.65), (0.95, 0.65)]],
        # with a stem that begins low
        [
            [(0.55, 0), (0.3, 0.3), (0.1, 0.62), (0.1, 0.62), (0.5, 0.65), (0.95, 0.62)],
            [(0.7, 0.35), (0.62, 1)],
        ],
        [
            [(0.5, 0), (0.2, 0.35), (0.15, 0.6), (0.5, 0.65), (0.85, 0.55)],
            [(0.8, 0.3), (0.7, 0.65), (0.6, 1)],
        ],
        [
            [(0.5, 0), (0.25, 0.4), (0.1, 0.73), (0.1, 0.73), (0.5, 0.73), (0.9, 0.68)],
            [(0.62, 0.42), (0.5, 1)],
        ],
        # rounded like a 6, with a stem through its end
        [
            [(0.45, 0), (0.2, 0.35), (0.1, 0.65), (0.35, 0.75), (0.75, 0.6)],
            [(0.8, 0.25), (0.65, 0.6), (0.45, 1)],
        ],
        [[(0.5, 0), (0.2, 0.4), (0.08, 0.62), (0.4, 0.7), (0.95, 0.6)], [(0.72, 0.3), (0.64, 0.6), (0.5, 1)]],
    ],
    5: [
        [
            [
                (0.9, 0.02),
                (0.2, 0),
                (0.2, 0),
                (0.15, 0.42),
                (0.15, 0.42),
                (0.7, 0.42),
                (0.85, 0.75),
                (0.4, 1),
                (0.05, 0.9),
            ]
        ],
        [
            [(0.2, 0), (0.15, 0.42), (0.15, 0.42), (0.7, 0.4), (0.85, 0.75), (0.4, 1), (0.05, 0.9)],
            [(0.2, 0), (0.9, 0.02)],
        ],
    ],
    6: [
        [[(0.7, 0), (0.25, 0.35), (0.1, 0.75), (0.45, 1), (0.85, 0.8), (0.6, 0.52), (0.2, 0.65)]],
        [[(0.45, 0), (0.15, 0.5), (0.2, 0.9), (0.6, 1), (0.8, 0.7), (0.45, 0.55), (0.15, 0.75)]],
    ],
    7: [
        [[(0.05, 0.05), (0.5, 0.03), (0.9, 0), (0.9, 0), (0.6, 0.5), (0.4, 1)]],
        [[(0.1, 0.1), (0.9, 0.05), (0.9, 0.05), (0.55, 0.5), (0.35, 1)], [(0.3, 0.55), (0.8, 0.5)]],
    ],
    8: [
        [
            [
                (0.8, 0.15),
                (0.45, 0),
                (0.2, 0.2),
                (0.5, 0.47),
                (0.85, 0.75),
                (0.5, 1),
                (0.12, 0.78),
                (0.5, 0.47),
                (0.8, 0.15),
            ]
        ],
        [
            [(0.5, 0.47), (0.2, 0.25), (0.5, 0), (0.8, 0.25), (0.5, 0.47)],
            [(0.5, 0.47), (0.1, 0.75), (0.5, 1), (0.9, 0.75), (0.5, 0.47)],
        ],
    ],
    9: [
        [[(0.8, 0.2), (0.45, 0), (0.15, 0.25), (0.45, 0.5), (0.8, 0.25), (0.8, 0.2), (0.78, 0.6), (0.7, 1)]],
        [
            [
                (0.8, 0.2),
                (0.45, 0),
                (0.15, 0.25),
                (0.45, 0.5),
                (0.8, 0.25),
                (0.8, 0.6),
                (0.6, 0.95),
                (0.2, 0.95),
            ]
        ],
        # with a broad foot, and with a loop that stays open
        [
            [
                (0.75, 0.12),
                (0.45, 0),
                (0.2, 0.2),
                (0.45, 0.42),
                (0.75, 0.25),
                (0.85, 0.6),
                (0.85, 0.9),
                (0.45, 1),
                (0.05, 0.95),
            ]
        ],
        [[(0.7, 0.05), (0.3, 0.08), (0.25, 0.4), (0.7, 0.4), (0.8, 0.1), (0.8, 0.1), (0.78, 0.6), (0.7, 1)]],
        # with a foot that turns back at a corner
        [
            [
                (0.7, 0.12),
                (0.4, 0),
                (0.15, 0.2),
                (0.35, 0.42),
                (0.68, 0.3),
                (0.7, 0.12),
                (0.75, 0.5),
                (0.88, 0.95),
                (0.88, 0.95),
                (0.5, 0.98),
                (0.1, 0.92),
            ]
        ],
    ],
}

CANVAS = 96


def draw(train: int, test: int, seed: int) -> dict[str, np.ndarray]:
    """`train` and `test` digits as x_train, x_test uint8 (n, 28, 28) and y_train, y_test uint8 (n,).

    The same numbers and seed give the same images with the same versions of NumPy and Pillow.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, train + test, dtype=np.uint8)
    images = np.stack([_digit(int(label), rng) for label in labels])
    return {
        "x_train": images[:train],
        "y_train": labels[:train],
        "x_test": images[train:],
        "y_test": labels[train:],
    }


def smooth_digit(label: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A digit's strokes as someone might write them: float (n, 2) each, x right, y down, about 1 high."""
    shape = SHAPES[label][rng.integers(len(SHAPES[label]))]
    narrow, slant, turn = rng.uniform(0.5, 0.95), rng.normal(0, 0.22), rng.normal(0, 0.12)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = matrix @ np.array([[1, -slant], [0, 1]]) @ np.diag([narrow, 1])
    strokes = []
    for points in shape:
        moved = np.array(points) - 0.5
        # points given twice stay together, or the corner would become a loop
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
    """A Catmull-Rom spline through the points (n, 2), close enough to be dotted as a line."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        # a doubled point is a corner: the curve runs straight into it and straight out of it
        a, d = (b if np.allclose(a, b) else a), (c if np.allclose(c, d) else d)
        curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        pieces.append(curve / 2)
    return np.concatenate([*pieces, points[-1:]])


def _as_mnist(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    box = picture.getbbox()
    assert box is not None  # noqa: S101  a stroke always leaves ink
    ink = picture.crop(box)
    ratio = 20 / max(ink.size)
    size = (max(1, round(ink.width * ratio)), max(1, round(ink.height * ratio)))
    ink = ink.resize(size, Image.Resampling.BOX)
    pixels = np.asarray(ink, np.float32)
    total = pixels.sum()
    x = round(14 - 0.5 - (pixels.sum(0) * np.arange(size[0])).sum() / total)
    y = round(14 - 0.5 - (pixels.sum(1) * np.arange(size[1])).sum() / total)
    x, y = min(max(x, 0), 28 - size[0]), min(max(y, 0), 28 - size[1])
    image = np.zeros((28, 28), np.float32)
    image[y : y + size[1], x : x + size[0]] = pixels * rng.uniform(0.85, 1)
    return image.round().astype(np.uint8)


def main() -> None:
    """Write 0.png to 9.png, dark on light, into the folder that the command line names."""
    rng = np.random.default_rng(9)
    for label in range(10):
        ink = Image.fromarray(255 - _digit(label, rng))
        ink.save(Path(sys.argv[1], f"{label}.png"), optimize=True)


if __name__ == "__main__":
    main()
