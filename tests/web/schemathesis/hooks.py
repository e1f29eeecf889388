"""Generates pictures for schemathesis, which JSON Schema can't describe. schemathesis loads this module."""

from __future__ import annotations

import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image, ImageDraw

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF"}


@st.composite
def drawn(draw: st.DrawFn, kind: str) -> bytes:
    """A 28x28 picture with a stroke, which is valid with and without preparing."""
    image = Image.new("L", (28, 28), 0)
    ends = [
        draw(st.integers(5, 10)),
        draw(st.integers(4, 9)),
        draw(st.integers(14, 22)),
        draw(st.integers(18, 23)),
    ]
    ImageDraw.Draw(image).line(ends, fill=255, width=draw(st.integers(2, 4)))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


for subtype, kind in FORMATS.items():
    schemathesis.openapi.media_type(f"image/{subtype}", drawn(kind))

schemathesis.openapi.media_type(
    "application/octet-stream",
    st.integers(1, 2).flatmap(lambda n: st.binary(min_size=784 * n, max_size=784 * n)),
)
schemathesis.openapi.media_type(
    "text/csv",
    st.binary(min_size=784, max_size=784).map(lambda row: ",".join(map(str, row)).encode()),
)
in_base64 = drawn("PNG").map(lambda data: base64.b64encode(data).decode())
schemathesis.openapi.format("base64-picture", in_base64)
schemathesis.openapi.format("picture", in_base64 | in_base64.map("data:image/png;base64,".__add__))
# a file in a form
schemathesis.openapi.format("binary", drawn("PNG"))
