"""digits/server/heads.py: what is remembered of a head is what gunicorn would parse again."""

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from digits.server import heads

LINES = st.sampled_from(
    [
        b"Host: x",
        b"Host: y",
        b"Content-Type: application/json",
        b"Content-Length: 3",
        b"Content-Length: 12",
        b"content-length:\t0 ",
        b"Content-Length:",
        b"Content-Length: ",
        b"Content-Length: 1x",
        b"Content-Length: +1",
        b"X-Content-Length: 3",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Connection: close",
        b"X-Forwarded-Proto: https",
        b"X_Odd: 1",
        b" folded",
        b"X: \xe9",
    ]
)
HEADS = st.builds(
    lambda start, line, lines: start + b"\r\n".join([line, *lines, b"", b""]),
    st.sampled_from([b"", b"", b"\r\n"]),
    st.sampled_from([b"POST /predict HTTP/1.1", b"GET /?a=1 HTTP/1.0", b"POST / HTTP/1.1", b"nonsense"]),
    st.lists(LINES, max_size=4),
)


def parsed(parser, received):
    """What a parser makes of a request and its body, or the kind of its refusal."""
    parser.unreader.buf.write(received)
    try:
        request = next(parser)
        body = request.body.read()
    except Exception as error:
        return type(error)
    return vars(request) | {
        "unreader": None,
        "req_number": None,
        "body": body,
        "closes": request.should_close(),
        "left": parser.unreader.take_buffered(),
    }


@given(
    many=st.lists(st.tuples(HEADS, st.binary(max_size=14)), min_size=1, max_size=3), times=st.integers(1, 2)
)
@example(
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", b"abc"),
        (b"POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", b""),
    ],
    1,
)
@example(
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", b"abc"),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", b"ab"),
    ],
    1,
)
def test_a_connections_requests_are_what_gunicorn_alone_makes_of_each(many, times):
    config = Config()
    ours = heads.Parser(config, (), ("127.0.0.1", 1))
    for head, body in many * times:
        found = parsed(ours, head + body)
        alone = parsed(RequestParser(config, (), ("127.0.0.1", 1)), head + body)
        assert found == alone
        if isinstance(found, type) or found["closes"]:
            # as the worker, which closes the connection
            ours = heads.Parser(config, (), ("127.0.0.1", 1))


def test_a_head_is_parsed_once_for_all_lengths(monkeypatch):
    parser = heads.Parser(Config(), (), ("127.0.0.1", 1))
    calls = []
    real = heads.Request.parse_headers
    monkeypatch.setattr(
        heads.Request, "parse_headers", lambda self, *a, **k: calls.append(1) or real(self, *a, **k)
    )
    for body in (b"one", b"three", b"", b"x" * 100):
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        parser.unreader.buf.write(head + body)
        request = next(parser)
        assert (request.path, request.body.read()) == ("/predict", body)
        assert request.headers == [("HOST", "x"), ("CONTENT-LENGTH", str(len(body)))]
    assert calls == [1]


@pytest.mark.parametrize("other", [b"Host: y", b"host: x", b"Host: x\r\nX-API-Key: k"])
def test_another_head_is_parsed_anew(other):
    parser = heads.Parser(Config(), (), ("127.0.0.1", 1))
    for line in (b"Host: x", other, b"Host: x"):
        parser.unreader.buf.write(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n")
        names = [one.partition(b": ") for one in line.split(b"\r\n")]
        assert next(parser).headers == [(n.decode().upper(), v.decode()) for n, _, v in names]


def test_a_large_head_is_not_kept():
    parser = heads.Parser(Config(), (), ("127.0.0.1", 1))
    for size in (10, 3000):
        parser.unreader.buf.write(b"GET / HTTP/1.1\r\nHost: " + b"x" * size + b"\r\n\r\n")
        assert len(next(parser).headers[0][1]) == size
        assert len(parser.unreader.last_head[1]["headers"][0][1]) == 10
