"""`make test-mlflow`: MLflow's own server and clients, unmodified, with the service and the training. They have an
environment of their own, which MLFLOW_TOOLS names."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Server

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="session")
def tools() -> Path:
    """MLflow's environment."""
    folder = os.environ.get("MLFLOW_TOOLS")
    if not folder:
        pytest.fail("run by `make test-mlflow`, which makes MLflow's environment")
    return Path(folder)


@pytest.fixture(scope="session")
def client(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run a function of tests/mlflow_clients.py."""
    folder = tmp_path_factory.mktemp("client")

    def run(*words: str) -> Any:
        done = subprocess.run(
            [tools / "bin" / "python", "-W", "ignore", ROOT / "tests" / "mlflow_clients.py", *words],
            cwd=folder,
            env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_mlflows_client_invokes_the_service(client: Callable[..., Any], server: Server) -> None:
    told = client("client", server.url)
    assert told["frame"] == [[2, 10], [7, 7]]
    assert told["array"] == [[1, 10], [7]]
    assert "error code 400" in told["refused"]
    assert "shape [1, 3]" in told["refused"]


def test_answers_are_those_of_mlflows_scoring_server(client: Callable[..., Any], server: Server) -> None:
    told = client("pyfunc", server.url)
    assert len(told) == 5
    for each in told:
        assert each["status"] == 200
        ours = server.ask("/invocations", each["body"].encode(), Content_Type=each["kind"])
        assert ours.status == 200
        assert ours.json.keys() == each["answer"].keys()
        assert len(ours.json["predictions"]) == len(each["answer"]["predictions"])
        for mine, theirs in zip(ours.json["predictions"], each["answer"]["predictions"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-6)
