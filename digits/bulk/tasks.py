"""What a worker does, one shard at a time: `read_shard` reads its pictures and writes its part. run.py
submits it to Dask; it is the same in a process without Dask, which `make bench-bulk` measures. The network is
built once a process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from digits.bulk.inputs import Shard
from digits.bulk.items import only, read_items
from digits.bulk.parts import Parts, run_key
from digits.bulk.rows import Options, rows_of
from digits.model import Classifier, Model


@dataclass(frozen=True)
class Job:
    """What is the same for all shards: the folder for the output, the model, and what is done with a picture.

    It goes with every shard, a megabyte or so: a worker that joins late, or after the scheduler was started
    anew, needs nothing else."""

    out: str
    model: Model
    options: Options

    @property
    def parts(self) -> Parts:
        """The output."""
        return Parts(self.out, run_key(self.model.version, self.options))


_classifiers: dict[str, Classifier] = {}


def classifier(model: Model) -> Classifier:
    """The model, ready to run; built once in a process."""
    if model.version not in _classifiers:
        _classifiers.clear()
        _classifiers[model.version] = Classifier(model)
    return _classifiers[model.version]


def read_shard(shard: Shard, job: Job, failed_of: str | None = None) -> dict[str, Any]:
    """Read a shard and write its part; what the part tells of itself.

    failed_of: the name of a finished part, of which only the rows with an error are read again. Raises
    OSError if a store does not answer."""
    parts, options = job.parts, job.options
    about = {"shard": shard.name, "model": job.model.version, "options": asdict(options)}
    if failed_of is None:
        found = rows_of(read_items(shard, options.column, options.read), classifier(job.model), options)
        return parts.write(parts.name(shard), found, options.schema, about)
    before = parts.rows(failed_of)
    failed = {row["path"] for row in before if row["error"] is not None}
    if not failed:
        return parts.about(failed_of)
    # where the file itself was damaged, what is behind the damage has no row yet
    whole = shard.kind != "files" and not failed.isdisjoint(shard.urls)
    items = read_items(only(shard, failed), options.column, options.read)
    wanted = (item for item in items if whole or item.path in failed)
    again = rows_of(wanted, classifier(job.model), options)
    if not whole:
        now = {row["path"]: row for batch in again for row in batch}
        again = iter([[now.get(row["path"], row) for row in before]])
    return parts.write(failed_of, again, options.schema, about)
