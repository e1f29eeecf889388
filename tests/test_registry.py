"""Errors of MLflow's registry when loading a model: it can't be reached, gives invalid answers or takes too long.
Also tests that credentials are only sent to the registry. tests/e2e/test_mlflow_server.py uses a real registry."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from digits import model, registry
from digits.model import ModelError

SOURCE = Path("models:/digits@champion")


@pytest.fixture
def start_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any], None]], list[Any]]]:
    """Starts a server that answers each request with a function, sets MLFLOW_TRACKING_URI to its address, and
    returns a list that collects the headers of the requests."""
    servers = []

    def start(answer: Callable[[Any], None]) -> list[Any]:
        headers: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers.append(self.headers)
                answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        servers.append(server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        return headers

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
def test_an_invalid_address_is_reported(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ModelError, match="address"):
        registry.load(SOURCE, model.load)


@pytest.mark.parametrize("uri", ["models:/digits", "models:/digits@", "models:/digits/x", "models:/a@b/c"])
def test_an_invalid_model_name_is_reported(uri: str) -> None:
    with pytest.raises(ModelError, match="neither"):
        registry.load(Path(uri), model.load)


def test_a_refused_connection_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(ModelError, match=r"alias failed: .*refused"):
        registry.load(SOURCE, model.load)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answering(b"<html>"), "not a JSON object"),
        (answering(b"[" * 100_000), "not a JSON object"),
        (answering(b"\xff"), "not a JSON object"),
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
        (answering(b"{", Content_Length="x"), "The request to MLflow for .* failed"),
        (answering(b"", 302, Location="file:///etc/passwd"), "302"),
        (lambda handler: None, "The request to MLflow for .* failed"),
        (lambda handler: handler.wfile.write(b"what"), "The request to MLflow for .* failed"),
    ],
)
def test_invalid_answers_are_reported(start_registry: Any, answer: Callable[[Any], None], says: str) -> None:
    start_registry(answer)
    with pytest.raises(ModelError, match=says):
        registry.load(SOURCE, model.load)


def test_a_slow_answer_is_aborted(start_registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SECONDS", 0.5)

    def trickle(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        # ends when the client has closed the connection
        for _ in range(100):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.05)

    start_registry(trickle)
    begun = time.monotonic()
    with pytest.raises(ModelError, match=r"longer than|timed out"):
        registry.load(SOURCE, model.load)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "x:y"}, "Basic bWU6eDp5"),
    ],
)
def test_credentials_are_not_sent_to_another_server_after_a_redirect(
    start_registry: Any, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], sent: str
) -> None:
    elsewhere = start_registry(answering(b"{}"))
    other = os.environ["MLFLOW_TRACKING_URI"]
    registry_headers = start_registry(answering(b"", 302, Location=f"{other}/x"))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=r"no model_version\.version"):
        registry.load(SOURCE, model.load)
    assert registry_headers[0]["Authorization"] == sent
    assert elsewhere[0]["Authorization"] is None
