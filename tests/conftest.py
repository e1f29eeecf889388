"""Fixtures of the tests: MNIST if it is available, an app in this process, and real gunicorn processes (`start`,
`server`), and a real browser with the page (`browser`, `open_page`, `page`)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
# their packages are only installed for `make test-bulk`
collect_ignore = (
    []
    if importlib.util.find_spec("distributed")
    else ["test_bulk.py", "test_bulk_cluster.py", "test_bulk_limits.py"]
)
# Debian's packages for the browser and a font
PACKAGES = ("chromium", "fonts-dejavu-core")
SAMPLE = json.loads((ROOT / "sample_request.json").read_text())


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


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts gunicorn as shipped, with two workers, on a free port and with additional environment variables.

    within: a command that runs another command, such as `env`. target: the app that gunicorn serves. program: the
    arguments of Python to use instead.
    """

    def start(
        *,
        wait: bool = True,
        within: tuple[str, ...] = (),
        target: str = "app:app",
        program: tuple[str, ...] = (),
        **environ: str,
    ) -> Server:
        output = tmp_path_factory.mktemp("server") / "output"
        env = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
        env |= {"PORT": "0", "WEB_CONCURRENCY": "2"} | environ
        with output.open("wb") as out:
            command = [*within, sys.executable, *(program or ("-m", "gunicorn", target))]
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
        server = Server("", process, output, env)
        STARTED.append(server)
        if not wait:
            return server
        # if a model has to be compiled, the start takes seconds, and longer on a busy machine
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            listening = [line for line in server.log() if line["message"].startswith("Listening at: ")]
            if listening:
                # "Listening at: http://127.0.0.1:40123 (4711)"
                # followed by a comma and another address, if the metrics have one
                server.url = listening[0]["message"].split()[2].split(",")[0]
                try:
                    if server.ask("/health/ready").status == 200:
                        return server
                except OSError:
                    pass
            time.sleep(0.02)
        server.process.kill()
        raise AssertionError(f"gunicorn did not become ready:\n{output.read_text()}")

    yield start
    # each takes one or two seconds to stop
    for server in STARTED:
        server.process.terminate()
    for server in STARTED:
        server.stop()


@pytest.fixture(autouse=True)
def servers_of_a_test_end_with_it() -> Iterator[None]:
    """Stops the servers that a test has started, because dozens of idle ones would slow down other tests."""
    # fixtures of a wider scope have started theirs before
    before = len(STARTED)
    yield
    for server in STARTED[before:]:
        server.process.terminate()


@pytest.fixture(scope="session")
def server(start: Callable[..., Server]) -> Server:
    """A running service that is shared by all tests that don't change it."""
    return start()


@pytest.fixture
def client() -> Any:
    """A Flask test client with its own app."""
    from app import create_app
    from digits.web.settings import Settings

    return create_app(Settings.from_env(os.environ)).test_client()


@pytest.fixture(scope="session")
def drawn_digits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Synthetic digits in place of MNIST's, for the pictures of benchmarks/."""
    from numerals_strings import Digits  # type: ignore[import-not-found]

    from digits.training.synthetic import draw

    file = tmp_path_factory.mktemp("mnist") / "mnist.npz"
    np.savez(file, **draw(0, 80, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_NPZ", str(file))
        return Digits()


@pytest.fixture(scope="session")
def mnist() -> dict[str, np.ndarray]:
    """MNIST's arrays from the file that MNIST_NPZ names. Tests are skipped without it."""
    path = os.environ.get("MNIST_NPZ")
    if not path:
        pytest.skip("needs MNIST: set MNIST_NPZ to a local mnist.npz")
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def find_browser() -> str:
    """The path of the browser. Tests are skipped if there is none."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (path := shutil.which(name)):
            return path
    # CI runs as root on Debian, which has a package
    why = "not Debian, or not root"
    if shutil.which("apt-get") and os.geteuid() == 0:
        print("\ninstalling Debian's chromium, once: about a minute")
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", *words], check=False, capture_output=True, text=True)
            why = f"apt-get {words[0]}: {done.stderr.strip()[-300:]}"
        if path := shutil.which("chromium"):
            return path
    pytest.skip(f"needs a browser: install Debian's package chromium, or set CHROMIUM to one ({why})")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    path = find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # in a container, root can't create the namespaces that the sandbox needs
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, server: Server) -> Iterator[Any]:
    """Opens the page in a new window. Afterwards, checks that the console is empty and that there were no
    requests to other hosts."""
    messages: list[str] = []
    requests: list[str] = []
    contexts = []
    expected: list[str] = []

    def open_page(width: int = 1100, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        # a busy machine must not fail a test
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.expected_messages = expected
        page.goto(server.url)
        page.wait_for_selector("#card dt")
        return page

    yield open_page
    for context in contexts:
        # answers that a test delays may still be pending
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert [m for m in messages if not any(e in m for e in expected)] == []
    assert [url for url in requests if not url.startswith((server.url, "blob:", "data:"))] == []


@pytest.fixture
def page(open_page: Any) -> Any:
    return open_page()
