"""A running service: `Server` sends it requests, and checks that the API's description has each status that it
answers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


@dataclass
class Answer:
    """An HTTP answer: status, headers (with names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running gunicorn: its port, its master process, and the file with its output."""

    url: str
    process: subprocess.Popen[bytes]
    output: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """The address at which it listens on 127.0.0.1."""
        return int(self.url.rsplit(":", 1)[1])

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
        """Send a request. A body that is not bytes is sent as JSON. In the names of headers, _ is replaced by
        -."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            names.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.url + path, body, names, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = Answer(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, _lower(error.headers), error.read())
        # every status that a test gets must be in the OpenAPI document
        guarded = any(name.startswith("DIGITS_API_KEYS") for name in self.environ)
        known = described_statuses(request.get_method(), path, guarded)
        assert answer.status in known, "not in digits/web/openapi.yaml"
        if answer.headers.get("content-type") == "application/problem+json" and answer.body:
            assert_sentence(answer.json["detail"])
        elif answer.status >= 400 and path.startswith("/v2"):
            assert_sentence(answer.json["error"])
        return answer

    def log(self) -> list[dict[str, Any]]:
        """The lines of JSON that it has written so far."""
        lines = self.output.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def children(self) -> list[int]:
        """The workers' process ids."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Stop it if it is running, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def assert_sentence(text: str) -> None:
    """Check that an error is a sentence, which may have been shortened. It may begin with a name like '7'."""
    assert re.fullmatch(r"(?s)[^a-z].*[.…]", text), text


# the servers that the session has started
STARTED: list[Server] = []


def described_statuses(method: str, path: str, guarded: bool = False) -> set[int]:
    """The statuses in /openapi.json for a request, including those for API keys."""
    from digits.web.openapi import describe

    operations: dict[str, Any] = {}
    for template, there in describe("0", 1, guarded)["paths"].items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", template.replace("{filename}", "{filename}(/.*)?"))
        if re.fullmatch(pattern, path.split("?")[0]):
            operations |= there
    if not operations:
        return {404}
    method = "get" if method == "HEAD" else method.lower()
    return {int(status) for status in operations[method]["responses"]} if method in operations else {405}


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def samples(text: str) -> dict[str, float]:
    """The values in an exposition by series, without comments."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}
