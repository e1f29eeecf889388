"""Draws the steps of reading a number for docs/numbers.md. `make numbers-pictures` writes
docs/images/numbers-*.png.

The number consists of MNIST's test digits (MNIST_NPZ) on ruled paper, some of which touch.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numerals_strings import ROOT, Digits, put, scaled, string
from PIL import Image, ImageDraw

from digits.model import Classifier, load
from digits.reading import layout_of, read
from digits.reading.pieces import Judge, hypotheses

SEED, WIDTH = 5, 560


def picture() -> bytes:
    """A PNG of a number with touching digits on ruled paper in uneven light."""
    rng = np.random.default_rng(SEED)
    number, _ = string(Digits(), rng, (-1, 6))
    big = scaled(number, 4)
    ink = np.zeros((big.shape[0] + 80, big.shape[1] + 100), np.uint8)
    put(ink, big, 50, 40)
    lines = Image.new("L", ink.shape[::-1])
    for y in (30, 128):
        ImageDraw.Draw(lines).line((0, y, ink.shape[1], y + 4), 120, 2)
    ink = np.maximum(ink, np.asarray(lines)) / 255
    light = np.linspace(230, 150, ink.shape[1])[None] * np.where(np.arange(ink.shape[1]) < 200, 0.75, 1)
    file = BytesIO()
    Image.fromarray((light * (1 - 0.8 * ink)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def save(image: Image.Image, name: str) -> None:
    """Write the picture of one step, with the same width as the others."""
    size = WIDTH, round(image.height * WIDTH / image.width)
    image.resize(size, Image.Resampling.LANCZOS).save(
        ROOT / "docs" / "images" / f"numbers-{name}.png", optimize=True
    )


def main() -> None:
    """Write the four pictures."""
    content = picture()
    classifier = Classifier(load(ROOT / "models" / "mnist.h5"))
    found = layout_of(content, "picture")
    assert found is not None
    layout, _ = found
    sent = Image.open(BytesIO(content))
    save(sent, "picture")
    save(Image.fromarray((layout.ink * 255).astype(np.uint8)), "ink")
    judge = Judge(layout, classifier.probabilities)
    hypotheses(layout, judge)
    colours = np.random.default_rng(2).integers(70, 256, (judge.labels.max() + 1, 3)).astype(np.uint8)
    colours[0] = 0
    save(Image.fromarray(colours[judge.labels]), "pieces")
    reading = read(content, "picture", classifier.probabilities, classifier.sure_threshold)
    drawn = sent.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    for digit in (digit for line in reading.lines for digit in line.digits):
        x, y, width, height = digit.box
        draw.rectangle((x, y, x + width, y + height), outline="#c60" if digit.unsure else "#174", width=2)
        draw.text((x + 2, max(0, y - 24)), str(digit.digit), "#a00", font_size=22)
    save(drawn, "reading")
    print(reading.text)


if __name__ == "__main__":
    main()
