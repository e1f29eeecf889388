"""Divides the inputs into shards: `find_shards` makes them from globs, folders and files on any file system
that fsspec supports. Each shard is read by one worker and becomes one part of the output. A shard is a thousand
picture files, a tar or JSON Lines file, some row groups of a Parquet file, or some rows of an array."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import tarfile
import tokenize
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from posixpath import basename, dirname
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from digits.bulk.arrays import ArrayFile
from digits.imaging.formats import SUFFIXES

# files with many pictures, by the ends of their names
KINDS = {
    "tar": re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz)$"),
    "parquet": re.compile(r"\.(parquet|pq)$"),
    "lines": re.compile(r"\.(jsonl|ndjson)(\.gz)?$"),
    # MNIST's own names; its labels are idx1
    "array": re.compile(r"(\.npy|[.-]idx[34]-ubyte(\.gz)?|\.idx(\.gz)?)$"),
}
# folders that systems make beside pictures, in addition to hidden ones
SYSTEM_FOLDERS = ("@eaDir", "__MACOSX")
# the names under which fsspec's file systems report when a file was last changed
TIMES = ("ETag", "etag", "mtime", "LastModified", "updated", "last_modified")
# the number of rows of a Parquet file or an array in a shard
ROWS = 10_000
# the total size of the picture files in a shard
SHARD_BYTES = 256 << 20

# what reading a damaged file raises
DAMAGE = (
    ValueError,
    SyntaxError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
    tarfile.TarError,
    pa.ArrowException,
    OSError,
)


def is_damage(error: BaseException) -> bool:
    """Whether an exception of DAMAGE means that the file is damaged. Only if its store failed, it has an errno."""
    return not isinstance(error, OSError) or error.errno is None


def shown(name: str) -> str:
    """The name of a file for output: bytes that are not UTF-8 are written as escapes, as in \\udce9."""
    return name.encode(errors="backslashreplace").decode()


class UsageError(Exception):
    """The command can't be carried out. The message says why, and what to do."""


@dataclass(frozen=True)
class Shard:
    """The unit of work of one worker.

    Attributes:
        name: the shard's number, followed by the name of the first file's folder or of the file.
        kind: files, or one of KINDS.
        urls, sizes, times: those of its files; the times as the store reports them.
        first, last: range of an array's rows or of a Parquet file's row groups, from 0 and without `last`.
        row: number of the first row.
        pictures: number of pictures; None if it is not known in advance.
        bytes: size of the files, or of the shard's part of them.
    """

    name: str
    kind: str
    urls: tuple[str, ...]
    sizes: tuple[int, ...]
    times: tuple[str, ...]
    first: int = 0
    last: int = 0
    row: int = 0
    pictures: int | None = None
    bytes: int = 0

    @property
    def key(self) -> str:
        """16 hex digits: a hash of the names, sizes and times of the shard's files, and of its rows."""
        content = asdict(self)
        del content["name"]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _File:
    url: str
    size: int
    time: str

    @property
    def kind(self) -> str:
        name = self.url.lower()
        return next((kind for kind, pattern in KINDS.items() if pattern.search(name)), "files")


def find_shards(
    inputs: list[str],
    column: str,
    pictures: int = 1000,
    without: str = "",
    skipped: Counter[str] | None = None,
) -> list[Shard]:
    """Divide everything that `inputs` name into shards, sorted by name.

    Args:
        inputs: URLs, paths or globs of files and folders.
        column: the column of Parquet files that contains the pictures.
        pictures: number of picture files in a shard.
        without: the output folder, which is skipped.
        skipped: counts the suffixes of files that are not read.

    Raises UsageError for an input that does not exist or contains no pictures, and for a Parquet file without the
    column.
    """
    found: dict[str, _File] = {}
    for given in inputs:
        files = list(_files(given, without, Counter() if skipped is None else skipped))
        if not files and without and os.path.realpath(given) == os.path.realpath(without):
            raise UsageError(f"{given} is the output folder. Set --out to another one.")
        if not files:
            raise UsageError(f"{given} contains nothing to read.")
        found |= {file.url: file for file in files}
    shards: list[Shard] = []
    in_order = sorted(found.values(), key=lambda file: (file.kind != "files", file.url))
    for (kind, folder), group in groupby(in_order, key=lambda file: (file.kind, dirname(file.url))):
        if kind == "files":
            files, stem = list(group), basename(folder)
            slices = grouped([file.size for file in files], pictures, SHARD_BYTES)
            parts: Iterable[dict[str, Any]] = (_together(files[each]) for each in slices)
        else:
            parts, stem = (part for file in group for part in _of_file(file, kind, column)), ""
        for part in parts:
            name = re.sub(r"[^A-Za-z0-9]+", "-", stem or basename(part["urls"][0])).strip("-")[:60]
            shards.append(Shard(f"{len(shards):06d}-{name or 'pictures'}", kind, **part))
    return shards


def _files(given: str, without: str, skipped: Counter[str]) -> Iterator[_File]:
    try:
        fs, path = url_to_fs(given)
        # in a web address, a question mark begins the query
        signs = "*[" if "http" in fs.protocol else "*?["
        chosen, top = False, path
        # the name of a file may contain these characters
        if any(sign in path for sign in signs) and not fs.exists(path):
            listed, top = fs.glob(path, detail=True), re.split(r"[*?\[]", path)[0].rpartition("/")[0]
        elif isinstance(fs, LocalFileSystem) and fs.isdir(path):
            listed = {name: fs.info(name) for name in _local(path)}
        elif fs.isdir(path):
            listed = fs.find(path, detail=True)
        else:
            listed, chosen = {path: fs.info(path)}, True
    except FileNotFoundError:
        raise UsageError(f"{given} does not exist.") from None
    except Exception as error:
        # each store has its own exceptions, mostly for missing credentials
        raise UsageError(f"{given} can't be listed: {type(error).__name__}: {error}") from None
    for name, info in sorted(listed.items()):
        inside = name.removeprefix(top).split("/")
        if not chosen and any(part.startswith(".") or part in SYSTEM_FOLDERS for part in inside):
            continue
        url = str(fs.unstrip_protocol(name)).removeprefix("file://")
        if info["type"] != "file" or (without and url.startswith(f"{without}/")):
            continue
        time = next((str(info[key]) for key in TIMES if info.get(key) is not None), "")
        file = _File(url, int(info.get("size") or 0), time)
        ending = "." + basename(url).lower().rpartition(".")[2]
        # other files in folders are skipped; a file that the command line names is always read
        if chosen or file.kind != "files" or ending in SUFFIXES:
            yield file
        else:
            skipped[ending if "." in basename(url) else "without a suffix"] += 1


def _local(top: str) -> Iterator[str]:
    """The files in a folder and below, also in linked folders, each folder once."""
    seen = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        # a link to nothing can't be read
        yield from (path for name in files if os.path.isfile(path := os.path.join(folder, name)))


def grouped(sizes: Sequence[int], most: int, most_size: int) -> Iterator[slice]:
    """Divide a list into consecutive slices.

    Args:
        sizes: of the items.
        most: number of items in a slice.
        most_size: total size of a slice; a larger item gets a slice of its own.
    """
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and (i - start == most or total + size > most_size):
            yield slice(start, i)
            start, total = i, 0
        total += size
    yield slice(start, len(sizes))


def _together(files: list[_File]) -> dict[str, Any]:
    sizes = tuple(file.size for file in files)
    return {
        "urls": tuple(file.url for file in files),
        "sizes": sizes,
        "times": tuple(file.time for file in files),
        "pictures": len(files),
        "bytes": sum(sizes),
    }


def _of_file(file: _File, kind: str, column: str) -> Iterator[dict[str, Any]]:
    """Divide a file with many pictures into parts, or return it whole if that is not possible."""
    whole = _together([file]) | {"pictures": None}
    try:
        if kind == "parquet":
            parts = list(_row_groups(file.url, column))
        elif kind == "array":
            with ArrayFile(file.url) as array:
                n = len(array) if array.divisible and array.size <= (file.size or array.size) else 0
                parts = [(a, min(a + ROWS, n), a, min(ROWS, n - a)) for a in range(0, n, ROWS)]
        else:
            parts = []
    except DAMAGE as error:
        if not is_damage(error):
            raise UsageError(f"{file.url} can't be read: {error}") from None
        # reading it will give a row with the error
        parts = []
    if not parts:
        yield whole
    total = sum(rows for _, _, _, rows in parts)
    for first, last, row, rows in parts:
        share = file.size * rows // max(total, 1)
        yield whole | {"first": first, "last": last, "row": row, "pictures": rows, "bytes": share}


def _row_groups(url: str, column: str) -> Iterator[tuple[int, int, int, int]]:
    """Divide a Parquet file's row groups into ranges: (first, last + 1, number of the first row, rows)."""
    with fsspec.open(url, "rb") as opened, pq.ParquetFile(opened) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise UsageError(f"{url} has no column {column}. Set --column to one of {', '.join(names)}.")
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if any(sizes):
        for part in grouped(sizes, len(sizes), ROWS):
            yield part.start, part.stop, sum(sizes[: part.start]), sum(sizes[part])
