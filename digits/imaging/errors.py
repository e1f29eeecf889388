"""What is wrong with a picture, for whoever asked to read it: decoding raises `PictureError`, and
digits/serving/errors.py answers it as a problem. It knows nothing of HTTP but the status that fits."""

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
