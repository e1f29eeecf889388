"""The output: a folder of Parquet files, one a shard, each there whole or not at all. A part's name ends with
the key of its shard and the key of the run (model and options), so that one listing tells what is done.
tasks.py writes parts in a worker, cli.py looks what is there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from digits.bulk.inputs import Shard, UsageError
from digits.bulk.rows import Options

# what a row means: a new number where that changes, and older parts are read again
FORMAT = 1
NAME = re.compile(r"([0-9]{6}-.+)-([0-9a-f]{16})-([0-9a-f]{8})\.parquet")
# rows that are held before they are written
HELD = 20_000


def run_key(version: str, options: Options) -> str:
    """8 hex digits of all that a row depends on beside its picture."""
    told = json.dumps([FORMAT, version, asdict(options)])
    return hashlib.sha256(told.encode()).hexdigest()[:8]


class Parts:
    """A folder of parts, made with the first of them. run: the key of the parts that are written.

    Raises UsageError for an address that fsspec does not know.
    """

    def __init__(self, url: str, run: str) -> None:
        self.url, self.run = url.rstrip("/"), run
        try:
            self._fs, self._folder = url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{url} can't be written: {error}") from None
        # a store that others write to is looked at anew
        self._fs.invalidate_cache()

    @property
    def place(self) -> str:
        """The folder as inputs are named."""
        return str(self._fs.unstrip_protocol(self._folder)).removeprefix("file://")

    def name(self, shard: Shard) -> str:
        """What a shard's part is called."""
        return f"{shard.name}-{shard.key}-{self.run}.parquet"

    def there(self) -> dict[str, tuple[str, str]]:
        """The parts' names, of any run: the keys of their shard and run. Raises UsageError."""
        try:
            names = [each.rpartition("/")[2] for each in self._fs.ls(self._folder, detail=False)]
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise UsageError(f"{self.url} can't be listed: {type(error).__name__}: {error}") from None
        return {name: (match[2], match[3]) for name in sorted(names) if (match := NAME.fullmatch(name))}

    def about(self, name: str) -> dict[str, Any]:
        """What a part tells of itself: model, options, pictures, failed."""
        with self._fs.open(f"{self._folder}/{name}", "rb") as file:
            found: dict[str, Any] = json.loads(pq.read_metadata(file).metadata[b"digits"])
        return found

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A part's rows."""
        with self._fs.open(f"{self._folder}/{name}", "rb") as file:
            found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return found

    def write(
        self, name: str, batches: Iterable[list[dict[str, Any]]], schema: pa.Schema, about: dict[str, Any]
    ) -> dict[str, Any]:
        """Write a part whole: what was there by its name is there until the new one is.

        about: what the part is to tell of itself; the numbers of pictures, failed and unsure ones are added.
        Returns it.
        """
        local = isinstance(self._fs, LocalFileSystem)
        # beside its place, where renaming is one step; for a store, here until it is sent as one upload
        folder = self._folder if local else tempfile.gettempdir()
        beside = Path(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
        self._fs.makedirs(self._folder, exist_ok=True)
        try:
            counts = {"pictures": 0, "failed": 0, "unsure": 0}
            held: list[dict[str, Any]] = []
            with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
                for batch in batches:
                    counts["pictures"] += len(batch)
                    counts["failed"] += sum("error" in row and row["error"] is not None for row in batch)
                    counts["unsure"] += sum(bool(row.get("unsure")) for row in batch)
                    held += batch
                    if len(held) >= HELD:
                        writer.write_table(pa.Table.from_pylist(held, schema))
                        held = []
                writer.write_table(pa.Table.from_pylist(held, schema))
                about = about | counts
                writer.add_key_value_metadata({"digits": json.dumps(about)})
            if local:
                with beside.open("rb") as file:
                    os.fsync(file.fileno())
                beside.replace(Path(self._folder, name))
            else:
                self._fs.put_file(str(beside), f"{self._folder}/{name}")
        finally:
            beside.unlink(missing_ok=True)
        return about

    def remove(self, names: Iterable[str]) -> None:
        """Remove parts, and what workers that were killed left half written."""
        for name in names:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._folder}/{name}")
        if isinstance(self._fs, LocalFileSystem):
            for left in Path(self._folder).glob(".*.tmp"):
                if re.fullmatch(rf"\.{NAME.pattern}\.[0-9a-f]{{8}}\.tmp", left.name):
                    left.unlink(missing_ok=True)
