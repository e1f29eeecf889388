"""tests/corpus.zip: raw requests that reached code which no other reached, or that failed once.

make corpus FILES="tmp/fuzz-found/crash-..."   # add files
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from project import ROOT

ARCHIVE = ROOT / "tests" / "corpus.zip"


def read(archive: Path = ARCHIVE) -> dict[str, bytes]:
    """Each request by its SHA-1, in order."""
    with ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def packed(requests: Iterable[bytes]) -> bytes:
    """An archive, which is the same for the same requests: sorted, without dates, and not compressed."""
    named = {hashlib.sha1(raw, usedforsecurity=False).hexdigest(): raw for raw in requests}
    file = io.BytesIO()
    with ZipFile(file, "w") as opened:
        for name, raw in sorted(named.items()):
            opened.writestr(ZipInfo(name), raw)
    return file.getvalue()


def add(files: list[Path], archive: Path = ARCHIVE) -> None:
    """Add files to the archive."""
    known = read(archive).values()
    archive.write_bytes(packed([*known, *(file.read_bytes() for file in files)]))


if __name__ == "__main__":
    add([Path(name) for name in sys.argv[1:]])
    print(f"{ARCHIVE.name} has {len(read())} requests")
