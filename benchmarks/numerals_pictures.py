"""Draws the steps of reading numbers for docs/numbers.md. `make numbers-pictures` writes
docs/images/numbers-*.png.

The numbers consist of MNIST's test digits (MNIST_NPZ) on slanting ruled paper; the second one is higher.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numerals_strings import ROOT, Digits, font, put, scaled, string
from paper import png
from PIL import Image, ImageDraw

from digits.detector import CLASS, MARK, SCORE, Detector, H, W, X, Y
from digits.imaging.contrast import normalize
from digits.model import load
from digits.reading import read
from digits.reading.layout import find_lines, frame_of
from digits.reading.search import LIKELY, MARGIN, Search

SEED, WIDTH = 5, 560


def picture() -> bytes:
    """A PNG of two numbers with touching digits, a word and a ruled line, in uneven light."""
    rng = np.random.default_rng(SEED)
    ink = np.zeros((420, 900), np.uint8)
    for top, times, count in ((60, 3, 5), (190, 5, 4)):
        put(ink, scaled(string(Digits(), rng, (-1, 6), (count, count))[0], times), 60, top)
    words = Image.new("L", ink.shape[::-1])
    draw = ImageDraw.Draw(words)
    draw.text((480, 70), "kg", 255, font(rng, 60))
    draw.line((0, 150, 900, 150), 140, 3)
    turned = Image.fromarray(np.maximum(ink, np.asarray(words))).rotate(-6, Image.Resampling.BICUBIC)
    light = np.linspace(230, 150, 900)[None] * np.where(np.arange(900) < 320, 0.7, 1)
    return png(Image.fromarray((light * (1 - 0.8 * np.asarray(turned) / 255)).astype(np.uint8)))


def save(image: Image.Image, name: str) -> None:
    """Write the picture of one step, with the same width as the others."""
    size = WIDTH, round(image.height * WIDTH / image.width)
    image.resize(size, Image.Resampling.LANCZOS).save(
        ROOT / "docs" / "images" / f"numbers-{name}.png", optimize=True
    )


def shown(values: np.ndarray) -> Image.Image:
    """Normalized values as brightness."""
    return Image.fromarray(((values + 1.5) * 64).clip(0, 255).astype(np.uint8))


def main() -> None:
    """Write the four pictures."""
    content = picture()
    detector = Detector(load(ROOT / "models" / "detector.h5"))
    sent = Image.open(BytesIO(content)).convert("L")
    save(sent, "picture")
    grey = np.asarray(sent)
    search = Search(detector, grey)
    found = search.candidates()
    drawn = shown(normalize(grey)).convert("RGB")
    draw = ImageDraw.Draw(drawn)
    for x, y, w, h in found[found[:, SCORE] > LIKELY][:, [X, Y, W, H]].tolist():
        draw.rectangle((x - w / 2, y - h / 2, x + w / 2, y + h / 2), outline="#fa0", width=3)
    save(drawn, "found")
    digits = found[(found[:, SCORE] > LIKELY) & (found[:, CLASS + MARK] < 0.5)]
    cut = (search.strip(frame_of(digits[line]), 26) for line in find_lines(digits))
    strips = [shown(normalize(strip)[MARGIN:-MARGIN, MARGIN:-MARGIN]) for strip in cut]
    sheet = Image.new("L", (max(strip.width for strip in strips), sum(strip.height + 4 for strip in strips)))
    for i, strip in enumerate(strips):
        sheet.paste(strip, (0, i * (strip.height + 4)))
    save(sheet, "strips")
    reading = read(content, "picture", detector)
    drawn = sent.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    for digit in (digit for line in reading.lines for digit in line.digits):
        x, y, w, h = digit.box
        draw.rectangle((x, y, x + w, y + h), outline="#c60" if digit.unsure else "#174", width=3)
        draw.text((x + 2, max(0, y - 36)), str(digit.digit), "#a00", font_size=32)
    for x, y, w, h in reading.marks:
        draw.rectangle((x, y, x + w, y + h), outline="#888", width=2)
    save(drawn, "reading")
    print(reading.text)


if __name__ == "__main__":
    main()
