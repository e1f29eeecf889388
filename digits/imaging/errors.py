"""The exceptions for pictures that can't be read. digits/serving/errors.py converts `PictureError` to problem
details. `HugePictures` tells the caller that decoding takes more than it wants to spend where it is."""

from __future__ import annotations

from typing import Any


class PictureError(ValueError):
    """A picture can't be read.

    status: the HTTP status for the answer: 413 for too many pixels, 415 for another format, 422 for anything else.
    extra: further fields of the answer (field, found, formats).
    """

    def __init__(self, status: int, detail: str, **extra: Any) -> None:
        # all arguments but those by name, as pickles of exceptions need them
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.extra = extra

    def __str__(self) -> str:
        return self.detail


class HugePictures(Exception):
    """Decoding the pictures would need more pixels in memory than `max_pixels`. None has been decoded.

    pixels: the number of pixels in total.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__(f"the pictures decode to {pixels} pixels")
        self.pixels = pixels
