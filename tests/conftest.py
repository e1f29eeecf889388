"""Fixtures of all tests: MNIST if it is available, an app in this process, and real gunicorn processes (`start`,
`server`)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

# a failed assertion in these also shows its values
pytest.register_assert_rewrite("fuzz", "pad", "pipeline", "raw_requests", "scans", "service")

from project import ROOT  # noqa: E402
from service import STARTED, Server  # noqa: E402


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
def mnist() -> dict[str, np.ndarray]:
    """MNIST's arrays from the file that MNIST_NPZ names. Tests are skipped without it."""
    path = os.environ.get("MNIST_NPZ")
    if not path:
        pytest.skip("needs MNIST: set MNIST_NPZ to a local mnist.npz")
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}
