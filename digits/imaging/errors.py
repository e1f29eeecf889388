"""The exceptions for pictures that can't be read. digits/serving/errors.py converts `PictureError` to problem
details. `CostlyPictures` tells the caller that preparing them takes more than it wants to spend where it is."""

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


class CostlyPictures(Exception):
    """Preparing the pictures takes more time or memory than the caller wants to spend where it is."""
