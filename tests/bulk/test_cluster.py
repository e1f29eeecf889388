"""bulk.py with real processes: its own workers, a scheduler and workers that are killed and restarted, TLS, and a
real S3 server. In each test, every picture must be in the output exactly once. `make test-bulk` runs these
tests."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from distributed.security import Security
from PIL import Image

from digits.bulk.rows import Options
from digits.bulk.run import Cluster, Progress, Work, read_shards
from digits.bulk.shards import find_shards
from digits.bulk.tasks import Job, add_model
from digits.model import Model, load
from project import ROOT, SAMPLE

pytestmark = pytest.mark.bulk
SAMPLES = sorted((ROOT / "digits" / "web" / "static" / "samples").glob("?.png"))
SECONDS = 60.0


def until(done: Callable[[], Any], what: str) -> Any:
    """Wait until `done` returns something true, and return it. Fails after SECONDS."""
    deadline = time.monotonic() + SECONDS
    while not (found := done()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 pictures of 280x280 pixels, which take one process about ten seconds. The last one is broken."""
    folder = tmp_path_factory.mktemp("scans")
    large = [Image.open(path).convert("L").resize((280, 280)) for path in SAMPLES]
    for i in range(2000):
        large[i % 10].save(folder / f"{i:04d}.png", compress_level=1)
    (folder / "1999.png").write_bytes(b"broken")
    return folder


def names(out: Path | str) -> Counter[str]:
    table = pyarrow.dataset.dataset(str(out)).to_table()
    return Counter(path.rpartition("/")[2] for path in table["path"].to_pylist())


def each_once(out: Path | str) -> bool:
    return names(out) == Counter({f"{i:04d}.png": 1 for i in range(2000)})


def parts_of(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


class Started:
    """Starts processes for a test, and kills them after it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, list[subprocess.Popen[bytes]]()

    def __call__(self, *words: str, log: str, **environ: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=os.environ | environ,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.all.append(process)
        return process

    def bulk(self, *words: Path | str, **environ: str) -> subprocess.Popen[bytes]:
        return self("bulk.py", *map(str, words), log="bulk", **environ)

    def output(self) -> list[dict[str, Any]]:
        """The lines of JSON that bulk.py has written so far."""
        lines = (self.folder / "bulk").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def end(self) -> None:
        for process in self.all:
            # each has its own process group
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    found = Started(tmp_path)
    yield found
    found.end()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_stopped_run_is_resumed_and_reads_no_shard_twice(started: Started, scans: Path) -> None:
    out = started.folder / "out"
    words = (scans, "--out", out, "--shard", "100", "--workers", "2")
    first = started.bulk(*words)
    until(lambda: len(parts_of(out)) >= 3, "three parts")
    first.terminate()
    assert first.wait(SECONDS) == 130
    before = parts_of(out)
    assert 3 <= len(before) < 20
    second = started.bulk(*words)
    # because of the broken picture
    assert second.wait(SECONDS) == 1
    after = parts_of(out)
    assert len(after) == 20
    assert {name: after[name] for name in before} == before
    assert each_once(out)
    assert started.output()[-1]["failed"] == 1
    assert [path.name for path in out.iterdir() if path.name not in after] == []


def test_every_picture_is_in_the_output_once_after_workers_and_scheduler_die(
    started: Started, scans: Path
) -> None:
    out, port = started.folder / "out", free_port()
    address = f"tcp://127.0.0.1:{port}"

    def scheduler() -> subprocess.Popen[bytes]:
        words = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        return started("-m", "distributed.cli.dask_scheduler", *words, log="scheduler")

    def worker() -> subprocess.Popen[bytes]:
        words = (address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(started.folder))
        return started("-m", "distributed.cli.dask_worker", *words, log="worker")

    first, workers = scheduler(), [worker(), worker()]
    run = started.bulk(scans, "--out", out, "--shard", "50", "--scheduler", address)

    until(lambda: len(parts_of(out)) >= 3, "three parts")
    # the process that reads; its nanny restarts it
    nanny = psutil.Process(workers[0].pid)
    (reader,) = [child for child in nanny.children() if "spawn_main" in " ".join(child.cmdline())]
    reader.kill()
    before = len(parts_of(out))
    until(lambda: len(parts_of(out)) > before + 2, "more parts after a worker's death")
    # a worker and its nanny, as if the machine had failed
    os.killpg(workers[1].pid, signal.SIGKILL)
    before = len(parts_of(out))
    until(lambda: len(parts_of(out)) > before + 2, "more parts by one worker")

    first.kill()
    first.wait(10)
    assert len(parts_of(out)) < 40
    until(
        lambda: any("is lost" in message.get("message", "") for message in started.output()),
        "the loss is message",
    )
    kept = parts_of(out)
    scheduler()
    # a worker without a scheduler exits, and Compose and ECS restart it
    until(lambda: workers[0].poll() is not None, "the worker's end")
    worker()
    worker()
    assert run.wait(SECONDS) == 1
    after = parts_of(out)
    assert len(after) == 40
    assert each_once(out)
    # one or two may have been in progress
    assert sum(after[name] != kept[name] for name in kept) <= 2
    assert started.output()[-1]["unread_shards"] == []


def test_a_shard_that_always_fails_is_reported_and_does_not_end_the_run(
    started: Started, scans: Path
) -> None:
    out = started.folder / "out"
    shards = find_shards([str(scans / "000?.png")], "image", 2)
    networks = Model(b"no network", "0" * 12, {}), load(ROOT / "models" / "mnist.h5")
    jobs = [Job(str(out), add_model(network), Options()) for network in networks]
    cluster = Cluster(None, 1)
    try:
        message = io.StringIO()
        failed = read_shards([Work(each) for each in shards], jobs[0], cluster, Progress([], None, message))
        assert sorted(shard.name for shard, _ in failed) == [shard.name for shard in shards]
        assert all("ModelError: The compiled model can't be run" in why for _, why in failed)
        assert message.getvalue().count("can't be read") == len(shards) == 5
        # the same workers still work
        assert (
            read_shards([Work(each) for each in shards], jobs[1], cluster, Progress([], None, message)) == []
        )
    finally:
        cluster.close()
    assert names(out).total() == 10


def test_a_missing_scheduler_is_reported(started: Started, scans: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    run = started.bulk(scans, "--out", started.folder / "out", "--scheduler", address)
    assert run.wait(SECONDS) == 2
    assert f"There is no scheduler at {address}" in (started.folder / "bulk").read_text()


def listening() -> set[int]:
    """The ports on which this process and its children listen."""
    process = psutil.Process()
    found = [each.net_connections("inet") for each in (process, *process.children(recursive=True))]
    return {each.laddr.port for each in chain.from_iterable(found) if each.status == psutil.CONN_LISTEN}


def speaks(port: int, keys: Security | None) -> bool:
    """Whether a server on this port begins Dask's protocol with a client that has these keys."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as plain:
        if keys is None:
            return plain.recv(1) != b""
        with keys.get_connection_args("client")["ssl_context"].wrap_socket(plain) as encrypted:
            return encrypted.recv(1) != b""
    return False


def test_other_users_of_the_machine_can_not_connect() -> None:
    before = listening()
    cluster = Cluster(None, 1)
    try:
        client = cluster.client()
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        assert speaks(int(client.scheduler.address.rpartition(":")[2]), client.security)
        ports = listening() - before
        # those of the scheduler, the nanny and the worker, and HTTP servers without pages
        assert len(ports) >= 3
        for port in ports:
            assert not speaks(port, None)
            assert not speaks(port, Security.temporary())
            for page in (
                "/",
                "/status",
                "/info/main/workers.html",
                "/json/counts.json",
                "/metrics",
                "/health",
            ):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=2):
                    pytest.fail(f"port {port} answers {page}")
        assert client.submit(abs, -1).result(timeout=30) == 1
    finally:
        cluster.close()


def test_tls_with_keys_from_the_environment(started: Started, scans: Path) -> None:
    keys = Security.temporary()
    client = keys.get_tls_config_for_role("client")
    given = {"CA_FILE": client["ca_file"]}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        given |= {f"{role}__CERT": client["cert"], f"{role}__KEY": client["key"]}
    environ = {f"DASK_DISTRIBUTED__COMM__TLS__{name}": value for name, value in given.items()}
    environ["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] = "True"
    address = f"tls://127.0.0.1:{free_port()}"
    host, port = "127.0.0.1", address.rpartition(":")[2]
    words = ("--protocol", "tls", "--host", host, "--port", port, "--no-dashboard")
    started("-m", "distributed.cli.dask_scheduler", *words, log="scheduler", **environ)
    words = (address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(started.folder))
    started("-m", "distributed.cli.dask_worker", *words, log="worker", **environ)
    out = started.folder / "out"
    some = str(scans / "000?.png")
    assert started.bulk(some, "--out", out, "--scheduler", address, **environ).wait(SECONDS) == 0
    assert names(out).total() == 10
    # without a key, the connection is refused
    assert started.bulk(some, "--out", started.folder / "no", "--scheduler", address).wait(SECONDS) == 2


@pytest.fixture
def s3(started: Started) -> dict[str, str]:
    """Starts moto's S3 server with a bucket. Returns the environment variables that name it."""
    port = str(free_port())
    started("-m", "moto.server", "-H", "127.0.0.1", "-p", port, log="moto")
    environ = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    until(lambda: socket_open(int(port)), "moto")
    fs = store(environ)
    fs.mkdir("scans")
    return environ


def socket_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def store(environ: dict[str, str]) -> Any:
    return fsspec.filesystem(
        "s3",
        key=environ["AWS_ACCESS_KEY_ID"],
        secret=environ["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environ["AWS_ENDPOINT_URL_S3"],
    )


def test_from_s3_to_s3(started: Started, scans: Path, s3: dict[str, str]) -> None:
    fs = store(s3)
    for i in range(300):
        fs.pipe_file(f"scans/in/{i:04d}.png", (scans / f"{i:04d}.png").read_bytes())
    with fs.open("scans/in/x.tar", "wb") as file, tarfile.open(fileobj=file, mode="w|") as archive:
        for i in range(300, 400):
            archive.add(scans / f"{i:04d}.png", f"{i:04d}.png")
    with fs.open("scans/in/y.npy", "wb") as file:
        np.save(file, np.array([SAMPLE["image"]] * 600, np.uint8))
    words = ("s3://scans/in/", "--out", "s3://scans/out", "--shard", "100", "--workers", "2")
    assert started.bulk(*words, **s3).wait(SECONDS) == 0
    fs.invalidate_cache()
    parts = fs.glob("scans/out/*.parquet")
    rows = [row for part in parts for row in pq.read_table(fs.open(part)).to_pylist()]
    assert len({row["path"] for row in rows}) == len(rows) == 1000
    assert [row["error"] for row in rows if row["error"]] == []
    assert rows[0]["path"] == "s3://scans/in/0000.png"
    digits = {row["path"]: row["digit"] for row in rows}
    assert [digits[f"s3://scans/in/{i:04d}.png"] for i in range(10)] == list(range(10))
    assert [digits[f"s3://scans/in/x.tar#{i:04d}.png"] for i in range(390, 400)] == list(range(10))
    # no unfinished part is left, and a second run has nothing to do
    assert started.bulk(*words, **s3).wait(SECONDS) == 0
    assert started.output()[-1]["of_shards"] == 0
    fs.pipe_file("scans/in/0000.png", (scans / "0001.png").read_bytes())
    assert started.bulk(*words, **s3).wait(SECONDS) == 2


def test_over_http(started: Started, scans: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(scans))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        out = started.folder / "out"
        words = (f"{url}/0003.png", f"{url}/1999.png", "--out", out, "--workers", "1")
        assert started.bulk(*words).wait(SECONDS) == 1
        found = pyarrow.dataset.dataset(str(out)).to_table().to_pylist()
        assert [(row["path"], row["digit"], row["status"]) for row in found] == [
            (f"{url}/0003.png", 3, None),
            (f"{url}/1999.png", None, 415),
        ]
        server.shutdown()
