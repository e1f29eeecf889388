"""Malicious requests over raw sockets to a real server: request smuggling, absurd lengths and malicious JSON.
tests/web/test_fuzz.py replays what `make fuzz` has found."""

from __future__ import annotations

import json
import re
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_checks import unless_refused
from digits.web.protocols import kserve, tensors
from digits.web.settings import Settings
from raw_requests import GOOD, PATHS, START, bodies, connect, read_answer, received_for
from service import Server

# the smuggled request
HIDDEN = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LIVE = b'{"status":"live"}'


# each of these has two framings, of which a proxy may use one and the server the other
SMUGGLED = {
    "length and chunked": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": b"Content-Length: 2\r\nContent-Length: 100\r\n\r\n{}" + HIDDEN,
    "a length twice": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n{}" + HIDDEN,
    "a signed length": b"Content-Length: +2\r\n\r\n{}" + HIDDEN,
    "a negative length": b"Content-Length: -2\r\n\r\n{}" + HIDDEN,
    "a hexadecimal length": b"Content-Length: 0x2\r\n\r\n{}" + HIDDEN,
    "a length with an exponent": b"Content-Length: 1e1\r\n\r\n{}" + HIDDEN,
    "a length with a gap": b"Content-Length: 2 2\r\n\r\n{}" + HIDDEN,
    "digits of another script": "Content-Length: ２\r\n\r\n{}".encode() + HIDDEN,
    "an empty length": b"Content-Length:\r\n\r\n" + HIDDEN,
    "space before the colon": b"Content-Length : 2\r\n\r\n{}" + HIDDEN,
    "space before chunked's colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded header": b"X: a\r\n Content-Length: 2\r\n\r\n{}" + HIDDEN,
    "a bare line feed": b"X: a\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "a bare carriage return": b"X: a\rTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "a null byte": b"X: a\0\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "chunked in disguise": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked after a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked in quotes": b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + HIDDEN,
    "chunked, then identity": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "compressed": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a chunk in hexadecimal with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk with an underscore": b"Transfer-Encoding: chunked\r\n\r\n0_2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk longer than it says": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n" + HIDDEN,
    "a chunk extension with a line feed": b"Transfer-Encoding: chunked\r\n\r\n2;\nx\r\n{}\r\n0\r\n\r\n"
    + HIDDEN,
    "a length in the trailer": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n"
    + HIDDEN,
    "two hosts": b"Host: y\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "two content types": b"Content-Type: image/png\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
}


@pytest.mark.parametrize("kept_alive", [False, True], ids=["new connection", "kept alive"])
@pytest.mark.parametrize("what", SMUGGLED)
def test_a_smuggled_request_is_refused_and_the_connection_closed(
    server: Server, what: str, kept_alive: bool
) -> None:
    answer = received_for(server, START + SMUGGLED[what], kept_alive)
    assert re.match(rb"HTTP/1.1 (400|501) ", answer), answer
    assert answer.count(b"HTTP/1.") == 1
    assert LIVE not in answer
    assert b"Content-Type: application/problem+json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] in (400, 501)


def test_bytes_after_a_complete_request_are_the_next_request(server: Server) -> None:
    # this shows that the tests above would notice a second answer
    answer = received_for(server, GOOD + HIDDEN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), True)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert LIVE in answer


@pytest.mark.parametrize("kept_alive", [False, True], ids=["new connection", "kept alive"])
@pytest.mark.parametrize(
    ("length", "status"),
    [(b"99999999999", 413), (b"9" * 20, 413), (b"9" * 4000, 413), (b"9" * 4301, 400)],
    ids=["100 GB", "20 digits", "4000 digits", "more digits than Python reads"],
)
def test_an_absurd_length_is_refused_at_once(
    server: Server, length: bytes, status: int, kept_alive: bool
) -> None:
    # a server that waits for the body would wait for a minute, longer than the socket's timeout
    with connect(server) as sock:
        if kept_alive:
            sock.sendall(GOOD)
            read_answer(sock)
        sock.sendall(START + b"Content-Length: " + length + b"\r\n\r\n{")
        assert read_answer(sock).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nExpect: magic\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nX: no host\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
def test_invalid_http_gets_problem_details(server: Server, request_bytes: bytes, status: int) -> None:
    answer = received_for(server, request_bytes, False)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert problem["status"] == status
    assert f"X-Request-ID: {problem['request_id']}\r\n".encode() in answer
    assert any(line.get("request_id") == problem["request_id"] for line in server.log())


def test_a_host_header_is_required_except_in_http_1_0(server: Server) -> None:
    assert received_for(server, b"GET /health/live HTTP/1.0\r\n\r\n", False).endswith(LIVE)
    answer = received_for(server, GOOD + GOOD.replace(b"Host: x\r\n", b""), False)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400"]


def test_headers_cannot_change_the_path_or_the_scheme(server: Server) -> None:
    # by default gunicorn trusts proxies on loopback
    for headers in (
        {"SCRIPT_NAME": "/nope"},
        {"PATH_INFO": "/metrics"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"},
        {"X-Forwarded-Prefix": "/nope", "X-Original-URL": "/metrics", "X-Rewrite-URL": "/metrics"},
        {"X-HTTP-Method-Override": "DELETE"},
    ):
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        answer = received_for(
            server,
            f"GET /health/live HTTP/1.1\r\nHost: x\r\n{lines}Connection: close\r\n\r\n".encode(),
            False,
        )
        assert answer.startswith(b"HTTP/1.1 200 "), (headers, answer)
        assert answer.endswith(LIVE)


# JSON

DEPTH = 100_000
HUGE = b"9" * 5000


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "pixel",
    [
        *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"+NaN", b"inf", b"1e999", b"-1e999"),
        *(b"1e-999999", b"1e", b"0x1", b"01", b"1_0", b"+1", b".5", b"5.", "１".encode(), b"--1"),
        *(
            HUGE,
            b"-" + HUGE,
            HUGE + b"." + HUGE,
            b"0." + HUGE,
            b"1e" + HUGE,
            b"true",
            b"null",
            b'"1"',
            b"{}",
            b"[[]]",
        ),
        *(b"18446744073709551616", b"-9223372036854775809", b"1" * 400),
    ],
    ids=lambda pixel: pixel[:12].decode(),
)
def test_a_strange_number_is_a_number_or_a_4xx(server: Server, path: str, pixel: bytes) -> None:
    assert server.ask(path, bodies(b"0")[path], Content_Type="application/json").status == 200
    answer = server.ask(path, bodies(pixel)[path], Content_Type="application/json")
    # in range, in different notations
    fine = pixel in (b"1e-999999", b"0." + HUGE)
    assert (answer.status == 200) if fine else (400 <= answer.status < 500), answer.body
    # the answer must not contain NaN
    json.loads(answer.body, parse_constant=pytest.fail)


@pytest.mark.parametrize("path", [*PATHS, "/read"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEPTH,
        b"[" * DEPTH + b"]" * DEPTH,
        b'{"image":' * DEPTH + b"0" + b"}" * DEPTH,
        b'{"image":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"instances":' + b"[" * 900 + b"NaN" + b"]" * 900 + b"}",
        b'{"image":' + b"[" * 900 + b"NaN" + b"]" * 900 + b"}",
        b'{"inputs":[{"name":"image","datatype":"FP32","shape":[1,784],"data":'
        + b"[" * 900
        + b"]" * 900
        + b"}]}",
        b'{"a":NaN,"b":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"image":"\xff"}',
        b'{"image":"\xed\xa0\x80"}',
        b'{"image":"\\ud800"}',
        b'{"\\ud800":0}',
        b'{"image":"\\u0000"}',
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        b"",
        b"\0" * 1000,
        b"null",
        b'"' + b"a" * 100_000,
        b'{"instances":[{"b64":"\\ud800"}]}',
        b'{"instances":[{"image":[]},{"b64":""}]}',
        b'{"inputs":[{"name":"\\ud800","datatype":"\\ud800","shape":[4294967296,4294967296],"data":[]}]}',
        b'{"inputs":[{"name":"image","datatype":"FP32","shape":[2147483647,2147483647,2147483647],"data":[]}]}',
    ],
    ids=range(25),
)
def test_malicious_json_is_4xx(server: Server, path: str, body: bytes) -> None:
    workers = [psutil.Process(worker) for worker in server.children()]
    spent = sum(sum(worker.cpu_times()[:2]) for worker in workers)
    answer = server.ask(path, body, Content_Type="application/json")
    assert 400 <= answer.status < 500, answer.body
    assert sum(sum(worker.cpu_times()[:2]) for worker in workers) - spent < 1


@pytest.mark.parametrize("path", PATHS)
def test_of_duplicate_keys_the_last_one_counts(server: Server, path: str) -> None:
    # like orjson, Python's json and JavaScript; a proxy must not come to another result
    good = bodies(b"0")[path]
    bad = bodies(b"-1")[path]
    last_good = bad[:-1] + b"," + good[1:]
    last_bad = good[:-1] + b"," + bad[1:]
    assert server.ask(path, last_good, Content_Type="application/json").status == 200
    assert server.ask(path, last_bad, Content_Type="application/json").status in (400, 422)


# the decoders of other protocols; those of POST /predict are in test_inputs.py


NUMBERS = st.integers() | st.floats() | st.booleans()
NESTED = st.recursive(
    NUMBERS | st.none() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=29) | st.dictionaries(st.sampled_from(["b64", "image"]), inner),
    max_leaves=30,
)
ODD = st.sampled_from([0, 1, 0.5, -1, 2, 256, float("nan"), float("inf"), True, None, "0", [0], 10**400])
# an image with one arbitrary pixel, and perhaps another length
FLAT = st.builds(
    lambda length, place, odd: [0.5] * place + [odd] + [0.5] * (length - place - 1),
    st.sampled_from([784, 784, 783, 785]),
    st.integers(0, 782),
    ODD,
)
ANY = NESTED | st.lists(FLAT, max_size=2)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {}, optional={"instances": ANY, "inputs": ANY, "signature_name": st.text(max_size=3) | st.none()}
    )
)
def test_any_tensorflow_serving_request_is_2xx_or_4xx(small_app: Any, document: Any) -> None:
    answer = small_app.post("/v1/models/mnist:predict", data=json.dumps(document))
    assert answer.status_code == 200 or 400 <= answer.status_code < 500
    assert list(answer.json) in (["error"], ["predictions"], ["outputs"])


SHAPES = st.lists(st.sampled_from([0, 1, 2, 28, 784, -1, 2**31, 2**64, 1.0, True, None]), max_size=5) | NESTED
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "classification", "x"]),
    st.integers(-1, 800) | NESTED,
    max_size=3,
)
TENSOR = st.fixed_dictionaries(
    {"name": st.just("image") | st.text(max_size=3)},
    optional={
        "datatype": st.sampled_from(["FP32", "UINT8", "INT64", None, ["FP32"]]),
        "shape": SHAPES,
        "data": ANY | FLAT,
        "parameters": PARAMETERS | NESTED,
    },
)
OUTPUTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["digit", "probabilities", "x", None])}, optional={"parameters": PARAMETERS}
    ),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSOR, max_size=2) | NESTED},
        optional={"outputs": OUTPUTS | NESTED, "id": st.text(max_size=3), "parameters": PARAMETERS},
    ),
    st.binary(max_size=800) | st.sampled_from([bytes(784), bytes(3136)]),
    st.none() | st.integers(-5, 5) | st.text(max_size=5),
)
def test_any_kserve_request_is_2xx_or_4xx(small_app: Any, document: Any, tail: bytes, length: Any) -> None:
    head = json.dumps(document).encode()
    headers = {}
    if isinstance(length, int):
        headers[kserve.HEADER] = str(len(head) + length)
    elif isinstance(length, str):
        headers[kserve.HEADER] = (
            length.encode("utf-8", "replace").decode("latin-1").replace("\n", "").replace("\r", "")
        )
    answer = small_app.post("/v2/models/mnist/infer", data=head + tail, headers=headers)
    assert answer.status_code == 200 or 400 <= answer.status_code < 500
    if answer.status_code != 200:
        assert list(answer.json) == ["error"]


@settings(max_examples=200, deadline=None)
@given(ANY, st.integers(0, 3), st.sampled_from([1, 255]))
def test_any_nested_numbers_are_a_batch_or_a_problem(small_app: Any, value: Any, most: int, top: int) -> None:
    body, app = json.dumps(value).encode(), small_app.application

    def decode() -> np.ndarray:
        return tensors.batch(tensors.array(value, "x", body), "x", top)

    with app.app_context(), patch.object(app.extensions["digits"], "settings", Settings(max_batch=most)):
        batch = unless_refused(decode)
    if batch is not None:
        assert batch.shape[1:] == (28, 28, 1)
        assert len(batch) <= most
        assert 0 <= batch.min() <= batch.max() <= 1


PART = st.tuples(
    st.sampled_from(
        [
            'Content-Disposition: form-data; name="a"; filename="x"',
            'Content-Disposition: form-data; name="a"',
            "Content-Disposition: form-data; filename*=UTF-8''%ff",
            'Content-Disposition: form-data; name="\\"; filename="\0',
            "Content-Type: multipart/mixed; boundary=frontier",
            "Content-Transfer-Encoding: base64",
            "no header",
            "",
        ]
    ),
    st.sampled_from(["\r\n\r\n", "\n\n", "\r\n", ""]),
    st.binary(max_size=60),
    st.sampled_from(["\r\n--frontier\r\n", "\r\n--frontier--\r\n", "--frontier", "\n--frontier\n", ""]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["/predict", "/read"]),
    st.lists(PART, max_size=4),
    st.sampled_from(["frontier", "", '"frontier', "fron;tier", "x" * 80, "frontier; charset=nope"]),
)
def test_any_form_is_2xx_or_4xx(small_app: Any, path: str, parts: list[Any], boundary: str) -> None:
    body = b"--frontier\r\n" + b"".join(
        head.encode() + gap.encode() + content + end.encode() for head, gap, content, end in parts
    )
    kind = f"multipart/form-data; boundary={boundary}"
    answer = small_app.post(path, data=body, headers={"Content-Type": kind})
    assert answer.status_code == 200 or 400 <= answer.status_code < 500
    assert answer.is_json or answer.content_type == "application/problem+json"


def test_a_large_form_is_not_written_to_disk(small_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", None)
    head = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = head + bytes(900_000) + b"\r\n--frontier--\r\n"
    answer = small_app.post("/predict", data=body, content_type="multipart/form-data; boundary=frontier")
    assert answer.status_code == 415


@pytest.fixture(scope="module")
def small_app() -> Any:
    """A test client for many requests, with a small limit on batches."""
    from app import create_app

    return create_app(Settings(max_batch=3, max_body_bytes=1 << 20)).test_client()
