"""What is wrong with a picture, for whoever asked to read it. Decoding raises `PictureError`, which
digits/serving/errors.py answers as a problem, and `HugePictures`, which asks for a second, lone call. Neither
knows more of HTTP than the status that fits."""

from __future__ import annotations

from typing import Any


class PictureError(ValueError):
    """A picture that can't be read as a digit.

    status: the HTTP status that fits: 413 for too many pixels, 415 for another format, 422 for anything else.
    Everything in `extra` (field, found, formats) is for the answer's body.
    """

    def __init__(self, status: int, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.extra = extra


class HugePictures(Exception):
    """The pictures would decode to more pixels than the caller's `max_pixels`; none of them has been decoded.

    pixels: how many they would decode to together.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__(f"the pictures decode to {pixels} pixels")
        self.pixels = pixels
