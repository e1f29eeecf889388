"""Compares the service as shipped with other servers that run the same model on the same test images.

`make bench` calls it. It installs each server in .bench/NAME from pinned requirements and starts one at a time.
wrk sends requests over loopback while a second client checks the answers. It prints medians and ratios, and writes
benchmarks/results.json and docs/images/bench.svg. A server that does not install, start or answer is listed with
the reason. With `--quick` it only compares the service with a server whose answer is constant, and fails below
MIN_QUICK_RATIO.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib.metadata
import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import report
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = ROOT / ".bench"
# low enough not to fail because of noise, high enough to notice when the service is a third slower
MIN_QUICK_RATIO = 0.15


@dataclass
class Server:
    """How a server is installed and started, and the format of its requests and answers."""

    name: str
    command: str  # {port} and {folder} are filled in
    environment: str | None = None  # benchmarks/peers/X.txt; None: the environment this runs in
    path: str = "/predict"
    form: str = "ours"  # ours, v2 (KServe) or mlflow
    folder: Path = PEERS
    prepare: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    checked: bool = True
    binary: tuple[str, str] | None = None  # the paths that accept raw pixels and PNGs


def ours(name: str, app: str = "app:app", folder: Path = ROOT, **extra: str) -> Server:
    """This service, or a variant of it."""
    extra["WEB_CONCURRENCY"], paths = "2", ("/predict", "/predict")
    return Server(name, f"python -m gunicorn {app}", "serve", folder=folder, extra=extra, binary=paths)


UVICORN = "python -m uvicorn --port {port} --workers 2 --no-access-log"
FASTER = f"{UVICORN} --loop uvloop --http httptools"
GUNICORN = "python -m gunicorn -b 127.0.0.1:{port} -w 2"
GEVENT = f"{GUNICORN} -k digits.worker.gevent_worker.Worker --keep-alive 75"
MLFLOW = "mlflow models serve -m {folder}/model --env-manager local -p {port} -w 2"
SERVERS = [
    ours(report.OURS),
    ours(report.NO_LOGS, DIGITS_LOG_LEVEL="warning"),
    ours(report.NO_METRICS, "without_metrics:app"),
    ours(report.NEITHER, "without_metrics:app", DIGITS_LOG_LEVEL="warning"),
    Server(report.CEILING, f"{GEVENT} constant:app", "serve", checked=False),
    Server(report.FASTAPI, f"{FASTER} fastapi_litert:app", "fastapi", binary=("/raw", "/png")),
    Server(report.FASTAPI_OBSERVED, f"{FASTER} fastapi_observed:app", "fastapi"),
    Server(report.FASTAPI_TF, f"{UVICORN} fastapi_tf:app", "tensorflow"),
    Server("BentoML", "bentoml serve bentoml_litert:Digits --port {port}", "bentoml"),
    Server("LitServe", "python litserve_litert.py {port}", "litserve"),
    Server("MLServer", "mlserver start {folder}", "mlserver", "/v2/models/digits/infer", "v2"),
    Server(
        "MLflow", MLFLOW, "mlflow", "/invocations", "mlflow", prepare="python mlflow_litert.py {folder}/model"
    ),
    Server(report.KERAS, f"{GUNICORN} flask_keras:app", "tensorflow"),
]


def test_images() -> tuple[np.ndarray, str]:
    """Images uint8 (n, 28, 28) and their source: MNIST's test set if MNIST_NPZ names it, else one image, moved."""
    if name := os.environ.get("MNIST_NPZ"):
        with np.load(name) as data:
            return data["x_test"][:256], "MNIST test images"
    # noise would not do, because a picture of it is refused
    image = np.array(json.loads((ROOT / "sample_request.json").read_text())["image"], np.uint8)
    moved = [np.roll(image, (i % 5 - 2, i // 5 % 5 - 2), (0, 1)) for i in range(256)]
    return np.stack(moved), "copies of sample_request.json"


def body_of(form: str, images: np.ndarray, single: bool) -> bytes:
    """The body of a request in a server's format."""
    if form == "v2":
        flat = images.astype(float).ravel().tolist()
        tensor = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "data": flat}
        return json.dumps({"inputs": [tensor]}).encode()
    if form == "mlflow":
        return json.dumps({"inputs": images.tolist()}).encode()
    return json.dumps({"image": images[0].tolist()} if single else {"images": images.tolist()}).encode()


def digits_in(form: str, answer: dict) -> list[int]:
    """The predicted digits in an answer."""
    if form == "v2":
        return [int(d) for d in answer["outputs"][0]["data"]]
    if form == "mlflow":
        return answer["predictions"]
    return [a["predicted_digit"] for a in answer.get("predictions", [answer])]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def install(environment: str | None) -> Path:
    """The bin folder of a server's environment, which is created on first use."""
    if environment is None:
        return Path(sys.executable).parent
    folder = ENVIRONMENTS / environment
    # this service gets exactly the packages that `make serve` installs
    pins = ROOT / "requirements/serve.txt" if environment == "serve" else PEERS / f"{environment}.txt"
    mark = folder / "installed"
    if not mark.exists() or mark.read_bytes() != pins.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-r", pins], check=True, timeout=900)
        mark.write_bytes(pins.read_bytes())
    return folder / "bin"


def installed(environment: str) -> float:
    """MB that an environment's packages take, without pip's own."""
    (packages,) = (ENVIRONMENTS / environment / "lib").glob("python*/site-packages")
    files = (
        f for f in packages.rglob("*") if f.is_file() and not f.is_symlink() and "__pycache__" not in f.parts
    )
    own = ("pip", "setuptools")
    return sum(f.stat().st_size for f in files if not f.relative_to(packages).parts[0].startswith(own)) / 1e6


def engine_alone(model: Path, seconds: int) -> float:
    """Images/s of two processes that only run the network, on batches of 256 as in the service."""
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from pathlib import Path
from digits.model import Classifier, load
classifier = Classifier(load(Path({str(model)!r})))
images = np.random.default_rng(0).random((256, 28, 28, 1), np.float32)
classifier.probabilities(images)
begun, done = time.perf_counter(), 0
while time.perf_counter() - begun < {seconds}:
    classifier.probabilities(images)
    done += 256
print(done / (time.perf_counter() - begun))
"""
    python = install("serve") / "python"
    two = [
        subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in "12"
    ]
    return sum(float(one.communicate()[0]) for one in two)


class Running:
    """A running server. url: of predictions. start: seconds to the first correct answer."""

    def __init__(self, server: Server, images: np.ndarray, expected: list[int], model: Path) -> None:
        self.server, self.images, self.expected = server, images, expected
        binaries = install(server.environment)
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        filled = {"port": self.port, "folder": self.folder}
        environment = os.environ | {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(PEERS), str(ROOT)]),
            "PORT": str(self.port),
            "BENCH_MODEL": str(model.with_suffix(".tflite")),
            "BENCH_H5": str(model),
            "DIGITS_MODEL": str(model),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **server.extra,
        }
        if server.form == "v2":
            (self.folder / "model-settings.json").write_text(
                json.dumps({"name": "digits", "implementation": "mlserver_litert.Digits"})
            )
            ports = {"http_port": self.port, "grpc_port": free_port(), "metrics_port": free_port()}
            settings = {"host": "127.0.0.1", "parallel_workers": 2, **ports}
            (self.folder / "settings.json").write_text(json.dumps(settings))
        if server.prepare:
            prepare = [part.format(**filled) for part in server.prepare.split()]
            subprocess.run(
                prepare, cwd=server.folder, env=environment, check=True, capture_output=True, timeout=120
            )
        command = [part.format(**filled) for part in server.command.split()]
        command[0] = str(binaries / command[0])
        self.log = self.folder / "log"
        begun = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=server.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.url = f"http://127.0.0.1:{self.port}{server.path}"
        failure: Exception | None = None
        while time.perf_counter() - begun < 40 and self.process.poll() is None:
            try:
                self.check()
                self.start = time.perf_counter() - begun
                return
            except (OSError, ValueError, KeyError, AssertionError) as error:
                failure = error
                time.sleep(0.02)
        tail = " ".join(self.log.read_text(errors="replace").split())[-200:]
        self.stop()
        raise RuntimeError(f"no correct answer: {failure}; the log ends with: {tail}")

    def check(self, i: int = 0) -> None:
        """Send one image; fail if the predicted digit differs from the engine's."""
        body = body_of(self.server.form, self.images[i : i + 1], True)
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as opened:
            answer = json.load(opened)
        if self.server.checked:
            assert digits_in(self.server.form, answer) == [self.expected[i]], answer

    def processes(self) -> list[psutil.Process]:
        """The server's processes."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def memory(self) -> float:
        """Memory of all its processes in MB, with shared pages counted once (PSS)."""
        return sum(p.memory_full_info().pss for p in self.processes()) / 1e6

    def stop(self) -> None:
        # start_new_session gave the server a process group of its own
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(8)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)


def wrk(
    running: Running,
    body: bytes,
    connections: int,
    seconds: int,
    content: str = "application/json",
    path: str | None = None,
) -> dict:
    """Measure requests/s and p50 and p99 in ms over loopback while a thread checks answers."""
    script = running.folder / "post.lua"
    data = running.folder / "body"
    data.write_bytes(body)
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "{content}"\n'
        f'local f = io.open("{data}", "rb")\nwrk.body = f:read("*a")\nf:close()\n'
    )
    over, wrong = threading.Event(), []

    def watch() -> None:
        i = 0
        while not over.wait(0.1):
            i = (i + 1) % len(running.images)
            try:
                running.check(i)
            except Exception as error:
                wrong.append(repr(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    options = f"-t1 -c{connections} -d{seconds}s --timeout 10s --latency"
    url = f"http://127.0.0.1:{running.port}{path or running.server.path}"
    try:
        printed = subprocess.run(
            ["wrk", *options.split(), "-s", script, url], capture_output=True, text=True, check=True
        ).stdout
    finally:
        over.set()
        watcher.join()
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
    latency = {
        f"p{p}": float(value) * scale[unit]
        for p, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)\b", printed)
    }
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    assert rate, printed
    return {"rate": float(rate[1]), **latency, "failed": int(bad[1]) if bad else 0, "wrong": wrong}


async def at_rate(port: int, path: str, body: bytes, rate: float, seconds: int) -> list[float]:
    """Latencies in ms of requests sent at a constant rate, each counted from the time it was due."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    request, waits, free = head.encode() + body, [], asyncio.Queue()
    for _ in range(16):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def one(due: float) -> None:
        reader, writer = await free.get()
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", answer, re.IGNORECASE)
        assert length, answer
        await reader.readexactly(int(length[1]))
        waits.append((time.perf_counter() - due) * 1e3)
        free.put_nowait((reader, writer))

    begun, tasks = time.perf_counter(), []
    for i in range(int(rate * seconds)):
        due = begun + i / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return waits


def measured(running: Running, seconds: int, everything: bool) -> Iterator[tuple[str, dict | float]]:
    """The result of each workload. everything: also those of batches, raw pixels and pictures."""
    server, images = running.server, running.images
    one = body_of(server.form, images[:1], True)
    wrk(running, one, 16, 1)  # warm-up
    at_16 = wrk(running, one, 16, seconds)
    yield "json1 c16", at_16
    yield "json1 c64", wrk(running, one, 64, seconds)
    yield "start", running.start
    yield "memory", running.memory()
    if not everything:
        return
    # the Python client can't keep up a higher rate
    rate = min(at_16["rate"] / 2, 1500)
    p50, p99 = np.percentile(asyncio.run(at_rate(running.port, server.path, one, rate, seconds)), [50, 99])
    yield "half load", {"p99/p50": float(p99 / p50)}
    for size in (32, 256):
        yield f"json{size} c4", wrk(running, body_of(server.form, images[:size], False), 4, seconds)
    if server.binary:
        raw, png = server.binary
        for size, connections in ((1, 16), (32, 4), (256, 4)):
            pixels = images[:size].tobytes()
            told = wrk(running, pixels, connections, seconds, "application/octet-stream", raw)
            yield f"raw{size} c{connections}", told
        file = io.BytesIO()
        Image.fromarray(images[0]).resize((280, 280)).save(file, "PNG")
        yield "png1 c16", wrk(running, file.getvalue(), 16, seconds, "image/png", png)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "mnist.h5")
    parser.add_argument("--quick", action="store_true", help="only compare with the constant answer")
    parser.add_argument("--only", nargs="*", help="names of the servers to measure")
    parser.add_argument(
        "--before", type=Path, help="another checkout of this service, measured in the same run"
    )
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("bench: wrk is not installed; on Debian and Ubuntu install the package wrk")
    sys.path.insert(0, str(PEERS))
    model = options.model.resolve()
    os.environ["BENCH_MODEL"] = str(model.with_suffix(".tflite"))
    from engine import answers

    images, source = test_images()
    expected = [a["predicted_digit"] for a in answers(images)]
    only = (report.OURS, report.CEILING) if options.quick else options.only
    if options.before:
        SERVERS.insert(1, ours(report.BEFORE, folder=options.before.resolve()))
    chosen = [s for s in SERVERS if not only or s.name in only]
    rounds, seconds = (3, 3) if options.quick else (options.rounds, options.seconds)
    results: dict[str, dict] = {}
    missing: dict[str, str] = {}
    # one server at a time, because even an idle one takes CPU time and memory
    for turn in range(rounds):
        if not options.quick:
            alone = results.setdefault(report.ENGINE, {"images/s": []})
            alone["images/s"].append(engine_alone(model, seconds))
        for server in chosen:
            if server.name in missing:
                continue
            try:
                running = Running(server, images, expected, model)
            except Exception as error:
                missing[server.name] = f"Its start failed with {type(error).__name__}: {error}."
                continue
            try:
                everything = not (options.quick or server.name in report.PARTS) and server.checked
                for workload, value in measured(running, seconds, everything):
                    results.setdefault(server.name, {}).setdefault(workload, []).append(value)
            except Exception as error:
                missing[server.name] = f"Round {turn + 1} failed with {type(error).__name__}: {error}."
            finally:
                running.stop()

    record = {
        "date": str(datetime.date.today()),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "gunicorn": importlib.metadata.version("gunicorn"),
        "images": source,
        "rounds": rounds,
        "seconds": seconds,
        "results": results,
        "missing": missing,
    }
    if options.quick:
        rate = partial(report.medians(results), workload="json1 c16", key="rate")
        ratio = rate(report.OURS) / rate(report.CEILING)
        print(f"{ratio:.2f} of the constant answer's rate; at least {MIN_QUICK_RATIO} is required")
        # this way round, nan fails too, which is the ratio if the service did not start
        sys.exit(0 if ratio >= MIN_QUICK_RATIO else "bench-quick: too slow")
    record["installed"] = {s.environment: installed(s.environment) for s in chosen if s.environment}
    report.report(record)
    if not only:
        report.RESULTS.write_text(json.dumps(record, indent=1) + "\n")
        report.draw(results)


if __name__ == "__main__":
    main()
