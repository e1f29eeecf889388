"""The worker and the master's hooks in a real gunicorn: slow, divided and incomplete requests, and refusals.
tests/e2e/test_faults.py tests the same under load."""

import base64
import concurrent.futures
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing

import h5py
import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from PIL import Image

from project import ROOT
from service import until

SAMPLE = (ROOT / "sample_request.json").read_bytes()
MODELS = ROOT / "models"
ORIGIN = "https://example.org"
JSON = "Content-Type: application/json\r\n"


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), 20)


def head(length, *lines, path="/predict"):
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *lines, "", ""]
    ).encode()


def chunked(body, size, *lines, path="/predict"):
    """A request with a chunked body, in chunks of `size` bytes."""
    begin = "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *lines, "", ""]
    ).encode()
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return begin + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def answer(client):
    """Read the next answer on a connection: status, headers, body."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, f"the connection ended after {received!r}"
        received += byte
    line, *lines = received.decode("latin-1").splitlines()[:-1]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = b""
    while len(body) < int(headers["content-length"]):
        body += client.recv(int(headers["content-length"]) - len(body))
    return int(line.split(" ")[1]), headers, body


def ask(server, request, half_close=False):
    with closing(connect(server)) as client:
        client.sendall(request)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return answer(client)


def logged(server, request_id, seconds=10):
    """The log line of a request."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lines = [line for line in server.log() if line.get("request_id") == request_id]
        if lines:
            return lines[0]
        time.sleep(0.05)
    raise AssertionError("no line in the log")


# the app factory


def test_importing_the_factory_creates_no_app():
    code = "import app, sys; from app import create_app; print('app' in vars(app), len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def test_gunicorn_serves_the_factory_as_it_serves_the_app(start):
    server = start(target="app:create_app()", WEB_CONCURRENCY="1")
    assert server.ask("/predict", json.loads(SAMPLE)).json["predicted_digit"] == 7
    assert server.stop() == 0


def test_routes_answer_with_and_without_the_prefix_of_a_proxy(start):
    server = start(SCRIPT_NAME="/digits/", WEB_CONCURRENCY="1")

    def get(path):
        return ask(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n".encode())

    for prefix in ("", "/digits"):
        assert ask(server, head(len(SAMPLE), JSON.strip(), path=f"{prefix}/predict") + SAMPLE)[0] == 200
        assert get(f"{prefix}/health/ready")[0] == 200
        page = get(f"{prefix}/")[2].decode()
        links = re.findall(r'(?:href|src)="([^"]+)"', page)
        assert len(links) > 5
        for link in links:
            assert not link.startswith("/")
            assert get(f"{prefix}/{link}")[0] == 200
    # relative links need the slash
    status, headers, _ = get("/digits")
    assert (status, headers["location"]) == (308, "/digits/")
    assert get("/digitsx/health/live")[0] == 404


def test_app_py_starts_the_service(start):
    server = start(program=("app.py", "--workers=1"))
    assert server.ask("/predict", json.loads(SAMPLE)).status == 200
    assert server.children() != []


# bodies


def test_pipelined_requests_are_answered_in_order(server):
    bodies = [b'{"image": %d}' % i for i in range(5)]
    with closing(connect(server)) as client:
        client.sendall(b"".join(head(len(body), JSON.strip()) + body for body in bodies[:-1]))
        client.sendall(head(len(SAMPLE), JSON.strip()) + SAMPLE)
        found = [answer(client) for _ in range(5)]
    assert [status for status, _, _ in found] == [422] * 4 + [200]
    assert json.loads(found[-1][2])["predicted_digit"] == 7


def test_a_client_may_stop_sending_after_its_request(server):
    assert ask(server, head(len(SAMPLE), JSON.strip()) + SAMPLE, half_close=True)[0] == 200


def test_a_client_that_asks_may_continue_with_its_body(server):
    with closing(connect(server)) as client:
        client.sendall(head(len(SAMPLE), JSON.strip(), "Expect: 100-continue"))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(SAMPLE)
        assert answer(client)[0] == 200


def test_a_chunked_body_may_come_in_pieces_and_before_other_requests(server):
    with closing(connect(server)) as client:
        begin, _, rest = chunked(SAMPLE, 1000, JSON.strip()).partition(b"\r\n\r\n")
        client.sendall(begin + b"\r\n\r\n")
        for place in range(0, len(rest), 700):
            client.sendall(rest[place : place + 700])
            time.sleep(0.02)
        client.sendall(head(len(SAMPLE), JSON.strip()) + SAMPLE + head(2, JSON.strip()) + b"{}")
        assert [answer(client)[0] for _ in range(3)] == [200, 200, 422]


def test_a_client_that_stops_in_the_middle_of_a_body_does_not_delay_others(server):
    with closing(connect(server)) as slow:
        slow.sendall(head(len(SAMPLE), JSON.strip()) + SAMPLE[:100])
        # send these to every worker; each request has 20 s, and the slow one 60 s
        for _ in range(8):
            assert ask(server, head(len(SAMPLE), JSON.strip()) + SAMPLE)[0] == 200
        slow.sendall(SAMPLE[100:])
        assert answer(slow)[0] == 200


@pytest.mark.parametrize("lines", [(), ("X-Large: " + "a" * 3000,)], ids=["short head", "long head"])
def test_an_incomplete_body_is_400_whatever_its_framing(server, lines):
    raw = "Content-Type: application/octet-stream"
    # the first 784 of 1568 bytes would be an image
    status, headers, body = ask(server, head(1568, raw, *lines) + bytes(784), half_close=True)
    assert (status, headers["connection"]) == (400, "close")
    assert json.loads(body)["detail"] == "The connection was closed before the request was complete."
    whole = chunked(bytes(784), 784, raw, *lines)
    assert ask(server, whole.removesuffix(b"0\r\n\r\n"), half_close=True)[0] == 400
    status, headers, body = ask(server, head(10, JSON.strip()) + b"{", half_close=True)
    assert (status, headers["content-type"]) == (400, "application/problem+json")


def test_a_reset_in_the_middle_of_a_body_is_not_a_server_error(start):
    server = start(WEB_CONCURRENCY="1")
    for request in (head(1000, JSON.strip()) + b"{", chunked(SAMPLE, 100, JSON.strip())[:500]):
        with closing(connect(server)) as client:
            client.sendall(request)
            time.sleep(0.2)
            # reset the connection: RST instead of FIN
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: sum(line.get("status") == 400 for line in server.log()) == 2)
    assert not any(line["level"] == "ERROR" for line in server.log())
    assert b'status="5' not in server.ask("/metrics").body


def test_a_late_body_is_408_and_counted(start):
    server = start(DIGITS_RECEIVE_SECONDS="1", DIGITS_CORS_ORIGINS=ORIGIN)
    with closing(connect(server)) as client:
        client.sendall(head(10, JSON.strip(), f"Origin: {ORIGIN}") + b"1234")
        status, headers, _ = answer(client)
    assert (status, headers["access-control-allow-origin"]) == (408, ORIGIN)
    assert logged(server, headers["x-request-id"])["status"] == 408
    assert b'status="408",url_rule="/predict"} 1.0' in server.ask("/metrics").body


LIMIT = 100_000
FORM = "Content-Type: multipart/form-data; boundary=b"


def form(name, content, filename=None):
    """A form with one field."""
    file = f'; filename="{filename}"' if filename else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def small(start):
    """A service with a small limit on bodies."""
    return start(DIGITS_MAX_BODY_BYTES=str(LIMIT), DIGITS_CORS_ORIGINS=ORIGIN)


def posts():
    from digits.web.openapi import describe

    # a service that does not collect answers has no corrections
    return [
        path.replace("{version}", "1")
        for path, there in describe("0", 1)["paths"].items()
        if "post" in there and path != "/corrections"
    ]


@pytest.mark.parametrize("path", posts())
@pytest.mark.parametrize(
    "kind", ["application/json", "application/octet-stream", "image/png", "multipart/form-data; boundary=b"]
)
def test_a_chunked_body_over_the_limit_is_413(small, path, kind):
    if "versions" in path:
        version = small.ask("/health/ready").json["model_version"]
        path = path.replace(
            "versions/1", f"versions/{version if path.startswith('/v2') else int(version, 16)}"
        )
    picture = (ROOT / "digits/web/static/samples/7.png").read_bytes()
    body = {"application/json": SAMPLE, "image/png": picture}.get(kind, bytes(784 * 120))
    if "form" in kind:
        body = form("f", picture, filename="f")
    body += b" " * (LIMIT + 1 - len(body))
    status, _, answered = ask(small, chunked(body, 4096, f"Content-Type: {kind}", path=path))
    assert status == 413
    assert b"The body is larger than the %d bytes that are accepted." % LIMIT in answered


def test_a_chunked_body_at_the_limit_is_read(small):
    body = SAMPLE + b" " * (LIMIT - len(SAMPLE))
    assert ask(small, chunked(body, 4096, JSON.strip()))[0] == 200
    picture = (ROOT / "digits/web/static/samples/7.png").read_bytes()
    body = form("f", picture, filename="f")
    body += b" " * (LIMIT - len(body))
    assert ask(small, chunked(body, 4096, FORM))[0] == 200


def test_a_chunked_form_over_its_own_limit_is_not_called_a_large_body(server):
    status, _, body = ask(server, chunked(form("f", bytes(600_000)), 65536, FORM))
    assert status == 413
    assert json.loads(body)["detail"].endswith("Send pictures as files.")


@pytest.mark.parametrize("path", ["/nothing", "/health/live", "/predict"])
@pytest.mark.parametrize("size", [1000, LIMIT])
@pytest.mark.parametrize("frame", ["length", "chunked"])
def test_the_connection_header_says_what_happens_to_the_connection(small, path, size, frame):
    kind = "Content-Type: text/plain"
    body = bytes(size)
    request = (
        head(size, kind, path=path) + body if frame == "length" else chunked(body, 1000, kind, path=path)
    )
    with closing(connect(small)) as client:
        client.sendall(request)
        status, headers, _ = answer(client)
        assert status in (404, 405, 415)
        if headers["connection"] == "keep-alive":
            client.sendall(head(len(SAMPLE), JSON.strip()) + SAMPLE)
            assert answer(client)[0] == 200
        else:
            assert client.recv(1) == b""


class Sent:
    """A socket that returns a request in pieces, as from a network."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def recv(self, size):
        return self.file.read(min(size, 1400))


def calls(size):
    """The number of Python calls to read a body of this size in chunks of 1 KiB."""
    from digits.web.settings import Settings
    from digits.worker.body import Body, Room

    req = next(RequestParser(Config(), Sent(chunked(bytes(size), 1024)), ("127.0.0.1", 1)))
    body = Body(req, Room(Settings()))
    count = 0

    def count_call(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(count_call)
    try:
        assert len(body.read()) == size
    finally:
        sys.setprofile(None)
    return count


def test_reading_a_chunked_body_is_linear_in_its_length():
    assert calls(1 << 20) < 2.2 * calls(1 << 19) < 5 * calls(1 << 18)


def test_others_continue_while_a_form_of_many_parts_is_parsed(monkeypatch):
    from digits.web.messages import FormParser
    from digits.web.settings import Settings
    from digits.worker import body

    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx\r\n'
    form = part * 2000 + b"--b--\r\n"
    lines = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(form)}\r\n\r\n".encode()
    req = next(RequestParser(Config(), Sent(lines + form), ("127.0.0.1", 1)))
    turns = []
    monkeypatch.setattr(body.gevent, "sleep", turns.append)
    stream = body.Body(req, body.Room(Settings()))
    parser = FormParser(stream_factory=lambda **_: io.BytesIO(), max_form_parts=2000)
    _, _, files = parser.parse(stream, "multipart/form-data", len(form), {"boundary": "b"})
    assert len(files.getlist("f")) == 2000
    # at most 250 parts at a time
    assert len(turns) >= 8


# refusals and waiting


def gif(width, height):
    """A GIF of about forty bytes that declares a canvas of this size."""
    file = io.BytesIO()
    Image.new("P", (1, 1)).save(file, "GIF")
    data = bytearray(file.getvalue())
    data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(data)


def test_small_files_with_enormous_pictures_do_not_delay_others(start):
    server = start(WEB_CONCURRENCY="1", DIGITS_MAX_WAIT_MS="60000")
    text = base64.b64encode(gif(10_000, 1_600)).decode()
    assert len(text) < 128
    body = json.dumps({"images": [text] * 3}).encode()
    requests, answered = 3, 0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pictures = pool.submit(
            lambda: [ask(server, head(len(body), JSON.strip()) + body)[0] for _ in range(requests)]
        )
        while not pictures.done():
            assert ask(server, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
            answered += 1
    assert set(pictures.result()) <= {413, 422}
    # if they were decoded in the event loop, at most one or two health checks would be answered between them
    assert answered > 5 * requests


def test_overload_is_refused_through_the_app(start):
    server = start(
        WEB_CONCURRENCY="1", DIGITS_MAX_WAIT_MS="1", DIGITS_PROCESSES="1", DIGITS_CORS_ORIGINS=ORIGIN
    )
    file = io.BytesIO()
    Image.effect_noise((2000, 2000), 50).save(file, "PNG", compress_level=0)
    picture = file.getvalue()

    def send(i):
        return ask(
            server,
            head(len(picture), "Content-Type: image/png", f"Origin: {ORIGIN}", f"X-Request-ID: r{i}")
            + picture,
        )

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(32)))
    refused = [(headers, body) for status, headers, body in answers if status == 503]
    assert refused
    assert {status for status, _, _ in answers} <= {200, 422, 503}
    for headers, body in refused:
        assert headers["retry-after"] == "1"
        assert headers["access-control-allow-origin"] == ORIGIN
        assert json.loads(body)["detail"] == "The service is overloaded; retry in one second."
        assert logged(server, headers["x-request-id"])["status"] == 503
    assert f"digits_requests_shed_total {len(refused)}.0".encode() in server.ask("/metrics").body


@pytest.mark.parametrize("new", [False, True], ids=["a kept connection", "a new connection"])
def test_a_health_check_overtakes_the_predictions_that_wait(start, new):
    server = start(WEB_CONCURRENCY="1", DIGITS_LOG_LEVEL="debug", DIGITS_MAX_WAIT_MS="60000")
    look = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
    clients = [connect(server) for _ in range(150)]
    for client in clients:
        client.sendall(look)
        assert answer(client)[0] == 200
    (worker,) = server.children()
    os.kill(worker, signal.SIGSTOP)
    for client in clients[:-1]:
        client.sendall(head(len(SAMPLE), JSON.strip()) + SAMPLE)
    last = connect(server) if new else clients[-1]
    last.sendall(look)
    os.kill(worker, signal.SIGCONT)
    for client in (*clients[:-1], last):
        assert answer(client)[0] == 200
    for client in (*clients, last):
        client.close()
    assert server.stop() == 0
    methods = [line["method"] for line in server.log() if line.get("status") == 200][-150:]
    assert methods.count("POST") == 149
    # the worker polls for other requests after fifty of them
    assert methods.index("GET") <= 60


def test_the_duration_includes_waiting(start):
    server = start(WEB_CONCURRENCY="1", DIGITS_MAX_WAIT_MS="60000")
    (worker,) = server.children()
    with closing(connect(server)) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(client)[0] == 200
        os.kill(worker, signal.SIGSTOP)
        client.sendall(head(len(SAMPLE), JSON.strip(), "X-Request-ID: waited") + SAMPLE)
        time.sleep(0.5)
        os.kill(worker, signal.SIGCONT)
        assert answer(client)[0] == 200
    assert 400 < logged(server, "waited")["duration_ms"] < 5000


def test_invalid_http_is_answered_counted_and_logged_like_other_requests(server):
    status, headers, body = ask(server, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
    assert (status, headers["content-type"], headers["connection"]) == (
        400,
        "application/problem+json",
        "close",
    )
    assert json.loads(body)["request_id"] == headers["x-request-id"]
    assert logged(server, headers["x-request-id"])["route"] is None
    status, headers, body = ask(server, b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, json.loads(body)["detail"]) == (414, "The request line is too long.")
    status, headers, body = ask(server, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 10_000 + b"\r\n\r\n")
    assert (status, json.loads(body)["detail"]) == (431, "There are too many headers, or one is too long.")
    counted = server.ask("/metrics").body
    for status in (b"414", b"431"):
        assert re.search(rb'total{method="other",status="%s",url_rule="none"} \d' % status, counted)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/mnist:predict", {"instances": [[0]], "signature_name": "x" * 50_000}),
        ("/v2/models/mnist/infer", {"inputs": [], "outputs": [{"name": "x" * 50_000}]}),
        ("/v2/models/mnist/versions/" + "9" * 3000 + "/infer", {}),
    ],
)
def test_an_error_quotes_little_of_the_request(server, path, body):
    answer = server.ask(path, body)
    assert 400 <= answer.status < 500
    assert len(answer.body) < 1000


# stopping and reloading


def test_sigterm_closes_idle_connections_and_finishes_running_requests(start):
    server = start(WEB_CONCURRENCY="1")
    with closing(connect(server)) as idle, closing(connect(server)) as busy:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(idle)[0] == 200
        busy.sendall(head(len(SAMPLE), JSON.strip()) + SAMPLE[:100])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        time.sleep(1)
        busy.sendall(SAMPLE[100:])
        status, headers, _ = answer(busy)
        assert (status, headers["connection"]) == (200, "close")
        answered = time.monotonic()
        assert server.process.wait(10) == 0
        # 3 s are promised; a slow machine gets two more
        assert time.monotonic() - answered < 5


def test_an_idle_connection_is_closed_for_a_new_one_when_all_are_taken(start):
    server = start(within=("prlimit", "--nofile=800:800"), WEB_CONCURRENCY="1")
    clients = []
    try:
        for _ in range(130):
            clients.append(connect(server))
            clients[-1].sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(clients[-1])[0] == 200
        assert clients[0].recv(1) == b""
    finally:
        for client in clients:
            client.close()


def with_own_model(start, folder):
    """Start a service with a copy of the shipped model in `folder`. Returns it, the path of the copy and its
    version."""
    for name in ("mnist.h5", "mnist.tflite", "mnist.json"):
        shutil.copy(MODELS / name, folder / name)
    server = start(DIGITS_MODEL=str(folder / "mnist.h5"), WEB_CONCURRENCY="1")
    return server, folder / "mnist.h5", server.ask("/health/ready").json["model_version"]


def test_the_start_logs_which_model_is_served(start, tmp_path):
    _, path, version = with_own_model(start, tmp_path)
    server = start(DIGITS_MODEL=str(path), DIGITS_SURE="0.75", WEB_CONCURRENCY="1")
    (line,) = [line for line in server.log() if line["message"] == "model loaded"]
    assert (line["model"], line["model_version"]) == (str(path), version)
    trained_on = json.loads(path.with_suffix(".json").read_text())["trained_on"]
    assert (line["sure_threshold"], line["trained_on"]) == (0.75, trained_on)


def test_sighup_with_a_model_to_compile_leaves_the_master_free(start, tmp_path):
    server, path, old = with_own_model(start, tmp_path)
    # the same network in other bytes; a card of other bytes would be waited for
    path.with_suffix(".json").unlink()
    with h5py.File(path, "a") as file:
        file.attrs["note"] = "changed"
    new = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    server.process.send_signal(signal.SIGHUP)
    until(lambda: any("compiling" in line["message"] for line in server.log()))
    # meanwhile a worker that dies is replaced at once, and the new one serves the old model
    dead = server.children()[0]
    os.kill(dead, signal.SIGKILL)
    until(lambda: dead not in server.children())
    assert server.ask("/health/ready").json["model_version"] == old
    # only the one at the start
    assert [line["model_version"] for line in server.log() if line["message"] == "model loaded"] == [old]
    until(lambda: server.ask("/health/ready").json["model_version"] == new, seconds=120)
    assert server.ask("/predict", json.loads(SAMPLE)).json["predicted_digit"] == 7
    assert server.stop() == 0


def test_sighup_with_a_model_that_cannot_be_compiled_keeps_the_old_one(start, tmp_path):
    server, path, old = with_own_model(start, tmp_path)
    path.with_suffix(".json").unlink()
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
    server.process.send_signal(signal.SIGHUP)
    until(lambda: any("keeping the old model" in line["message"] for line in server.log()), seconds=120)
    until(lambda: b"digits_model_reload_failures_total 1.0" in server.ask("/metrics").body)
    assert server.ask("/health/ready").json["model_version"] == old
    assert server.stop() == 0
