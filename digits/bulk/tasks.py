"""The task that a worker runs: `read_shard` reads the pictures of a shard and writes its part. It also works
without Dask. Each process creates the network once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from digits.bulk.parquet import Parts, run_key
from digits.bulk.pictures import Item, only, read_items
from digits.bulk.rows import Options, rows_of
from digits.bulk.shards import Shard
from digits.detector import Detector
from digits.imaging.find import Locate
from digits.model import Classifier, Model
from digits.reading.search import locate


@dataclass(frozen=True)
class Job:
    """What all shards have in common. It is sent with every shard; the models, which have some megabytes, are sent
    once to every worker (run.py).

    Attributes:
        out: URL of the output folder.
        version: that of the model.
        options: those of the run.
        detector: version of the detector that locates single digits which don't stand out clearly, or "" for none.
    """

    out: str
    version: str
    options: Options
    detector: str = ""

    @property
    def parts(self) -> Parts:
        """The parts in the output folder."""
        return Parts(self.out, run_key(self.version + self.detector, self.options))

    @property
    def models(self) -> list[Model]:
        """The models that this process has for the job."""
        return [models[version] for version in (self.version, self.detector) if version]

    def networks(self) -> tuple[Classifier | Detector, Locate | None]:
        """The network, and what locates single digits."""
        detector = network(self.detector, reads=True) if self.detector else None
        located = partial(locate, detector) if isinstance(detector, Detector) else None
        return network(self.version, self.options.read), located


RowsFrom = Callable[[Shard, Job, frozenset[str] | None], Iterator[list[dict[str, Any]]]]

# the models that this process has, by their versions
models: dict[str, Model] = {}
_networks: dict[str, Classifier | Detector] = {}


def add_model(model: Model) -> str:
    """Make a model available to the jobs in this process. Returns its version."""
    models[model.version] = model
    return model.version


def network(version: str, reads: bool) -> Classifier | Detector:
    """The network of one of the models, which is created once in each process. reads: whether it is a detector,
    which reads whole pictures."""
    if version not in _networks:
        # a job has at most two
        if len(_networks) > 1:
            _networks.clear()
        _networks[version] = Detector(models[version]) if reads else Classifier(models[version])
    return _networks[version]


def rows_here(
    shard: Shard,
    job: Job,
    wanted: frozenset[str] | None = None,
    watch: Callable[[Iterator[Item]], Iterator[Item]] = iter,
    before: Callable[[str], None] = lambda path: None,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a shard's pictures in order, in lists, read in this process.

    Args:
        shard: what to read.
        job: what all shards have in common.
        wanted: paths of the pictures to read; None for all.
        watch: called with the items before they are read, and returns those to make rows of.
        before: called with the path of each picture before it is decoded.

    Raises OSError if a store fails.
    """
    options = job.options
    items = read_items(only(shard, wanted) if wanted else shard, options.column, options.read)
    selected = (item for item in items if not wanted or item.path in wanted)
    return rows_of(watch(selected), *job.networks(), options, before)


def read_shard(
    shard: Shard, job: Job, failed_of: str | None = None, rows_from: RowsFrom = rows_here
) -> dict[str, Any]:
    """Read a shard and write its part. Returns the part's metadata.

    Args:
        shard: what to read.
        job: what all shards have in common.
        failed_of: name of a finished part in which only the rows with an error are read again.
        rows_from: reads the pictures.

    Raises what `rows_from` raises.
    """
    parts, options = job.parts, job.options
    metadata = {"shard": shard.name, "model": job.version, "options": asdict(options)}
    if failed_of is None:
        return parts.write(parts.name(shard), rows_from(shard, job, None), options.schema, metadata)
    before = parts.rows(failed_of)
    failed = frozenset(row["path"] for row in before if row["error"] is not None)
    if not failed:
        return parts.metadata(failed_of)
    # if the file itself was damaged, the pictures behind the damage have no rows yet
    whole = shard.kind != "files" and not failed.isdisjoint(shard.urls)
    rows = rows_from(shard, job, None if whole else failed)
    if not whole:
        new = {row["path"]: row for batch in rows for row in batch}
        rows = iter([[new.get(row["path"], row) for row in before]])
    return parts.write(failed_of, rows, options.schema, metadata)
