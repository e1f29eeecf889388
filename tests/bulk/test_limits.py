"""bulk.py with files that unpack to gigabytes or take hours: each costs its row or the rest of its file, and the
process that reads it stays within its limits. `make test-bulk` runs these tests."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from digits.bulk import isolated
from digits.bulk.isolated import rows_apart, start
from digits.bulk.rows import Options
from digits.bulk.shards import find_shards
from digits.bulk.tasks import Job, add_model, rows_here
from digits.model import load
from project import ROOT

pytestmark = pytest.mark.bulk
SAMPLES = sorted((ROOT / "digits" / "web" / "static" / "samples").glob("?.png"))
DATA = [path.read_bytes() for path in SAMPLES]
DIGITS = list(range(10))
MB = 1 << 20


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(str(tmp_path / "out"), add_model(load(ROOT / "models" / "mnist.h5")), Options())


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Ends this thread's process, because a test may have changed its limits."""
    yield
    if reader := getattr(isolated._local, "reader", None):
        reader.close()


def read_apart(job: Job, path: Path) -> list[dict[str, Any]]:
    return [
        row for shard in find_shards([str(path)], "image") for rows in rows_apart(shard, job) for row in rows
    ]


def test_rows_are_the_same_as_in_one_process(job: Job, tmp_path: Path) -> None:
    for path in SAMPLES:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "x.png").write_bytes(b"broken")
    pq.write_table(pa.table({"image": DATA}), tmp_path / "y.parquet")
    for shard in find_shards([str(tmp_path)], "image"):
        for wanted in (None, frozenset({str(tmp_path / "3.png"), f"{tmp_path / 'y.parquet'}#4"})):
            assert list(rows_apart(shard, job, wanted)) == list(rows_here(shard, job, wanted))


def test_a_value_that_stands_for_many_rows_is_not_copied_for_each(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 40 rows of 30 MB in a file of a few kilobytes
    monkeypatch.setattr(isolated, "MEMORY", 400 * MB)
    values = pa.DictionaryArray.from_arrays(
        pa.array([*DIGITS, *[10] * 40, *DIGITS]), pa.array([*DATA, bytes(30 * MB)])
    )
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"image": values}),
        path,
        compression="zstd",
        dictionary_pagesize_limit=MB << 10,
        write_statistics=False,
    )
    assert path.stat().st_size < MB
    found = read_apart(job, path)
    assert [row.get("digit") for row in found] == [*DIGITS, *[None] * 40, *DIGITS]
    assert {row["status"] for row in found[10:50]} == {415}


def test_a_value_over_the_limit_costs_its_row(job: Job, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [*DATA, bytes(60 * MB), *DATA]}), tmp_path / "a.parquet", compression="zstd"
    )
    found = read_apart(job, tmp_path / "a.parquet")
    assert [row.get("digit") for row in found] == [*DIGITS, None, *DIGITS]
    assert found[10]["status"] == 413


def test_a_file_that_needs_too_much_memory_costs_its_rest(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "MEMORY", 150 * MB)
    for name, data in (("a", [*DATA, bytes(90 * MB), *DATA]), ("b", DATA)):
        pq.write_table(
            pa.table({"image": data}), tmp_path / f"{name}.parquet", compression="zstd", row_group_size=10
        )
    found = read_apart(job, tmp_path)
    assert [row.get("digit") for row in found] == [*DIGITS, None, *DIGITS]
    assert (found[10]["path"], found[10]["status"]) == (str(tmp_path / "a.parquet"), 413)


def test_a_line_of_brackets_costs_its_row(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "MEMORY", 200 * MB)
    good = b'{"image": ' + str(np.tile([0, 200], 392).tolist()).encode() + b"}\n"
    (tmp_path / "a.jsonl").write_bytes(good + b'{"image": [' + b"[]," * (4 * MB) + b"0]}\n" + good)
    assert [row.get("status") for row in read_apart(job, tmp_path / "a.jsonl")] == [None, 413, None]


def pdf(drawing: bytes) -> bytes:
    """A page of 600x800 points. drawing: its operators."""
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(drawing), drawing),
    )
    return (
        b"%PDF-1.4\n"
        + b"".join(b"%d 0 obj%s endobj\n" % (number, each) for number, each in enumerate(objects, 1))
        + b"trailer<</Root 1 0 R>>\n%%EOF"
    )


def test_a_picture_that_takes_too_long_costs_its_row(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "SECONDS", 1)
    for path in SAMPLES[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1-slow.pdf").write_bytes(pdf(b"0 0 600 800 re f\n" * 100_000))
    found = read_apart(job, tmp_path)
    assert [Path(row["path"]).name for row in found] == ["0.png", "1-slow.pdf", "1.png", "2.png"]
    assert [row.get("status") for row in found] == [None, 422, None, None]
    assert "more than 1 s of processor time" in found[1]["error"]


def test_an_archive_that_takes_too_long_costs_its_rest(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "SECONDS", 1)
    head = io.BytesIO()
    with tarfile.open(fileobj=head, mode="w") as archive:
        for name, data in (("0.png", DATA[0]), ("1.png", DATA[1])):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        end = head.tell()
    # 5 GB in 5 MB
    large = tarfile.TarInfo("large.txt")
    large.size = 150 * 32 * MB
    path = tmp_path / "a.tgz"
    # after a full flush, what follows can be repeated
    gzipped = zlib.compressobj(wbits=31)
    begin = gzipped.compress(head.getvalue()[:end] + large.tobuf()) + gzipped.flush(zlib.Z_FULL_FLUSH)
    zeros = gzipped.compress(bytes(32 * MB)) + gzipped.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(begin + zeros * 150)
    found = read_apart(job, path)
    assert [row["path"].removeprefix(str(path)) for row in found] == ["#0.png", "#1.png", ""]
    assert [row.get("digit") for row in found] == [0, 1, None]
    assert "processor time" in found[2]["error"]


def test_the_process_ends_with_its_parent(job: Job, tmp_path: Path) -> None:
    code = """if True:
        import sys, time
        from pathlib import Path
        from digits.bulk.isolated import start
        from digits.bulk.rows import Options
        from digits.bulk.tasks import Job, add_model
        from digits.model import load
        reader = start(Job("x", add_model(load(Path(sys.argv[1]))), Options()))
        print(reader.process.pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", code, str(ROOT / "models" / "mnist.h5")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        reader = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([reader], timeout=10)
    assert not reader.is_running() or reader.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_someone_ends_costs_no_row(job: Job, tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"{i:03d}.png").write_bytes(DATA[i % 10])
    (shard,) = find_shards([str(tmp_path)], "image")
    batches = rows_apart(shard, job)
    next(batches)
    os.kill(start(job).process.pid, signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises(RuntimeError, match="has ended"):
        list(batches)
    assert len([row for rows in rows_apart(shard, job) for row in rows]) == 300
