"""The command line of bulk.py: lists the inputs, compares them with the parts in the output folder, and has the
rest read. Exit code 0: everything was read. 1: some pictures or shards could not be read; the rows and the last
line of output say which. 2: the run could not start or lost its scheduler; the message says why. 130: the run was
stopped, and the same command resumes it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import dask
from dask.system import CPU_COUNT

from digits import compiling, model
from digits.bulk.isolated import rows_apart, start
from digits.bulk.parquet import TABLE
from digits.bulk.pictures import only
from digits.bulk.rows import Options
from digits.bulk.run import Cluster, Progress, Work, read_shards
from digits.bulk.shards import Shard, UsageError, find_shards, shown
from digits.bulk.tasks import Job, add_model
from digits.model import ModelError

MODELS = Path(__file__).resolve().parents[2] / "models"
# the number of pictures that --dry-run reads
SAMPLE = 200


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bulk.py", description="Read the digits in many pictures.")
    add = parser.add_argument
    what = "files, folders, patterns or URLs of pictures, .tar, .parquet, .jsonl, .npy or IDX files"
    add("inputs", nargs="+", help=what)
    add("--out", required=True, help="folder for the Parquet files; may be s3://... or gs://...")
    add("--read", action="store_true", help="read all digits in a picture instead of one")
    what = f"csv: also write all rows as one table, {TABLE} in --out"
    add("--format", choices=["parquet", "csv"], default="parquet", help=what)
    add("--length", type=_count, help="with --read: number of digits in each word")
    add("--check", choices=["luhn"], help="with --read: each word ends with this check digit")
    add("--sure", type=_fraction, help="probability below which an answer is unsure; default: the model's")
    what = "none: use pictures of 28x28 pixels as they are"
    add("--prepare", choices=["mnist", "none"], default="mnist", help=what)
    what = "column of Parquet, or field of JSON Lines, with the pictures; default: %(default)s"
    add("--column", default="image", help=what)
    what = "DIGITS_MODEL, or models/mnist.h5; with --read DIGITS_DETECTOR, or models/detector.h5"
    add("--model", type=Path, help=f"the .h5 of the model; default: {what}")
    what = "address of a Dask scheduler; default: DASK_SCHEDULER_ADDRESS, or processes on this machine"
    add("--scheduler", default=dask.config.get("scheduler-address", None), help=what)
    add("--workers", type=_count, help="number of processes without --scheduler; default: one per CPU")
    add("--shard", type=_count, default=1000, help="number of files per shard; default: %(default)s")
    what = "replace the output of other inputs, another model or other options"
    add("--again", action="store_true", help=what)
    add("--failed", action="store_true", help="read pictures again whose row in --out has an error")
    what = f"count the pictures, estimate the time from {SAMPLE} of them, and write nothing"
    add("--dry-run", action="store_true", help=what)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be a positive whole number")
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be a number from 0 to 1")
    return number


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    command = parser()
    given = command.parse_args(argv)
    if not given.read and (given.length or given.check):
        command.error("--length and --check need --read")
    if given.read and given.prepare != "mnist":
        command.error("--prepare can't be used with --read")
    # as on SIGINT, KeyboardInterrupt is raised
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(given)
    except (UsageError, ModelError) as error:
        print(f"bulk.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbulk.py: stopped; the same command resumes the run.", file=sys.stderr)
        return 130


def _run(given: argparse.Namespace) -> int:
    options = Options(
        given.read, given.length, given.check, given.prepare == "none", given.sure, given.column
    )
    setting, shipped = ("DIGITS_DETECTOR", "detector.h5") if given.read else ("DIGITS_MODEL", "mnist.h5")
    path = given.model or Path(os.environ.get(setting) or MODELS / shipped)
    version, detector = add_model((model.load if given.read else compiling.load)(path)), ""
    if not options.read and not options.as_is:
        detector = add_model(model.load(Path(os.environ.get("DIGITS_DETECTOR") or MODELS / "detector.h5")))
    job = Job(given.out, version, options, detector)
    parts = job.parts
    skipped = Counter[str]()
    shards = find_shards(given.inputs, given.column, given.shard, parts.input_url, skipped)
    keys = {shard.key for shard in shards}
    existing = parts.existing()
    stale = [name for name, (key, run) in existing.items() if run != parts.run or key not in keys]
    if stale and not given.again:
        raise UsageError(_why_stale(job, existing, stale))
    finished = {key: name for name, (key, run) in existing.items() if name not in stale}
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
        progress.say(f"{len(finished)} of {len(shards)} parts are already finished.")
    if skipped:
        which = ", ".join(f"{number:,} {shown(kind)}" for kind, number in skipped.most_common())
        progress.say(f"{skipped.total():,} other files skipped ({which}).")
    if work:
        cluster = Cluster(given.scheduler, given.workers)
        try:
            if given.scheduler:
                progress.say(f"dashboard: {cluster.client().dashboard_link}")
            failed = read_shards(work, job, cluster, progress)
        finally:
            cluster.close()
    if not failed:
        parts.remove(stale)
    if given.format == "csv":
        parts.write_table(options.read)
    progress.end(unread_shards=[shard.name for shard, _ in failed])
    return 1 if failed or progress.counts["failed"] else 0


def _rate(shard: Shard, job: Job) -> tuple[int, float]:
    """Read about SAMPLE pictures: (their number, seconds without the start of the process)."""
    if shard.kind == "files":
        shard = only(shard, set(shard.urls[:SAMPLE]))
    start(job)
    begun, n = time.perf_counter(), 0
    batches = rows_apart(shard, job)
    while n < SAMPLE and (rows := next(batches, None)):
        n += len(rows)
    batches.close()
    return n, time.perf_counter() - begun


def _why_stale(job: Job, existing: dict[str, tuple[str, str]], stale: list[str]) -> str:
    parts = job.parts
    other = [name for name in stale if existing[name][1] != parts.run]
    if not other:
        why = "from other inputs, or from inputs that have changed since"
    else:
        model, mine = parts.metadata(other[0])["model"], job.version
        why = f"from model {model}" if model != mine else "from other options"
        why += f"; this run has model {mine} and {job.options}"
    return (
        f"{parts.url} contains {len(stale)} parts {why}. With --again, the run replaces them: it reads what "
        "differs and then removes them."
    )


def _estimate(shards: list[Shard], work: list[Work], job: Job, workers: int) -> str:
    """The amount of work, and an estimate of its time from reading the first pictures."""
    known = sum(each.shard.pictures or 0 for each in work)
    open_ended = sum(each.shard.pictures is None for each in work)
    size = sum(each.shard.bytes for each in work)
    lines = [
        f"{len(shards):,} shards, {len(shards) - len(work):,} of them finished",
        f"{known:,} pictures" + (f" and those in {open_ended:,} files" if open_ended else ""),
        f"{size / 1e6:,.1f} MB to read",
    ]
    if work:
        n, spent = _rate(work[0].shard, job)
        rate = n / spent * workers
        source = f"estimated from {n} pictures in one process"
        lines.append(f"{rate:,.0f} pictures/s with {workers} processes, {source}")
        if known:
            lines.append(f"{known / rate:,.0f} s for the {known:,} pictures")
    return "\n".join(lines)
