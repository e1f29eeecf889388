"""Lays ink on paper, as if it were photographed or scanned: with light, noise, blur and compression."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter


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
    paper, pen = (
        (rng.uniform(200, 255), rng.uniform(0, 90)) if dark else (rng.uniform(0, 50), rng.uniform(150, 255))
    )
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


def placed(ink: Image.Image, dark: bool, rng: np.random.Generator) -> bytes:
    """A PNG of the digit, 24 to 200 pixels high, at a random place on a plain background up to three times as
    large."""
    height = int(rng.integers(24, 201))
    ink = ink.resize((max(1, ink.width * height // ink.height), height), Image.Resampling.BICUBIC)
    room = (max(ink.size) * rng.uniform(0.1, 2, 2)).astype(int)
    picture = Image.new("L", (ink.width + int(room[0]), ink.height + int(room[1])))
    picture.paste(ink, (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))))
    return png(Image.eval(picture, lambda grey: 255 - grey) if dark else picture)


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
