"""bulk.py without a cluster: how inputs are listed and divided into shards, what is read from each kind of file,
damaged pictures, the output, and resuming a run. `make test-bulk` runs these tests."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image

from digits.bulk import cli, pictures, run
from digits.bulk.parquet import Parts
from digits.bulk.rows import Options
from digits.bulk.shards import UsageError, find_shards
from digits.bulk.tasks import Job, add_model, network, read_shard
from digits.imaging import PictureError, prepare
from digits.model import Classifier, load
from project import ROOT

pytestmark = pytest.mark.bulk
SAMPLES = sorted((ROOT / "digits" / "web" / "static" / "samples").glob("?.png"))
DATA = [path.read_bytes() for path in SAMPLES]
DIGITS = list(range(10))


@pytest.fixture(scope="module")
def model() -> Any:
    return load(ROOT / "models" / "mnist.h5")


@pytest.fixture
def job(model: Any, tmp_path: Path) -> Job:
    detector = add_model(load(ROOT / "models" / "detector.h5"))
    return Job(str(tmp_path / "out"), add_model(model), Options(), detector)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with the ten samples."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for path, data in zip(SAMPLES, DATA, strict=True):
        (folder / path.name).write_bytes(data)
    return folder


@pytest.fixture
def run_bulk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs bulk.py's command line, with shards read one after another in this process."""

    def read_shards(work: Any, job: Job, cluster: Any, progress: Any) -> list[Any]:
        for each in work:
            progress.finished(each.shard, read_shard(each.shard, job, each.failed_of))
        return []

    class NoCluster:
        def __init__(self, *_: Any) -> None: ...
        def close(self) -> None: ...
        def client(self) -> NoCluster:
            return self

        dashboard_link = ""

    monkeypatch.setattr(cli, "read_shards", read_shards)
    monkeypatch.setattr(cli, "Cluster", NoCluster)
    return lambda *words: cli.main([str(word) for word in words])


def rows(out: Path | str) -> list[dict[str, Any]]:
    """All rows of an output folder, sorted by path."""
    found = pyarrow.dataset.dataset(str(out)).to_table().to_pylist()
    return sorted(found, key=lambda row: row["path"])


def read_all(job: Job, *inputs: Path | str, **words: Any) -> list[dict[str, Any]]:
    """Read the inputs in this process and return their rows."""
    for shard in find_shards([str(each) for each in inputs], job.options.column, **words):
        read_shard(shard, job)
    return rows(job.out)


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def pack(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# --- inputs --------------------------------------------------------------------------------------------------


def test_all_pictures_in_a_folder_are_read_and_other_files_are_skipped(scans: Path) -> None:
    (scans / "deeper").mkdir()
    (scans / "deeper" / "x.JPG").write_bytes(DATA[0])
    (scans / "notes.txt").write_text("no picture")
    (scans / "labels-idx1-ubyte").write_bytes(b"")
    urls = [url for shard in find_shards([str(scans)], "image") for url in shard.urls]
    assert urls == [*(str(scans / path.name) for path in SAMPLES), str(scans / "deeper" / "x.JPG")]


def test_globs_and_files_with_brackets_in_their_names_are_found(job: Job, scans: Path) -> None:
    odd = scans / "a[1].png"
    odd.write_bytes(DATA[3])
    (shard,) = find_shards([str(scans / "[0-4].png")], "image")
    assert shard.urls[-1].endswith("4.png")
    (row,) = read_all(job, odd)
    assert (row["path"], row["digit"]) == (str(odd), 3)


def test_pictures_are_divided_by_number_and_by_size(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(s.urls) for s in find_shards([str(scans)], "image", 4)] == [4, 4, 2]
    monkeypatch.setattr("digits.bulk.shards.SHARD_BYTES", 3 * max(map(len, DATA)))
    sizes = [s.bytes for s in find_shards([str(scans)], "image")]
    assert len(sizes) > 3
    assert sum(sizes) == sum(map(len, DATA))


def test_a_shards_key_changes_with_its_files_only(scans: Path) -> None:
    def keys() -> list[str]:
        return [shard.key for shard in find_shards([str(scans)], "image", 5)]

    before = keys()
    assert keys() == before
    os.utime(scans / "7.png", (1, 1))
    after = keys()
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_arrays_and_parquet_are_divided_by_rows(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digits.bulk.shards.ROWS", 4)
    images = prepare(DATA, ["x"] * 10)
    np.save(tmp_path / "a.npy", images)
    table = pa.table({"image": DATA})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=3)
    shards = find_shards([str(tmp_path / "a.npy"), str(tmp_path / "b.parquet")], "image")
    assert [(s.kind, s.row, s.pictures) for s in shards] == [
        *(("array", row, n) for row, n in ((0, 4), (4, 4), (8, 2))),
        *(("parquet", row, n) for row, n in ((0, 3), (3, 3), (6, 4))),
    ]
    found = {row["path"].rpartition("/")[2]: row["digit"] for row in read_all(job, tmp_path)}
    assert found == {f"{name}#{i}": i for name in ("a.npy", "b.parquet") for i in range(10)}


def test_missing_inputs_are_reported(
    run_bulk: Callable[..., int], scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scans.parent / "out"
    (scans.parent / "empty").mkdir()
    pq.write_table(pa.table({"scan": DATA}), scans.parent / "b.parquet")
    for given, message in (
        ([scans / "none.png"], "does not exist"),
        ([scans.parent / "empty"], "contains nothing"),
        ([scans / "*.webp"], "contains nothing"),
        ([scans.parent / "b.parquet"], "has no column image. Set --column to one of scan"),
        ([scans, "--model", scans / "none.h5"], "can't be read"),
    ):
        assert run_bulk(*given, "--out", out) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "words", [["--length", "3"], ["--read", "--prepare", "none"], ["--shard", "0"], ["--sure", "2"]]
)
def test_a_wrong_command_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["x.png", "--out", "out", *words])
    assert stopped.value.code == 2


# --- kinds of files ------------------------------------------------------------------------------------------


def jsonl(values: list[Any]) -> bytes:
    return b"\n".join(json.dumps({"image": value}).encode() for value in values)


def every_kind(folder: Path) -> Path:
    """A folder with the ten samples in each kind of file."""
    images = prepare(DATA, ["x"] * 10)
    text = [base64.b64encode(data).decode() for data in DATA]
    folder.mkdir()
    members = {path.name: data for path, data in zip(SAMPLES, DATA, strict=True)}
    whole = pack(folder / "a.tar", members).read_bytes()
    for name, compression in (("a.tgz", "gz"), ("a.tar.bz2", "bz2"), ("a.tar.xz", "xz")):
        pack(folder / name, members, f"w:{compression}")
    # pigz, bgzip and `cat a.gz b.gz` write several streams
    (folder / "b.tgz").write_bytes(gzip.compress(whole[:5000]) + gzip.compress(whole[5000:]))
    pq.write_table(pa.table({"image": DATA}), folder / "c.parquet")
    pq.write_table(pa.table({"image": [{"bytes": data, "path": "x"} for data in DATA]}), folder / "d.parquet")
    pq.write_table(pa.table({"image": text}), folder / "e.parquet")
    pq.write_table(pa.table({"image": images.reshape(10, 784).tolist()}), folder / "f.parquet")
    (folder / "g.jsonl").write_bytes(jsonl(text))
    (folder / "h.jsonl.gz").write_bytes(gzip.compress(jsonl(images.tolist())))
    np.save(folder / "i.npy", images.astype(np.float64)[..., None])
    large = [np.asarray(Image.open(path).convert("L").resize((120, 120))) for path in SAMPLES]
    np.save(folder / "j.npy", np.stack(large))
    idx = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes() + images.tobytes()
    (folder / "k-images-idx3-ubyte").write_bytes(idx)
    (folder / "l-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    return folder


def test_every_kind_of_file_gives_the_same_digits(job: Job, tmp_path: Path) -> None:
    folder = every_kind(tmp_path / "in")
    found = read_all(job, folder)
    assert len(found) == 150
    assert [row["error"] for row in found if row["error"]] == []
    for name in sorted(path.name for path in folder.iterdir()):
        own = [row for row in found if f"/{name}#" in row["path"]]
        assert [row["digit"] for row in own] == DIGITS, name


def test_a_row_has_the_models_answer_for_the_prepared_picture(job: Job, scans: Path) -> None:
    classifier = network(job.version, reads=False)
    assert isinstance(classifier, Classifier)
    for row, data in zip(read_all(job, scans), DATA, strict=True):
        image = prepare([data], ["x"]).astype(np.float32) / np.float32(255)
        expected = classifier.probabilities(image[..., None])[0]
        assert row["digit"] == int(expected.argmax())
        assert row["probability"] == pytest.approx(float(expected.max()), abs=2e-6)
        assert row["unsure"] == (row["probability"] < classifier.sure_threshold)
        assert row["model"] == job.version


def test_pictures_of_28x28_can_be_used_as_they_are(job: Job, tmp_path: Path) -> None:
    images = prepare(DATA, ["x"] * 10)
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png(images[i]))
    (tmp_path / "z.png").write_bytes(png(np.zeros((30, 30), np.uint8)))
    found = read_all(replace(job, options=Options(as_is=True)), tmp_path)
    assert [row["digit"] for row in found] == [*DIGITS, None]
    assert found[-1]["status"] == 422


def test_all_digits_of_a_picture_are_read(job: Job, tmp_path: Path) -> None:
    images = prepare(DATA, ["x"] * 10)
    line = np.hstack([np.pad(255 - images[i], 6, constant_values=255) for i in (4, 0, 7)])
    two = np.vstack([line, np.full((40, line.shape[1]), 255, np.uint8), line])
    data = {"a": png(line), "b": png(two), "c": png(np.full((99, 99), 255, np.uint8)), "d": b"broken"}
    data["e"] = png(np.pad(255 - images[2], 20, constant_values=255))
    for name, content in data.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    np.save(tmp_path / "f.npy", images[5:6])
    detector = load(ROOT / "models" / "detector.h5")
    reading = replace(job, version=add_model(detector), options=Options(read=True))
    found = read_all(reading, tmp_path)
    assert {row["model"] for row in found} == {detector.version}
    assert [row["text"] for row in found] == ["407", "407\n407", "", None, "2", "5"]
    assert [len(row["lines"]) for row in found if row["lines"] is not None] == [1, 2, 0, 1, 1]
    assert [row["digit"] for row in found] == [None, None, None, None, 2, 5]
    assert found[0]["lines"][0]["text"] == "407"
    assert 0 < found[1]["probability"] <= 1
    assert found[3]["status"] == 415


# --- damaged inputs ------------------------------------------------------------------------------------------


def test_broken_pictures_are_rows_with_the_services_status(
    job: Job, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in {
        "broken": b"no picture",
        "cut": DATA[0][: len(DATA[0]) // 2],
        "empty": b"",
        "huge": png(np.zeros((1, 10_001), np.uint8)),
        "white": png(np.full((50, 50), 255, np.uint8)),
        "x-large": bytes(40_000),
    }.items():
        (scans / f"{name}.png").write_bytes(content)
    monkeypatch.setattr(pictures, "MAX_BYTES", 39_999)
    shards = find_shards([str(scans)], "image")
    (scans / "9.png").unlink()
    for shard in shards:
        read_shard(shard, job)
    found = rows(job.out)
    assert [row["digit"] for row in found[:9]] == DIGITS[:9]
    assert [(Path(row["path"]).stem, row["status"]) for row in found[9:]] == [
        ("9", 404), ("broken", 415), ("cut", 422), ("empty", 422), ("huge", 413), ("white", 422), ("x-large", 413)
    ]  # fmt: skip
    for row in found[9:]:
        assert row["error"]
        assert row["digit"] is row["probability"] is row["unsure"] is None


def test_a_damaged_file_gives_the_rows_before_the_damage_and_a_row_for_itself(
    job: Job, tmp_path: Path
) -> None:
    members = {f"{i}.png": data for i, data in enumerate(DATA)}
    whole = pack(tmp_path / "whole.tar", members | {"notes.txt": b"x", "bad.png": b"x"}).read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.tar").write_bytes(whole)
    # within a picture, within a header, and before one
    for name, size in (("b1", 3000), ("b2", 1100), ("b3", 1024)):
        (folder / f"{name}.tar").write_bytes(whole[:size])
    (folder / "c.tgz").write_bytes(gzip.compress(whole)[:2000])
    (folder / "d.parquet").write_bytes(b"PAR1 no")
    (folder / "e.jsonl").write_bytes(
        b'{"image": 1}\n{"image": [[1]]}\nno\n\n[]\n{"image": "!"}\n' + jsonl([[256] * 784, [0.5, 200] * 392])
    )
    pq.write_table(pa.table({"image": [None, DATA[1]]}), folder / "f.parquet")
    np.save(folder / "g.npy", np.tile(np.uint8([0, 200]), (3, 28, 14)))
    (folder / "g.npy").write_bytes((folder / "g.npy").read_bytes()[:-1000])
    np.save(folder / "h.npy", np.array([{}]), allow_pickle=True)
    (folder / "i.npy").write_bytes(b"no")
    np.save(folder / "j.npy", np.zeros((1, 5, 5), np.float32))
    found = read_all(job, folder)

    def of(name: str) -> list[tuple[str, int | None, int | None]]:
        return [
            (row["path"].removeprefix(str(folder / name)), row["digit"], row["status"])
            for row in found
            if row["path"].startswith(str(folder / name))
        ]

    assert of("a.tar") == [*((f"#{i}.png", i, None) for i in range(10)), ("#bad.png", None, 415)]
    for name in ("b1.tar", "b2.tar", "b3.tar", "c.tgz"):
        damaged, *before = of(name)
        assert damaged == ("", None, 422)
        assert 0 < len(before) < 10
        assert before == [(f"#{i}.png", i, None) for i in range(len(before))]
    assert of("d.parquet") == [("", None, 422)]
    assert [status for _, _, status in of("e.jsonl")] == [422, 422, 400, 422, 422, 422, None]
    assert of("f.parquet") == [("#0", None, 422), ("#1", 1, None)]
    assert [(path, status) for path, _, status in of("g.npy")] == [("", 422), ("#0", None)]
    assert of("h.npy") == of("i.npy") == [("", None, 422)]
    assert of("j.npy") == [("#0", None, 422)]


def test_a_file_damaged_anywhere_raises_nothing(tmp_path: Path) -> None:
    folder, random = every_kind(tmp_path / "in"), np.random.default_rng(1)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in sorted(folder.iterdir()):
        for _ in range(25):
            data = bytearray(path.read_bytes())
            for _ in range(random.integers(1, 5)):
                # headers are at the beginning, and Parquet's at the end
                near = int(random.choice([random.integers(len(data) + 1), random.integers(200)]))
                place = max(0, len(data) - 1 - 3 * near) if path.suffix == ".parquet" else near
                if random.random() < 0.2:
                    del data[place : place + int(random.integers(1, 5000))]
                elif place < len(data):
                    data[place] = int(random.integers(256))
            (damaged / path.name).write_bytes(data)
            # a column's name may be what is damaged
            with suppress(UsageError):
                for shard in find_shards([str(damaged / path.name)], "image"):
                    assert len(list(pictures.read_items(shard, "image"))) < 100


def test_text_and_numbers_are_what_they_are_to_the_service(job: Job, tmp_path: Path) -> None:
    text = base64.urlsafe_b64encode(DATA[0]).decode().rstrip("=")
    values = [text, f"data:image/png;base64,{text}", "data:image/png,x", "!", [0] * 784, [0.5] * 784]
    (tmp_path / "a.jsonl").write_bytes(jsonl(values))
    found = read_all(job, tmp_path / "a.jsonl")
    assert [row["status"] for row in found] == [None, None, 422, 422, 422, 422]
    assert found[0]["digit"] == found[1]["digit"]
    assert "is blank" in found[4]["error"]


def test_a_line_that_is_too_long_is_not_kept_in_memory(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_LINE", 5000)
    lines = [b'{"image": "' + b"A" * 20_000 + b'"}', jsonl([[0, 200] * 392])]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    assert [row["status"] for row in read_all(job, tmp_path / "a.jsonl")] == [413, None]


def test_a_store_that_fails_for_all_files_writes_no_part(
    job: Job, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = find_shards([str(scans)], "image")

    def gone(*_: Any, **__: Any) -> Any:
        return [OSError(5, "input/output error")] * len(shard.urls)

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.cat_ranges", gone)
    with pytest.raises(OSError, match="none of 10 files"):
        read_shard(shard, job)
    assert list(Path(job.out).iterdir()) == []


# --- later runs ----------------------------------------------------------------------------------------------


def parts_of(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def test_a_finished_shard_is_not_read_again(run_bulk: Callable[..., int], scans: Path) -> None:
    out = scans.parent / "out"
    assert run_bulk(scans, "--out", out, "--shard", 4) == 0
    before = parts_of(out)
    assert len(before) == 3
    sorted(out.iterdir())[1].unlink()
    assert run_bulk(scans, "--out", out, "--shard", 4) == 0
    after = parts_of(out)
    assert after.keys() == before.keys()
    assert [after[name] == before[name] for name in sorted(before)] == [True, False, True]
    assert [row["digit"] for row in rows(out)] == DIGITS


def test_other_options_or_inputs_need_the_option_again(
    run_bulk: Callable[..., int], scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scans.parent / "out"
    assert run_bulk(scans, "--out", out) == 0
    for words, message in (
        (["--sure", "0.5"], "from other options"),
        (["--shard", "5"], "from other inputs"),
    ):
        before = parts_of(out)
        assert run_bulk(scans, "--out", out, *words) == 2
        assert message in capsys.readouterr().err
        assert parts_of(out) == before
        assert run_bulk(scans, "--out", out, *words, "--again") == 0
        assert not parts_of(out).keys() & before.keys()
        assert len(rows(out)) == 10
        assert run_bulk(scans, "--out", out, "--again") == 0


def test_another_model_is_named(
    run_bulk: Callable[..., int], job: Job, model: Any, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = find_shards([str(scans)], "image")
    read_shard(shard, replace(job, version=add_model(replace(model, version="0" * 12))))
    assert run_bulk(scans, "--out", job.out) == 2
    assert f"from model {'0' * 12}; this run has model {job.version}" in capsys.readouterr().err


def test_only_failed_rows_are_read_again(run_bulk: Callable[..., int], job: Job, scans: Path) -> None:
    (shard,) = find_shards([str(scans)], "image")
    parts = job.parts
    before = [{"path": url, "digit": 9, "model": "x"} for url in shard.urls]
    before[4] |= {"digit": None, "error": "can't be read", "status": 503}
    parts.write(parts.name(shard), [before], job.options.schema, {})
    assert run_bulk(scans, "--out", job.out) == 0
    assert [row["digit"] for row in rows(job.out)] == [9, 9, 9, 9, None, 9, 9, 9, 9, 9]
    assert run_bulk(scans, "--out", job.out, "--failed") == 0
    found = rows(job.out)
    assert [row["digit"] for row in found] == [9, 9, 9, 9, 4, 9, 9, 9, 9, 9]
    assert found[4]["error"] is None
    assert parts.metadata(parts.name(shard))["failed"] == 0


def test_a_part_is_written_completely_or_not_at_all(job: Job, scans: Path) -> None:
    parts = job.parts
    row = {"path": "x", "digit": 1}

    def broken() -> Any:
        yield [row]
        raise RuntimeError("no more")

    name = parts.name(find_shards([str(scans)], "image")[0])
    with pytest.raises(RuntimeError):
        parts.write(name, broken(), job.options.schema, {})
    assert list(Path(job.out).iterdir()) == []
    assert parts.write(name, [[row], [row]], job.options.schema, {"a": 1})["pictures"] == 2
    with pytest.raises(RuntimeError):
        parts.write(name, broken(), job.options.schema, {})
    assert len(rows(job.out)) == 2
    left = Path(job.out, f".{name}.0123abcd.tmp")
    left.touch()
    own = Path(job.out, ".mine.tmp")
    own.touch()
    parts.remove([name])
    assert list(Path(job.out).iterdir()) == [own]


def test_the_output_folder_is_not_an_input(run_bulk: Callable[..., int], scans: Path) -> None:
    out = scans / "digits"
    assert run_bulk(scans, "--out", out) == 0
    assert run_bulk(scans, "--out", out) == 0
    assert len(rows(out)) == 10


def test_a_dry_run_counts_and_writes_nothing(
    run_bulk: Callable[..., int], scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(scans / "more.tar", {"1.png": DATA[1]})
    out = scans.parent / "out"
    assert run_bulk(scans, "--out", out, "--dry-run") == 0
    output = capsys.readouterr().out
    assert "2 shards, 0 of them finished" in output
    assert "10 pictures and those in 1 files" in output
    assert "pictures/s" in output
    assert not out.exists()


def test_progress_is_a_line_on_a_terminal_and_json_elsewhere(scans: Path) -> None:
    (shard,) = find_shards([str(scans)], "image")
    about = {"pictures": 10, "failed": 1, "unsure": 2}

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (Terminal(), io.StringIO()):
        progress = run.Progress([run.Work(shard), run.Work(shard)], 20, stream)
        progress.begun -= 10
        progress.finished(shard, about)
        progress._shown -= 10
        progress.show(workers=2)
        progress.show(workers=2)
        output = stream.getvalue()
        if stream.isatty():
            assert output.count("10 of 20 pictures · 1 failed · 2 unsure · 1/s · 2 workers · 0:10 left") == 1
        else:
            (line,) = map(json.loads, output.splitlines())
            assert (line["pictures"], line["of"], line["workers"], line["seconds_left"]) == (10, 20, 2, 10)


def test_columns_and_options_are_documented() -> None:
    document = (ROOT / "docs" / "bulk.md").read_text()
    for name in Options(read=True).schema.names:
        assert f"| `{name}` |" in document
    for action in cli.parser()._actions:
        assert any(f"`{option}" in document for option in action.option_strings or ["bulk.py"]), action


def test_a_picture_error_keeps_what_was_found() -> None:
    assert asdict(Options())["column"] == "image"
    assert PictureError("content", "x", "is damaged.", found="y").extra == {"found": "y"}
    assert Parts("/nowhere/at/all", "0" * 8).existing() == {}


@pytest.mark.parametrize("inputs", ["/nowhere/at/all", "none://x/y.png", "s3://bucket/*.png"])
def test_a_store_that_can_not_be_listed_is_reported(
    inputs: str, run_bulk: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UsageError, match=re.escape(inputs)):
        find_shards([inputs], "image")
    assert run_bulk(inputs, "--out", tmp_path / "out") == 2
    (tmp_path / "file").touch()
    out = inputs.rpartition("/")[0] if "://" in inputs else tmp_path / "file" / "out"
    assert run_bulk(SAMPLES[0], "--out", out) == 2


def test_a_csv_table_of_all_rows_is_written_on_request(
    scans: Path, tmp_path: Path, run_bulk: Callable[..., int]
) -> None:
    (scans / "torn.png").write_bytes(DATA[0][:60])
    assert run_bulk(scans, "--out", tmp_path / "out", "--format=csv", "--shard=4") == 1
    with (tmp_path / "out" / "_digits.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["path", "digit", "probability", "unsure", "error", "status", "model"]
    # the folder can still be read as Parquet
    for row, written in zip(rows(tmp_path / "out"), sorted(table, key=lambda row: row["path"]), strict=True):
        assert written["path"] == row["path"]
        assert written["digit"] == ("" if row["digit"] is None else str(row["digit"]))
        assert written["unsure"] == ("" if row["unsure"] is None else json.dumps(row["unsure"]))
        assert written["error"] == (row["error"] or "")


def test_a_csv_table_of_readings_has_a_row_for_each_line_and_for_a_blank_picture(
    scans: Path, tmp_path: Path, run_bulk: Callable[..., int]
) -> None:
    (scans / "blank.png").write_bytes(png(np.full((60, 60), 255, np.uint8)))
    assert run_bulk(scans, "--out", tmp_path / "out", "--format=csv", "--read") == 0
    with (tmp_path / "out" / "_digits.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["path", "line", "text", "probability", "unsure", "error", "status", "model"]
    expected = [
        (row["path"], str(i) if row["lines"] else "", line["text"])
        for row in rows(tmp_path / "out")
        for i, line in enumerate(row["lines"] or [{"text": ""}], 1)
    ]
    assert sorted((row["path"], row["line"], row["text"]) for row in table) == sorted(expected)


def test_names_that_are_not_utf_8_have_rows_with_escapes(job: Job, tmp_path: Path, model: Any) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, data in ((b"a.png", DATA[1]), (b"\xe9.png", DATA[2]), (b"\xff.png", DATA[3][:60])):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data)
    found = read_all(job, folder)
    assert [(row["path"].rpartition("/")[2], row["digit"]) for row in found] == [
        ("\\udce9.png", 2),
        ("\\udcff.png", None),
        ("a.png", 1),
    ]
    # the one that failed is found again
    (shard,) = find_shards([str(folder)], "image")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(DATA[3])
    read_shard(shard, job, job.parts.name(shard))
    assert [row["digit"] for row in rows(job.out)] == [2, 3, 1]


def test_hidden_files_are_left_out_links_followed_and_other_files_counted(
    scans: Path, tmp_path: Path
) -> None:
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        (scans / name).mkdir()
        (scans / name / "x.png").write_bytes(DATA[0])
    for name in ("._0.png", "notes.txt", "more.TXT", "README"):
        (scans / name).write_bytes(DATA[0])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "y.png").write_bytes(DATA[0])
    (scans / "link").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "loop").symlink_to(scans)
    (scans / "gone.png").symlink_to(tmp_path / "nothing")
    skipped = Counter[str]()
    shards = find_shards([str(scans)], "image", skipped=skipped)
    assert [url.removeprefix(f"{scans}/") for shard in shards for url in shard.urls] == [
        *(f"{i}.png" for i in range(10)),
        "link/y.png",
    ]
    assert skipped == {".txt": 2, "without a suffix": 1}


def test_a_pattern_below_a_hidden_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").write_bytes(DATA[0])
    (shard,) = find_shards([f"{tmp_path}/.cache/*.png"], "image")
    assert shard.pictures == 1


def test_an_empty_file_has_the_services_error(job: Job, scans: Path, tmp_path: Path) -> None:
    (scans / "3.png").write_bytes(b"")
    archive = pack(tmp_path / "a.tar", {"b.png": b""})
    for row in read_all(job, scans, archive):
        if row["path"].endswith(("3.png", "b.png")):
            assert (row["status"], row["error"]) == (422, f"{row['path']} is empty. Found: 0 bytes.")


def test_an_input_that_is_the_output_folder_is_refused(scans: Path) -> None:
    with pytest.raises(UsageError, match="is the output folder"):
        find_shards([str(scans)], "image", without=str(scans))
