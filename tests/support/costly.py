"""Small requests that would cost very much: scans, tiles, chunks and nesting."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib

from PIL import Image, ImageDraw

JSON, CSV, FORM = "application/json", "text/csv", "multipart/form-data; boundary=b"
# (path, Content-Type, body)
Costly = tuple[str, str, bytes]


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def jpeg_of_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG that declares this size and repeats its last, nearly empty scan."""
    data = encoded(Image.new("L", (8, 8), 200), "JPEG", progressive=True)
    at = data.index(b"\xff\xc2")
    data = data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
    last = data.rindex(b"\xff\xda")
    return data[:last] + (scans - data.count(b"\xff\xda") + 1) * data[last:-2] + data[-2:]


def slow_pictures(number: int) -> bytes:
    """JSON with large pictures of a 7, progressive JPEGs of as many scans as are accepted."""
    picture = Image.new("L", (4000, 4000), 230)
    ImageDraw.Draw(picture).line([(1600, 1200), (2400, 1200), (1800, 2800)], 30, 100)
    data = encoded(picture, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    data = data[:last] + (100 - data.count(b"\xff\xda") + 1) * data[last:-2] + data[-2:]
    return json.dumps({"images": [base64.b64encode(data).decode()] * number}).encode()


def tiff_of_one_tile(side: int, tile: int) -> bytes:
    """A small TIFF whose only tile has `tile` pixels in width and height."""
    content = zlib.compress(bytes(1 << 16))
    tags = [
        *((256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1)),
        *((322, tile), (323, tile), (324, 8), (325, len(content))),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(content))
        + content
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_colour(width: int, height: int, colours: int = 6, chunks: bytes = b"") -> bytes:
    """A PNG of one colour. colours: its colour type, 6 for RGBA, 2 for RGB. chunks: others before the pixels."""
    row = bytes(1) + b"\xff" * (width * {0: 1, 2: 3, 6: 4}[colours])
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + chunks
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def gif_of_blocks(blocks: int) -> bytes:
    """A GIF with so many comments before its picture."""
    data = encoded(Image.new("L", (28, 28)), "GIF")
    at = data.index(b"\x2c", 13 + 3 * 256 if len(data) > 800 else 13)
    return data[:at] + b"\x21\xfe\x01x\x00" * blocks + data[at:]


def hatching(width: int, height: int, gap: int) -> bytes:
    """A PNG of slanted lines, in which much looks like a digit."""
    picture = Image.new("L", (width, height), 255)
    pen = ImageDraw.Draw(picture)
    for x in range(-height, width, gap):
        pen.line((x, 0, x + height // 2, height), 0, 2)
    return encoded(picture, "PNG")


def form(parts: int) -> bytes:
    """A form with so many small files."""
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx\r\n'
    return part * parts + b"--b--\r\n"


def requests(megabytes: float) -> dict[str, Costly]:
    """One request of each kind, with bodies of about this size if they grow with it."""
    size = int(megabytes * 1e6)
    text = b'{"image":"data:image/png;base64,' + b"%41" * (size // 3) + b'"}'
    return {
        "scans": ("/predict", "image/jpeg", jpeg_of_scans(10_000, 8_000, size // 12)),
        "scans of a small picture": ("/predict", "image/jpeg", jpeg_of_scans(200, 200, size // 12)),
        "tile": ("/predict", "image/tiff", tiff_of_one_tile(28, 32_752)),
        "lists": ("/predict", JSON, b'{"images":[' + b"[]," * (size // 3) + b"[]]}"),
        "nested lists": (
            "/v1/models/mnist:predict",
            JSON,
            b'{"instances":[' + b"[[[0]]]," * (size // 8) + b"0]}",
        ),
        "objects": ("/v1/models/mnist:predict", JSON, b'{"instances":[' + b'{"":0},' * (size // 7) + b"0]}"),
        "numbers": ("/v2/models/mnist/infer", JSON, b'{"inputs":[' + b"0.5," * (size // 4) + b"0]}"),
        "strings": ("/predict", JSON, b'{"images":[' + b'"",' * (size // 3) + b'""]}'),
        "long string among many": (
            *("/v1/models/mnist:predict", JSON),
            b'{"instances":["' + b"x" * 30_000 + b'"' + b',""' * 10_000 + b"]}",
        ),
        "escaped base64": ("/predict", JSON, text),
        "spaced base64": ("/predict", JSON, b'{"image":"' + b"QQ " * (size // 3) + b'"}'),
        "a line of CSV": ("/invocations", CSV, b"11," * (size // 3)),
        "lines of CSV": ("/invocations", CSV, b"1\n" * (size // 2)),
        "RGBA": ("/predict", "image/png", png_of_colour(10_000, 5_000)),
        "RGBA to read": ("/read", "image/png", png_of_colour(10_000, 5_000)),
        "chunks of a PNG": (
            *("/predict", "image/png"),
            png_of_colour(28, 28, chunks=png_chunk(b"tIME", bytes(7)) * (size // 19)),
        ),
        "texts of a PNG": (
            *("/predict", "image/png"),
            png_of_colour(28, 28, chunks=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 60),
        ),
        "blocks of a GIF": ("/predict", "image/gif", gif_of_blocks(size // 5)),
        "parts of a form": ("/predict", FORM, form(size // 70)),
    }


def seeds() -> dict[str, Costly]:
    """The same, small enough to be mutated."""
    return requests(0.003) | {
        "hatching": ("/read", "image/png", hatching(300, 300, 8)),
        "tile of a small size": ("/predict", "image/tiff", tiff_of_one_tile(28, 64)),
        "few scans": ("/predict", "image/jpeg", jpeg_of_scans(64, 64, 20)),
        "RGBA": ("/predict", "image/png", png_of_colour(600, 300)),
        "RGBA to read": ("/read", "image/png", png_of_colour(600, 300)),
    }


def grown(rng: random.Random, body: bytes) -> bytes:
    """Repeat a piece of a body, as far as its structure allows: a scan, a chunk, a list, a value, a part."""
    pieces = [
        b"\xff\xda",
        b"IDAT",
        b"tIME",
        b"zTXt",
        b"\x21\xfe",
        b"[",
        b"{",
        b",",
        b'"',
        b"--b\r\n",
        b"%",
        b"\n",
    ]
    places = [at for piece in pieces if (at := body.find(piece)) >= 0]
    if not places:
        return body
    begin = rng.choice(places)
    end = min(len(body), begin + rng.choice((1, 2, 3, 12, 19, 70)))
    return body[:end] + body[begin:end] * rng.choice((10, 100, 1000)) + body[end:]
