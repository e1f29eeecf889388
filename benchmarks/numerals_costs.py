"""Measures what reading large pictures costs: the CPU time, and the memory at its peak. `make eval` prints the
table. Each picture is read in a process of its own, after a small one. The pictures depend only on the seed
(MNIST_NPZ has their digits).
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numerals import SEED, reader
from numerals_blank import TEXT
from numerals_pages import lit, wood
from numerals_pens import number
from numerals_strings import ROOT, Digits, Rng, font, put, scaled, string
from paper import png
from PIL import Image, ImageDraw

from digits.detector import Detector
from digits.model import load


def photo(rng: Rng) -> np.ndarray:
    """Five digits on paper that fills the picture."""
    sheet = np.zeros((1200, 1600), np.uint8)
    put(sheet, scaled(string(Digits(), rng, (2, 9), (5, 5))[0], 6), 400, 500)
    return lit(sheet, rng)


def dense(rng: Rng) -> np.ndarray:
    """A4 at 600 dpi with 50 lines of 50 digits, in groups of five."""
    digits, sheet = Digits(), np.zeros((7016, 4960), np.uint8)
    for place in range(2500):
        row, column = divmod(place, 50)
        image = scaled(digits.draw(rng)[0], 3.6)
        put(sheet, image, 160 + 86 * column + 40 * (column // 5), 120 + 136 * row)
    return lit(sheet, rng)


def hatched(rng: Rng) -> np.ndarray:
    """2000x2000 pixels with slanting strokes of 150 to 400 pixels, some of which cross."""
    picture = Image.new("L", (2000, 2000))
    draw = ImageDraw.Draw(picture)
    for x, y in np.mgrid[-200:2200:14, -200:2200:180].reshape(2, -1).T:
        start, length = rng.normal((x, y), 3), rng.uniform(150, 400)
        draw.line((*start, start[0] + 0.5 * length, start[1] - 0.8 * length), 255, 3)
    return lit(np.asarray(picture), rng)


def striped(rng: Rng) -> np.ndarray:
    """Eight megapixels with a line at every third pixel."""
    picture = np.full((2800, 2800), 235.0)
    picture[:, ::3] = 35
    return picture


def specks(rng: Rng) -> np.ndarray:
    """2000x2000 pixels, black or white at random."""
    return rng.integers(0, 2, (2000, 2000)) * 255.0


def blots(rng: Rng) -> np.ndarray:
    """Eight megapixels of noise with a grain of the size of digits."""
    coarse = rng.normal(0, 1, (2448 // 12, 3264 // 12)).astype(np.float32)
    values = np.asarray(Image.fromarray(coarse).resize((3264, 2448), Image.Resampling.BICUBIC))
    return (values > 0) * 255.0


def print_page(rng: Rng) -> np.ndarray:
    """Eight megapixels with 50 lines of printed words and numbers."""
    picture = Image.new("L", (2448, 3264))
    for row in range(50):
        words = [str(word) if rng.random() < 0.9 else number(rng, 1, 5) for word in rng.choice(TEXT, 15)]
        ImageDraw.Draw(picture).text((150, 60 + row * 62), " ".join(words), 255, font(rng, 40))
    return lit(np.asarray(picture), rng)


def table(rng: Rng) -> np.ndarray:
    """Eight megapixels of wood."""
    return wood(rng, 2448, 3264)


COSTLY: dict[str, Callable[[Rng], np.ndarray]] = {
    "photo of 1600x1200 with five digits": photo,
    "page of 2,500 digits at 600 dpi": dense,
    "hatching, 2000x2000": hatched,
    "a line at every third pixel, 8 megapixels": striped,
    "black and white noise, 2000x2000": specks,
    "blots, 8 megapixels": blots,
    "printed page, 8 megapixels": print_page,
    "wood, 8 megapixels": table,
}


def cost(picture: bytes) -> tuple[float, float, float, int]:
    """What reading a picture costs: CPU time in milliseconds, this process's memory before and at its peak in MB,
    and the number of digits that are found."""
    read_lines = reader(Detector(load(ROOT / "models" / "detector.h5")))
    read_lines(png(Image.new("L", (64, 64), 255)))
    rest, begun = peak(), time.process_time()
    found = read_lines(picture)
    spent = (time.process_time() - begun) * 1000
    return spent, rest, peak(), sum(character.isdigit() for line in found for character in line.text)


def peak() -> float:
    """The most memory that this process has had, in MB. (getrusage would count the parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Print the table."""
    print("| picture | CPU ms | MB at rest | MB more at the peak | digits read |\n|---|---|---|---|---|")
    for name, make in COSTLY.items():
        grey = np.clip(make(np.random.default_rng([SEED, *name.encode()])), 0, 255).astype(np.uint8)
        # spawned, because a forked process would begin with the memory of this one
        with multiprocessing.get_context("spawn").Pool(1) as process:
            spent, rest, most, digits = process.apply(cost, (png(Image.fromarray(grey)),))
        print(f"| {name} | {spent:.0f} | {rest:.0f} | {most - rest:.0f} | {digits} |", flush=True)


if __name__ == "__main__":
    main()
