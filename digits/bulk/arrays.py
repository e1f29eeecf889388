"""Reads the images in a .npy file or a file in MNIST's IDX format, both optionally compressed. It reads them in
chunks, so that many workers can share a file that does not fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import fsspec
import numpy as np
from fsspec.utils import infer_compression

# IDX's third byte (yann.lecun.com/exdb/mnist, "The IDX file format"); its numbers are big-endian
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# the size of a chunk; larger images are refused
CHUNK_BYTES = 32 << 20


class ArrayFile(AbstractContextManager["ArrayFile"]):
    """An open file with an array of images. Its `len` is the number of images.

    divisible: whether a part can be read without reading everything before it; false for compressed files.
    Raises ValueError for another format, OSError if the file can't be read."""

    def __init__(self, url: str) -> None:
        compression = infer_compression(url)
        self.divisible = compression is None
        self._opened = fsspec.open(url, "rb", compression=compression)
        self._file: Any = self._opened.open()
        try:
            self._shape, self._dtype = self._header()
            self._start = self._file.tell()
            if len(self._shape) < 2 or self._dtype.hasobject or not 0 < self._row_bytes <= CHUNK_BYTES:
                raise ValueError(f"not an array of images, but {self._dtype} {self._shape}")
        except BaseException:
            self._file.close()
            raise

    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        magic = self._file.read(4)
        if magic[:2] == b"\0\0" and len(magic) == 4 and magic[2] in IDX_TYPES:
            sizes = self._file.read(4 * magic[3])
            return tuple(np.frombuffer(sizes, ">u4").tolist()), np.dtype(IDX_TYPES[magic[2]])
        self._file.seek(0)
        numpy = np.lib.format
        version = numpy.read_magic(self._file)
        read = numpy.read_array_header_1_0 if version == (1, 0) else numpy.read_array_header_2_0
        shape, by_columns, dtype = read(self._file)
        if by_columns:
            raise ValueError("the array must be in C order, not in Fortran order")
        return shape, dtype

    @property
    def _row_bytes(self) -> int:
        return math.prod(self._shape[1:]) * self._dtype.itemsize

    @property
    def size(self) -> int:
        """The uncompressed size of the file in bytes, according to its header."""
        return int(self._start + len(self) * self._row_bytes)

    def __len__(self) -> int:
        return self._shape[0]

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def rows(self, first: int, last: int) -> Iterator[np.ndarray]:
        """The images from `first` up to, but not including, `last`. Raises ValueError where the file ends
        early."""
        if first:
            self._file.seek(self._start + first * self._row_bytes)
        chunk = CHUNK_BYTES // self._row_bytes
        for start in range(first, last, chunk):
            n = min(chunk, last - start)
            data = self._file.read(n * self._row_bytes)
            whole = len(data) // self._row_bytes
            values = np.frombuffer(data[: whole * self._row_bytes], self._dtype)
            yield from values.reshape(whole, *self._shape[1:])
            if whole < n:
                raise ValueError(f"the file ends after {start + whole} of {len(self)} images")
