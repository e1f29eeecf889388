"""The formats of picture files that are read. Adding a format is a row in `FORMATS`; the service, bulk.py, the
API's description and the messages follow. A format that Pillow does not know needs code in decode.py."""

from __future__ import annotations

import re
from typing import NamedTuple


class Format(NamedTuple):
    """A format of picture files."""

    name: str  # Pillow's, and what messages call it
    begins: bytes  # a regular expression for the first bytes
    types: tuple[str, ...]  # the media type and its common other names
    suffixes: tuple[str, ...]  # of files' names, in lower case
    copies: int = 1  # how many pictures of four bytes a pixel the decoder holds
    quick: bool = False  # whether its cost is bounded by the numbers of bytes and pixels


def _row(name: str, begins: bytes, types: str, suffixes: str, copies: int = 1, quick: bool = False) -> Format:
    return Format(name, begins, tuple(types.split()), tuple(suffixes.split()), copies, quick)


FORMATS = (
    _row("PNG", rb"\x89PNG\r\n\x1a\n", "image/png image/x-png image/apng", ".png .apng", quick=True),
    _row(
        "JPEG",
        rb"\xff\xd8\xff[\xc0-\xfe]",
        "image/jpeg image/jpg image/pjpeg",
        ".jpg .jpeg .jpe .jfif",
        quick=True,
    ),
    # libwebp has three canvases in addition to Pillow's
    _row("WEBP", rb"RIFF.{4}WEBP", "image/webp", ".webp", copies=4),
    _row("GIF", rb"GIF8[79]a", "image/gif", ".gif"),
    _row("BMP", rb"BM.{4}\0{4}", "image/bmp image/x-bmp image/x-ms-bmp", ".bmp", quick=True),
    # a BMP without the header of the file
    _row("DIB", rb"[\x28\x34\x38\x40\x6c\x7c]\0{3}.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0", "", ".dib"),
    _row("TIFF", rb"II\*\0|MM\0\*|II\+\0\x08\0|MM\0\+\0\x08", "image/tiff image/tif", ".tif .tiff"),
    _row("AVIF", rb".{4}ftyp(?:avi[fs]|m[is]f1.{4}(?:.{4}){0,8}?avi[fs])", "image/avif", ".avif", copies=4),
    # only if pillow-heif is installed
    _row(
        "HEIF", rb".{4}ftyp(?:hei[cxms]|hev[cxms]|m[is]f1)", "image/heic image/heif", ".heic .heif", copies=4
    ),
    _row(
        "JPEG2000",
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        "image/jp2 image/jpx image/j2c",
        ".jp2 .j2k .jpx .jpf .j2c",
        copies=5,
    ),
    _row(
        "ICO", rb"\0\0\x01\0[\x01-\xff]\0.{3}\0[\0\x01]\0.\0", "image/x-icon image/vnd.microsoft.icon", ".ico"
    ),
    _row(
        "PPM",
        rb"P[1-6][\s#]|P[fF]\n",
        "image/x-portable-anymap image/x-portable-pixmap image/x-portable-graymap image/x-portable-bitmap",
        ".ppm .pgm .pbm .pnm .pfm",
    ),
    # the only format without a signature: with a palette, or with its five bytes 0
    _row(
        "TGA",
        rb".(?:\0[\x02\x03\x0a\x0b]\0{5}|\x01[\x01\x09].{4}[\x10\x18\x20]).{8}[\x01\x08\x10\x18\x20][\0-\x3f]",
        "image/x-tga image/x-targa",
        ".tga",
    ),
    _row("PDF", rb"(?:\xef\xbb\xbf)?\s{0,99}%PDF-\d", "application/pdf application/x-pdf", ".pdf", copies=2),
)

# what messages call them; a DIB is a BMP
NAMES = tuple(each.name for each in FORMATS if each.types)
# each name of a type -> the type
TYPES = {name: each.types[0] for each in FORMATS for name in each.types}
SUFFIXES = frozenset(suffix for each in FORMATS for suffix in each.suffixes)

_BY_NAME = {each.name: each for each in FORMATS}
_SIGNATURES = re.compile(b"(?s)" + b"|".join(b"(?P<%b>%b)" % (f.name.encode(), f.begins) for f in FORMATS))


def format_of(data: bytes) -> Format | None:
    """The format of a file by its first bytes, or None."""
    found = _SIGNATURES.match(data)
    return _BY_NAME[str(found.lastgroup)] if found else None
