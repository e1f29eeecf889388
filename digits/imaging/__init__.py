"""Converts pictures to MNIST's format with Pillow, OpenCV and NumPy. `prepare` takes the bytes of files, and
`prepare_grey` an array: decode.py reads the brightness from a file's bytes, find.py and ink.py separate the
digit's ink from the background, and normalize.py scales it to 28x28 pixels. formats.py has the formats of files,
and errors.py the exceptions."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import numpy as np

from digits.imaging.decode import DRAFT_SIDE, Opened, decode_grey, open_picture, open_pictures
from digits.imaging.errors import CostlyPictures, PictureError
from digits.imaging.find import Locate, find_digit
from digits.imaging.ink import MIN_CONTRAST
from digits.imaging.normalize import to_mnist

__all__ = ["CostlyPictures", "PictureError", "Prepared", "prepare", "prepare_grey", "prepare_pages"]


class Prepared(NamedTuple):
    """A picture in MNIST's format."""

    image: np.ndarray  # uint8 (28, 28), with bright ink on black
    page: int = 1  # of the file, from 1
    pages: int = 1  # the number of pages in the file


def prepare(
    data: list[bytes], names: list[str], as_is: bool = False, locate: Locate | None = None
) -> np.ndarray:
    """Convert the pictures in `data` to uint8 (n, 28, 28), like `prepare_pages`."""
    return np.stack([each.image for each in prepare_pages(data, names, as_is, locate)])


def prepare_pages(
    data: list[bytes],
    names: list[str],
    as_is: bool = False,
    locate: Locate | None = None,
    *,
    max_pixels: int | None = None,
) -> list[Prepared]:
    """Convert the pictures in `data`. Of a file of several pages, the first one that shows a digit is taken.

    Args:
        names: what to call each picture in error messages.
        as_is: only convert pictures of 28x28 pixels to grey.
        locate: like that of `find_digit`.
        max_pixels: raise CostlyPictures if decoding needs more pixels than this in memory, before anything is
            decoded, or if a digit must be located. An event loop sets it, and on CostlyPictures repeats the call
            without it elsewhere. JPEGs are decoded at a reduced size, which is the size that counts.

    Raises PictureError for too many pixels, for another format, for a damaged picture, for one without a digit, or
    for another size with as_is. Raises MemoryError if decoding would exceed RLIMIT_DATA.
    """
    side = None if as_is else DRAFT_SIDE
    opened = open_pictures(data, names, side)
    if max_pixels is not None:
        if sum(each.held for each in opened) > max_pixels:
            raise CostlyPictures
        locate = _too_costly
    return [
        _first_page(each, content, name, side, locate)
        for each, content, name in zip(opened, data, names, strict=True)
    ]


def _too_costly(grey: np.ndarray) -> NoReturn:
    raise CostlyPictures


def _first_page(opened: Opened, data: bytes, name: str, side: int | None, locate: Locate | None) -> Prepared:
    """The first page that shows a digit. side: like that of `open_picture`; None to take pictures as they are."""
    pages = opened.pages
    for page in range(1, pages + 1):
        picture = (opened if page == 1 else open_picture(data, name, side, page)).picture
        try:
            if side is None and picture.size != (28, 28):
                size = f"{picture.width}x{picture.height}"
                raise PictureError("content", name, "must have 28x28 pixels with prepare=none.", found=size)
            grey = decode_grey(picture, name)
            return Prepared(grey if side is None else prepare_grey(grey, name, locate), page, pages)
        except PictureError:
            if pages == 1:
                raise
    problem = f"shows no digit on any of its {pages} pages."
    raise PictureError("content", name, problem, found=f"{pages} pages without a digit")


def prepare_grey(grey: np.ndarray, name: str = "image", locate: Locate | None = None) -> np.ndarray:
    """Convert a grey picture, uint8 (height, width), to uint8 (28, 28), with bright ink on black.

    Args:
        name: what to call the picture in error messages.
        locate: like that of `find_digit`.

    Raises PictureError for a picture without a digit.
    """
    found = find_digit(grey, locate)
    if found is not None:
        return to_mnist(found)
    if np.ptp(grey) < MIN_CONTRAST:
        raise PictureError("content", name, "is blank: its pixels hardly differ.", found="an empty picture")
    problem = "shows no digit: nothing stands out from the background."
    raise PictureError("content", name, problem, found="a picture without a digit")
