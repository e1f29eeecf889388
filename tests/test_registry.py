"""A model from a registry that is not there, or that answers nonsense: ModelError, in time, and nobody is told who
asked. A real registry is in tests/test_mlflow.py."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from digits import registry
from digits.model import ModelError

SOURCE = Path("models:/digits@champion")


@pytest.fixture
def strange(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any], None]], list[Any]]]:
    """Start a server that answers each request by a function, and name it; the requests' headers are collected."""
    servers = []

    def start(answer: Callable[[Any], None]) -> list[Any]:
        heard: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.append(self.headers)
                answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        servers.append(server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        return heard

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answering(body: bytes, status: int = 200, **headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("uri", ["", "mlflow.example", "ftp://x", "file:///etc", "http://", "sqlite:///x.db"])
def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ModelError, match="address"):
        registry.load(SOURCE)


@pytest.mark.parametrize("uri", ["models:/digits", "models:/digits@", "models:/digits/x", "models:/a@b/c"])
def test_a_name_that_is_none_is_told(uri: str) -> None:
    with pytest.raises(ModelError, match="neither"):
        registry.load(Path(uri))


def test_nobody_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(ModelError, match=r"alias: .*refused"):
        registry.load(SOURCE)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answering(b"<html>"), "no JSON object"),
        (answering(b"[" * 100_000), "no JSON object"),
        (answering(b"\xff"), "no JSON object"),
        (answering(b"{}"), "no model_version.version"),
        (answering(b'{"model_version": {"version": 3}}'), "no model_version.version"),
        (answering(b'{"model_version": {"version": "3"}}'), "no artifact_uri"),
        (answering(b'{"model_version": {"version": "3"}, "artifact_uri": "s3://b/x"}'), "--serve-artifacts"),
        (
            answering(b'{"model_version": {"version": "3"}, "artifact_uri": "mlflow-artifacts:/x"}'),
            "not written",
        ),
        (answering(b'{"message": "No such alias"}', 404), "404 .*No such alias"),
        (answering(b"{", Content_Length="100"), "ended early"),
        (answering(b"{", Content_Length="x"), "can't be asked"),
        (answering(b"", 302, Location="file:///etc/passwd"), "302"),
        (lambda handler: None, "can't be asked"),
        (lambda handler: handler.wfile.write(b"what"), "can't be asked"),
    ],
)
def test_nonsense_is_told(strange: Any, answer: Callable[[Any], None], says: str) -> None:
    strange(answer)
    with pytest.raises(ModelError, match=says):
        registry.load(SOURCE)


def test_what_never_ends_is_given_up(strange: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SECONDS", 0.5)

    def trickle(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        # until nobody listens; by then it was given up
        for _ in range(100):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.05)

    strange(trickle)
    begun = time.monotonic()
    with pytest.raises(ModelError, match=r"longer than|timed out"):
        registry.load(SOURCE)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "x:y"}, "Basic bWU6eDp5"),
    ],
)
def test_who_asks_is_told_to_nobody_else(
    strange: Any, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], sent: str
) -> None:
    elsewhere = strange(answering(b"{}"))
    there = os.environ["MLFLOW_TRACKING_URI"]
    here = strange(answering(b"", 302, Location=f"{there}/x"))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=r"no model_version\.version"):
        registry.load(SOURCE)
    assert here[0]["Authorization"] == sent
    assert elsewhere[0]["Authorization"] is None
