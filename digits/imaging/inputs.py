"""Checks what programs send in place of files: images as pixels, and pictures as base64 or data: URLs."""

from __future__ import annotations

import base64

import numpy as np

from digits.imaging.ink import MIN_CONTRAST

# characters of base64 that URLs may encode, and white space
PERCENT = {"%2B": "+", "%2F": "/", "%3D": "=", "%2D": "-", "%5F": "_", "%20": "", "%0A": "", "%0D": ""}
# the URL-safe alphabet's two characters in the standard one
STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """Decode base64 in the standard or the URL-safe alphabet (RFC 4648), with or without the prefix of a data:
    URL (RFC 2397). White space is allowed, and padding is optional. Raises ValueError with the problem.
    """
    text = text.lstrip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError("is not a data: URL in base64")
        for code, character in PERCENT.items():
            text = text.replace(code, character).replace(code.lower(), character)
    try:
        # not one object for each character or word: a text may have millions
        encoded = text.encode("ascii").translate(STANDARD, b" \t\n\r\f\v").rstrip(b"=")
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError("is not valid base64") from None


def blank(pixels: np.ndarray, top: int = 255) -> tuple[int, str] | None:
    """The index of the first of n blank images with values from 0 to `top`, and the problem with it; None if none
    is blank. The network has not been trained with blank images, and takes them for a 1 with high probability."""
    least = MIN_CONTRAST * top / 255
    # a faster way for a single image
    if len(pixels) == 1 and pixels.max() - pixels.min() >= least:
        return None
    rows = pixels.reshape(len(pixels), -1)
    highest, lowest = rows.max(1), rows.min(1)
    faint = highest - lowest < least
    if not faint.any():
        return None
    first = int(faint.argmax())
    if top == 255 and lowest[first] < highest[first] <= 1:
        return first, "has values from 0 to 1: multiply them by 255."
    return first, "is blank: its pixels hardly differ."
