"""Lays ink on paper, as if it were photographed or scanned: with light, noise, blur and compression; or in a cell
of a form or table, which is cut out."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# where a cell is cut, as a fraction of its side inside the line, or outside if negative
CUTS = {"inside": (0.03, 0.1), "on": (-0.01, 0.01), "outside": (-0.12, -0.04)}


def photograph(ink: Image.Image, dark: bool, rng: np.random.Generator, lines: int = 1) -> bytes:
    """A PNG or JPEG of the digit at a random place on paper with random brightness, shadow, noise and blur. One
    in five fills its picture.

    dark: dark ink on light paper, else the reverse. lines: the number of lines of digits in `ink`.
    """
    height = int(rng.integers(24, 320)) * lines
    ink = ink.resize((max(1, ink.width * height // ink.height), height), Image.Resampling.BICUBIC)
    room = rng.uniform(0.05, 1.5, 4) * max(ink.size) * (rng.random() < 0.8)
    width, tall = int(ink.width + room[0] + room[1]), int(ink.height + room[2] + room[3])
    canvas = np.zeros((tall, width), np.float32)
    x, y = int(room[0]), int(room[2])
    canvas[y : y + ink.height, x : x + ink.width] = np.asarray(ink, np.float32) / 255
    paper, pen = tones(dark, rng)
    shade = 1 - rng.uniform(0, 0.35) * np.linspace(0, 1, width)[None, :] if rng.random() < 0.4 else 1.0
    grey = (paper + (pen - paper) * canvas) * shade
    if rng.random() < 0.4:
        grey = grey + rng.normal(0, rng.uniform(1, 8), grey.shape)
    picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, height / 60)))
    if rng.random() < 0.3:
        return jpeg(picture.convert("RGB"), int(rng.integers(40, 95)))
    return png(picture)


def tones(dark: bool, rng: np.random.Generator) -> tuple[float, float]:
    """The brightness of paper and ink."""
    if dark:
        return rng.uniform(200, 255), rng.uniform(0, 90)
    return rng.uniform(0, 50), rng.uniform(150, 255)


def placed(ink: Image.Image, dark: bool, rng: np.random.Generator) -> bytes:
    """A PNG of the digit, 24 to 200 pixels high, at a random place on a plain background up to three times as
    large."""
    height = int(rng.integers(24, 201))
    ink = ink.resize((max(1, ink.width * height // ink.height), height), Image.Resampling.BICUBIC)
    room = (max(ink.size) * rng.uniform(0.1, 2, 2)).astype(int)
    picture = Image.new("L", (ink.width + int(room[0]), ink.height + int(room[1])))
    picture.paste(ink, (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))))
    return png(Image.eval(picture, lambda grey: 255 - grey) if dark else picture)


def cell(ink: Image.Image, dark: bool, rng: np.random.Generator, cut: str) -> bytes:
    """A PNG of the digit in a cell among others, cut "inside", "on" or "outside" the line of the cell. The
    lines are printed or handwritten, straight or slanted.

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
    digit = ink.crop(ink.getbbox())
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
    paper, pen = tones(dark, rng)
    grey = paper + (pen - paper) * grey + rng.normal(0, rng.uniform(0, 5), grey.shape)
    return png(Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)))


def png(picture: Image.Image) -> bytes:
    """The bytes of the picture's file."""
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """The bytes of the picture's file."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def write(folder: Path, name: str, file: bytes) -> None:
    """Write a picture's file, a PNG or JPEG, to a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (name + (".jpg" if file.startswith(b"\xff") else ".png"))).write_bytes(file)
