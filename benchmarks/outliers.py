"""Makes pictures that show no digit for benchmarks/evaluate.py, from code, typefaces and shapes that training
does not use, and from test digits only. `KINDS` lists them as functions of a count and a random generator, which
yield pictures that are bright on black. Training has no katakana (kana.json, the strokes of each symbol as lists
of points) and no photographs, so these show how the network answers to something it has never seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numerals_strings import Digits, scaled
from PIL import Image, ImageDraw, ImageFont

from digits.training.hands import hands
from digits.training.hands import letters as known_letters

Pictures = Iterator[Image.Image]

# letters and symbols that don't look like digits in any typeface
LETTERS = "ACEFHKLMNPRTUVWXYadefhkmnprtvwx" + "?&@#%+=*<" + "ΔΛΠΣΨΩαδλμπφψω" + "ЖДЦЩЮЯбдж"
KANA = json.loads(Path(__file__).with_name("kana.json").read_text())


def cropped(image: np.ndarray) -> Image.Image:
    """A test image, cropped to its ink."""
    picture = Image.fromarray(image)
    return picture.crop(picture.point(lambda grey: 255 if grey > 60 else 0).getbbox())


def string(count: int, apart: tuple[int, int], rng: np.random.Generator, images: np.ndarray) -> tuple:
    """Test digits side by side, this number of pixels apart, and the left and right edge of each."""
    digits = [cropped(images[rng.integers(len(images))]) for _ in range(count)]
    sheet = np.zeros((36, sum(digit.width + max(0, apart[1]) for digit in digits) + 16), np.uint8)
    left, edges = 8, []
    for digit in digits:
        top = 8 + (20 - digit.height) // 2 + int(rng.integers(-2, 3))
        there = sheet[top : top + digit.height, left : left + digit.width]
        np.maximum(there, np.asarray(digit), out=there)
        edges.append((left, left + digit.width))
        left += digit.width + int(rng.integers(apart[0], apart[1] + 1))
    return sheet[:, : edges[-1][1] + 8], edges


def larger(sheet: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Enlarge an image."""
    return Image.fromarray(scaled(sheet, rng.uniform(2, 6)))


def pairs(count: int, rng: np.random.Generator) -> Pictures:
    """Two or three test digits side by side, touching or not."""
    images = Digits().images
    for _ in range(count):
        yield larger(string(int(rng.integers(2, 4)), (-3, 8), rng, images)[0], rng)


def parts(count: int, rng: np.random.Generator) -> Pictures:
    """A part of a test digit and of its neighbour."""
    images = Digits().images
    while count:
        sheet, edges = string(3, (-3, 3), rng, images)
        left, right = edges[1]
        shift = rng.uniform(0.45, 0.8) * max(right - left, 8) * rng.choice([-1, 1])
        window = np.pad(sheet[:, max(0, round(left + shift)) : round(right + shift)], ((0, 0), (6, 6)))
        if (window > 60).sum() > 25:
            count -= 1
            yield larger(window, rng)


def letters(count: int, rng: np.random.Generator) -> Pictures:
    """Latin, Greek and Cyrillic letters and symbols from the installed fonts. Yields nothing if there are none."""
    files = sorted(Path("/usr/share/fonts").rglob("DejaVu*.ttf"))
    for _ in range(count if files else 0):
        font = ImageFont.truetype(files[rng.integers(len(files))], int(rng.integers(40, 140)))
        picture = Image.new("L", (260, 260))
        ImageDraw.Draw(picture).text((130, 130), LETTERS[rng.integers(len(LETTERS))], 255, font, anchor="mm")
        yield picture.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)


def written(count: int, rng: np.random.Generator) -> Pictures:
    """Letters and signs of handwriting fonts that training does not use."""
    every = hands(held_out=True)
    for _ in range(count):
        hand = every[rng.integers(len(every))]
        known = known_letters(hand)
        glyph = Image.fromarray(hand[known[rng.integers(len(known))]])
        side = int(rng.integers(80, 300))
        picture = glyph.resize((side, side), Image.Resampling.BICUBIC)
        yield picture.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)


def kana(count: int, rng: np.random.Generator) -> Pictures:
    """Katakana with thin to thick strokes."""
    shapes = list(KANA.values())
    for _ in range(count):
        slant, wide = rng.normal(0, 0.15), rng.uniform(0.75, 1.15)
        pen = rng.uniform(4, 22)
        picture = Image.new("L", (200, 200))
        draw = ImageDraw.Draw(picture)
        for points in shapes[rng.integers(len(shapes))]:
            line = np.array(points) + rng.normal(0, 0.03, (len(points), 2))
            x, y = smooth(line, 40, 7)
            for u, v in zip(100 + 120 * ((x - 0.5) * wide + (0.5 - y) * slant), 40 + 120 * y, strict=True):
                draw.ellipse((u - pen / 2, v - pen / 2, u + pen / 2, v + pen / 2), fill=255)
        yield picture


def smooth(points: np.ndarray, count: int, width: int) -> list[np.ndarray]:
    """x and y of `count` points along the line through these (n, 2), each the mean of `width` neighbours."""
    at, weights = np.linspace(0, len(points) - 1, count), np.ones(width) / width
    along = (np.interp(at, range(len(points)), column) for column in points.T)
    return [np.convolve(np.pad(column, width // 2, "edge"), weights, "valid") for column in along]


def scribbles(count: int, rng: np.random.Generator) -> Pictures:
    """Random curves with at least six turns."""
    for _ in range(count):
        picture = Image.new("L", (200, 200))
        draw = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(1, 3))):
            points = rng.uniform(30, 170, (int(rng.integers(6, 11)), 2))
            line = list(zip(*smooth(points, 120, 9), strict=True))
            draw.line(line, fill=255, width=int(rng.integers(3, 14)), joint="curve")
        yield picture


def curves(count: int, rng: np.random.Generator) -> Pictures:
    """Closed and self-crossing curves: ellipses and figures of eight that lie, spirals, hypotrochoids."""
    for _ in range(count):
        way, tilt = rng.integers(4), rng.normal(0, 0.25)
        t = np.linspace(0, 1, 200)
        if way < 2:
            turn = 2 * np.pi * t
            x, y = np.cos(turn), rng.uniform(0.3, 0.55) * np.sin((1 + way) * turn)
        elif way == 2:
            turn = 2 * np.pi * rng.uniform(1.8, 3.5) * t
            x, y = t * np.cos(turn), t * np.sin(turn)
        else:
            # a circle that rolls in another one, with a pen outside its middle
            lobes, far = int(rng.integers(3, 7)), rng.uniform(0.5, 1.2)
            turn = 2 * np.pi * t
            x, y = (f(turn) + s * far * f((lobes - 1) * turn) for f, s in ((np.cos, 1), (np.sin, -1)))
        points = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], 1)
        points = 100 + points * (70 / np.abs(points).max())
        picture = Image.new("L", (200, 200))
        pen = int(rng.integers(4, 16))
        ImageDraw.Draw(picture).line(points.ravel().tolist(), fill=255, width=pen, joint="curve")
        yield picture


def shapes(count: int, rng: np.random.Generator) -> Pictures:
    """Solid crosses, crescents, triangles, blobs with soft lobes, gears."""
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    for _ in range(count):
        turn = rng.uniform(0, 2 * np.pi)
        u, v = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        far, angle = np.hypot(u, v), np.arctan2(v, u)
        way, size = rng.integers(5), rng.uniform(0.5, 0.8)
        if way == 0:
            inside = (np.minimum(np.abs(u), np.abs(v)) < 0.25 * size) & (
                np.maximum(np.abs(u), np.abs(v)) < size
            )
        elif way == 1:
            inside = (far < size) & (np.hypot(u - 0.4 * size, v) > 0.8 * size)
        elif way == 2:
            inside = (v > -0.6 * size) & (v + 1.7 * np.abs(u) < size)
        else:
            waves, deep = (int(rng.integers(2, 5)), 0.3) if way == 3 else (int(rng.integers(6, 11)), 0.18)
            inside = far < size * (1 - deep + deep * np.cos(waves * angle + rng.uniform(0, 6)))
        yield Image.fromarray((inside * 255).astype(np.uint8))


def lines(count: int, rng: np.random.Generator) -> Pictures:
    """Printed lines: horizontal and crossed ones, empty tables, bar charts."""
    for _ in range(count):
        picture = Image.new("L", (180, 180))
        draw = ImageDraw.Draw(picture)
        pen, way = int(rng.integers(2, 9)), rng.integers(4)
        if way == 0:
            for top in np.cumsum(rng.integers(18, 50, int(rng.integers(1, 4)))):
                draw.line((20, int(top), 160, int(top)), 255, pen)
        elif way == 1:
            draw.line((30, 30 + int(rng.integers(-9, 9)), 150, 150), 255, pen)
            draw.line((150, 30, 30, 150 + int(rng.integers(-9, 9))), 255, pen)
        elif way == 2:
            step = int(rng.integers(25, 60))
            for at in range(20, 161, step):
                draw.line((at, 20, at, 20 + 140 // step * step), 255, pen)
                draw.line((20, at, 20 + 140 // step * step, at), 255, pen)
        else:
            for left in range(20, 150, 30):
                draw.rectangle((left, int(rng.integers(30, 130)), left + 18, 160), 255)
        yield picture.rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR)


def photographs(count: int, rng: np.random.Generator) -> Pictures:
    """Pieces of scikit-learn's two photographs, of a temple and of a flower."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo).convert("L") for photo in load_sample_images().images]
    for _ in range(count):
        photo = photos[rng.integers(len(photos))]
        side = int(rng.integers(24, 320))
        left, top = int(rng.integers(photo.width - side)), int(rng.integers(photo.height - side))
        yield photo.crop((left, top, left + side, top + side))


KINDS: list[Callable[[int, np.random.Generator], Pictures]] = [
    *(pairs, parts, letters, written, kana, scribbles, curves, shapes, lines, photographs)
]
