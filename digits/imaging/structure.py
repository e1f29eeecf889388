"""Counts what a picture's file consists of before Pillow opens it. A few kilobytes can hold a thousand JPEG scans
or name a TIFF tile of a billion pixels, and Pillow reads headers with Python loops that take seconds for millions
of chunks. Files of cameras, scanners and programs stay far below these limits."""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from collections.abc import Callable
from typing import NoReturn

from digits.imaging.errors import PictureError

# programs write about ten scans
MAX_SCANS = 100
# scans times pixels: each scan goes through all coefficients, in about 1 s for this number
MAX_SCANNED_PIXELS = 1_600_000_000
# the segments of a JPEG's header have up to 64 KB each
MAX_SEGMENTS = 1000
# Exif data is limited to one segment of a JPEG, and some cameras write a few
MAX_EXIF_SEGMENTS = 16
MAX_EXIF_BYTES = 1 << 20
# the chunks of a PNG, the blocks before a GIF's first frame, the values of a TIFF's tag, and bytes of no meaning
MAX_BLOCKS = 100_000
# pages of a file
MAX_PAGES = 50
# the side of an icon
MAX_ICON = 1024

# what follows 0xFF in a JPEG: any marker except restart markers, which belong to the data of a scan
MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
SEQUENTIAL = frozenset({0xC0, 0xC1})
EOI, SOS, APP1 = 0xD9, 0xDA, 0xE1
# these are not followed by a length
BARE = frozenset({0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)})

# the types of integers in a TIFF; bytes, text and undefined data are not expanded
INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 16: "Q", 17: "q"}
COMPACT = frozenset({1, 2, 7})
WIDTH, HEIGHT, BITS, SAMPLES, ROWS, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 277, 278, 322, 323
SUBFILE = 254
SIZES = frozenset({WIDTH, HEIGHT, BITS, SAMPLES, ROWS, TILE_WIDTH, TILE_HEIGHT, SUBFILE})
# bits of SUBFILE: a page at a lower resolution, and a mask
NO_PAGE = 1 | 4

# a JPEG in a strip or tile of a TIFF has one scan, or one for each channel
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", "5")


def check_structure(data: bytes, name: str) -> tuple[bytes, int]:
    """The bytes that Pillow should open: of a PNG without the chunks that don't change its pixels, of an icon its
    largest picture, else `data`. And the number of scans, which is 1 for all but JPEGs.

    Raises PictureError for more parts than any program writes, or more scans than the size allows.
    """
    check = next((check for begins, check in CHECKS.items() if data.startswith(begins)), None)
    return check(data, name) if check else (data, 1)


def _refuse(name: str, what: str, found: str) -> NoReturn:
    raise PictureError("content", name, f"has more than {what}.", found=found)


def _jpeg(data: bytes, name: str) -> tuple[bytes, int]:
    """Count the segments up to the end of the picture. Up to the first scan, this follows Pillow's way of finding
    them, and after it, libjpeg's."""
    at, gaps, segments, scans, exif, pixels = 2, 0, 0, 0, 0, 0
    progressive, channels = True, b""
    while marker := MARKER.search(data, at):
        code = marker[1][0]
        segments += 1
        gaps += 0 if scans else marker.start() - at
        at = marker.end()
        if code == EOI and scans:
            break
        if code not in BARE:
            begins = at + 2
            at += max(2, int.from_bytes(data[at:begins]))
            scans += code == SOS
            exif += code == APP1 and data.startswith(b"Exif\0\0", begins)
            if code in SOF:
                height, width = data[begins + 1 : begins + 3], data[begins + 3 : begins + 5]
                pixels = int.from_bytes(height) * int.from_bytes(width)
                progressive, channels = code not in SEQUENTIAL, data[begins + 5 : begins + 6]
        if scans > MAX_SCANS:
            _refuse(name, f"{MAX_SCANS} scans", "a JPEG with more scans than any program writes")
        if segments > MAX_SEGMENTS or gaps > MAX_BLOCKS or exif > MAX_EXIF_SEGMENTS:
            _refuse(name, f"{MAX_SEGMENTS} segments, or data between them", "a JPEG with an enormous header")
        if code == SOS and scans == 1 and not progressive and data[begins : begins + 1] == channels:
            # libjpeg stops after a scan with all channels of a file that is not progressive
            break
    if pixels * scans > MAX_SCANNED_PIXELS:
        problem = f"has too many pixels for a JPEG with {scans} scans."
        raise PictureError("large", name, problem, found=f"{pixels} pixels in {scans} scans")
    return data, scans


def _png(data: bytes, name: str) -> tuple[bytes, int]:
    """Leave out ancillary chunks, except transparency and an intact Exif chunk."""
    at, kept, start, chunks = 8, [], 0, 0
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        chunk = data[at + 4 : at + 8]
        chunks += 1
        if chunks > MAX_BLOCKS:
            _refuse(name, f"{MAX_BLOCKS} chunks", "a PNG with more chunks than any program writes")
        needed = not chunk[0] & 0x20 or chunk == b"tRNS"
        if chunk == b"eXIf" and end - at < MAX_EXIF_BYTES:
            needed = zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        if not needed:
            kept.append(data[start:at])
            start = end
        at = end
        if chunk == b"IEND":
            break
    return (b"".join([*kept, data[start:]]) if kept else data), 1


def _gif(data: bytes, name: str) -> tuple[bytes, int]:
    """Count the blocks before the first frame, which Pillow reads one after another."""
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    blocks = 0
    while at < len(data) and data[at] not in b",;":
        extension = data[at] == ord("!")
        at += 2 if extension else 1
        blocks += 1
        while extension and at < len(data) and blocks <= MAX_BLOCKS:
            length = data[at]
            at += 1 + length
            blocks += 1
            extension = length > 0
        if blocks > MAX_BLOCKS:
            _refuse(name, f"{MAX_BLOCKS} blocks before its first frame", "a GIF with an enormous header")
    return data, 1


def _ico(data: bytes, name: str) -> tuple[bytes, int]:
    """The largest picture of an icon, if it is a PNG."""
    sizes = []
    for at in range(6, 6 + 16 * min(int.from_bytes(data[4:6], "little"), MAX_BLOCKS), 16):
        width, height, depth, length, begins = struct.unpack("<BB4xHLL", data[at : at + 16].ljust(16, b"\0"))
        picture = data[begins : begins + length]
        if picture.startswith(b"\x89PNG"):
            sizes.append(((width or 256) * (height or 256), depth, _png(picture, name)[0]))
        elif len(picture) >= 12:
            # a BMP with twice its height
            sides = struct.unpack_from("<ll", picture, 4)
            if not 0 < sides[0] <= MAX_ICON or not 0 < sides[1] <= 2 * MAX_ICON:
                _refuse(name, f"{MAX_ICON} pixels on a side", f"an icon of {sides[0]}x{sides[1]} pixels")
            sizes.append(((width or 256) * (height or 256), depth, data))
    return max(sizes, default=(0, 0, data), key=lambda each: each[:2])[2], 1


def _tiff(data: bytes, name: str) -> tuple[bytes, int]:
    """Count the values of each tag of a page."""
    if any(count > MAX_BLOCKS for _, tags in tiff_pages(data) for count, _ in tags.values()):
        found = "a TIFF with more strips or tiles than any program writes"
        _refuse(name, f"{MAX_BLOCKS} values in a tag", found)
    return data, 1


# the values of a tag: their number, or 0 if they are not expanded, and the largest of the first four if it is one
# of SIZES
Tags = dict[int, tuple[int, int]]


def tiff_pages(data: bytes) -> list[tuple[int, Tags]]:
    """The pages of a TIFF, at most one more than MAX_PAGES: the number of each among all of its images, from 0,
    and its tags. Images of a lower resolution and masks are no pages. What can't be read is left out."""
    order, place = "<" if data[:2] == b"II" else ">", "Q" if 43 in data[2:4] else "L"
    images: list[Tags] = []
    try:
        (at,) = struct.unpack_from(order + place, data, 8 if place == "Q" else 4)
        seen = {0}
        while at not in seen and len(images) <= 3 * MAX_PAGES:
            seen.add(at)
            images.append({})
            at = _tiff_tags(data, order, place, at, images[-1])
    except (struct.error, OverflowError):
        pass
    pages = [(i, tags) for i, tags in enumerate(images) if not tags.get(SUBFILE, (0, 0))[1] & NO_PAGE]
    return pages[: MAX_PAGES + 1] or [(0, images[0] if images else {})]


def _tiff_tags(data: bytes, order: str, place: str, at: int, tags: Tags) -> int:
    """Read the tags of the image at `at`, and return the place of the next one. Raises struct.error."""
    number = order + ("Q" if place == "Q" else "H")
    (n,) = struct.unpack_from(number, data, at)
    at, inline = at + struct.calcsize(number), struct.calcsize(order + place)
    for _ in range(min(n, MAX_BLOCKS)):
        tag, field, count = struct.unpack_from(f"{order}HH{place}", data, at)
        at += 4 + inline
        largest = 0
        if tag in SIZES and field in INTEGERS and count:
            values, begins = f"{order}{min(count, 4)}{INTEGERS[field]}", at
            if count * struct.calcsize(order + INTEGERS[field]) > inline:
                (begins,) = struct.unpack_from(order + place, data, at)
            largest = max(struct.unpack_from(values, data, begins))
        before = tags.get(tag, (0, 0))
        # of duplicates, Pillow and libtiff might choose different ones
        tags[tag] = max(before[0], 0 if field in COMPACT else count), max(before[1], largest)
        at += inline
    return int(struct.unpack_from(order + place, data, at)[0])


def tiff_unit(tags: Tags) -> int:
    """The size in bytes of the largest strip or tile of a TIFF's page, which libtiff has in memory."""

    def value(tag: int, default: int) -> int:
        return tags.get(tag, (0, 0))[1] or default

    rows = min(value(ROWS, 2**32), value(HEIGHT, 0))
    pixels = max(value(WIDTH, 0) * rows, value(TILE_WIDTH, 0) * value(TILE_HEIGHT, 0))
    return math.ceil(pixels * value(BITS, 1) * value(SAMPLES, 1) / 8)


# the first bytes by which Pillow recognizes a format
CHECKS: dict[bytes, Callable[[bytes, str], tuple[bytes, int]]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"II": _tiff,
    b"MM": _tiff,
    b"\0\0\1\0": _ico,
}
