"""The DVC pipeline in a scratch clone, on drawn digits: trains, is up to date then, and can be shared."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from digits.model import Classifier, load
from digits.training import data, outliers

SMALL = {"data": {"source": "synthetic", "synthetic": {"train": 600, "test": 100, "seed": 5}}}


def run(folder: Path, *args: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command in the clone with the tests' own Python first on the path, and outside of any network."""
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
    """A clone with this working tree's files, set to a small training on drawn digits, not yet run."""
    folder = clone(ROOT, tmp_path_factory.mktemp("pipeline") / "project")
    for name in ("train.py", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "digits", folder / "digits", dirs_exist_ok=True)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["data"] = SMALL["data"]
    params["train"] |= {"epochs": 2, "validation": 100}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "small")
    return folder


@pytest.fixture(scope="module")
def trained(project: Path) -> Path:
    """The clone after `dvc repro`, committed."""
    done = run(project, "dvc", "repro")
    assert "Test accuracy:" in done.stdout
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


def test_afterwards_nothing_is_out_of_date(trained: Path) -> None:
    assert "up to date" in run(trained, "dvc", "status").stdout
    done = run(trained, "dvc", "repro")
    assert "Running stage" not in done.stdout
    assert run(trained, "git", "status", "--porcelain").stdout == ""


def test_the_train_stage_depends_on_every_file_that_it_loads() -> None:
    code = "import sys, train; print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)))"
    loaded = {Path(name) for name in run(ROOT, sys.executable, "-c", code).stdout.split()}
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {ROOT / name for name in stages["train"]["deps"]}
    # a docstring and nothing else: tests/test_layout.py sees to it that it imports nothing
    deps.add(ROOT / "digits" / "__init__.py")
    own = {path for path in loaded if path.is_relative_to(ROOT / "digits") or path.parent == ROOT}
    assert ROOT / "train.py" in own
    assert {path for path in own if not deps & {path, *path.parents}} == set()


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


def test_two_runs_with_one_seed_give_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    run(trained, sys.executable, "train.py", "--out", str(tmp_path))
    assert (tmp_path / "models" / "mnist.h5").read_bytes() == (trained / "models" / "mnist.h5").read_bytes()


def test_a_run_on_a_handful_of_images_and_nothing_besides_works_without_git(
    trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "project")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train"] |= {"synthetic_fraction": 0, "low_resolution_fraction": 0, "printed_fraction": 0}
    params["train"]["outliers"]["fraction"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "bin").mkdir()
    done = run(
        folder, sys.executable, "train.py", "--epochs", "1", "--limit", "3", PATH=str(tmp_path / "bin")
    )
    assert "Test accuracy:" in done.stdout
    card = json.loads((folder / "tmp" / "train" / "models" / "mnist.json").read_text())
    assert card["trained_on"] == "synthetic, 3 images"
    assert card["git_revision"] is None
    assert card["params"]["validation"] == 2
    assert card["validation"]["outliers"] == {}
    assert 0 < card["sure_threshold"] < 1


def test_an_unknown_kind_of_outlier_is_named() -> None:
    images, labels = np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.uint8)
    with pytest.raises(data.DataError, match="unknown kinds of outliers: cats"):
        outliers.draw(4, images, labels, 1, {"cats": 1})


def test_a_run_with_too_few_images_says_so(trained: Path, tmp_path: Path) -> None:
    done = run(trained, sys.executable, "train.py", "--limit", "2", check=False)
    assert done.returncode == 2
    assert "--limit: at least 3 images" in done.stderr
    folder = shutil.copytree(trained, tmp_path / "project")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train"]["validation"] = 600
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    before = (folder / "models" / "mnist.json").read_bytes()
    done = run(folder, sys.executable, "train.py", check=False)
    assert done.returncode == 1
    assert "validation: 600" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "models" / "mnist.json").read_bytes() == before


def test_a_run_that_is_stopped_leaves_the_old_model_whole(trained: Path, tmp_path: Path) -> None:
    run(trained, sys.executable, "train.py", "--epochs", "1", "--limit", "200", "--out", str(tmp_path))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    process = subprocess.Popen(
        [sys.executable, "train.py", "--epochs", "500", "--out", str(tmp_path)],
        cwd=trained,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    # its first epoch is done: it is in the middle of training
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.stdout.close()
    assert process.poll() not in (0, None)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
