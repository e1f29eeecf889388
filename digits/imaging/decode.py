"""Decodes picture files to brightness with Pillow. The header tells how much memory decoding would need, so
pictures and requests over the limits are refused before anything is decoded. JPEGs are decoded at a half to an
eighth of their size. Large pictures, and those with transparency, 16 bits or floats, are converted to 0..255 in
strips, because a copy of a picture of 50 megapixels in a wider type would double a process's memory."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from digits.imaging.errors import PictureError
from digits.imaging.formats import NAMES, Format, format_of
from digits.imaging.pdf import PdfPage
from digits.imaging.structure import MAX_EXIF_BYTES, MAX_PAGES, Tags, check_structure, tiff_pages, tiff_unit

MAX_SIDE = 10_000
# the limit on the size in the header; even a JPEG that is decoded at a reduced size is read completely
MAX_DECLARED_PIXELS = 80_000_000
# the limit on decoded pixels; phones with 50 megapixels have 8160x6120
MAX_PIXELS = 50_000_000
# the limit on pixels of four bytes in memory while decoding
MAX_HELD_PIXELS = 64_000_000
# larger pictures are halved while they are converted to grey, so that there is no second one of full size
MAX_GREY_PIXELS = 16_000_000
# the limits for all pictures in a request, which limit its time: a file of a few kilobytes can have millions of
# pixels, and a request can have a thousand files
MAX_PIXELS_TOGETHER = 64_000_000
MAX_DECLARED_TOGETHER = 200_000_000
# minimum width and height of a reduced JPEG, enough for a digit of a quarter of its size
DRAFT_SIDE = 640
# the tag of the Exif orientation
ORIENTATION = 0x0112
# the values of a BMP's field for compression
RUN_LENGTH = (1, 2)
# pixels that are converted to grey at a time
STRIP = 500_000
# in 16 bits, differences below this fraction of the range are not increased further
LEAST_RANGE = 1 / 8
# pixels of the longer side of the small copy in which contrasts are compared
SAMPLE_SIDE = 64
# colour is used if it varies this many times as much as brightness does
MORE_COLOUR = 3

# OpenCV would describe each damaged picture on standard error
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


try:
    # an optional package
    from pillow_heif import register_heif_opener
except ImportError:
    HEIF = False
else:
    register_heif_opener(thumbnails=False)
    HEIF = True
READ = [name for name in NAMES if HEIF or name != "HEIF"]


class Opened(NamedTuple):
    """A page of a picture of which only the header has been read."""

    picture: Image.Image | PdfPage
    held: int  # the number of pixels of four bytes in memory while decoding it
    size: tuple[int, int]  # width and height in its header
    pages: int  # the number of pages in the file


def open_picture(data: bytes, name: str, side: int | None = DRAFT_SIDE, page: int = 1) -> Opened:
    """Read the header of a picture, and refuse it if it is over a limit.

    Args:
        name: what to call the picture in error messages.
        side: decode JPEGs at the smallest available size with at least this width and height; None for the full
            size.
        page: of a TIFF or PDF, from 1; other formats have one.

    Raises PictureError over a limit, for another format, for a damaged header, or for one with more parts than any
    program writes. Raises MemoryError if decoding would exceed RLIMIT_DATA.
    """
    data, scans = check_structure(data, name)
    found = format_of(data)
    if found is None or (found.name == "HEIF" and not HEIF):
        reason = "is in HEIC, for which the service needs pillow-heif. Other"
        reason = reason if found else "is not a picture. The"
        problem = f"{reason} formats that can be read are {', '.join(READ[:-1])} and {READ[-1]}."
        raise PictureError("format", name, problem, formats=READ)
    pages, tags = 1, Tags()
    picture: Image.Image | PdfPage
    if found.name == "PDF":
        picture = document = PdfPage(data, name, page)
        pages = document.pages
    else:
        try:
            picture = Image.open(BytesIO(data), formats=[found.name])
            if found.name == "TIFF":
                images = tiff_pages(data)
                pages, (number, tags) = len(images), images[page - 1]
                picture.seek(number)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_large(name, "a picture of enormous size") from None
        except Exception:
            problem = "is a damaged picture, or a variant of its format that is not supported."
            raise PictureError("content", name, problem, found=found.name) from None
    if pages > MAX_PAGES:
        raise PictureError("large", name, f"has more than {MAX_PAGES} pages.", found=f"{pages} pages")
    width, height = picture.size
    declared = width * height
    if max(width, height) > MAX_SIDE or declared > MAX_DECLARED_PIXELS:
        raise _too_large(name, f"{width}x{height} pixels")
    if found.name == "JPEG" and side is not None and not isinstance(picture, PdfPage):
        picture.draft(None, (side, side))
    unit = tiff_unit(tags)
    held = _held(picture, found, declared, scans) + unit // 4
    if picture.width * picture.height > MAX_PIXELS or held > MAX_HELD_PIXELS:
        parts = f", in a strip or tile of {unit} bytes" if unit else ""
        raise _too_large(name, f"{width}x{height} pixels{parts}")
    _check_room(picture, held)
    return Opened(picture, held, (width, height), pages)


def open_pictures(data: list[bytes], names: list[str], side: int | None = DRAFT_SIDE) -> list[Opened]:
    """Read the headers of all pictures in a request with `open_picture`.

    Raises PictureError as there, and if the pictures have too many pixels in total.
    """
    opened = [open_picture(content, name, side) for content, name in zip(data, names, strict=True)]
    pixels = sum(each.picture.width * each.picture.height for each in opened)
    declared = sum(width * height for _, _, (width, height), _ in opened)
    if pixels > MAX_PIXELS_TOGETHER or declared > MAX_DECLARED_TOGETHER:
        problem = "and the other pictures have too many pixels in total."
        raise PictureError("large", names[0], problem, found=f"{declared} pixels")
    return opened


def data_bytes() -> int:
    """The bytes of memory of this process that RLIMIT_DATA limits; 0 on systems without /proc."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _check_room(picture: Image.Image | PdfPage, held: int) -> None:
    """Raise MemoryError if decoding would exceed the limit on this process's memory (RLIMIT_DATA). Some decoders
    would call the picture damaged."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit == resource.RLIM_INFINITY:
        return
    pixels = picture.width * picture.height
    grey = pixels // 4 if pixels > MAX_GREY_PIXELS else pixels
    narrow = picture.format in ("PNG", "BMP", "GIF", "TIFF") and picture.mode in ("1", "L", "P")
    if data_bytes() + (held if narrow else 4 * held) + grey + 16 * STRIP > limit:
        raise MemoryError


def _held(picture: Image.Image | PdfPage, found: Format, declared: int, scans: int) -> int:
    """The number of pixels of four bytes in memory while decoding."""
    pixels = picture.width * picture.height
    if found.name != "JPEG":
        return pixels * found.copies
    if scans == 1 and "progressive" not in picture.info:
        return pixels
    # libjpeg keeps all coefficients of a file of several scans in memory, two bytes each, even for a reduced size
    sampling = [(across, down) for _, across, down, _ in getattr(picture, "layer", [])]
    full = max(across for across, _ in sampling) * max(down for _, down in sampling)
    return pixels + declared * sum(across * down for across, down in sampling) // full // 2


def _too_large(name: str, found: str) -> PictureError:
    problem = f"has too many pixels, or a side of more than {MAX_SIDE}."
    return PictureError("large", name, problem, found=found)


def decode_grey(picture: Image.Image | PdfPage, name: str) -> np.ndarray:
    """The picture's brightness, uint8 (height, width), after applying its Exif orientation. Transparent pixels
    become light or dark, whichever contrasts with the ink. If only colours differ, these are used in place of
    brightness. Closes the picture.

    Raises PictureError for a damaged picture, or for pixels that are NaN or infinite.
    """
    try:
        if isinstance(picture, PdfPage):
            picture = picture.rendered()
        if picture.format == "BMP" and picture.info.get("compression") in RUN_LENGTH:
            return _run_length(picture)
        picture.load()
        orientation = _orientation(picture)
        grey = _grey(picture, name)
        if orientation != 1:
            grey.getexif()[ORIENTATION] = orientation
            grey = ImageOps.exif_transpose(grey)
        return np.asarray(grey)
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        # damaged files can raise almost any exception, from OSError to struct.error
        cut = isinstance(error, OSError) and "truncated" in str(error)
        reason = "is incomplete: the end of the file is missing" if cut else "is a damaged picture"
        raise PictureError("content", name, f"{reason}.", found=picture.format) from None
    finally:
        picture.close()


def _orientation(picture: Image.Image) -> int:
    """The Exif orientation, from 1 to 8. The pixels do not need Exif data, so damaged ones count as 1."""
    try:
        if len(picture.info.get("exif", b"")) > MAX_EXIF_BYTES:
            del picture.info["exif"]
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _run_length(picture: Image.Image) -> np.ndarray:
    """The brightness of a run-length-encoded BMP. Pillow decodes it in Python, which takes 40 times as long."""
    data = np.frombuffer(picture.fp.getvalue(), np.uint8)  # type: ignore[attr-defined]
    grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    # of the two, only Pillow reads codes that skip pixels
    return np.asarray(picture.convert("L")) if grey is None else grey


def _grey(picture: Image.Image, name: str) -> Image.Image:
    """The picture in mode L, of half its width and height if it is large. Closes the picture, to free its pixels
    of four bytes each."""
    if picture.mode in ("I", "F") or "16" in picture.mode:
        return _in_strips(picture, _from_wide(picture, name))
    if "A" in picture.getbands() or "transparency" in picture.info:
        paper = _paper(picture)
        if paper is not None:
            return _in_strips(picture, lambda strip: _laid_on(paper, strip))
    weights = None if picture.mode in ("1", "L", "LA") else _colour_weights(picture)
    if weights is not None:
        return _in_strips(picture, lambda strip: strip.convert("RGB").convert("L", weights))
    return _in_strips(picture, lambda strip: strip.convert("L"))


def _colour_weights(picture: Image.Image) -> tuple[float, float, float, float] | None:
    """The weights of red, green and blue, and an offset, with which the colours differ most, for a picture whose
    brightness hardly differs; else None. The weights are the first principal component."""
    step = max(1, max(picture.size) // SAMPLE_SIDE)
    # reducing a whole RGBA picture would copy it
    sample = (strip.convert("RGB").reduce(step) for _, strip in _strips(picture))
    pixels = np.concatenate([np.asarray(strip, np.float32).reshape(-1, 3) for strip in sample])
    # OpenBLAS would take 32 MB at its first use
    middle, vectors, values = cv2.PCACompute2(pixels, None)  # type: ignore[call-overload]
    brightness = float((pixels * np.array([0.299, 0.587, 0.114], np.float32)).sum(1).std())
    if float(np.sqrt(max(values[0, 0], 0))) < max(MORE_COLOUR * brightness, 1):
        return None
    red, green, blue = (float(weight) for weight in vectors[0])
    return red, green, blue, 127.5 - float((middle[0] * vectors[0]).sum())


def _in_strips(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture to mode L strip by strip, and close it. A large one is halved."""
    half = 2 if picture.width * picture.height > MAX_GREY_PIXELS else 1
    grey = Image.new("L", (-(-picture.width // half), -(-picture.height // half)))
    for top, strip in _strips(picture):
        grey.paste(convert(strip).reduce(half) if half > 1 else convert(strip), (0, top // half))
    picture.close()
    return grey


def _paper(picture: Image.Image) -> int | None:
    """The brightness of paper that contrasts with a transparent picture's ink. None if nothing is transparent, or
    everything: some programs leave the channel empty."""
    ink, weight, lowest = 0.0, 0.0, 255.0
    for _, strip in _strips(picture):
        grey, opacity = (np.asarray(band, np.float32) for band in strip.convert("RGBA").convert("LA").split())
        weight += float(opacity.sum())
        ink += float(np.vdot(grey, opacity))
        lowest = min(lowest, float(opacity.min()))
    if lowest == 255 or not weight:
        return None
    return 255 if ink / weight < 128 else 0


def _laid_on(paper: int, strip: Image.Image) -> Image.Image:
    grey, alpha = strip.convert("RGBA").convert("LA").split()
    return Image.composite(grey, Image.new("L", strip.size, paper), alpha)


def _from_wide(picture: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """A function that converts a strip of a picture with 16 bits, integers or floats to 0..255."""
    strips = (np.asarray(strip, np.float32) for _, strip in _strips(picture))
    ranges = np.array([(values.min(), values.max()) for values in strips])
    if not np.isfinite(ranges).all():
        problem = "has pixels that are not finite numbers."
        raise PictureError("content", name, problem, found="NaN or Infinity")
    low, high = float(ranges.min()), float(ranges.max())
    start, scale = 0.0, 1.0
    if low < 0 or high > 255:
        # neither the format nor the file says which value is white: programs use 9 to 16 bits
        full = 2.0 ** math.ceil(math.log2(high + 1)) - 1 if low >= 0 and high <= 65535 else high - low
        start, scale = low, 255 / max(high - low, LEAST_RANGE * full)
    elif picture.mode == "F" and high <= 1:
        scale = 255.0

    def convert(strip: Image.Image) -> Image.Image:
        values = (np.asarray(strip, np.float32) - np.float32(start)) * np.float32(scale)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    return convert


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Divide the picture into strips of about STRIP pixels and an even number of rows: (first row, strip)."""
    rows = max(2, STRIP // picture.width // 2 * 2)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(picture.height, top + rows)))
