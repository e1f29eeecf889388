"""Reads a shard's pictures one after another: `read_items` opens each kind of file and yields the name of each
picture and its content or an error. Only a few pictures are in memory at a time."""

from __future__ import annotations

import errno
import json
import tarfile
from collections import deque
from collections.abc import Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.utils import infer_compression
from PIL import Image

from digits.bulk.arrays import ArrayFile
from digits.bulk.shards import DAMAGE, Shard, grouped, is_damage, shown
from digits.imaging.formats import SUFFIXES
from digits.imaging.inputs import blank, decode_base64

# the largest picture file; the service's default limit for a request
MAX_BYTES = 32 << 20
# the same in base64, with other fields on the line
MAX_LINE = 48 << 20
# files are fetched concurrently in groups, because a remote store takes long to answer
FETCH, FETCH_BYTES = 64, 64 << 20
# the number of Parquet rows, and about the number of their bytes, that are unpacked at a time
BATCH, BATCH_BYTES = 64, 32 << 20
# shapes of pixels that need not be prepared
SHAPES = ((28, 28), (28, 28, 1), (784,))


class ItemError(Exception):
    """A picture can't be read.

    Args:
        status: the HTTP status with which the service would answer.
        detail: a sentence.
        found: what was found instead, if that helps.
    """

    def __init__(self, status: int, detail: str, found: str = "") -> None:
        super().__init__(status, detail + (f" Found: {found}." if found else ""))
        self.status, self.detail = status, self.args[1]


class Item(NamedTuple):
    """A picture: its name for output, and its bytes, its 784 pixels from 0 to 255, or the error that prevents
    reading it."""

    path: str
    value: bytes | np.ndarray | ItemError


def read_items(shard: Shard, column: str, as_pictures: bool = False) -> Iterator[Item]:
    """The shard's pictures in order.

    If a file is damaged, the pictures before the damage are followed by an item for the file with the error.

    Args:
        shard: what to read.
        column: the column of Parquet files, or the field of JSON Lines, that contains the pictures.
        as_pictures: whether to convert pixels to the bytes of a picture, too.

    Raises OSError if the store does not answer, or returns none of several files.
    """
    if shard.kind == "files":
        yield from _files(shard)
        return
    url = shown(shard.urls[0])
    try:
        for name, value in READERS[shard.kind](shard, column):
            path = f"{url}#{shown(str(name))}"
            try:
                yield Item(path, _value(value, path, as_pictures))
            except ItemError as error:
                yield Item(path, error)
    except FileNotFoundError:
        yield Item(url, ItemError(404, f"{url} no longer exists."))
    except MemoryError:
        yield Item(url, ItemError(413, f"{url} needs too much memory to be unpacked."))
    except DAMAGE as error:
        if not is_damage(error):
            raise
        yield Item(url, ItemError(422, f"{url} is damaged.", found=str(error)[:200]))


def only(shard: Shard, paths: Set[str]) -> Shard:
    """Restrict a shard to the files in `paths`, URLs or names for output. A shard from a single file is returned
    unchanged."""
    if shard.kind != "files":
        return shard
    files = zip(shard.urls, shard.sizes, shard.times, strict=True)
    urls, sizes, times = zip(
        *(file for file in files if file[0] in paths or shown(file[0]) in paths), strict=True
    )
    return replace(shard, urls=urls, sizes=sizes, times=times, pictures=len(urls))


def _files(shard: Shard) -> Iterator[Item]:
    fs = url_to_fs(shard.urls[0])[0]
    # fetch the next group while this one is processed
    with ThreadPoolExecutor(1) as thread:
        fetching = deque[Future[list[Item]]]()
        for part in grouped(shard.sizes, FETCH, FETCH_BYTES):
            sizes = dict(zip(shard.urls[part], shard.sizes[part], strict=True))
            fetching.append(thread.submit(_fetch, fs, sizes))
            if len(fetching) == 2:
                yield from fetching.popleft().result()
        yield from fetching.popleft().result()


def _fetch(fs: Any, sizes: dict[str, int]) -> list[Item]:
    """Fetch files. sizes: those of the files by URL. Raises OSError if the store returns none of several."""
    urls = [url for url, size in sizes.items() if size <= MAX_BYTES]
    # fs.cat would expand brackets in names as globs
    contents = fs.cat_ranges([fs._strip_protocol(url) for url in urls], None, None, on_error="return")
    found: dict[str, Any] = dict(zip(urls, contents, strict=True))
    items = [Item(shown(url), _content(found.get(url), shown(url), size)) for url, size in sizes.items()]
    failed = [error for error in contents if isinstance(error, Exception)]
    lost = sum(isinstance(item.value, ItemError) and item.value.status == 503 for item in items)
    if lost == len(urls) > 1:
        raise OSError(errno.EIO, f"none of {lost} files can be read: {failed[0]}")
    return items


def _content(found: bytes | Exception | None, url: str, size: int) -> bytes | ItemError:
    """The bytes of a file, or the error.

    Args:
        found: what the store returned; None for a file that is too large to be fetched.
        url: its name for output.
        size: its size in bytes.
    """
    if found is None or (isinstance(found, bytes) and len(found) > MAX_BYTES):
        return _too_large(url, size if found is None else len(found))
    if isinstance(found, bytes):
        return found or ItemError(422, f"{url} is empty.", found="0 bytes")
    if isinstance(found, FileNotFoundError):
        return ItemError(404, f"{url} no longer exists.")
    if isinstance(found, PermissionError):
        return ItemError(403, f"{url} can't be read: permission denied.")
    return ItemError(503, f"{url} can't be read.", found=str(found)[:200])


def _too_large(path: str, size: int) -> ItemError:
    return ItemError(413, f"{path} has more than {MAX_BYTES} bytes.", found=f"{size} bytes")


class _Member(tarfile.TarInfo):
    """A member of an archive. Raises tarfile.ReadError for a truncated or broken header, which tarfile would
    take for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"the archive ends too early: {error}") from None


def _tar(shard: Shard, column: str) -> Iterator[tuple[str, Any]]:
    with (
        fsspec.open(shard.urls[0], "rb") as file,
        tarfile.open(fileobj=file, mode="r:*", tarinfo=_Member) as archive,
    ):
        for member in archive:
            name = member.name.rpartition("/")[2].lower()
            if not member.isfile() or name.startswith(".") or f".{name.rpartition('.')[2]}" not in SUFFIXES:
                continue
            content = archive.extractfile(member) if member.size <= MAX_BYTES else None
            yield member.name, content.read() if content else _too_large(shown(member.name), member.size)


def _parquet(shard: Shard, column: str) -> Iterator[tuple[int, Any]]:
    row = shard.row
    with fsspec.open(shard.urls[0], "rb") as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
        groups = list(range(shard.first, shard.last) if shard.last else range(file.num_row_groups))
        # one value can stand for many rows, so a few may need more memory than the file says
        for size in (_batch(file, groups, column), 1):
            skip = row - shard.row
            try:
                for batch in file.iter_batches(size, groups, columns=[column], use_threads=False):
                    for i in range(skip, len(batch)):
                        yield row, _cell(batch.column(0).slice(i, 1), row)
                        row += 1
                    skip = max(0, skip - len(batch))
                return
            except MemoryError:
                if size == 1:
                    raise


def _batch(file: pq.ParquetFile, groups: list[int], column: str) -> int:
    """The number of rows to unpack at a time, so that they have about BATCH_BYTES."""
    metadata = [file.metadata.row_group(i) for i in groups]
    chunks = [group.column(i) for group in metadata for i in range(group.num_columns)]
    # a struct has a column for each field
    size = sum(each.total_uncompressed_size for each in chunks if each.path_in_schema.split(".")[0] == column)
    rows = sum(group.num_rows for group in metadata)
    return max(1, min(BATCH, BATCH_BYTES * rows // max(size, 1)))


def _cell(cell: pa.Array, row: int) -> Any:
    """The value of an array of length 1, unless it is too large to be a picture."""
    if cell.nbytes > MAX_LINE:
        return _too_large(f"Row {row}", cell.nbytes)
    (value,) = cell.to_pylist()
    # Hugging Face's data sets store a picture as a struct with its bytes and its path
    return value.get("bytes") if isinstance(value, dict) else value


def _lines(shard: Shard, column: str) -> Iterator[tuple[int, Any]]:
    url = shard.urls[0]
    with fsspec.open(url, "rb", compression=infer_compression(url)) as file:
        row = 0
        while line := file.readline(MAX_LINE):
            value: Any
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (more := file.readline(MAX_LINE)) and not more.endswith(b"\n"):
                    pass
                value = ItemError(413, f"Line {row} has more than {MAX_LINE} bytes.")
            elif not line.strip():
                continue
            else:
                value = _of_line(line, column)
            yield row, value
            row += 1


def _of_line(line: bytes, column: str) -> Any:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        return ItemError(400, "The line is not valid JSON.", found=str(error)[:200])
    except MemoryError:
        return ItemError(413, "The line needs too much memory.")
    if not isinstance(document, dict) or column not in document:
        return ItemError(422, f"The line is not a JSON object with the field {column}.")
    return document[column]


def _array(shard: Shard, column: str) -> Iterator[tuple[int, Any]]:
    with ArrayFile(shard.urls[0]) as array:
        last = shard.last or len(array)
        yield from enumerate(array.rows(shard.first, last), shard.first)


READERS = {"tar": _tar, "parquet": _parquet, "lines": _lines, "array": _array}


def _value(value: Any, path: str, as_picture: bool) -> bytes | np.ndarray | ItemError:
    """Convert a value from a file to an Item's value: bytes and base64 are pictures, numbers are pixels.

    Raises ItemError 422 for anything else.
    """
    if isinstance(value, ItemError):
        return value
    if isinstance(value, str):
        try:
            value = decode_base64(value)
        except ValueError as error:
            raise ItemError(422, f"{path} {error}.", found=f"{len(value)} characters") from None
    if isinstance(value, bytes) and not value:
        raise ItemError(422, f"{path} is empty.", found="0 bytes")
    if isinstance(value, bytes):
        return value if len(value) <= MAX_BYTES else _too_large(path, len(value))
    if isinstance(value, np.ndarray) and value.shape not in SHAPES:
        return _picture(value, path)
    pixels = _pixels(value, path)
    return _picture(pixels.astype(np.uint8), path) if as_picture else pixels


def _pixels(value: Any, path: str) -> np.ndarray:
    """Convert a value to (28, 28) numbers from 0 to 255. Raises ItemError 422."""
    try:
        pixels = np.asarray(value)
        fits = pixels.dtype.kind in "uif" and pixels.shape in SHAPES
    except ValueError:
        fits = False
    if not fits:
        detail = f"{path} is neither a picture nor 28x28 numbers."
        raise ItemError(422, detail, found=type(value).__name__)
    # the comparisons also exclude NaN
    if not ((pixels >= 0) & (pixels <= 255)).all():
        raise ItemError(422, f"{path} contains numbers outside 0 to 255.")
    if problem := blank(pixels.reshape(1, -1)):
        found = f"values from {pixels.min():g} to {pixels.max():g}"
        raise ItemError(422, f"{path} {problem[1]}", found=found)
    return pixels.reshape(28, 28)


def _picture(pixels: np.ndarray, path: str) -> bytes:
    """Convert an array uint8 (height, width) or (height, width, 1 or 3) to the bytes of a picture."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
        found = f"{pixels.dtype} {'x'.join(map(str, pixels.shape))}"
        raise ItemError(422, f"{path} is not an 8-bit image.", found)
    data = BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels).save(data, "BMP")
    return data.getvalue()
