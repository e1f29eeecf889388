"""Makes pictures of lines of MNIST's test digits (MNIST_NPZ), two to eight per line, with the paper and light of
benchmarks/paper.py. Half of them are dark on light. The pictures of a kind depend only on the seed, and these
kinds stay as they are, so that figures of different days can be compared."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
# the programs in this folder import this module before those of digits
sys.path.insert(0, str(ROOT))

# letters that don't look like digits in any typeface, alone or in pairs
WORDS = [
    "kg", "km", "cm", "Nr", "mm", "EUR", "kWh", "max", "Abt", "am", "and", "Px", "Tel", "Fax", "nach", "Mt",
]  # fmt: skip
SIGNS = ["+", "=", "-", "x", "*", "#", "<", "~", "^", ":"]
Rng = np.random.Generator
# a picture bright on black, and its lines
Made = tuple[np.ndarray, list[str]]


class Digits:
    """MNIST's digits, cropped to their ink.

    part: "test", or "train" for fitting.
    """

    def __init__(self, part: str = "test") -> None:
        with np.load(os.environ["MNIST_NPZ"]) as file:
            self.images, self.labels = file[f"x_{part}"], file[f"y_{part}"]

    def draw(self, rng: Rng) -> tuple[np.ndarray, int]:
        """One of them, uint8 (height, width), and its label."""
        i = int(rng.integers(len(self.images)))
        return self.cropped(i), int(self.labels[i])

    def of(self, label: int, rng: Rng) -> np.ndarray:
        """One with this label, uint8 (height, width)."""
        return self.cropped(int(rng.choice(np.flatnonzero(self.labels == label))))

    def cropped(self, i: int) -> np.ndarray:
        """The ink of an image, uint8 (height, width)."""
        image = self.images[i]
        rows, columns = (np.flatnonzero((image > 30).any(axis)) for axis in (1, 0))
        return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def put(sheet: np.ndarray, image: np.ndarray, x: int, y: int) -> None:
    """Draw an image on the sheet."""
    there = sheet[y : y + image.shape[0], x : x + image.shape[1]]
    np.maximum(there, image, out=there)


def font(rng: Rng, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One of the DejaVu fonts in this size, or Pillow's own font if there are none."""
    files = sorted(Path("/usr/share/fonts").rglob("DejaVu*.ttf"))
    return (
        ImageFont.truetype(files[rng.integers(len(files))], size) if files else ImageFont.load_default(size)
    )


def string(digits: Digits, rng: Rng, apart: tuple[int, int], count: tuple[int, int] = (2, 8)) -> Made:
    """A line of digits. apart: the least and most pixels between their boxes. count: the least and most digits."""
    drawn = [digits.draw(rng) for _ in range(int(rng.integers(count[0], count[1] + 1)))]
    gaps = rng.integers(apart[0], apart[1] + 1, len(drawn))
    sheet = np.zeros((26, sum(image.shape[1] for image, _ in drawn) + int(gaps[:-1].sum()) + 2), np.uint8)
    x = 1
    for (image, _), gap in zip(drawn, gaps, strict=True):
        put(sheet, image, x, (26 - image.shape[0]) // 2 + int(rng.integers(-2, 3)))
        x += image.shape[1] + int(gap)
    return sheet, ["".join(str(label) for _, label in drawn)]


def spaced(digits: Digits, rng: Rng) -> Made:
    """Digits 1 to 9 pixels apart."""
    return string(digits, rng, (1, 9))


def touching(digits: Digits, rng: Rng) -> Made:
    """Digits from 3 pixels of overlap to 4 pixels apart."""
    return string(digits, rng, (-3, 4))


def overlapping(digits: Digits, rng: Rng) -> Made:
    """Digits that overlap by 4 to 1 pixels."""
    return string(digits, rng, (-4, -1))


def ruled(digits: Digits, rng: Rng) -> Made:
    """Digits on ruled paper, with lines below, above, or through their feet."""
    number, lines = string(digits, rng, (1, 9))
    times = 4
    big = scaled(number, times)
    sheet = np.zeros((times * 64, big.shape[1] + times * 24), np.uint8)
    put(sheet, big, times * 12, times * 19)
    pitch, tone = times * rng.uniform(22, 36), int(rng.integers(90, 256))
    foot = times * (19 + 23 + rng.uniform(-2, 5))
    picture = Image.new("L", sheet.shape[::-1])
    draw = ImageDraw.Draw(picture)
    fall = rng.uniform(-0.03, 0.03) * sheet.shape[1]
    for i in range(-3, 4):
        y = foot + i * pitch
        draw.line(
            (0, y - fall / 2, sheet.shape[1], y + fall / 2),
            tone,
            max(1, round(times * rng.uniform(0.3, 0.9))),
        )
    return np.maximum(sheet, np.asarray(picture)), lines


def boxes(digits: Digits, rng: Rng) -> Made:
    """A digit in each box of a form. The boxes touch or are apart, and digits may cross their lines."""
    times, count = 4, int(rng.integers(2, 9))
    side, wide = times * int(rng.integers(26, 36)), times * int(rng.integers(22, 34))
    space = times * int(rng.integers(2, 8)) * int(rng.random() < 0.5)
    picture = Image.new("L", (count * (wide + space) + 8 * times, side + 8 * times))
    draw = ImageDraw.Draw(picture)
    width, tone = max(1, round(times * rng.uniform(0.3, 1.2))), int(rng.integers(110, 256))
    sheet, text = np.zeros(picture.size[::-1], np.uint8), ""
    for i in range(count):
        left, top = 4 * times + i * (wide + space), 4 * times
        draw.rectangle((left, top, left + wide, top + side), outline=tone, width=width)
        image, label = digits.draw(rng)
        image = scaled(image, times)
        room = np.array([wide - image.shape[1], side - image.shape[0]])
        x, y = (room * rng.uniform(0.15, 0.85, 2)).astype(int)
        put(sheet, image, left + max(0, int(x)), top + max(0, int(y)))
        text += str(label)
    return np.maximum(sheet, np.asarray(picture)), [text]


def mixed(digits: Digits, rng: Rng) -> Made:
    """Digits with letters and symbols between them, such as "12 kg" and "3+5="."""
    times, parts, text = 4, [], ""
    for i in range(int(rng.integers(2, 4))):
        if i or rng.random() < 0.3:
            pick = WORDS if rng.random() < 0.5 else SIGNS
            size = times * rng.integers(20, 28)
            typeface = font(rng, size)
            word = pick[rng.integers(len(pick))]
            left, top, right, bottom = typeface.getbbox(word, anchor="ls")
            picture = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
            ImageDraw.Draw(picture).text((1 - left, 1 - top), word, 255, typeface, anchor="ls")
            parts.append((np.asarray(picture), int(top)))
        for _ in range(int(rng.integers(1, 5))):
            image, label = digits.draw(rng)
            parts.append((scaled(image, times), None))
            text += str(label)
    gaps = rng.integers(2, 8, len(parts)) * times
    height = times * 40
    sheet = np.zeros((height, sum(image.shape[1] for image, _ in parts) + int(gaps.sum())), np.uint8)
    x = times
    for (image, top), gap in zip(parts, gaps, strict=True):
        middle = (height - image.shape[0]) // 2 + times * int(rng.integers(-1, 2))
        put(
            sheet,
            image,
            x,
            middle if top is None else max(0, min(height // 2 + times * 10 + top, height - image.shape[0])),
        )
        x += image.shape[1] + int(gap)
    return sheet, [text]


def slanting(digits: Digits, rng: Rng) -> Made:
    """Three lines, rotated by up to 10 degrees."""
    times = 3
    made = [string(digits, rng, (1, 9)) for _ in range(3)]
    pitch = times * int(rng.integers(27, 40))
    sheet = np.zeros(
        (3 * pitch + times * 6, times * (max(number.shape[1] for number, _ in made) + 12)), np.uint8
    )
    for i, (number, _) in enumerate(made):
        put(sheet, scaled(number, times), times * int(rng.integers(1, 11)), i * pitch)
    turned = Image.fromarray(sheet).rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC, expand=True)
    return np.asarray(turned), [lines[0] for _, lines in made]


KINDS: dict[str, Callable[[Digits, Rng], Made]] = {
    kind.__name__: kind for kind in (spaced, touching, overlapping, ruled, boxes, mixed, slanting)
}


def scaled(image: np.ndarray, times: float) -> np.ndarray:
    """The image, with its sides multiplied by this factor."""
    size = max(1, round(image.shape[1] * times)), max(1, round(image.shape[0] * times))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
