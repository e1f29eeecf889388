"""The DVC pipeline in a clone, with synthetic digits: it trains, is then up to date, and its data can be
shared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT

from digits.model import Classifier, load
from digits.training import data, outliers

SMALL = {"data": {"source": "synthetic", "synthetic": {"train": 600, "test": 100, "seed": 5}}}


def run(folder: Path, *args: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the clone with the tests' Python first in PATH, and without network access."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path} | environ
    done = subprocess.run(args, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def clone(source: Path, target: Path) -> Path:
    run(target.parent, "git", "clone", "-q", str(source), str(target))
    for name, value in (("user.name", "test"), ("user.email", "test@example.org")):
        run(target, "git", "config", name, value)
    return target


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the files of this working tree, configured for a small training with synthetic digits."""
    folder = clone(ROOT, tmp_path_factory.mktemp("pipeline") / "project")
    for name in ("train.py", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "digits", folder / "digits", dirs_exist_ok=True)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["data"] = SMALL["data"]
    params["train"] |= {"epochs": 2, "validation": 100, "filters": [4, 8, 8], "dense": [16, 16]}
    # tests/test_outliers.py draws all kinds; evaluating each takes a second here
    params["train"]["outliers"] |= {"sets": 2, "kinds": {"pairs": 1, "letters": 1}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "small")
    return folder


# does several small runs of train.py in one process, because TensorFlow takes seconds to start, each with its own
# arguments and changes to params.yaml; the run "stopped" gets SIGINT after its first epoch
RUNS = """
import json, os, runpy, signal, sys, tempfile, threading, traceback
from pathlib import Path
import yaml

# if the tests run in the background they ignore SIGINT, and so would this process
signal.signal(signal.SIGINT, signal.default_int_handler)

def stop_after_an_epoch(output, ended):
    while not ended.wait(0.01):
        if b"epoch" in os.pread(output, 1 << 16, 0):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return

outcomes, ours = {}, os.dup(1)
for name, (arguments, changes, path) in json.loads(sys.argv[1]).items():
    written = Path("params.yaml").read_text()
    params = yaml.safe_load(written)
    params["train"]["outliers"] |= changes.pop("outliers", {})
    params["train"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(params))
    os.environ["PATH"] = path or os.environ["PATH"]
    sys.argv, printed, error = ["train.py", *arguments], tempfile.TemporaryFile(), None
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    ended = threading.Event()
    if name == "stopped":
        threading.Thread(target=stop_after_an_epoch, args=(printed.fileno(), ended)).start()
    try:
        runpy.run_path("train.py", run_name="__main__")
    except SystemExit as exit:
        error = exit.code
    except KeyboardInterrupt:
        error = "stopped"
    except Exception:
        error = traceback.format_exc()
    ended.set()
    sys.stdout.flush()
    sys.stderr.flush()
    printed.seek(0)
    Path("params.yaml").write_text(written)
    outcomes[name] = {"printed": printed.read().decode(), "error": error}
outcomes["modules"] = list(sys.modules)
outcomes["loaded"] = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
os.write(ours, json.dumps(outcomes).encode())
"""


def contents(folder: Path) -> dict[Path, bytes]:
    """The files below `folder`: relative path -> content."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small_runs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of small runs in a copy of the clone, which is `folder`, and the files that they loaded.
    Meanwhile `dvc repro` runs in the clone, because each of them keeps only one CPU busy."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("small") / "project")
    run(folder, sys.executable, "-m", "digits.training.data")
    (without_git := folder.parent / "bin").mkdir()
    for name in ("models", "metrics"):
        shutil.copytree(folder / name, folder / "stopped" / name)
    nothing_besides = {
        "synthetic_fraction": 0,
        "low_resolution_fraction": 0,
        "printed_fraction": 0,
        "outliers": {"fraction": 0},
    }
    small = {
        "again": (["--out", "again"], {}, None),
        "too few": (["--limit", "2"], {}, None),
        "all for validation": ([], {"validation": 600}, None),
        "a handful": (["--epochs", "1", "--limit", "3"], nothing_besides, str(without_git)),
        "stopped": (["--epochs", "500", "--limit", "200", "--out", "stopped"], nothing_besides, None),
    }
    before = contents(folder / "stopped")
    command = [sys.executable, "-c", RUNS, json.dumps(small)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
        done = run(project, "dvc", "repro")
        assert "Test accuracy:" in done.stdout
        outcomes = json.loads(process.communicate()[0])
    return outcomes | {"folder": folder, "before": before}


@pytest.fixture(scope="module")
def trained(project: Path, small_runs: dict[str, Any]) -> Path:
    """The clone after `dvc repro` and a commit."""
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "trained")
    return project


def test_a_run_writes_model_card_metrics_and_plots(trained: Path) -> None:
    card = json.loads((trained / "models" / "mnist.json").read_text())
    assert card["trained_on"] == "synthetic"
    assert card["parameters"] > 1000
    assert sum(map(sum, card["confusion_matrix"])) == 100
    assert 0 <= card["test"]["accuracy"] <= 1
    assert card["params"]["epochs"] == 2
    metrics = json.loads((trained / "metrics" / "metrics.json").read_text())
    assert metrics["test"] == pytest.approx(card["test"])
    assert metrics["sure_threshold"] == card["sure_threshold"]
    assert 0 < card["sure_threshold"] < 1
    assert 0 <= card["test"]["ece"] <= 1
    assert set(card["validation"]["outliers"]) == set(card["params"]["outliers"]["kinds"])
    assert (trained / "metrics" / "plots" / "outliers.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "metrics" / "plots" / "misclassified.png").read_bytes().startswith(b"\x89PNG")
    Classifier(load(trained / "models" / "mnist.h5"))


def test_validation_figures_come_from_images_that_nothing_was_fitted_to(trained: Path) -> None:
    card = json.loads((trained / "models" / "mnist.json").read_text())
    arrays = data.load(trained / "data" / "digits.npz")
    held_out = np.random.default_rng(card["params"]["seed"]).permutation(600)[:100]
    unseen = held_out[50:]
    assert card["params"]["calibration_fraction"] == 0.5
    classifier = Classifier(load(trained / "models" / "mnist.h5"))
    probabilities = classifier.probabilities(arrays["x_train"][unseen][..., None] / np.float32(255))
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    right = probabilities[np.arange(50), arrays["y_train"][unseen]]
    assert card["validation"]["loss"] == pytest.approx(-np.log(np.maximum(right, 1e-7)).mean(), rel=1e-3)


def test_after_a_run_nothing_is_out_of_date(trained: Path) -> None:
    assert "up to date" in run(trained, "dvc", "status").stdout
    done = run(trained, "dvc", "repro")
    assert "Running stage" not in done.stdout
    assert run(trained, "git", "status", "--porcelain").stdout == ""


def test_the_train_stage_depends_on_every_file_that_it_loads(small_runs: dict[str, Any]) -> None:
    folder = small_runs["folder"]
    own = {Path(name) for name in small_runs["loaded"] if Path(name).is_relative_to(folder)}
    assert folder / "digits" / "training" / "augment.py" in own
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "train.py" in stages["train"]["deps"]
    deps = {folder / name for name in stages["train"]["deps"]}
    # it only contains a docstring; tests/test_layout.py checks that it imports nothing
    deps.add(folder / "digits" / "__init__.py")
    assert {path for path in own if not deps & {path, *path.parents}} == set()


def test_training_loads_nothing_of_the_service(small_runs: dict[str, Any]) -> None:
    assert "tensorflow" in small_runs["modules"]
    assert not {"flask", "gunicorn", "gevent", "prometheus_client"} & set(small_runs["modules"])


def test_plots_and_metrics_are_shown(trained: Path, tmp_path: Path) -> None:
    assert "test.accuracy" in run(trained, "dvc", "metrics", "show").stdout
    run(trained, "dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    for name in ("loss", "accuracy", "confusion", "misclassified.png", "reliability", "outliers.png"):
        assert name in page


def test_push_and_pull_through_a_local_folder(trained: Path, tmp_path: Path) -> None:
    run(trained, "dvc", "remote", "add", "--default", "--local", "storage", str(tmp_path / "storage"))
    run(trained, "dvc", "push")
    fresh = clone(trained, tmp_path / "fresh")
    run(fresh, "dvc", "remote", "add", "--default", "--local", "storage", str(tmp_path / "storage"))
    run(fresh, "dvc", "pull")
    assert (fresh / "data" / "digits.npz").read_bytes() == (trained / "data" / "digits.npz").read_bytes()
    assert "up to date" in run(fresh, "dvc", "status").stdout
    assert "Running stage" not in run(fresh, "dvc", "repro").stdout


def test_two_runs_with_one_seed_give_the_same_bytes(trained: Path, small_runs: dict[str, Any]) -> None:
    assert small_runs["again"]["error"] is None
    again = small_runs["folder"] / "again" / "models" / "mnist.h5"
    assert again.read_bytes() == (trained / "models" / "mnist.h5").read_bytes()


def test_a_run_with_a_handful_of_images_works_without_git(
    small_runs: dict[str, Any],
) -> None:
    done = small_runs["a handful"]
    assert done["error"] is None
    assert "Test accuracy:" in done["printed"]
    card = json.loads((small_runs["folder"] / "tmp" / "train" / "models" / "mnist.json").read_text())
    assert card["trained_on"] == "synthetic, 3 images"
    assert card["git_revision"] is None
    assert card["params"]["validation"] == 2
    assert card["validation"]["outliers"] == {}
    assert 0 < card["sure_threshold"] < 1


def test_an_unknown_kind_of_outlier_is_named() -> None:
    images, labels = np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.uint8)
    with pytest.raises(data.DataError, match="unknown kinds of outliers: cats"):
        outliers.draw(4, images, labels, 1, {"cats": 1})


def test_a_run_with_too_few_images_is_refused(small_runs: dict[str, Any]) -> None:
    done = small_runs["too few"]
    assert done["error"] == 2
    assert "--limit must be at least 3" in done["printed"]
    done = small_runs["all for validation"]
    # sys.exit prints its text without a traceback, and exits with 1
    assert "validation: 600" in done["error"]
    assert contents(small_runs["folder"] / "models") == {
        path.relative_to("models"): content
        for path, content in small_runs["before"].items()
        if path.is_relative_to("models")
    }


def test_a_run_that_is_stopped_keeps_the_old_model(small_runs: dict[str, Any]) -> None:
    assert small_runs["stopped"]["error"] == "stopped"
    # it was in the middle of training
    assert "epoch" in small_runs["stopped"]["printed"]
    assert contents(small_runs["folder"] / "stopped") == small_runs["before"]
