"""Writes and lists parts, the Parquet files of the output folder. Each part has the rows of one shard and is
written atomically. Its name ends with the key of the shard and the key of the run (model and options), so that
a listing of the folder shows which shards are finished."""

from __future__ import annotations

import csv
import hashlib
import io
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

from digits.bulk.rows import Options
from digits.bulk.shards import Shard, UsageError

# increase it when the meaning of a row changes, so that older parts are replaced
FORMAT = 1
# a part's name: the shard's name and key, and the run's key
NAME = re.compile(r"([0-9]{6}-.+)-([0-9a-f]{16})-([0-9a-f]{8})\.parquet")
# the table of all parts. Readers of the folder's Parquet files, such as pyarrow's, leave out names with _
TABLE = "_digits.csv"
# the number of rows in memory before they are written
MAX_BUFFERED_ROWS = 20_000


def run_key(version: str, options: Options) -> str:
    """8 hex digits: a hash of everything but the picture that a row depends on."""
    content = json.dumps([FORMAT, version, asdict(options)])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


class Parts:
    """A folder of parts, which is created with the first part. run: the key of this run.

    Raises UsageError for an address that fsspec does not support.
    """

    def __init__(self, url: str, run: str) -> None:
        self.url, self.run = url.rstrip("/"), run
        try:
            self._fs, self._folder = url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{url} can't be written: {error}") from None
        # workers write to the store as well
        self._fs.invalidate_cache()

    @property
    def input_url(self) -> str:
        """The folder's URL in the form that `find_shards` uses for inputs."""
        return str(self._fs.unstrip_protocol(self._folder)).removeprefix("file://")

    def name(self, shard: Shard) -> str:
        """The name of a shard's part."""
        return f"{shard.name}-{shard.key}-{self.run}.parquet"

    def existing(self) -> dict[str, tuple[str, str]]:
        """The parts in the folder, also those of other runs: name -> (shard key, run key). Raises UsageError."""
        try:
            names = [each.rpartition("/")[2] for each in self._fs.ls(self._folder, detail=False)]
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise UsageError(f"{self.url} can't be listed: {type(error).__name__}: {error}") from None
        return {name: (match[2], match[3]) for name in sorted(names) if (match := NAME.fullmatch(name))}

    def metadata(self, name: str) -> dict[str, Any]:
        """A part's metadata: shard, model, options, and the numbers of pictures, failed and unsure ones."""
        with self._fs.open(f"{self._folder}/{name}", "rb") as file:
            return json.loads(pq.read_metadata(file).metadata[b"digits"])

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A part's rows."""
        with self._fs.open(f"{self._folder}/{name}", "rb") as file:
            return pq.read_table(file).to_pylist()

    def write(
        self, name: str, batches: Iterable[list[dict[str, Any]]], schema: pa.Schema, metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """Write a part atomically; an older part of that name stays in place until the new one is complete.

        metadata: stored in the part, after adding the numbers of pictures, failed and unsure ones. Returns it.
        """
        local = isinstance(self._fs, LocalFileSystem)
        # in the output folder, so that renaming is atomic; for a remote store, in a local file until it is
        # complete
        folder = self._folder if local else tempfile.gettempdir()
        temporary = Path(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
        self._fs.makedirs(self._folder, exist_ok=True)
        try:
            counts = {"pictures": 0, "failed": 0, "unsure": 0}
            buffered: list[dict[str, Any]] = []
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for batch in batches:
                    counts["pictures"] += len(batch)
                    counts["failed"] += sum("error" in row and row["error"] is not None for row in batch)
                    counts["unsure"] += sum(bool(row.get("unsure")) for row in batch)
                    buffered += batch
                    if len(buffered) >= MAX_BUFFERED_ROWS:
                        writer.write_table(pa.Table.from_pylist(buffered, schema))
                        buffered = []
                writer.write_table(pa.Table.from_pylist(buffered, schema))
                metadata = metadata | counts
                writer.add_key_value_metadata({"digits": json.dumps(metadata)})
            if local:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(Path(self._folder, name))
            else:
                self._fs.put_file(str(temporary), f"{self._folder}/{name}")
        finally:
            temporary.unlink(missing_ok=True)
        return metadata

    def write_table(self, reads: bool) -> None:
        """Write all parts of this run as a CSV table, TABLE: a row for each picture, or if `reads`, for each line
        of a picture, and one without a line for a picture without digits."""
        line = ("line", "text", "probability", "unsure") if reads else ("digit", "probability", "unsure")
        table = io.StringIO()
        cells = csv.DictWriter(table, ("path", *line, "error", "status", "model"), extrasaction="ignore")
        cells.writeheader()
        temporary = f"{self._folder}/.{TABLE}.{uuid.uuid4().hex[:8]}.tmp"
        local = isinstance(self._fs, LocalFileSystem)
        # a store shows an upload when it is complete
        with self._fs.open(temporary if local else f"{self._folder}/{TABLE}", "wb") as file:
            for name, (_, run) in self.existing().items():
                for row in self.rows(name) if run == self.run else ():
                    lines = row.get("lines") or [row | {"probability": None}] if reads else [row]
                    for number, each in enumerate(lines, 1):
                        shown = row | each | ({"line": number} if row.get("lines") else {})
                        # true and false, as in JSON
                        cells.writerow({**shown, "unsure": json.dumps(shown["unsure"]).replace("null", "")})
                file.write(table.getvalue().encode())
                table.seek(0)
                table.truncate()
        if local:
            Path(temporary).replace(Path(self._folder, TABLE))

    def remove(self, names: Iterable[str]) -> None:
        """Remove parts, and unfinished files that killed workers left."""
        for name in names:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._folder}/{name}")
        if isinstance(self._fs, LocalFileSystem):
            for left in Path(self._folder).glob(".*.tmp"):
                if re.fullmatch(rf"\.{NAME.pattern}\.[0-9a-f]{{8}}\.tmp", left.name):
                    left.unlink(missing_ok=True)
