"""Pictures of digits and numbers, and files and forms with them."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from project import ROOT, SAMPLE

SEVEN = np.array(SAMPLE["image"], np.uint8)


def scene(dark: bool = True, size: tuple[int, int] = (300, 220), height: int = 120) -> Image.Image:
    """The seven at some place on a larger canvas, dark on light or light on dark."""
    ink = Image.fromarray(SEVEN).resize((height, height), Image.Resampling.BICUBIC)
    canvas = Image.new("L", size, 0)
    canvas.paste(ink, (size[0] // 3, size[1] // 5))
    return canvas.point(lambda v: 255 - v) if dark else canvas


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def form(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """A multipart body with files (field, content), and its Content-Type."""
    parts = b""
    for name, content in files:
        head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        parts += head.encode() + content + b"\r\n"
    return parts + b"--frontier--\r\n", "multipart/form-data; boundary=frontier"


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# the size of a digit, and the distance from one to the next
SIDE, STEP = 56, 60


MARGIN = 30


def number(*lines: str) -> Image.Image:
    """The sample digits of the web page in lines, dark on light."""
    size = (2 * MARGIN + STEP * max(map(len, lines)), 2 * MARGIN + 2 * STEP * len(lines))
    picture = Image.new("L", size, 255)
    for row, line in enumerate(lines):
        for column, digit in enumerate(line):
            if digit == " ":
                continue
            ink = Image.open(ROOT / f"digits/web/static/samples/{digit}.png").resize((SIDE, SIDE))
            picture.paste(ink, (MARGIN + STEP * column, MARGIN + 2 * STEP * row))
    return picture


@functools.cache
def large(size: tuple[int, int], kind: str, mode: str = "L", **options: Any) -> bytes:
    """A seven with thin strokes in the middle of a large picture."""
    width, height = size
    picture = Image.new("L", size, 235)
    pen = ImageDraw.Draw(picture)
    pen.line((0.4 * width, 0.3 * height, 0.6 * width, 0.3 * height), 20, width // 60)
    pen.line((0.6 * width, 0.3 * height, 0.48 * width, 0.7 * height), 20, width // 60)
    return encoded(picture.convert(mode), kind, **options)
