"""digits/server/worker.py under a real gunicorn: the short way answers, and no slow client holds up another."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from hypothesis import given
from hypothesis import strategies as st

from digits.server.refusals import Refusals
from digits.server.worker import SMALL, UNKNOWN, chunked_whole, extent, is_quick

ROOT = Path(__file__).resolve().parent.parent

# echoes the body and names the thread that answered
ECHO = """
import threading

def app(environ, start_response):
    body = environ["wsgi.input"].read()
    headers = [("Content-Length", str(len(body))), ("X-Thread", threading.current_thread().name)]
    start_response("200 OK", headers)
    return [body]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A gunicorn with one worker and two threads; (its process, its port)."""
    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.py").write_text(ECHO)
    log = folder / "log"
    command = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket", "--threads", "2"]
    command += ["-k", "digits.server.worker.Worker", "--keep-alive", "75", "echo:app"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=file)
    try:
        deadline = time.monotonic() + 20
        while not (port := re.search(r"127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process, int(port[1])
    finally:
        process.kill()
        process.wait()


def post(connection, body=b"hello", **options):
    connection.request("POST", "/", body, **options)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.getheader("X-Thread")


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server[1], timeout=10)


def test_small_request_is_answered_without_a_thread(server):
    connection = connect(server)
    connection.connect()
    for _ in range(3):
        connection.sock.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nhi"
        )
        answer = http.client.HTTPResponse(connection.sock, method="POST")
        answer.begin()
        assert (answer.read(), answer.getheader("X-Thread")) == (b"hi", "MainThread")
    connection.close()


def test_large_and_chunked_bodies_go_to_threads_and_arrive_whole(server):
    connection = connect(server)
    post(connection)
    large = os.urandom(300_000)
    status, body, thread = post(connection, large)
    assert (status, body == large) == (200, True)
    assert thread != "MainThread"
    status, body, thread = post(connection, iter([b"a" * 10, b"b" * 10]), encode_chunked=True)
    assert (status, body) == (200, b"a" * 10 + b"b" * 10)
    assert thread != "MainThread"
    connection.close()


def test_client_that_stops_in_mid_body_holds_up_nobody(server):
    slow = connect(server)
    post(slow)
    slow.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
    other = connect(server)
    begun = time.monotonic()
    assert post(other)[:2] == (200, b"hello")
    assert time.monotonic() - begun < 2
    slow.sock.sendall(b"ll")
    slow.sock.sendall(b"o")
    answer = http.client.HTTPResponse(slow.sock, method="POST")
    answer.begin()
    assert answer.read() == b"hello"
    slow.close()
    other.close()


def test_pipelined_requests_are_answered_in_order(server):
    connection = connect(server)
    post(connection)
    connection.sock.sendall(
        b"".join(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % i for i in range(5))
    )
    got = b""
    while got.count(b"HTTP/1.1 200") < 5 or not got.endswith(b"4"):
        received = connection.sock.recv(65536)
        assert received
        got += received
    assert re.findall(rb"\r\n\r\n(\d)", got) == [b"0", b"1", b"2", b"3", b"4"]
    connection.close()


def test_request_with_two_framings_is_refused(server):
    connection = connect(server)
    post(connection)
    connection.sock.sendall(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 400")
    connection.close()


@pytest.mark.parametrize(
    ("received", "length"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", 40),
        (b"POST / HTTP/1.1\r\ncontent-length:2\r\n\r\n", 39),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\t\r\n\r\nhiPOST / HT", 41),
        (b"GET / HTTP/1.1\r\n\r\n", 18),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n", 0),
        (b"", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\nhi", UNKNOWN),
        (b"POST / HTTP/1.1\r\nContent-Length: \xc2\xb2\r\n\r\nhi", UNKNOWN),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", UNKNOWN),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length : 3\r\n\r\nhi", UNKNOWN),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi", UNKNOWN),
        (b"POST / HTTP/1.1\r\nX: " + bytes(70_000), UNKNOWN),
    ],
)
def test_length_of_a_request_is_told_only_where_nothing_is_odd(received, length):
    assert extent(received) == length


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b"0\r\n\r\n", True),
        (b"2\r\nhi\r\n0\r\n\r\n", True),
        (b"2\r\nhi\r\n0\r\nTrailer: x\r\n\r\n", True),
        (b"2\r\nhi\r\n00;a=b\r\n\r\nPOST", True),
        (b"2\r\nhi\r\n0\r\n", False),
        (b"2\r\nhi\r\n0\r\nTrailer: x\r\n", False),
        (b"10\r\nhi\r\n", False),
    ],
)
def test_chunked_body_is_whole_with_its_last_chunk_and_trailers(body, whole):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert chunked_whole(head + body, len(head) - 2) is whole


LINES = st.sampled_from(
    [
        b"Content-Length: 3",
        b"content-length:3 ",
        b"Content-Length: 03",
        b"Content-Length: 3, 3",
        b"Content-Length:",
        b"Content-Length : 4",
        b"X: y\nContent-Length: 4",
        b"X: y\r\n Content-Length: 4",
        b"\tContent-Length: 4",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding : chunked",
        b"X-Content-Length: 9",
        b"Host: x",
        b"",
        b"\n",
        b"Content_Length: 5",
        b"CONTENT-LENGTH: 1\x00",
        b"Content-Length: 1\r",
    ]
)


@given(lines=st.lists(LINES, max_size=4), body=st.binary(max_size=12), start=st.sampled_from([b"", b"\r\n"]))
def test_length_of_a_request_is_what_gunicorns_parser_reads(lines, body, start):
    # were it another, what follows a refused request would be read as a request of its own (smuggling)
    received = start + b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", body])
    length = extent(received)
    assert length >= UNKNOWN
    if 0 < length <= len(received):
        parser = get_parser(Config(), (), ("127.0.0.1", 1))
        parser.unreader.buf.write(received)
        try:
            request = next(parser)
            request.body.read()
        except Exception:
            return  # refused, and the connection with it
        assert parser.unreader.buf.getvalue() == received[length:]


@given(st.binary(max_size=200))
def test_anything_can_be_refused(received):
    answer = Refusals(None)(received, 503, "Busy.", seconds=0.0, close=True)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert json.loads(body)["status"] == 503


PIXELS = b'{"image": [[0, 1], [2, 3]]}'
LONG = b"A" * 200


@pytest.mark.parametrize(
    ("kind", "body", "quick"),
    [
        (b"application/json", PIXELS, True),
        (b"application/json; charset=utf-8", PIXELS, True),
        (b"application/json", b'{"inputs": [{"name": "image", "data": [0]}]}', True),
        (b"application/json", b'{"image": "' + LONG + b'"}', False),
        (b"application/json", b'{"\\"": 0, "image": "' + LONG + b'"}', False),
        (b"application/json", b'{"image": [' + b"0," * SMALL + b"0]}", False),
        (b"application/octet-stream", bytes(784), True),
        (b"image/png", b"png", False),
        (b"multipart/form-data", b"", False),
    ],
)
def test_only_small_requests_without_a_picture_are_quick(kind, body, quick):
    assert is_quick(b"POST / HTTP/1.1\r\nContent-Type: " + kind + b"\r\n\r\n" + body) is quick
    assert not is_quick(b"GET / HTTP/1.1\r\nContent-Type: " + kind + b"\r\n\r\n" + body)


def test_sigterm_ends_the_server_cleanly(server):
    # last: the module's server is gone after it
    connection = connect(server)
    post(connection)
    server[0].send_signal(signal.SIGTERM)
    assert server[0].wait(15) == 0
    connection.close()
