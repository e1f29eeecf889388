"""A picture's bytes become an image in MNIST's form, with Pillow, OpenCV and NumPy; no Flask and no
TensorFlow. `prepare` is all that others call: decode.py makes brightness of bytes, find.py tells the digit's
ink from all else, normalize.py makes MNIST's 28x28 of it, and errors.py says what may be wrong."""

from __future__ import annotations

import numpy as np

from digits.imaging.decode import DRAFT_SIDE, decode_grey, open_pictures
from digits.imaging.errors import HugePictures, PictureError
from digits.imaging.find import MIN_CONTRAST, find_digit
from digits.imaging.normalize import to_mnist

__all__ = ["HugePictures", "PictureError", "prepare"]


def prepare(
    data: list[bytes], names: list[str], as_is: bool = False, *, max_pixels: int | None = None
) -> np.ndarray:
    """The pictures in `data` as uint8 (n, 28, 28), ink bright on black.

    names: what to call each in a problem. as_is: take pictures of 28x28 pixels as they are, only made grey.
    max_pixels: raise HugePictures, before anything is decoded, if the pictures need more pixels than this in
    memory together. A caller with many threads sets it, and on HugePictures repeats the call without it while no
    other such call runs: a picture of 50 megapixels takes 250 MB while it is decoded, and a few at once more than
    a worker has. What counts is what is decoded, a fraction of a JPEG's size.

    Raises PictureError: 413 for too many pixels, 415 for another format, 422 for a damaged picture, one without a
    digit, or as_is with another size.
    """
    opened = open_pictures(data, names, None if as_is else DRAFT_SIDE)
    held = sum(each.held for each in opened)
    if max_pixels is not None and held > max_pixels:
        raise HugePictures(held)
    out = np.empty((len(opened), 28, 28), np.uint8)
    for i, ((picture, _, _), name) in enumerate(zip(opened, names, strict=True)):
        if as_is and picture.size != (28, 28):
            found = f"{picture.width}x{picture.height}"
            raise PictureError(
                422, f"{name} is to have 28x28 pixels with prepare=none.", field=name, found=found
            )
        grey = decode_grey(picture, name)
        ink = None if as_is else find_digit(grey)
        if as_is:
            out[i] = grey
        elif ink is None:
            plain = np.ptp(grey) < MIN_CONTRAST
            reason = "its pixels hardly differ" if plain else "nothing in it stands out from all else"
            found = "an empty picture" if plain else "a picture without a digit"
            raise PictureError(422, f"{name} shows nothing: {reason}.", field=name, found=found)
        else:
            out[i] = to_mnist(ink)
    return out
