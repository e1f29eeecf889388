"""The task that a worker runs: `read_shard` reads the pictures of a shard and writes its part. run.py submits
it to Dask. It also works in a process without Dask, for comparison in `make bench-bulk`. Each process creates
the network once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from digits.bulk.inputs import Shard
from digits.bulk.items import only, read_items
from digits.bulk.parts import Parts, run_key
from digits.bulk.rows import Options, rows_of
from digits.detector import Detector
from digits.model import Classifier, Model


@dataclass(frozen=True)
class Job:
    """What all shards have in common: the output folder, the model's version and the options.

    It is sent with every shard. The model has a megabyte, and is sent once to every worker (run.py)."""

    out: str
    version: str
    options: Options

    @property
    def parts(self) -> Parts:
        """The parts in the output folder."""
        return Parts(self.out, run_key(self.version, self.options))


# the models that this process has, by their versions
models: dict[str, Model] = {}
_networks: dict[str, Classifier | Detector] = {}


def add_model(model: Model) -> str:
    """Make a model available to the jobs in this process. Returns its version."""
    models[model.version] = model
    return model.version


def network(job: Job) -> Classifier | Detector:
    """The job's classifier, or its detector if it reads whole pictures, which is created once in each process."""
    if job.version not in _networks:
        _networks.clear()
        model = models[job.version]
        _networks[job.version] = Detector(model) if job.options.read else Classifier(model)
    return _networks[job.version]


def read_shard(shard: Shard, job: Job, failed_of: str | None = None) -> dict[str, Any]:
    """Read a shard and write its part. Returns the part's metadata.

    failed_of: the name of a finished part in which only the rows with an error are read again. Raises OSError if a
    store does not answer."""
    parts, options = job.parts, job.options
    metadata = {"shard": shard.name, "model": job.version, "options": asdict(options)}
    if failed_of is None:
        rows = rows_of(read_items(shard, options.column, options.read), network(job), options)
        return parts.write(parts.name(shard), rows, options.schema, metadata)
    before = parts.rows(failed_of)
    failed = {row["path"] for row in before if row["error"] is not None}
    if not failed:
        return parts.metadata(failed_of)
    # if the file itself was damaged, the pictures behind the damage have no rows yet
    whole = shard.kind != "files" and not failed.isdisjoint(shard.urls)
    items = read_items(only(shard, failed), options.column, options.read)
    selected = (item for item in items if whole or item.path in failed)
    rows = rows_of(selected, network(job), options)
    if not whole:
        new = {row["path"]: row for batch in rows for row in batch}
        rows = iter([[new.get(row["path"], row) for row in before]])
    return parts.write(failed_of, rows, options.schema, metadata)
