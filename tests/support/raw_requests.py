"""Requests as bytes, sent over sockets, and JSON that no client's library would write."""

from __future__ import annotations

import json
import re
import socket

from project import SAMPLE
from service import Server

START = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


BODY = json.dumps(SAMPLE).encode()


GOOD = START + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_answer(sock: socket.socket) -> bytes:
    """Read one answer with a Content-Length."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = sock.recv(65536)
        assert received, answer
        answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(re.search(rb"\r\nContent-Length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
    while len(body) < length:
        received = sock.recv(65536)
        assert received, body
        body += received
    return head + b"\r\n\r\n" + body


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    answer = b""
    try:
        while received := sock.recv(65536):
            answer += received
    except ConnectionError:
        pass
    return answer


def received_for(server: Server, request: bytes, kept_alive: bool) -> bytes:
    """The bytes that the server sends for `request` until it closes the connection. kept_alive: send another
    request first."""
    with connect(server) as sock:
        if kept_alive:
            sock.sendall(GOOD)
            assert b"predicted_digit" in read_answer(sock)
        sock.sendall(request)
        return read_all(sock)


PATHS = ("/predict", "/v1/models/mnist:predict", "/v2/models/mnist/infer", "/invocations")


def image_with(pixel: bytes, white: bytes) -> bytes:
    return b"[" + b"0," * 782 + white + b"," + pixel + b"]"


def bodies(pixel: bytes) -> dict[str, bytes]:
    """A request for each protocol with this text as the last pixel of an image."""
    image = image_with(pixel, b"1")
    return {
        PATHS[0]: b'{"image":' + image_with(pixel, b"255") + b"}",
        PATHS[1]: b'{"instances":[' + image + b"]}",
        PATHS[2]: b'{"inputs":[{"name":"image","datatype":"FP32","shape":[1,784],"data":' + image + b"}]}",
        PATHS[3]: b'{"dataframe_split":{"data":[' + image_with(pixel, b"255") + b"]}}",
    }
