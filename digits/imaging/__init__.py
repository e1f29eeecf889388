"""Converts pictures to MNIST's format with Pillow, OpenCV and NumPy. `prepare` takes the bytes of files, and
`prepare_grey` an array: decode.py reads the brightness from a file's bytes, find.py separates the digit's ink from
the background, and normalize.py scales it to 28x28 pixels. errors.py has the exceptions."""

from __future__ import annotations

import numpy as np

from digits.imaging.decode import DRAFT_SIDE, decode_grey, open_pictures
from digits.imaging.errors import HugePictures, PictureError
from digits.imaging.find import MIN_CONTRAST, find_digit
from digits.imaging.normalize import to_mnist

__all__ = ["HugePictures", "PictureError", "prepare", "prepare_grey"]


def prepare(
    data: list[bytes], names: list[str], as_is: bool = False, *, max_pixels: int | None = None
) -> np.ndarray:
    """Convert the pictures in `data` to uint8 (n, 28, 28), with bright ink on black.

    names: what to call each picture in error messages. as_is: only convert pictures of 28x28 pixels to grey.
    max_pixels: raise HugePictures, before anything is decoded, if decoding needs more pixels than this in memory.
    An event loop sets it, and on HugePictures repeats the call without it elsewhere. JPEGs are decoded at a
    reduced size, which is the size that counts.

    Raises PictureError: 413 for too many pixels, 415 for another format, 422 for a damaged picture, for one
    without a digit, or for another size with as_is. Raises MemoryError if decoding would exceed RLIMIT_DATA.
    """
    opened = open_pictures(data, names, None if as_is else DRAFT_SIDE)
    held = sum(each.held for each in opened)
    if max_pixels is not None and held > max_pixels:
        raise HugePictures(held)
    out = np.empty((len(opened), 28, 28), np.uint8)
    for i, ((picture, _, _), name) in enumerate(zip(opened, names, strict=True)):
        if as_is and picture.size != (28, 28):
            size = f"{picture.width}x{picture.height}"
            raise PictureError(
                422, f"{name} must have 28x28 pixels with prepare=none.", field=name, found=size
            )
        grey = decode_grey(picture, name)
        out[i] = grey if as_is else prepare_grey(grey, name)
    return out


def prepare_grey(grey: np.ndarray, name: str = "image") -> np.ndarray:
    """Convert a grey picture, uint8 (height, width), to uint8 (28, 28), with bright ink on black.

    name: what to call the picture in error messages. Raises PictureError 422 for a picture without a digit.
    """
    found = find_digit(grey)
    if found is not None:
        return to_mnist(found[0])
    plain = np.ptp(grey) < MIN_CONTRAST
    reason = (
        "is blank: its pixels hardly differ"
        if plain
        else "shows no digit: nothing stands out from the background"
    )
    shown = "an empty picture" if plain else "a picture without a digit"
    raise PictureError(422, f"{name} {reason}.", field=name, found=shown)
