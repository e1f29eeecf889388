"""Makes pictures that show no digit, in which nothing may be read: blank forms, noise, hatching, textures, printed
text and photographs. If the pipeline's fonts are there, also handwritten words, and numbers behind handwritten
names. Training uses neither the fonts of the print (DejaVu) nor those of the handwriting (the held-out ones)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numerals_pages import cloth, file_of, grid, lit, smooth, wood
from numerals_pens import number, written
from numerals_scores import Picture
from numerals_strings import ROOT, Digits, Rng, font, put
from PIL import Image, ImageDraw, ImageFont

from digits.training.detector.params import detector_params

FONTS = ROOT / "data" / "fonts" / "handwriting"

# every word has a letter that no digit looks like
TEXT = [
    "the", "and", "that", "with", "have", "this", "from", "they", "would", "there", "their", "what",
    "about", "which", "when", "make", "can", "like", "time", "just", "him", "know", "take", "people",
    "into", "year", "your", "good", "some", "could", "them", "see", "other", "than", "then", "now",
    "look", "only", "come", "over", "think", "also", "back", "after", "use", "two", "how", "our",
    "work", "first", "well", "way", "even", "new", "want", "because", "any", "these", "give", "day",
    "most", "us", "name", "street", "date", "signature", "amount", "received", "order", "number",
    "page", "total", "customer", "please", "return", "before", "the", "end", "of", "month", "und",
    "der", "nicht", "eine", "auch", "werden", "nach", "über", "durch", "Straße", "zwischen",
    "Anmeldung", "Betrag", "Datum", "Unterschrift", "Kunde", "Rechnung", "Ort",
]  # fmt: skip


NAMES = [
    "Anna", "Bert", "Carla", "Dmitri", "Emma", "Farid", "Greta", "Hanna", "Jonas", "Karim", "Leyla",
    "Marta", "Nadja", "Omar", "Paula", "Rahel", "Tom", "Vera",
]  # fmt: skip


def boxes(rng: Rng, combs: bool = False) -> np.ndarray:
    """One to four rows of empty boxes, which touch or are apart; or combs, which are open above."""
    side, rows, count = int(rng.integers(24, 90)), int(rng.integers(1, 5)), int(rng.integers(3, 13))
    wide = int(side * rng.uniform(0.6, 1.2))
    apart = int(side * rng.uniform(0.1, 0.4) * (rng.random() < 0.5))
    pitch, margin = int(side * rng.uniform(1.3, 2.2)), side
    picture = Image.new("L", (2 * margin + count * (wide + apart), 2 * margin + rows * pitch))
    draw, width = ImageDraw.Draw(picture), max(1, round(side * rng.uniform(0.015, 0.07)))
    tone, teeth = int(rng.integers(120, 256)), rng.uniform(0.25, 1)
    for row in range(rows):
        top = margin + row * pitch
        for i in range(count):
            left = margin + i * (wide + apart)
            if not combs:
                draw.rectangle((left, top, left + wide, top + side), outline=tone, width=width)
                continue
            draw.line((left, top + side, left + wide, top + side), tone, width)
            for x in (left, left + wide):
                draw.line((x, top + side * (1 - teeth), x, top + side), tone, width)
    ink = np.asarray(picture.rotate(rng.uniform(-2, 2), Image.Resampling.BICUBIC))
    return lit(ink, rng, rng.random() < 0.8)


def empty_tables(rng: Rng) -> np.ndarray:
    """A table without numbers."""
    sides = [rng.integers(30, 130, int(rng.integers(2, 8))), rng.integers(24, 60, int(rng.integers(2, 12)))]
    xs, ys = ([30, *(30 + np.cumsum(each)).tolist()] for each in sides)
    picture = Image.new("L", (xs[-1] + 30, ys[-1] + 30))
    grid(ImageDraw.Draw(picture), xs, ys, rng, int(rng.integers(1, 4)), rng.random() < 0.7)
    return lit(np.asarray(picture.rotate(rng.uniform(-2, 2), Image.Resampling.BICUBIC)), rng)


def noise(rng: Rng) -> np.ndarray:
    """Noise of fine to coarse grain, grey or black and white, or single specks."""
    height, width = (int(side) for side in rng.integers(150, 700, 2))
    grain = float(rng.choice([1, 2, 4, 8, 20]))
    values = smooth(rng, height, width, grain, grain)
    way = rng.integers(3)
    if way == 0:
        return 128 + rng.uniform(10, 70) * values
    return (
        (values > rng.uniform(-0.5, 0.5)) * 255.0
        if way == 1
        else 235 - 200.0 * (values > rng.uniform(1.8, 3))
    )


def hatching(rng: Rng) -> np.ndarray:
    """Parallel lines across the picture, in one direction or two, ruled or by hand."""
    height, width = (int(side) for side in rng.integers(200, 700, 2))
    pitch = rng.uniform(8, 36)
    picture = Image.new("L", (width, height))
    draw, reach = ImageDraw.Draw(picture), height + width
    pen, shaken, angle = (
        int(rng.integers(1, max(2, int(pitch / 4)) + 1)),
        rng.uniform(0, 0.12),
        rng.uniform(0, np.pi),
    )
    for each in [angle, angle + rng.uniform(0.6, 2.2)][: int(rng.integers(1, 3))]:
        along = np.array([np.cos(each), np.sin(each)])
        across, middle = np.array([-along[1], along[0]]), np.array([width, height]) / 2
        for i in np.arange(-reach / 2, reach / 2, pitch):
            ends = (
                middle + across * i + rng.normal(0, shaken * pitch, (2, 2)) + np.outer([-reach, reach], along)
            )
            draw.line([tuple(end) for end in ends], int(rng.integers(180, 256)), pen)
    return lit(np.asarray(picture), rng, rng.random() < 0.8)


def textures(rng: Rng) -> np.ndarray:
    """Wood, cloth, ruled or squared paper, bricks, a screen of dots, or crumpled paper."""
    height, width = (int(side) for side in rng.integers(250, 800, 2))
    way = int(rng.integers(6))
    if way < 2:
        return [wood, cloth][way](rng, height, width)
    if way == 2:
        return 225 + 14 * np.abs(
            sum(smooth(rng, height, width, size, size) for size in (80, 40, 20))
        ) * rng.choice([-1, 1])
    y, x = np.mgrid[:height, :width]
    pitch = rng.uniform(14, 50)
    row = np.floor(y / pitch)
    if way == 3:
        dots = np.hypot(
            (x + pitch / 2 * (row % 2)) % pitch - pitch / 2, y % pitch - pitch / 2
        ) < pitch * rng.uniform(0.1, 0.4)
        return lit(dots * np.uint8(255), rng)
    thick = rng.uniform(1, 3)
    lines = y % pitch < thick
    if way == 4:
        lines |= (x + pitch * (row % 2)) % (2 * pitch) < thick
    elif rng.random() < 0.6:
        lines |= x % pitch < thick
    return lit(lines * np.uint8(rng.integers(110, 256)), rng)


def text_of(rng: Rng, typeface: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: int) -> np.ndarray:
    """One to twelve lines of words, as ink on black."""
    lines = [" ".join(rng.choice(TEXT, int(rng.integers(1, 8)))) for _ in range(int(rng.integers(1, 13)))]
    pitch = size * rng.uniform(1.15, 1.8)
    wide = max(typeface.getlength(line) for line in lines)
    picture = Image.new("L", (int(wide + 4 * size), int(pitch * len(lines) + 3 * size)))
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((2 * size, size + i * pitch), line, 255, typeface)
    return np.asarray(picture.rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC))


def printed(rng: Rng) -> np.ndarray:
    """Printed words, from a line to half a page."""
    size = int(rng.integers(13, 44))
    return lit(text_of(rng, font(rng, size), size), rng, rng.random() < 0.8)


def photographs(rng: Rng) -> np.ndarray:
    """A part of one of scikit-learn's two photographs, of a temple and of a flower, in another size."""
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    photo = Image.fromarray(photos[int(rng.integers(len(photos)))])
    side = int(rng.integers(100, 420))
    left, top = int(rng.integers(photo.width - side)), int(rng.integers(photo.height - side))
    part = photo.crop((left, top, left + side, top + side)).resize((int(side * rng.uniform(0.7, 2)),) * 2)
    return np.asarray(part if rng.random() < 0.5 else part.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


BLANK: dict[str, Callable[[Rng], np.ndarray]] = {
    "rows of boxes": boxes,
    "combs": partial(boxes, combs=True),
    "empty tables": empty_tables,
    "noise": noise,
    "hatching": hatching,
    "textures": textures,
    "printed text": printed,
    "photographs": photographs,
}


def blank(digits: Digits, rng: Rng, index: int) -> Picture:
    """A picture of each sort in turns."""
    name, make = list(BLANK.items())[index % len(BLANK)]
    return Picture(file_of(make(rng), rng), sub=name)


def handwriting() -> list[Path]:
    """The files of the handwriting fonts that training does not use, which the stage `downloads` fetches."""
    families = detector_params()["pages"]["held_out_fonts"]
    return sorted(file for file in FONTS.glob("*") if file.stem in families)


def words(digits: Digits, rng: Rng, index: int) -> Picture:
    """Handwritten words in a font that training doesn't use."""
    files, size = handwriting(), int(rng.integers(24, 70))
    typeface = ImageFont.truetype(files[int(rng.integers(len(files)))], size)
    return Picture(file_of(lit(text_of(rng, typeface, size), rng), rng))


def names(digits: Digits, rng: Rng, index: int) -> Picture:
    """A list of handwritten names in a font that training doesn't use, each with a number behind it."""
    files, height = handwriting(), float(rng.integers(24, 60))
    typeface = ImageFont.truetype(files[int(rng.integers(len(files)))], int(height * rng.uniform(1.2, 1.7)))
    count, hand = int(rng.integers(1, 6)), digits if rng.random() < 0.7 else None
    lines = [number(rng, 1, 6) for _ in range(count)]
    images, before = [written(line, rng, height, hand) for line in lines], rng.choice(NAMES, count)
    pitch, margin = int(height * rng.uniform(1.7, 2.4)), int(height)
    column = int(max(typeface.getlength(name) for name in before) + height * rng.uniform(0.8, 2)) + margin
    size = column + max(image.shape[1] for image in images) + margin, 2 * margin + count * pitch
    picture = Image.new("L", size)
    for i, name in enumerate(before):
        ImageDraw.Draw(picture).text((margin, margin + i * pitch + height), name, 255, typeface, anchor="ls")
    sheet = np.array(picture)
    for i, image in enumerate(images):
        put(sheet, image, column, margin + i * pitch)
    return Picture(file_of(lit(sheet, rng), rng), lines)
