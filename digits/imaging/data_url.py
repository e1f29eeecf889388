"""Decodes pictures that are written as text: base64 and data: URLs."""

from __future__ import annotations

import base64

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
