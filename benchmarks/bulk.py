"""Compares bulk.py with the same code without Dask, one client of the service, BentoML's batching and a loop over
Keras `predict`. `make bench-bulk` calls it. It prints the tables for docs/bulk.md and writes
benchmarks/bulk.json.

The pictures are MNIST's test images if MNIST_NPZ names them, else the samples of the web page, as PNGs of
28x28 and of 280x280 pixels. `--only NAME` repeats one measurement and keeps the others. Measurements whose ratio
is reported alternate BENCH_TURNS times, and their medians are used.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.dataset
from bench import PEERS, ROOT, free_port, install
from PIL import Image

sys.path.insert(0, str(ROOT))
from digits.bulk.rows import Options
from digits.bulk.run import Cluster, Progress, Work, read_shards
from digits.bulk.shards import Shard, find_shards
from digits.bulk.tasks import Job, add_model, network, read_shard
from digits.model import Classifier, load

RESULTS = ROOT / "benchmarks" / "bulk.json"
FOLDER = ROOT / ".bench" / "bulk"
MODEL = ROOT / "models" / "mnist.h5"
SIZES = (28, 280)
WORKERS = 2
TURNS = int(os.environ.get("BENCH_TURNS", "3"))


def pictures(n: int, side: int) -> Path:
    """A folder with n PNGs, which is created on first use."""
    folder = FOLDER / f"{side}-{n}"
    if not folder.exists():
        if name := os.environ.get("MNIST_NPZ"):
            with np.load(name) as data:
                images = data["x_test"]
        else:
            samples = sorted((ROOT / "digits/web/static/samples").glob("?.png"))
            images = np.stack([np.asarray(Image.open(p).convert("L").resize((28, 28))) for p in samples])
        making = folder.with_name(f"{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for i in range(n):
            picture = Image.fromarray(images[i % len(images)])
            picture = picture if side == 28 else picture.resize((side, side), Image.Resampling.BICUBIC)
            picture.save(making / f"{i:06d}.png")
        making.rename(folder)
    return folder


def job_in(folder: str, as_is: bool = False) -> Job:
    return Job(folder, add_model(load(MODEL)), Options(as_is=as_is))


def by_dask(shards: list[Shard], workers: int = WORKERS, as_is: bool = False) -> dict[str, float]:
    """The seconds that a run takes, without and with starting its processes, and the workers' memory in MB."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        cluster = Cluster(None, workers)
        try:
            work = [Work(shard) for shard in shards]
            ready = time.perf_counter()
            with open(os.devnull, "w") as nowhere:
                failed = read_shards(work, job_in(out, as_is), cluster, Progress(work, None, nowhere))
            spent = time.perf_counter() - ready
            assert not failed
            memory = cluster.client().run(_memory)
        finally:
            cluster.close()
        rows = pyarrow.dataset.dataset(out).count_rows()
        assert rows == sum(shard.pictures or 0 for shard in shards)
    return {
        "seconds": spent,
        "with_start": spent + ready - begun,
        "worker_mb": max(memory.values()),
        "own_mb": psutil.Process().memory_info().rss / 1e6,
    }


def _memory() -> float:
    """The peak memory of this process in MB. That of getrusage includes the process that started this one."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def bare(shards: list[Shard], workers: int = WORKERS, as_is: bool = False) -> float:
    """The seconds that the same work takes in processes without Dask, which share only a counter."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as out:
        barrier, following = spawn.Barrier(workers + 1), spawn.Value("i", 0)
        words = (shards, job_in(out, as_is), barrier, following)
        processes = [spawn.Process(target=_bare, args=words) for _ in range(workers)]
        for process in processes:
            process.start()
        barrier.wait(60)
        begun = time.perf_counter()
        for process in processes:
            process.join()
        spent = time.perf_counter() - begun
        assert pyarrow.dataset.dataset(out).count_rows() == sum(shard.pictures or 0 for shard in shards)
    return spent


def _bare(shards: list[Shard], job: Job, barrier: Any, following: Any) -> None:
    network(add_model(load(MODEL)), reads=False)
    barrier.wait(60)
    while True:
        with following.get_lock():
            i = following.value
            following.value += 1
        if i >= len(shards):
            return
        read_shard(shards[i], job)


def turns(n: int) -> dict[str, Any]:
    """images/s without and with Dask, alternating."""
    found: dict[str, Any] = {}
    for side in SIZES:
        shards = find_shards([str(pictures(n, side))], "image")
        rates: dict[str, list[float]] = {"bare": [], "dask": [], "with_start": []}
        for _ in range(TURNS):
            rates["bare"].append(n / bare(shards))
            told = by_dask(shards)
            rates["dask"].append(n / told["seconds"])
            rates["with_start"].append(n / told["with_start"])
        found[str(side)] = {name: statistics.median(each) for name, each in rates.items()}
    return found


def workers(n: int) -> dict[str, Any]:
    """images/s of one and of two workers, alternating."""
    shards = find_shards([str(pictures(n, 28))], "image")
    rates: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(TURNS):
        for each in (1, 2):
            rates[str(each)].append(n / by_dask(shards, each)["seconds"])
    return {name: statistics.median(each) for name, each in rates.items()}


def memory(n: int) -> dict[str, Any]:
    """The memory of a worker and of bulk.py in MB after a run, and after one that is ten times as long."""
    folder = pictures(n, 28)
    many = FOLDER / f"28-{n}-ten-times"
    if not many.exists():
        for i in range(10):
            (many / str(i)).mkdir(parents=True)
            for path in folder.iterdir():
                (many / str(i) / path.name).hardlink_to(path)
    found = {}
    for name, inputs in (("once", folder), ("ten times", many)):
        told = by_dask(find_shards([str(inputs)], "image"))
        found[name] = {key: told[key] for key in ("worker_mb", "own_mb", "seconds")}
    return found


def overhead(n: int) -> dict[str, Any]:
    """The overhead of a shard in milliseconds, from 1,000 shards of one picture, with and without Dask."""
    (shard,) = find_shards([str(pictures(n, 28))], "image", n)
    one = [
        replace(shard, name=f"{i:06d}-x", urls=shard.urls[i : i + 1], sizes=shard.sizes[i : i + 1],
                times=shard.times[i : i + 1], pictures=1)
        for i in range(1000)
    ]  # fmt: skip
    without, told = bare(one), by_dask(one)
    return {"bare_ms": without * WORKERS, "dask_ms": told["seconds"] * WORKERS}


def resumed(n: int) -> dict[str, Any]:
    """Stop a run after a third of its shards and run the same command again, and count the shards that were
    written twice."""
    folder = pictures(n, 28)
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, ROOT / "bulk.py", folder, "--out", out, "--shard", "500"]
        first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        total = -(-n // 500)
        deadline = time.monotonic() + 120
        while len(there := list(Path(out).glob("*.parquet"))) < total // 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        first.terminate()
        first.wait(30)
        there = list(Path(out).glob("*.parquet"))
        before = {path.name: path.stat().st_mtime_ns for path in there}
        begun = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=True)
        spent = time.perf_counter() - begun
        after = {path.name: path.stat().st_mtime_ns for path in Path(out).glob("*.parquet")}
        begun = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=True)
        return {
            "shards": total,
            "before": len(before),
            "twice": sum(after[name] != before[name] for name in before),
            "seconds": spent,
            "nothing_to_do_seconds": time.perf_counter() - begun,
            "rows": pyarrow.dataset.dataset(out).count_rows(),
        }


def service(n: int) -> dict[str, Any]:
    """images/s of one client of the service, with one picture per request and one request at a time."""
    port = free_port()
    environ = os.environ | {"PORT": str(port), "WEB_CONCURRENCY": str(WORKERS), "DIGITS_LOG_LEVEL": "warning"}
    python = install("serve") / "python"
    process = subprocess.Popen(
        [python, "-m", "gunicorn", "app:app"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL
    )
    found = {}
    try:
        for side in SIZES:
            files = [path.read_bytes() for path in sorted(pictures(n, side).iterdir())[:2000]]
            connection = _connected(port)
            begun = time.perf_counter()
            for data in files:
                connection.request("POST", "/predict", data, {"Content-Type": "image/png"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
            found[str(side)] = len(files) / (time.perf_counter() - begun)
    finally:
        process.terminate()
        process.wait(30)
    return found


def _connected(port: int) -> http.client.HTTPConnection:
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().read() and time.monotonic() < deadline:
                return connection
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def peers(n: int) -> dict[str, Any]:
    """images/s of bulk.py, BentoML and Keras for 28x28 PNGs without preparing them. Their digits must agree."""
    folder = pictures(n, 28)
    shards = find_shards([str(folder)], "image")
    found: dict[str, Any] = {"bulk.py, --prepare none": n / by_dask(shards, as_is=True)["seconds"]}
    classifier, expected = Classifier(load(MODEL)), []
    for path in sorted(folder.iterdir())[:1000]:
        image = np.asarray(Image.open(io.BytesIO(path.read_bytes())), np.float32)[None, :, :, None] / 255
        expected.append(int(classifier.probabilities(image).argmax()))
    for name, run in (("BentoML, batching", _bentoml), ("Keras predict, loop", _keras)):
        try:
            told = run(folder)
            assert len(told["digits"]) == n
            same = np.mean(np.array(told["digits"][:1000]) == np.array(expected))
            assert same > 0.995, same
            found[name] = n / told["seconds"]
        except (OSError, subprocess.SubprocessError, AssertionError, ValueError) as error:
            print(f"{name}: {type(error).__name__}: {str(error)[-300:]}", file=sys.stderr)
            found[name] = None
    return found


def _keras(folder: Path) -> dict[str, Any]:
    python = install("tensorflow") / "python"
    command = [python, PEERS / "keras_loop.py", MODEL, folder]
    environ = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _bentoml(folder: Path) -> dict[str, Any]:
    binaries, port = install("bentoml"), free_port()
    environ = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "BENCH_MODEL": str(MODEL.with_suffix(".tflite")),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    command = [binaries / "bentoml", "serve", "bentoml_batch:Digits", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=PEERS, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.2)
        words = [binaries / "python", PEERS / "bentoml_batch_client.py", f"http://127.0.0.1:{port}", folder]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=600, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        for process in (*psutil.Process(server.pid).children(recursive=True), server):
            process.kill()
        server.wait(10)


PARTS = {each.__name__: each for each in (turns, workers, memory, overhead, resumed, service, peers)}


def report(found: dict[str, Any]) -> str:
    """The results in Markdown."""
    t, s = found["turns"], found["service"]
    lines = ["| images/s | 28x28 PNGs | 280x280 PNGs |", "|---|---|---|"]
    rows = {
        f"bulk.py, {WORKERS} workers": [t[str(side)]["dask"] for side in SIZES],
        "the same, including the start of its processes": [t[str(side)]["with_start"] for side in SIZES],
        f"the same code in {WORKERS} processes without Dask": [t[str(side)]["bare"] for side in SIZES],
        "one client of the service, one picture per request": [s[str(side)] for side in SIZES],
    }
    rows |= {name: [rate, None] for name, rate in found["peers"].items()}
    for name, rates in rows.items():
        lines.append(f"| {name} | " + " | ".join("-" if r is None else f"{r:,.0f}" for r in rates) + " |")
    w, m, o, r = found["workers"], found["memory"], found["overhead"], found["resumed"]
    lines += [
        "",
        *(
            f"- {side}x{side}: {t[str(side)]['dask'] / t[str(side)]['bare']:.2f} of bare processes (target 0.7), "
            f"{t[str(side)]['dask'] / s[str(side)]:.1f} times the rate of one client of the service (target 5)"
            for side in SIZES
        ),
        f"- two workers: {w['2'] / w['1']:.2f} times the rate of one (target 1.8)",
        f"- peak memory of a worker: {m['once']['worker_mb']:.0f} MB, in a run ten times as long "
        f"{m['ten times']['worker_mb']:.0f} MB; of bulk.py itself {m['once']['own_mb']:.0f} and "
        f"{m['ten times']['own_mb']:.0f} MB",
        f"- a shard of one picture: {o['dask_ms']:.1f} ms of a worker with Dask, {o['bare_ms']:.1f} ms without",
        f"- stopped after {r['before']} of {r['shards']} shards and run again: {r['twice']} written twice, "
        f"{r['rows']:,} rows",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the results and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--only", choices=PARTS, action="append")
    given = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if given.only and RESULTS.exists() else {}
    for name in given.only or PARTS:
        found[name] = PARTS[name](given.pictures)
        found |= {"pictures": given.pictures, "cores": os.cpu_count()}
        print(name, json.dumps(found[name]), file=sys.stderr)
        if set(found) >= set(PARTS):
            print(report(found))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
