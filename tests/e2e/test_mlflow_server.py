"""The service and training with MLflow's own server and clients. `make test-mlflow` runs these tests, and installs
MLflow in a separate environment, which MLFLOW_TOOLS names."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digits.training import tracking
from digits.training.arrays import DIGITS, read, sha256, write
from project import ROOT, SAMPLE
from service import Server

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="session")
def tools() -> Path:
    """MLflow's environment."""
    folder = os.environ.get("MLFLOW_TOOLS")
    if not folder:
        pytest.fail("run by `make test-mlflow`, which creates MLflow's environment")
    return Path(folder)


@pytest.fixture(scope="session")
def client(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs a function of tests/support/mlflow_clients.py."""
    folder = tmp_path_factory.mktemp("client")

    def run(*words: str) -> Any:
        done = subprocess.run(
            [
                tools / "bin" / "python",
                "-W",
                "ignore",
                ROOT / "tests" / "support" / "mlflow_clients.py",
                *words,
            ],
            cwd=folder,
            env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_mlflows_client_gets_predictions_from_the_service(client: Callable[..., Any], server: Server) -> None:
    result = client("client", server.url)
    assert result["frame"] == [[2, 10], [7, 7]]
    assert result["array"] == [[1, 10], [7]]
    assert "error code 400" in result["refused"]
    assert "shape [1, 3]" in result["refused"]


def test_answers_are_the_same_as_those_of_mlflows_scoring_server(
    client: Callable[..., Any], server: Server
) -> None:
    result = client("pyfunc", server.url)
    assert len(result) == 5
    for each in result:
        assert each["status"] == 200
        ours = server.ask("/invocations", each["body"].encode(), Content_Type=each["kind"])
        assert ours.status == 200
        assert ours.json.keys() == each["answer"].keys()
        assert len(ours.json["predictions"]) == len(each["answer"]["predictions"])
        for mine, theirs in zip(ours.json["predictions"], each["answer"]["predictions"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-6)


@dataclass
class Registry:
    """A running `mlflow server`."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        # the whole process group, and SIGKILL because SIGTERM took more than 30 s on a busy machine
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)


def until(found: Callable[[], Any], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


@contextmanager
def running(tools: Path, folder: Path) -> Iterator[Registry]:
    """An empty registry, which keeps its data in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [tools / "bin" / "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        folder / "files",
    ]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [*command, *stores], cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    made = Registry(f"http://127.0.0.1:{port}", process)
    try:
        until(
            lambda: urllib.request.urlopen(f"{made.url}/health", timeout=5).status == 200, "MLflow's server"
        )
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def registry(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tools, tmp_path_factory.mktemp("mlflow")) as made:
        yield made


def training_environ(url: str) -> dict[str, str]:
    """The environment of a training run with MLflow's server at `url`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"MLFLOW_TRACKING_URI": url}


def log_run(url: str, folder: Path) -> str:
    """Log the training run in `folder` as the stage `evaluate` does, and return its standard error."""
    code = (
        "import logging, sys; from pathlib import Path; from digits.training import tracking;"
        " logging.basicConfig(level='INFO'); tracking.log_run(Path(sys.argv[1]), register=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        cwd=ROOT,
        env=training_environ(url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def trained(tools: Path, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which a small model was trained and logged to MLflow."""
    copy = tmp_path_factory.mktemp("trained") / "project"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, copy], check=True)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    params = (copy / "params.yaml").read_text()
    small = {"source": "synthetic", "train": 640, "test": 100, "epochs": 2, "validation": 64}
    for name, value in small.items():
        params = re.sub(rf"(?m)^( +{name}:) \S+", rf"\1 {value}", params, count=1)
    (copy / "params.yaml").write_text(params)
    for command in (
        ["-m", "digits.training.data"],
        ["-m", "digits.training.images"],
        ["-m", "digits.training.corrections"],
        ["train.py"],
        ["-m", "digits.training.compile", "models/mnist.h5", "models/mnist.tflite"],
        ["-m", "digits.training.evaluate"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=copy,
            env=training_environ(registry.url),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "logged to MLflow" in done.stderr, done.stdout + done.stderr
    return copy


def test_a_run_is_logged_and_registered(
    client: Callable[..., Any], registry: Registry, trained: Path
) -> None:
    result = client("tracked", registry.url, tracking.ALIAS)
    card = json.loads((trained / "models" / "mnist.json").read_text())
    assert (result["experiment"], result["status"], result["runs"], result["version"]) == (
        "digits",
        "FINISHED",
        1,
        "1",
    )
    assert result["params"]["train.epochs"] == "2"
    assert result["params"]["train.learning_rate"] == str(card["params"]["train"]["learning_rate"])
    assert result["metrics"]["test.accuracy"] == card["test"]["accuracy"]
    assert result["metrics"]["validation.loss"] == card["validation"]["loss"]
    assert result["steps"]["train.loss"] == result["steps"]["eval.accuracy"] == [1, 2]
    assert result["tags"]["mlflow.source.git.commit"] == tracking.revision(trained)
    assert result["tags"]["data_sha256"] == card["data_sha256"]
    assert {"model/mnist.h5", "model/mnist.tflite", "model/mnist.json"} <= set(result["files"])
    assert {"metrics/metrics.json", "metrics/plots/confusion.csv"} <= set(result["files"])


def test_a_registered_model_is_served_and_replaced(
    client: Callable[..., Any],
    registry: Registry,
    trained: Path,
    tools: Path,
    start: Callable[..., Server],
    tmp_path: Path,
) -> None:
    versions = {}
    for name, folder in (("small", trained), ("shipped", ROOT)):
        versions[name] = json.loads((folder / "models" / "mnist.json").read_text())["version"]
    # version 2 is the shipped model, and version 3 has the .tflite of another model
    assert "logged to MLflow" in log_run(registry.url, ROOT)
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    (tmp_path / "models").mkdir()
    for name in tracking.MODEL_FILES:
        shutil.copy(ROOT / "models" / name, tmp_path / "models")
    shutil.copy(trained / "models" / "mnist.tflite", tmp_path / "models")
    assert "logged to MLflow" in log_run(registry.url, tmp_path)
    assert client("tracked", registry.url, tracking.ALIAS)["version"] == "3"

    client("promote", registry.url, "1")
    named = {"DIGITS_MODEL": "models:/digits@champion", "MLFLOW_TRACKING_URI": registry.url}
    server = start(**named)
    card = json.loads((trained / "models" / "mnist.json").read_text())
    assert server.ask("/model").json.items() >= card.items()
    assert server.ask("/health/ready").json["model_version"] == versions["small"]

    def reload() -> None:
        before = len(server.log())
        server.process.send_signal(signal.SIGHUP)
        until(
            lambda: any("load" in line["message"].lower() for line in server.log()[before + 1 :]), "a reload"
        )

    client("promote", registry.url, "2")
    reload()
    until(
        lambda: server.ask("/predict", SAMPLE).headers["x-model-version"] == versions["shipped"],
        "the new model",
    )
    assert server.ask("/predict", SAMPLE).json["predicted_digit"] == 7
    fixed = start(DIGITS_MODEL="models:/digits/1", MLFLOW_TRACKING_URI=registry.url, WEB_CONCURRENCY="1")
    assert fixed.ask("/health/ready").json["model_version"] == versions["small"]

    failures = "digits_model_reload_failures_total"

    def failed() -> str:
        return server.ask(f"/metrics?name[]={failures}").body.decode().splitlines()[-1]

    def errors() -> list[str]:
        return [line["message"] for line in server.log() if line["level"].lower() == "error"]

    client("promote", registry.url, "3")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(errors()) == 1, "the error")
    assert "keeping the old model" in errors()[0]
    assert "mnist.tflite was not compiled" in errors()[0]
    registry.stop()
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(errors()) == 2, "the error")
    assert "The request to MLflow for" in errors()[1]
    until(lambda: failed() == f"{failures} 2.0", "the count")
    until(lambda: server.ask("/health/ready").json["model_version"] == versions["shipped"], "the old model")

    # without the registry the service does not start, but training is not affected
    dead = start(wait=False, **named)
    assert dead.process.wait(60) == 1
    assert "The request to MLflow for" in dead.output.read_text()
    begun = time.monotonic()
    assert "the run could not be logged to MLflow" in log_run(registry.url, ROOT)
    assert time.monotonic() - begun < 60


def test_the_alias_champion_follows_a_candidate_that_is_accepted(
    client: Callable[..., Any], trained: Path, tools: Path, tmp_path: Path
) -> None:
    champion, better = tmp_path / "champion", tmp_path / "candidate"
    for source, folder in ((trained, champion), (ROOT, better)):
        for name in ("models", "metrics"):
            shutil.copytree(source / name, folder / name)
    test = read(DIGITS, trained / "data" / "digits.npz")
    images, labels = test["x_test"], test["y_test"]
    version = json.loads((better / "models" / "mnist.json").read_text())["version"]

    def compared(held_out: bool, url: str) -> subprocess.CompletedProcess[str]:
        """Compare the small model with the shipped one, as if that were trained with corrections."""
        ids = np.arange(len(images)).astype("U")
        corrections = {
            "images": images,
            "labels": labels,
            "held_out": np.full(len(images), held_out),
            "ids": ids,
        }
        write(corrections, tmp_path / "corrections.npz")
        card = better / "models" / "mnist.json"
        about = json.loads(card.read_text())
        about["params"]["corrections"] = {"sha256": sha256(tmp_path / "corrections.npz")}
        card.write_text(json.dumps(about))
        words = ("--champion", champion, "--corrections", tmp_path / "corrections.npz", "--n", "5")
        return subprocess.run(
            [sys.executable, "benchmarks/candidate.py", better, *words],
            cwd=trained,
            env=training_environ(url),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    with running(tools, tmp_path) as registry:
        for folder in (champion, better):
            assert "logged to MLflow" in log_run(registry.url, folder)
        client("promote", registry.url, "1")

        def aliases() -> list[str]:
            named = (client("tracked", registry.url, alias) for alias in (tracking.PROMOTED, tracking.ALIAS))
            return [each["version"] for each in named]

        assert aliases() == ["1", "2"]
        # no correction is held out, so nothing shows that it is better
        done = compared(False, registry.url)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "corrections held out: chance explains" in done.stderr
        assert aliases() == ["1", "2"]
        done = compared(True, registry.url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert aliases() == ["2", "2"]
        assert client("tracked", registry.url, tracking.PROMOTED)["tags"]["model_version"] == version
    assert json.loads((champion / "models" / "mnist.json").read_text())["version"] == version


def test_without_mlflow_a_run_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tracking.log_run(ROOT, register=True)
    assert "mlflow-skinny is not installed" in caplog.text
