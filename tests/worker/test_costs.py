"""What a request may cost, with real gunicorn processes: memory, in the 512 MB that Compose gives the service, CPU
time, and the share of requests that many small chunks, stalled uploads or a stalled log leave to others."""

from __future__ import annotations

import concurrent.futures
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from PIL import Image, ImageDraw

import costly
from app import create_app
from digits.web import bodies
from digits.web.problems import Overloaded, Problem
from digits.web.settings import Settings
from digits.worker.processes import Processes, SharedSemaphore
from project import ROOT, SAMPLE
from raw_requests import read_answer
from service import Server, until

# docker-compose.yml's mem_limit, and what a request may add
LIMIT, MOST = 512 << 20, 250e6
BODY = json.dumps(SAMPLE).encode()
KINDS = costly.requests(0)
# takes some seconds
LARGE = costly.slow_pictures(12)


def send(server: Server, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as client:
        client.request("POST", path, body, {"Content-Type": kind})
        answer = client.getresponse()
        return answer.status, answer.read()


def connect(server: Server, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), 30)
    client.sendall(data)
    return client


def head(length: int, kind: str = "image/png", path: str = "/predict") -> bytes:
    lines = f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {length}", "", ""
    return "\r\n".join(lines).encode()


def photo(width: int = 1600, height: int = 1200) -> bytes:
    """An ordinary photograph of a 7."""
    picture = Image.effect_noise((width, height), 20).convert("RGB")
    pen = ImageDraw.Draw(picture)
    points = [(0.4 * width, 0.3 * height), (0.6 * width, 0.3 * height), (0.45 * width, 0.7 * height)]
    pen.line(points, (20, 20, 40), width // 40)
    return costly.encoded(picture, "JPEG")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., Processes]]:
    """Creates processes for work in this process."""
    created: list[Processes] = []

    def create(**settings: Any) -> Processes:
        app = create_app(Settings(**settings))
        created.append(Processes(app, Settings(**settings), tmp_path))
        return created[-1]

    yield create
    for each in created:
        each.close()


def spin(seconds: float, size: int = 0) -> float:
    """Use so much memory and CPU time."""
    bytearray(size)
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def hold(size: int) -> int:
    """Use so much memory."""
    return len(bytearray(size))


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


# the processes


def test_work_has_its_result_or_its_exception(processes: Callable[..., Processes]) -> None:
    run = processes().run
    assert run(partial(int, "7")) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        run(partial(int, "seven"))
    with pytest.raises(Problem) as refusal:
        run(partial(bodies.from_json, b"{}"))
    assert (refusal.value.status, refusal.value.extra["field"]) == (422, "image")
    large = bytes(30_000_000)
    assert run(partial(len, large)) == len(large)


def test_work_over_a_budget_is_ended_and_names_it(processes: Callable[..., Processes]) -> None:
    run = processes(cpu_seconds=1, max_unpacked_bytes=150_000_000).run
    with pytest.raises(Problem, match="1 s of CPU time") as late:
        run(partial(spin, 30))
    assert late.value.status == 422
    assert run(partial(hold, 100_000_000)) == 100_000_000
    with pytest.raises(Problem, match="150000000 bytes") as large:
        run(partial(hold, 200_000_000))
    assert large.value.status == 413
    with pytest.raises(Problem) as crashed:
        run(crash)
    assert crashed.value.status == 413
    assert run(partial(int, "7")) == 7


def test_readings_and_predictions_do_not_wait_for_each_other(processes: Callable[..., Processes]) -> None:
    run = processes(processes=1, max_wait_ms=100, cpu_seconds=30).run
    reading = gevent.spawn(run, partial(spin, 0.9), "reading")
    gevent.sleep(0.05)
    assert run(partial(int, "7")) == run(partial(int, "7"), "huge") == 7
    # readings may wait as long as reading may take
    assert run(partial(int, "7"), "reading") == 7
    assert reading.get() == 0.9
    waiting = gevent.spawn(run, partial(spin, 0.9))
    gevent.sleep(0.05)
    with pytest.raises(Overloaded):
        run(partial(int, "7"))
    waiting.get()


def test_work_that_has_had_its_share_ends_when_others_wait(processes: Callable[..., Processes]) -> None:
    run = processes(processes=1, max_wait_ms=30_000, cpu_seconds=60).run
    assert run(partial(spin, 1.5)) == 1.5
    long = gevent.spawn(run, partial(spin, 50))
    gevent.sleep(0.05)
    assert run(partial(int, "7")) == 7
    with pytest.raises(Overloaded):
        long.get()


def test_pages_that_take_seconds_to_read_do_not_end_each_other(processes: Callable[..., Processes]) -> None:
    run = processes(max_wait_ms=60_000, cpu_seconds=6).run
    pages = [gevent.spawn(run, partial(spin, 1.5), "reading") for _ in range(3)]
    assert [page.get() for page in pages] == [1.5] * 3
    # neither do those that need much memory, such as pages of a PDF
    pages = [gevent.spawn(run, partial(spin, 1.5, 60_000_000), "reading") for _ in range(3)]
    assert [page.get() for page in pages] == [1.5] * 3
    # but half of the budget is the most while others wait
    long = gevent.spawn(run, partial(spin, 5), "reading")
    gevent.sleep(0.05)
    assert run(partial(int, "7"), "reading") == 7
    with pytest.raises(Overloaded):
        long.get()


def test_a_fork_server_that_has_died_is_replaced(processes: Callable[..., Processes]) -> None:
    there = processes()
    os.kill(there.pid, signal.SIGKILL)
    assert there.run(partial(int, "7")) == 7


def test_a_turn_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from digits.worker.processes import SharedSemaphore\n"
        "with SharedSemaphore(Path(sys.argv[1]), 1).hold(1): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Overloaded), SharedSemaphore(tmp_path, 1).hold(0.05):
            pass
        with SharedSemaphore(tmp_path, 2).hold(0.05):
            pass
        other.kill()
        other.wait()
    with SharedSemaphore(tmp_path, 1).hold(1):
        pass


@pytest.mark.parametrize(
    "piece",
    ["[],", "[[[0]]],", '{"":0},', '{"a":{}},', "0,", "0.5,", "123456,", '"",', '"\u20ac",', '"\\u20ac",'],
)
def test_a_documents_memory_is_not_more_than_counted(piece: str) -> None:
    body = f"[{piece * 100_000}0]".encode()
    tracemalloc.start()
    try:
        document = json.loads(body.decode())
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(document) == 100_001
    assert taken + len(body) <= bodies.unpacked_bytes(body)


# memory


class Limited:
    """A service in a control group with LIMIT bytes of memory."""

    def __init__(self, group: Path, start: Callable[..., Server]) -> None:
        self.group = group
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        self.server = start(within=("sh", "-c", enter, "sh"))
        until(lambda: len(self.server.children()) == 2)

    def used(self) -> int:
        """Bytes of memory that the service's processes have written."""
        found = re.search(
            r"^(?:total_rss|anon) (\d+)", (self.group / "memory.stat").read_text(), re.MULTILINE
        )
        assert found
        return int(found[1])

    def peak(self, work: Callable[[], Any]) -> tuple[Any, int]:
        """The result of `work`, and how much the memory rose above that before it."""
        before, most, over = self.used(), 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not over.wait(0.005):
                most = max(most, self.used())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            return work(), most - before
        finally:
            over.set()
            watcher.join()


@pytest.fixture(scope="module")
def limited(start: Callable[..., Server]) -> Iterator[Limited]:
    group = (
        next(
            (
                path
                for path in map(Path, ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"))
                if (path / "cgroup.procs").exists()
            ),
            Path("/nowhere"),
        )
        / f"digits-test-{os.getpid()}"
    )
    try:
        group.mkdir()
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (group / name).exists():
                (group / name).write_text(str(LIMIT))
                break
        else:
            group.rmdir()
            pytest.skip("needs a control group for memory")
    except OSError:
        pytest.skip("needs the right to create a control group (root)")
    there = Limited(group, start)
    yield there
    there.server.stop()
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def check_cost(limited: Limited, request: costly.Costly) -> None:
    server, workers = limited.server, limited.server.children()
    (status, body), rise = limited.peak(lambda: send(server, *request))
    print(f"{status}, {rise / 1e6:.0f} MB more")
    assert status in (400, 413, 415, 422) or (request[0] == "/read" and status == 200), body
    assert rise < MOST
    assert server.children() == workers


@pytest.mark.parametrize("kind", KINDS)
def test_a_costly_request_stays_within_its_memory(limited: Limited, kind: str) -> None:
    check_cost(limited, costly.requests(2)[kind])


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_costly_request_stays_within_its_memory(limited: Limited, kind: str) -> None:
    check_cost(limited, costly.requests(31)[kind])


def test_four_huge_pictures_at_once_end_no_worker(limited: Limited) -> None:
    workers = limited.server.children()
    huge = KINDS["RGBA"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(send, limited.server, *huge) for _ in range(4)]
        answers = Counter(job.result()[0] for job in jobs)
    assert set(answers) <= {422, 503}
    assert answers[422]
    assert limited.server.children() == workers
    assert send(limited.server, "/predict", "application/json", BODY)[0] == 200


# CPU time


def decoders(server: Server) -> list[psutil.Process]:
    """The processes of the workers that decode."""
    found = psutil.Process(server.process.pid).children(recursive=True)
    return [each for each in found if each.pid not in server.children()]


def cpu_seconds(server: Server) -> float:
    total = 0.0
    for each in decoders(server):
        with suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:2])
    return total


def idle(server: Server) -> bool:
    before = cpu_seconds(server)
    time.sleep(0.3)
    return cpu_seconds(server) <= before


def test_a_picture_that_takes_too_long_is_ended(start: Callable[..., Server]) -> None:
    server = start(WEB_CONCURRENCY="1", DIGITS_CPU_SECONDS="1")
    status, body = send(server, "/predict", "application/json", LARGE)
    assert (status, json.loads(body)["detail"]) == (
        422,
        "The picture takes more than the 1 s of CPU time that it may use.",
    )
    until(lambda: idle(server))


def test_work_for_a_client_that_has_left_is_stopped(start: Callable[..., Server]) -> None:
    server = start(WEB_CONCURRENCY="1", DIGITS_CPU_SECONDS="600")
    with closing(connect(server, head(len(LARGE), "application/json") + LARGE)):
        until(lambda: not idle(server))
    until(lambda: idle(server))
    line = next(line for line in server.log() if line["message"] == "request" and line["route"] == "/predict")
    assert line["status"] == 400
    # one that has only ended its side gets its answer
    part = costly.slow_pictures(2)
    with closing(connect(server, head(len(part), "application/json") + part)) as client:
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer)[-1] == b"200"


# others' share


def chunked(body: bytes, size: int) -> bytes:
    begin = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return begin + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def status_of(client: socket.socket) -> int:
    return int(read_answer(client).split(b" ")[1])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (chunked(BODY, 1), 200),
        (chunked(BODY + b" " * 100_000, 64), 200),
        (chunked(BODY + b" " * 100_000, 1), 400),
        (chunked(b"", 1)[:-5] + b"f" * 40 + b"\r\n", 413),
        (chunked(b"", 1)[:-5] + b"%x\r\n" % (40 << 20), 413),
    ],
    ids=["few small", "of 64 bytes", "many small", "absurd", "over the limit"],
)
def test_chunks_are_accepted_or_refused_at_once(server: Server, request_bytes: bytes, status: int) -> None:
    with closing(connect(server, b"")) as client:
        try:
            client.sendall(request_bytes)
        except ConnectionError:
            # refused before everything was sent
            assert status != 200
        assert status_of(client) == status


@pytest.fixture
def beside(start: Callable[..., Server]) -> Iterator[Callable[..., Any]]:
    """Runs clients in threads until the test ends."""
    over, threads = threading.Event(), []

    def run(client: Callable[[], Any], count: int) -> None:
        def repeat() -> None:
            while not over.is_set():
                try:
                    client()
                except (OSError, AssertionError, http.client.HTTPException):
                    time.sleep(0.01)

        for _ in range(count):
            threads.append(threading.Thread(target=repeat))
            threads[-1].start()

    yield run
    over.set()
    for thread in threads:
        thread.join()


def test_small_chunks_leave_room_for_others(start: Callable[..., Server], beside: Callable[..., Any]) -> None:
    server = start(WEB_CONCURRENCY="1", DIGITS_MAX_WAIT_MS="60000")
    flood = chunked(bytes(200_000), 1)

    def client() -> None:
        with closing(connect(server, flood)) as there:
            status_of(there)

    beside(client, 2)
    statuses = Counter(send(server, "/predict", "application/json", BODY)[0] for _ in range(50))
    assert statuses == {200: 50}


def test_stalled_uploads_leave_room_for_others(start: Callable[..., Server]) -> None:
    server = start(WEB_CONCURRENCY="1", DIGITS_MAX_WAIT_MS="60000")
    half = head(2 << 20, "application/json") + bytes(1 << 20)
    stalled = [connect(server, half) for _ in range(60)]
    time.sleep(1)
    small = [connect(server, head(60_000, "application/json") + bytes(50_000)) for _ in range(200)]
    time.sleep(1)
    statuses = Counter(send(server, "/predict", "application/json", BODY)[0] for _ in range(50))
    assert statuses == {200: 50}
    large = b'{"image":"' + b" " * (20 << 20) + b'"}'
    assert send(server, "/predict", "application/json", large)[0] == 422
    metrics = server.ask("/metrics").body
    assert re.search(rb'request_total{method="POST",status="408",url_rule="/predict"} [1-9]', metrics)
    for client in (*stalled, *small):
        client.close()


def test_a_stalled_log_stops_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    environ = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "app:app"],
        cwd=ROOT,
        env=environ | {"PORT": str(number), "WEB_CONCURRENCY": "1"},
        stdout=subprocess.PIPE,
    )
    server = Server(f"http://127.0.0.1:{number}", process, Path())
    assert process.stdout is not None
    try:
        # the pipe is not read from here on
        until(lambda: b"Booting" in process.stdout.readline())  # type: ignore[union-attr]

        def ready() -> bool:
            try:
                return server.ask("/health/ready").status == 200
            except OSError:
                return False

        until(ready)
        requests = 2000
        with closing(http.client.HTTPConnection("127.0.0.1", number, timeout=30)) as client:

            def predict(name: str = "") -> int:
                headers = {"Content-Type": "application/json", "X-Request-ID": name}
                client.request("POST", "/predict", BODY, headers)
                answer = client.getresponse()
                answer.read()
                return answer.status

            assert Counter(predict() for _ in range(requests)) == {200: requests}
            assert server.ask("/health/live").status == 200
            # the worker counts once a second
            time.sleep(1.5)
            metrics = server.ask("/metrics").body.decode()
            dropped = re.findall(r"^digits_log_lines_dropped_total (\S+)", metrics, re.MULTILINE)
            # when there is room again, the log says how many lines are missing
            lines = [json.loads(process.stdout.readline()) for _ in range(requests // 20)]
            assert predict("last") == 200
            while lines[-1].get("request_id") != "last":
                lines.append(json.loads(process.stdout.readline()))
            told = sum(line["lines"] for line in lines if line["message"] == "log lines dropped")
            assert 0 < told == float(dropped[0])
            assert sum(line["message"] == "request" for line in lines) + told == requests + 1
            # full again
            assert Counter(predict() for _ in range(requests)) == {200: requests}
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


# stopping and starting


def test_a_request_that_is_cut_off_is_answered_and_logged(start: Callable[..., Server]) -> None:
    server = start(WEB_CONCURRENCY="1", DIGITS_GRACE_SECONDS="1", DIGITS_CPU_SECONDS="600")
    with (
        closing(connect(server, head(100) + bytes(50))) as incomplete,
        closing(connect(server, head(len(LARGE), "application/json") + LARGE)) as running,
    ):
        until(lambda: not idle(server))
        begun = time.monotonic()
        server.process.terminate()
        assert [status_of(incomplete), status_of(running)] == [503, 503]
        assert server.process.wait(20) == 0
    # the grace time and 3 s are promised; a slow machine gets three more
    assert time.monotonic() - begun < 7
    assert [line["status"] for line in server.log() if line["message"] == "request"] == [503, 503]


def test_what_a_killed_service_leaves_is_removed_at_the_next_start(start: Callable[..., Server]) -> None:
    def folders(server: Server) -> set[Path]:
        opened = psutil.Process(server.children()[0]).open_files()
        return {Path(file.path).parent for file in opened if "digits-metrics-" in file.path}

    killed = start(WEB_CONCURRENCY="1")
    until(killed.children)
    (left,) = folders(killed)
    workers = killed.children()
    killed.process.kill()
    killed.process.wait()
    until(lambda: not any(map(psutil.pid_exists, workers)))
    assert left.exists()
    # one that has just been created may belong to a service that is starting
    os.utime(left, (0, 0))
    alive = start(WEB_CONCURRENCY="1")
    assert not left.exists()
    os.utime(*folders(alive), (0, 0))
    start(WEB_CONCURRENCY="1")
    assert all(folder.exists() for folder in folders(alive))


def test_a_redirect_names_no_host(server: Server) -> None:
    for method, path in (("POST", "/v1//models/mnist:predict"), ("GET", "/health//live")):
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
            client.request(method, path)
            answer = client.getresponse()
            answer.read()
        assert (answer.status, answer.headers["Location"]) == (308, path.replace("//", "/"))


# eight clients of each kind

ORDINARY: dict[str, tuple[str, str, bytes]] = {
    "small prediction": ("/predict", "application/json", BODY),
    "photograph": ("/predict", "image/jpeg", photo()),
    "JSON batch": ("/predict", "application/json", json.dumps({"images": [SAMPLE["image"]] * 64}).encode()),
    "reading": ("/read", "image/jpeg", photo(800, 600)),
}
HOSTILE = {
    **{kind: partial(costly.requests, 2) for kind in KINDS},
    "hatching to read": lambda: {"hatching to read": ("/read", "image/png", costly.hatching(1400, 1400, 12))},
}


@pytest.mark.e2e
@pytest.mark.parametrize("kind", HOSTILE)
def test_eight_costly_clients_leave_room_for_others(
    start: Callable[..., Server], beside: Callable[..., Any], kind: str
) -> None:
    # so that turns count, and not how fast the machine is
    server = start(DIGITS_MAX_WAIT_MS="5000", DIGITS_CPU_SECONDS="60")
    until(lambda: len(server.children()) == 2)
    workers = server.children()
    request = HOSTILE[kind]()[kind]
    beside(lambda: send(server, *request), 8)
    time.sleep(1)
    answered: dict[str, Counter[int]] = {name: Counter() for name in ORDINARY}
    healthy: Counter[int] = Counter()
    for name in itertools.islice(itertools.cycle(ORDINARY), 100 * len(ORDINARY) // 4):
        answered[name][send(server, *ORDINARY[name])[0]] += 1
        healthy[server.ask("/health/ready").status] += 1
    print(kind, answered)
    assert set(healthy) == {200}
    assert set(answered["small prediction"]) == {200}
    for name, statuses in answered.items():
        assert statuses[200] >= 0.95 * statuses.total(), name
    assert server.children() == workers
    assert server.stop() == 0
