"""Makes pictures of digits that were cut out of the cells of a form or table. benchmarks/evaluate.py uses them as
the kinds cells_inside, cells_on and cells_outside. The lines are printed or handwritten, straight or slanted."""

from __future__ import annotations

import numpy as np
from paper import png
from PIL import Image, ImageDraw, ImageFilter

# the cut, as a fraction of the cell's side inside the line, or outside if negative
CUTS = {"inside": (0.03, 0.1), "on": (-0.01, 0.01), "outside": (-0.12, -0.04)}


def cell(ink: Image.Image, dark: bool, rng: np.random.Generator, cut: str) -> bytes:
    """A PNG of the digit in a cell among others, cut "inside", "on" or "outside" the line of the cell.

    ink: bright on black. dark: dark ink and lines on light paper, else the reverse.
    """
    side = int(rng.integers(60, 220))
    wide = int(side * rng.uniform(0.8, 1.3))
    by_pen = rng.random() < 0.5
    # three by three cells, of which the middle one is cut out
    sheet = Image.new("L", (3 * wide, 3 * side))
    draw = ImageDraw.Draw(sheet)
    width = max(1, round(side * rng.uniform(0.015, 0.05)))
    tone = int(rng.integers(110, 256))
    shaken = side * (0.02 if by_pen else 0)
    for i in range(4):
        for start, stop in (((0, i * side), (3 * wide, i * side)), ((i * wide, 0), (i * wide, 3 * side))):
            places = np.linspace(start, stop, 13) + rng.normal(0, 1, (13, 2)) * shaken * 0.4
            draw.line([tuple(place) for place in places], fill=tone, width=width, joint="curve")
    box = ink.getbbox()
    assert box is not None
    digit = ink.crop(box)
    height = int(side * rng.uniform(0.45, 0.72))
    digit = digit.resize(
        (max(1, min(int(wide * 0.75), digit.width * height // digit.height)), height),
        Image.Resampling.BICUBIC,
    )
    room = wide - digit.width, side - digit.height
    x, y = (int(free * rng.uniform(0.3, 0.7)) for free in room)
    sheet.paste(255, (wide + x, side + y), digit)
    turn = rng.uniform(-3, 3)
    sheet = sheet.rotate(turn, Image.Resampling.BICUBIC, center=(1.5 * wide, 1.5 * side))
    inset = [rng.uniform(*CUTS[cut]) for _ in range(4)]
    sheet = sheet.crop(
        (
            round(wide * (1 + inset[0])),
            round(side * (1 + inset[1])),
            round(wide * (2 - inset[2])),
            round(side * (2 - inset[3])),
        )
    )
    grey = np.asarray(sheet.filter(ImageFilter.GaussianBlur(side / 250)), np.float32) / 255
    paper, pen = (
        (rng.uniform(200, 255), rng.uniform(0, 90)) if dark else (rng.uniform(0, 50), rng.uniform(150, 255))
    )
    grey = paper + (pen - paper) * grey + rng.normal(0, rng.uniform(0, 5), grey.shape)
    return png(Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)))
