"""Decodes picture files to brightness with Pillow. The header tells how much memory decoding would need, so
pictures and requests over the limits are refused before anything is decoded. JPEGs are decoded at a half to an
eighth of their size. Pictures with transparency, 16 bits or floats are converted to 0..255 in strips, because a
copy of a picture of 50 megapixels in a wider type would double a worker's memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from digits.imaging.errors import PictureError
from digits.imaging.structure import MAX_EXIF_BYTES, check_structure, tiff_unit

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# the first bytes of a picture's file
SIGNATURES = re.compile(
    rb"(?s)(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpeg>\xff\xd8\xff[\xc0-\xfe])|(?P<webp>RIFF.{4}WEBP)|(?P<bmp>BM.{4}\0{4})"
    rb"|(?P<gif>GIF8[79]a)|(?P<tiff>II\*\0|MM\0\*)"
)
MAX_SIDE = 10_000
# the limit on the size in the header; even a JPEG that is decoded at a reduced size is read completely
MAX_DECLARED_PIXELS = 80_000_000
# the limit on decoded pixels; phones with 50 megapixels have 8160x6120
MAX_PIXELS = 50_000_000
# the limit on pixels of four bytes in memory while decoding; with the worker's own 80 MB, that is below 400 MB
MAX_HELD_PIXELS = 64_000_000
# the limits for all pictures in a request, which limit its time: a file of a few kilobytes can have millions of
# pixels, and a request can have a thousand files
MAX_PIXELS_TOGETHER = 64_000_000
MAX_DECLARED_TOGETHER = 200_000_000
# libwebp has three canvases in addition to Pillow's
COPIES = {"WEBP": 4}
# minimum width and height of a reduced JPEG, enough for a digit of a quarter of its size
DRAFT_SIDE = 640
# the tag of the Exif orientation
ORIENTATION = 0x0112
# the values of a BMP's field for compression
RUN_LENGTH = (1, 2)
# pixels that are converted to grey at a time
STRIP = 1_000_000

# OpenCV would describe each damaged picture on standard error
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Opened(NamedTuple):
    """A picture of which only the header has been read.

    held: the number of pixels of four bytes in memory while decoding it. size: width and height in its header.
    """

    picture: Image.Image
    held: int
    size: tuple[int, int]


def open_picture(data: bytes, name: str, side: int | None = DRAFT_SIDE) -> Opened:
    """Read the header of a picture, and refuse it if it is over a limit.

    side: decode JPEGs at the smallest available size with at least this width and height; None for the full size.
    Raises PictureError: 413 over a limit, 415 for another format, 422 for a damaged header, or for one with more
    parts than any program writes.
    """
    data = check_structure(data, name)
    try:
        picture = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, "a picture of enormous size") from None
    except Exception:
        if begins := SIGNATURES.match(data):
            kind = str(begins.lastgroup).upper()
            detail = f"{name} is a damaged picture, or a variant of its format that is not supported."
            raise PictureError(422, detail, field=name, found=kind) from None
        raise PictureError(
            415, f"{name} is not a picture in a supported format.", field=name, formats=list(FORMATS)
        ) from None
    width, height = picture.size
    declared = width * height
    if max(width, height) > MAX_SIDE or declared > MAX_DECLARED_PIXELS:
        raise _too_large(name, f"{width}x{height} pixels")
    if picture.format == "JPEG" and side is not None:
        picture.draft(None, (side, side))
    unit = tiff_unit(data) if picture.format == "TIFF" else 0
    held = _held(picture, declared) + unit // 4
    if picture.width * picture.height > MAX_PIXELS or held > MAX_HELD_PIXELS:
        parts = f", in a strip or tile of {unit} bytes" if unit else ""
        raise _too_large(name, f"{width}x{height} pixels{parts}")
    return Opened(picture, held, (width, height))


def open_pictures(data: list[bytes], names: list[str], side: int | None = DRAFT_SIDE) -> list[Opened]:
    """Read the headers of all pictures in a request with `open_picture`.

    Raises PictureError as there, and 413 if the pictures have too many pixels in total.
    """
    opened = [open_picture(content, name, side) for content, name in zip(data, names, strict=True)]
    pixels = sum(each.picture.width * each.picture.height for each in opened)
    declared = sum(width * height for _, _, (width, height) in opened)
    if pixels > MAX_PIXELS_TOGETHER or declared > MAX_DECLARED_TOGETHER:
        detail = "The pictures in the request have too many pixels in total."
        raise PictureError(413, detail, field=names[0], found=f"{declared} pixels")
    return opened


def _held(picture: Image.Image, declared: int) -> int:
    """The number of pixels of four bytes in memory while decoding."""
    pixels = picture.width * picture.height
    if picture.format != "JPEG":
        return pixels * COPIES.get(picture.format or "", 1)
    if "progressive" not in picture.info:
        return pixels
    # libjpeg keeps all coefficients of a progressive file in memory, two bytes each, even for a reduced size
    sampling = [(across, down) for _, across, down, _ in getattr(picture, "layer", [])]
    full = max(across for across, _ in sampling) * max(down for _, down in sampling)
    return pixels + declared * sum(across * down for across, down in sampling) // full // 2


def _too_large(name: str, found: str) -> PictureError:
    detail = f"{name} has too many pixels, or a side of more than {MAX_SIDE}."
    return PictureError(413, detail, field=name, found=found)


def decode_grey(picture: Image.Image, name: str) -> np.ndarray:
    """The picture's brightness, uint8 (height, width), after applying its Exif orientation. Transparent pixels
    become light or dark, whichever contrasts with the ink. Closes the picture.

    Raises PictureError 422 for a damaged picture, or for pixels that are NaN or infinite.
    """
    try:
        if picture.format == "BMP" and picture.info.get("compression") in RUN_LENGTH:
            return _run_length(picture)
        picture.load()
        if len(picture.info.get("exif", b"")) > MAX_EXIF_BYTES:
            del picture.info["exif"]
        orientation = picture.getexif().get(ORIENTATION, 1)
        grey = _grey(picture, name)
        if orientation != 1:
            grey.getexif()[ORIENTATION] = orientation
            grey = ImageOps.exif_transpose(grey)
        return np.asarray(grey)
    except (PictureError, MemoryError):
        raise
    except Exception:
        # damaged files can raise almost any exception, from OSError to struct.error
        raise PictureError(422, f"{name} is a damaged picture.", field=name, found=picture.format) from None
    finally:
        picture.close()


def _run_length(picture: Image.Image) -> np.ndarray:
    """The brightness of a run-length-encoded BMP. Pillow decodes it in Python, which takes 40 times as long."""
    data = np.frombuffer(picture.fp.getvalue(), np.uint8)  # type: ignore[attr-defined]
    grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError("OpenCV can't decode it")
    return grey


def _grey(picture: Image.Image, name: str) -> Image.Image:
    """The picture in mode L."""
    if picture.mode in ("I", "F") or "16" in picture.mode:
        return _from_wide(picture, name)
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        grey = picture.convert("L")
        # free its pixels of four bytes each
        picture.close()
        return grey
    grey, alpha = Image.new("L", picture.size), Image.new("L", picture.size)
    ink = weight = 0.0
    for top, strip in _strips(picture):
        strip_grey, strip_alpha = strip.convert("RGBA").convert("LA").split()
        grey.paste(strip_grey, (0, top))
        alpha.paste(strip_alpha, (0, top))
        opacity = np.asarray(strip_alpha, np.float32)
        weight += float(opacity.sum())
        ink += float(np.vdot(np.asarray(strip_grey, np.float32), opacity))
    size = picture.size
    picture.close()
    paper = 255 if not weight or ink / weight < 128 else 0
    return Image.composite(grey, Image.new("L", size, paper), alpha)


def _from_wide(picture: Image.Image, name: str) -> Image.Image:
    """Convert a picture with 16 bits, integers or floats to 0..255."""
    ranges = []
    for _, strip in _strips(picture):
        values = np.asarray(strip, np.float32)
        if not np.isfinite(values).all():
            raise PictureError(
                422, f"{name} has pixels that are not finite numbers.", field=name, found="NaN or Infinity"
            )
        ranges.append((float(values.min()), float(values.max())))
    low, high = min(each[0] for each in ranges), max(each[1] for each in ranges)
    start, scale = 0.0, 1.0
    if low < 0 or high > 255:
        # the format does not say which value is white, so guess it from the range
        start, end = min(low, 0.0), 65535.0 if low >= 0 and high <= 65535 else high
        scale = 255 / (end - start)
    elif picture.mode == "F" and high <= 1:
        scale = 255.0
    grey = Image.new("L", picture.size)
    for top, strip in _strips(picture):
        values = (np.asarray(strip, np.float32) - np.float32(start)) * np.float32(scale)
        grey.paste(Image.fromarray(values.round().clip(0, 255).astype(np.uint8)), (0, top))
    return grey


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Divide the picture into strips of about STRIP pixels: (first row, strip)."""
    rows = max(1, STRIP // picture.width)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(picture.height, top + rows)))
