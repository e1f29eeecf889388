"""What bulk.py does: reads the command line, lists the inputs, compares them with what the output folder
holds, and has the rest read. Exit code 0: all is read. 1: some pictures or shards could not be; the rows say
which. 2: nothing was done, and the message says why. 130: stopped; the same command resumes the run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import dask
from dask.system import CPU_COUNT

from digits.bulk.inputs import Shard, UsageError, find_shards
from digits.bulk.items import first_items
from digits.bulk.rows import Options, rows_of
from digits.bulk.run import Cluster, Progress, Work, read_shards
from digits.bulk.tasks import Job, classifier
from digits.model import ModelError, load

MODEL = Path(__file__).resolve().parents[2] / "models" / "mnist.h5"
# read for an estimate
SAMPLE = 200


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bulk.py", description="Reads the digits in many pictures.")
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        help="files, folders and globs: pictures, .tar, .parquet, .jsonl, .npy, IDX; URLs too",
    )
    add("--out", required=True, help="folder for the Parquet files, also s3://... or gs://...")
    add("--read", action="store_true", help="read all digits of a picture, not one")
    add("--length", type=_count, help="with --read: each line has so many digits")
    add("--check", choices=["luhn"], help="with --read: each line ends with a check digit")
    add("--sure", type=_share, help="probability below which an answer is unsure; by default the model's")
    add(
        "--prepare",
        choices=["mnist", "none"],
        default="mnist",
        help="none: take pictures of 28x28 as they are",
    )
    add(
        "--column",
        default="image",
        help="of Parquet and JSON lines, which holds the pictures; default: image",
    )
    add(
        "--model", type=Path, default=Path(os.environ.get("DIGITS_MODEL") or MODEL), help="the .h5 that reads"
    )
    address = dask.config.get("scheduler-address", None)
    add(
        "--scheduler",
        default=address,
        help="address of a Dask scheduler; by default, processes of this machine",
    )
    add("--workers", type=_count, help="how many processes, without --scheduler; by default one a CPU")
    add("--shard", type=_count, default=1000, help="files that one worker reads at a time; default: 1000")
    add(
        "--again",
        action="store_true",
        help="replace what another model, other options or inputs left in --out",
    )
    add("--failed", action="store_true", help="also read again the rows of finished parts that have an error")
    add("--dry-run", action="store_true", help="count, and estimate the time; read and write nothing")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a whole number from 1 is wanted")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("a number from 0 to 1 is wanted")
    return number


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    command = parser()
    given = command.parse_args(argv)
    if not given.read and (given.length or given.check):
        command.error("--length and --check go with --read")
    if given.read and given.prepare != "mnist":
        command.error("--prepare goes without --read")
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _run(given)
    except (UsageError, ModelError) as error:
        print(f"bulk.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbulk.py: stopped; the same command resumes the run.", file=sys.stderr)
        return 130


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _run(given: argparse.Namespace) -> int:
    options = Options(
        given.read, given.length, given.check, given.prepare == "none", given.sure, given.column
    )
    job = Job(given.out, load(given.model), options)
    parts = job.parts
    shards = find_shards(given.inputs, given.column, given.shard, parts.place)
    keys = {shard.key for shard in shards}
    there = parts.there()
    stale = [name for name, (key, run) in there.items() if run != parts.run or key not in keys]
    if stale and not given.again:
        raise UsageError(_why_stale(job, there, stale))
    finished = {key: name for name, (key, run) in there.items() if name not in stale}
    work = [Work(shard) for shard in shards if shard.key not in finished]
    if given.failed:
        work += [Work(shard, finished[shard.key]) for shard in shards if shard.key in finished]
    if given.dry_run:
        print(_estimate(shards, work, job, given.workers or CPU_COUNT))
        return 0
    known = [each.shard.pictures for each in work]
    total = None if None in known else sum(filter(None, known))
    failed: list[tuple[Shard, str]] = []
    progress = Progress(work, total)
    if len(finished) and not given.failed:
        progress.say(f"{len(finished)} of {len(shards)} parts are there from before.")
    if work:
        cluster = Cluster(given.scheduler, given.workers)
        try:
            progress.say(f"dashboard: {cluster.client().dashboard_link}")
            failed = read_shards(work, job, cluster, progress)
        finally:
            cluster.close()
    if not failed:
        parts.remove(stale)
    progress.end(unread_shards=[shard.name for shard, _ in failed])
    return 1 if failed or progress.counts["failed"] else 0


def _why_stale(job: Job, there: dict[str, tuple[str, str]], stale: list[str]) -> str:
    parts = job.parts
    other = [name for name in stale if there[name][1] != parts.run]
    if not other:
        why = "of inputs that are not these, or have changed since"
    else:
        about = parts.about(other[0])
        mine = job.model.version
        model = f"model {about['model']}" if about["model"] != mine else "other options"
        why = f"of {model}, and this run is with model {mine} and {job.options}"
    return f"{parts.url} holds {len(stale)} parts {why}. --again reads anew and then removes them."


def _estimate(shards: list[Shard], work: list[Work], job: Job, workers: int) -> str:
    """What is to be read, and how long that takes by the first pictures of it."""
    known = sum(each.shard.pictures or 0 for each in work)
    open_ended = sum(each.shard.pictures is None for each in work)
    size = sum(each.shard.bytes for each in work)
    lines = [
        f"{len(shards):,} shards, {len(shards) - len(work):,} of them done",
        f"{known:,} pictures" + (f" and those in {open_ended:,} files" if open_ended else ""),
        f"{size / 1e6:,.1f} MB to read",
    ]
    if work:
        shard, options = work[0].shard, job.options
        network = classifier(job.model)
        begun = time.perf_counter()
        items = first_items(shard, options.column, options.read, SAMPLE)
        n = sum(len(rows) for rows in rows_of(items, network, options))
        spent = time.perf_counter() - begun
        rate = n / spent * workers
        lines.append(f"{rate:,.0f} pictures/s by {workers} processes, as the first {n} were read by one")
        if known:
            lines.append(f"{known / rate:,.0f} s for those that are counted")
    return "\n".join(lines)
