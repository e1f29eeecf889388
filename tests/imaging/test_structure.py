"""Files of a few kilobytes to megabytes whose decoding would take minutes or gigabytes: JPEG scans, TIFF tiles,
chunks, blocks and run lengths. Each is refused, or decoded in about the time of an honest picture."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from digits.imaging import PictureError, prepare
from project import ROOT

SAMPLE = ROOT / "digits" / "web" / "static" / "samples" / "3.png"
MB = 1 << 20


def saved(size: tuple[int, int], kind: str, mode: str = "L", **options: Any) -> bytes:
    data = BytesIO()
    Image.new(mode, size, 200).save(data, kind, **options)
    return data.getvalue()


def jpeg(size: tuple[int, int], scans: int = 0) -> bytes:
    """A progressive JPEG, followed by scans of ten bytes that change nothing."""
    data = saved(size, "JPEG", progressive=True)
    return data[:-2] + b"\xff\xda\0\x08\1\1\0\1\x3f\0" * scans + data[-2:]


def sequential(scans: int) -> bytes:
    """A JPEG of 80 megapixels that is not progressive, with scans of one of its three channels each."""
    data = saved((10_000, 8000), "JPEG", "RGB")
    scan = data.index(b"\xff\xda")
    return data[:scan] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * scans + data[-2:]


def header(*segments: bytes) -> bytes:
    """A JPEG that begins with these bytes."""
    return b"\xff\xd8" + b"".join(segments) + saved((28, 28), "JPEG")[2:]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    """The sample with chunks before and after its data."""
    data = SAMPLE.read_bytes()
    end = data.index(b"IEND") - 4
    return data[:33] + before + data[33:end] + after + data[end:]


def gif(blocks: bytes) -> bytes:
    """A GIF with these blocks before its frame."""
    data = saved((28, 28), "GIF")
    frame = data.index(b",\0\0\0\0", 13)
    return data[:frame] + blocks + data[frame:]


def tiff(size: tuple[int, int], tags: dict[int, Any], data: bytes, big: bool = False) -> bytes:
    """A grey TIFF compressed with deflate. tags: further tags; the values are LONG."""
    start, entry = (16, "<HHQ") if big else (8, "<HHL")
    all_tags = {256: [size[0]], 257: [size[1]], 258: [8], 259: [8], 262: [1], 277: [1]} | tags
    entries = b""
    body = bytearray(data)
    for tag, values in sorted(all_tags.items()):
        raw = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}L", *values)
        if len(raw) > start // 2:
            body += raw
            raw_field = struct.pack("<Q" if big else "<L", start + len(body) - len(raw))
        else:
            raw_field = raw.ljust(start // 2, b"\0")
        entries += struct.pack(entry, tag, 4, len(raw) // 4) + raw_field
    directory = start + len(body)
    top = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, directory)
        if big
        else struct.pack("<2sHL", b"II", 42, directory)
    )
    count = struct.pack("<Q" if big else "<H", len(all_tags))
    return top + bytes(body) + count + entries + bytes(8)


def tiled(size: tuple[int, int], tile: tuple[int, int], big: bool = False, tiles: int = 1) -> bytes:
    data = zlib.compress(bytes(min(tile[0] * tile[1], 64 * MB)), 9)
    offsets = {324: [16 if big else 8] * tiles, 325: [len(data)] * tiles}
    return tiff(size, {322: [tile[0]], 323: [tile[1]]} | offsets, data, big)


def rle(size: tuple[int, int], codes: bytes, bits: int = 8) -> bytes:
    """A run-length-encoded BMP."""
    step = 255 // ((1 << bits) - 1)
    palette = b"".join(bytes((i * step, i * step // 2, i * step, 0)) for i in range(1 << bits))
    start = 54 + len(palette)
    head = struct.pack("<LiiHHLLiiLL", 40, *size, 1, bits, 1 if bits == 8 else 2, len(codes), 0, 0, 0, 0)
    return b"BM" + struct.pack("<LLL", start + len(codes), 0, start) + head + palette + codes


HOSTILE: dict[str, tuple[int, Callable[[], bytes]]] = {
    "a JPEG of 80 megapixels with 10,000 scans": ("content", lambda: jpeg((10_000, 8000), 10_000)),
    "a small JPEG with 150,000 scans": ("content", lambda: jpeg((100, 100), 150_000)),
    "a JPEG of 80 megapixels with 50 scans": ("large", lambda: jpeg((10_000, 8000), 50)),
    "a JPEG of 80 megapixels that is not progressive, with 500 scans": ("content", lambda: sequential(500)),
    "a JPEG with a million comments": ("content", lambda: header(b"\xff\xfe\0\2" * MB)),
    "a JPEG with comments hidden in a segment without a length": (
        "content",
        lambda: header((b"\xff\xf0\xff\xff" + b"\xff\xfe\0\2" * 16_000) * 20),
    ),
    "a JPEG with 8 MB of fill bytes": ("content", lambda: header(b"\xff" * 8 * MB)),
    "a JPEG with 8 MB between segments": ("content", lambda: header(b"\xff\xfe\0\2", bytes(8 * MB))),
    "a JPEG with 8 MB before its scan": (
        "content",
        lambda: jpeg((28, 28)).replace(b"\xff\xda", bytes(8 * MB) + b"\xff\xda", 1),
    ),
    "a JPEG with 900 segments of Exif data": ("content", lambda: header(b"\xff\xe1\0\x09Exif\0\0a" * 900)),
    "a PNG with 700,000 chunks": ("content", lambda: png(chunk(b"prVt") * 700_000)),
    "a PNG with 700,000 chunks after the data": ("content", lambda: png(after=chunk(b"prVt") * 700_000)),
    "a GIF with a comment in four million blocks": (
        "content",
        lambda: gif(b"!\xfe" + b"\1a" * (4 * MB) + b"\0"),
    ),
    "a GIF with a million extensions": ("content", lambda: gif(b"!\xf9\4\0\0\0\0\0" * MB)),
    "a GIF with 8 MB between blocks": ("content", lambda: gif(bytes(8 * MB))),
    "a TIFF with a tile of a billion pixels": ("large", lambda: tiled((28, 28), (32_768, 32_752))),
    "the same as a BigTIFF": ("large", lambda: tiled((28, 28), (32_768, 32_752), big=True)),
    "a TIFF of 50 megapixels in one strip of 100,000,000 bytes": (
        "large",
        lambda: tiff((10_000, 5000), {258: [16], 278: [5000], 273: [8], 279: [9]}, bytes(9)),
    ),
    "a TIFF with two million strips": (
        "content",
        lambda: tiff((28, 28), {273: bytes(8 * MB), 278: [1], 279: bytes(8 * MB)}, b"", False),
    ),
    "a TIFF with a resolution of two million values": (
        "content",
        lambda: tiff((28, 28), {273: [8], 278: [28], 279: [784], 282: bytes(8 * MB)}, bytes(784)),
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_with_more_parts_than_any_program_writes_is_refused(what: str) -> None:
    kind, make = HOSTILE[what]
    with pytest.raises(PictureError) as refusal:
        prepare([make()], ["image"])
    assert (refusal.value.kind, refusal.value.name) == (kind, "image"), refusal.value
    assert "damaged" not in str(refusal.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: jpeg((28, 28), 1),
        lambda: header(b"\xff\xe2\xff\xff" + bytes(65533)) + bytes(MB),
        lambda: gif(b"!\xfe" + b"\1a" * 1000 + b"\0"),
        lambda: tiled((28, 28), (1024, 1024)),
        lambda: tiled((28, 28), (1024, 1024), big=True),
    ],
    ids=["scans", "profile and a film after the end", "comment", "tile", "BigTIFF"],
)
def test_an_honest_file_of_that_kind_is_decoded(make: Callable[[], bytes]) -> None:
    with pytest.raises(PictureError, match="blank"):
        prepare([make()], ["image"])


def test_chunks_that_do_not_change_a_pngs_pixels_are_ignored() -> None:
    bomb = b"a\0\0" + zlib.compress(bytes(MB - 1))
    wrong = chunk(b"tEXt", b"a\0b")[:-1] + b"x"
    data = png(
        chunk(b"iCCP", bomb) * 500 + chunk(b"zTXt", bomb) * 500 + wrong + chunk(b"eXIf", b"junk")[:-1] + b"x"
    )
    assert (prepare([data], ["image"]) == prepare([SAMPLE.read_bytes()], ["image"])).all()


def test_a_png_keeps_its_transparency_and_its_rotation() -> None:
    ink = np.asarray(Image.open(SAMPLE).convert("L"))
    turned = Image.fromarray(np.rot90(ink))
    exif = Image.Exif()
    # "rotate by 90 degrees clockwise to show it"
    exif[0x0112] = 6
    palette, data = turned.quantize(4), BytesIO()
    palette.save(data, "PNG", exif=exif, transparency=palette.getpixel((0, 0)))
    assert b"tRNS" in data.getvalue()
    upright = BytesIO()
    Image.fromarray(ink).save(upright, "PNG")
    found, expected = prepare([data.getvalue(), upright.getvalue()], ["a", "b"]).astype(int)
    assert np.abs(found - expected).mean() < 4


@pytest.mark.parametrize("bits", [8, 4])
def test_a_run_length_encoded_bmp_is_read(bits: int) -> None:
    ink = np.asarray(Image.open(SAMPLE).convert("L").resize((100, 100))) // (256 >> bits)
    codes = b"".join(
        b"".join(bytes((1, value if bits == 8 else value << 4)) for value in row) + b"\0\0"
        for row in ink[::-1].tolist()
    )
    levels = (ink * (255 // ink.max())).astype(np.uint8)
    plain = BytesIO()
    Image.fromarray(levels).save(plain, "PNG")
    found, expected = prepare([rle((100, 100), codes + b"\0\1", bits), plain.getvalue()], ["a", "b"]).astype(
        int
    )
    assert np.abs(found - expected).mean() < 4


def test_decoding_takes_no_more_than_an_honest_picture_of_the_largest_size(tmp_path: Path) -> None:
    files = {
        "honest": saved((8000, 6000), "PNG"),
        "rle": rle((9999, 5000), b"\1\1\0\0" * 5000 + b"\0\1"),
        "codes": rle((28, 28), b"\0\0" * (4 * MB)),
        "scans": jpeg((4000, 4000), 90),
        "segments": header(b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)),
        "tile": tiled((28, 28), (10_000, 6000)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = """if True:
        import json, sys, time
        from pathlib import Path
        from digits.imaging import PictureError, prepare
        costs = {}
        for path in map(Path, sys.argv[1:]):
            data, begun = path.read_bytes(), time.process_time()
            try:
                prepare([data], ["image"])
            except PictureError as error:
                assert "damaged" not in str(error) or path.name == "codes", error
            costs[path.name] = time.process_time() - begun
        print(json.dumps(costs))
    """
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    costs = json.loads(done.stdout)
    assert {name for name, cost in costs.items() if cost > 4 * costs["honest"]} == set(), costs
    assert done.stderr == ""
