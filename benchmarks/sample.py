"""Draws the web page's sample of a handwritten number:

python benchmarks/sample.py digits/web/static/samples/number.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from digits.training.synthetic import smooth_digit  # noqa: E402

NUMBER, SEED = "40725", 16
SIZE, HEIGHT, PEN, GAP = (480, 180), 110, 9, 14
# it is drawn larger by this factor, for smooth edges
FINE = 4


def main() -> None:
    """Write the picture to the file that the command line names."""
    rng = np.random.default_rng(SEED)
    picture = Image.new("L", (SIZE[0] * FINE, SIZE[1] * FINE), 252)
    pen = ImageDraw.Draw(picture)
    x, radius = 45.0, PEN * FINE / 2
    for digit in NUMBER:
        strokes = [stroke * HEIGHT for stroke in smooth_digit(int(digit), rng)]
        low, high = (edge([edge(stroke, 0) for stroke in strokes], 0) for edge in (np.min, np.max))
        base = np.array([x - low[0], SIZE[1] / 2 - (low[1] + high[1]) / 2 + rng.uniform(-5, 5)])
        for stroke in strokes:
            for point in (stroke + base) * FINE:
                pen.ellipse((*(point - radius), *(point + radius)), fill=45)
        x += high[0] - low[0] + PEN + GAP
    picture.resize(SIZE, Image.Resampling.BOX).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
