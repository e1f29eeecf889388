"""A file's bytes become a picture's brightness, with Pillow. What a picture would take is told from its
header, so that one over the limits, or a request over the caller's, costs nothing. JPEGs are decoded at a half
to an eighth of their size. Whatever is not plain 8-bit grey or colour (transparency, 16 bits, floats) is
brought to 0..255 in strips, for a copy of a whole 50-megapixel picture in a wider type would double a worker's
memory."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from digits.imaging.errors import PictureError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_SIDE = 10_000
# of any picture, however little of it is decoded: a JPEG's bits are all read
MAX_DECLARED_PIXELS = 80_000_000
# decoded, of any picture: a phone's 50 megapixels are 8160x6120
MAX_PIXELS = 50_000_000
# of four bytes, that decoding a picture holds at once: with a worker's own 80 MB that stays below 400 MB
MAX_HELD_PIXELS = 64_000_000
# of all pictures of a request, for the time they take: a few kilobytes may hold a picture of millions, and a
# request a thousand of them
MAX_PIXELS_TOGETHER = 64_000_000
MAX_DECLARED_TOGETHER = 200_000_000
# libwebp keeps two canvases and hands out a third beside Pillow's; libtiff keeps a strip, which may be the picture
COPIES = {"WEBP": 4, "TIFF": 2}
# pixels that a JPEG keeps at least, wide or high; enough for a digit that is a quarter of the picture
DRAFT_SIDE = 640
# the Exif tag of a camera's rotation mark
ORIENTATION = 0x0112
# pixels of a strip that is brought to grey at once
STRIP = 1_000_000


class Opened(NamedTuple):
    """A picture with only its header read.

    held: how many pixels of four bytes decoding it holds in memory at once. declared: how many its header states.
    """

    picture: Image.Image
    held: int
    declared: int


def open_picture(data: bytes, name: str, side: int | None = DRAFT_SIDE) -> Opened:
    """The picture with only its header read: nothing is spent on one that is refused here.

    side: a JPEG will be decoded at the smallest of its sizes that is at least so wide and so high; None: at its
    full size. Raises PictureError: 413 over a limit, 415 for another format.
    """
    try:
        picture = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, "a picture of enormous size") from None
    except Exception:
        raise PictureError(
            415, f"{name} is no picture of a format that is taken.", field=name, formats=list(FORMATS)
        ) from None
    width, height = picture.size
    declared = width * height
    if max(width, height) > MAX_SIDE or declared > MAX_DECLARED_PIXELS:
        raise _too_large(name, f"{width}x{height} pixels")
    if picture.format == "JPEG" and side is not None:
        picture.draft(None, (side, side))
    held = _held(picture, declared)
    if picture.width * picture.height > MAX_PIXELS or held > MAX_HELD_PIXELS:
        raise _too_large(name, f"{width}x{height} pixels")
    return Opened(picture, held, declared)


def open_pictures(data: list[bytes], names: list[str], side: int | None = DRAFT_SIDE) -> list[Opened]:
    """The pictures of a request with only their headers read, as by open_picture.

    Raises PictureError 413, too, if they have too many pixels together.
    """
    opened = [open_picture(content, name, side) for content, name in zip(data, names, strict=True)]
    pixels = sum(each.picture.width * each.picture.height for each in opened)
    declared = sum(each.declared for each in opened)
    if pixels > MAX_PIXELS_TOGETHER or declared > MAX_DECLARED_TOGETHER:
        detail = "The pictures have more pixels together than are taken in one request."
        raise PictureError(413, detail, field=names[0], found=f"{declared} pixels")
    return opened


def _held(picture: Image.Image, declared: int) -> int:
    """How many pixels of four bytes decoding needs at once."""
    pixels = picture.width * picture.height
    if picture.format != "JPEG":
        return pixels * COPIES.get(picture.format or "", 1)
    if "progressive" not in picture.info:
        return pixels
    # libjpeg holds all coefficients of a progressive file, two bytes each, at whatever size it is decoded
    sampling = [(across, down) for _, across, down, _ in getattr(picture, "layer", [])]
    full = max(across for across, _ in sampling) * max(down for _, down in sampling)
    return pixels + declared * sum(across * down for across, down in sampling) // full // 2


def _too_large(name: str, found: str) -> PictureError:
    detail = f"{name} has more pixels than are taken or a side over {MAX_SIDE}."
    return PictureError(413, detail, field=name, found=found)


def decode_grey(picture: Image.Image, name: str) -> np.ndarray:
    """The picture's brightness, uint8 (height, width), upright by its camera's mark; what is transparent shows
    paper that the ink stands out from. The picture is closed.

    Raises PictureError 422 for a damaged picture or for pixels that are no numbers.
    """
    try:
        picture.load()
        orientation = picture.getexif().get(ORIENTATION, 1)
        grey = _grey(picture, name)
        if orientation != 1:
            grey.getexif()[ORIENTATION] = orientation
            grey = ImageOps.exif_transpose(grey)
        return np.asarray(grey)
    except PictureError:
        raise
    except Exception as error:
        # a damaged file shows as almost any exception, from OSError to struct.error
        reason = type(error).__name__
        raise PictureError(422, f"{name} is a damaged picture.", field=name, found=reason) from None
    finally:
        picture.close()


def _grey(picture: Image.Image, name: str) -> Image.Image:
    """Mode L, 0 to 255."""
    if picture.mode in ("I", "F") or "16" in picture.mode:
        return _from_wide(picture, name)
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        grey = picture.convert("L")
        # frees its pixels, four bytes each
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
    """16 bits, whole numbers or floats to 0..255."""
    ranges = []
    for _, strip in _strips(picture):
        values = np.asarray(strip, np.float32)
        if not np.isfinite(values).all():
            raise PictureError(
                422, f"{name} has pixels that are no numbers.", field=name, found="NaN or Infinity"
            )
        ranges.append((float(values.min()), float(values.max())))
    low, high = min(each[0] for each in ranges), max(each[1] for each in ranges)
    start, scale = 0.0, 1.0
    if low < 0 or high > 255:
        # what a picture calls white is told by its range only
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
    """The picture in strips of some STRIP pixels: (first row, strip)."""
    rows = max(1, STRIP // picture.width)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(picture.height, top + rows)))
