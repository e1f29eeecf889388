"""The DVC pipeline in a clone, with synthetic digits: it trains, is then up to date, its data can be shared, and
mistakes are reported in one line."""

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

from digits.model import Classifier, load
from digits.training.arrays import DIGITS, IMAGES, read
from pipeline import SMALL_OUTLIERS, clone, run, small_params
from project import ROOT


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the files of this working tree, configured for a small training with synthetic digits."""
    folder = clone(ROOT, tmp_path_factory.mktemp("pipeline") / "project")
    for name in ("train.py", "dvc.yaml", "Makefile", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.rmtree(folder / "digits")
    shutil.copytree(ROOT / "digits", folder / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params()))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "small")
    return folder


@pytest.fixture(scope="module")
def trained(project: Path) -> Path:
    """The clone after `dvc repro` and a commit."""
    done = run(project, "dvc", "repro", "evaluate")
    assert "Test accuracy:" in done.stdout
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "trained")
    return project


def with_params(name: str, **changes: Any) -> dict[str, Any]:
    """The small params.yaml with changes in one section."""
    params = small_params()
    params[name] |= changes
    return {"params.yaml": {"text": yaml.safe_dump(params)}}


def one(path: str, how: dict[str, Any] | None) -> dict[str, Any]:
    return {"files": {path: how}}


STAGES = {
    "data": ["digits.training.data"],
    "images": ["digits.training.images"],
    "corrections": ["digits.training.corrections"],
    "train": ["train.py"],
    "compile": ["digits.training.compile", "models/mnist.h5", "models/mnist.tflite"],
    "evaluate": ["digits.training.evaluate"],
}
NO_ZIP = {"text": "not a zip file"}
# (stage, what is wrong): the run, and what the only line must contain
MISTAKES: dict[tuple[str, str], tuple[dict[str, Any], str]] = {
    ("data", "unknown key"): (
        {"files": with_params("data", origin="mnist")},
        "params.yaml has unknown keys: data.origin. The keys of data are: source, synthetic.",
    ),
    ("data", "unknown source"): (
        {"files": with_params("data", source="emnist")},
        "data.source is 'emnist', but must be mnist or synthetic.",
    ),
    ("images", "unknown key"): (
        {"files": with_params("images", sed=1)},
        "params.yaml has unknown keys: images.sed.",
    ),
    ("images", "unknown kind"): (
        {"files": with_params("images", outliers=SMALL_OUTLIERS | {"fraction": 1, "kinds": {"cats": 1}})},
        "params.yaml has unknown kinds of outliers: cats.",
    ),
    ("images", "all for validation"): (
        {"files": with_params("images", validation=600)},
        "600 images are too few for training, calibration and validation: params.yaml has validation: 600",
    ),
    ("images", "no glyphs"): (
        one("data/glyphs.npz", None),
        "glyphs.npz is missing. Run `dvc repro glyphs`",
    ),
    ("images", "no data"): (one("data/digits.npz", None), "digits.npz is missing. Run `dvc repro data`"),
    ("images", "damaged data"): (
        one("data/digits.npz", {"copy": "data/digits.npz", "part": 0.7}),
        "Delete it. Run `dvc repro data`",
    ),
    ("images", "foreign data"): (
        one("data/digits.npz", {"copy": "data/images.npz"}),
        "digits.npz was not written by the stage `data`: see x_train in it.",
    ),
    ("corrections", "unknown key"): (
        {"files": with_params("corrections", share=0.5)},
        "params.yaml has unknown keys: corrections.share.",
    ),
    ("corrections", "no folder"): (
        {"files": with_params("corrections", source="nowhere")},
        "corrections.source is nowhere, which does not exist.",
    ),
    ("corrections", "no fraction"): (
        {"files": with_params("corrections", held_out=30.0)},
        "corrections.held_out must be from 0 to 1.",
    ),
    ("train", "no corrections"): (
        one("data/corrections.npz", None),
        "corrections.npz is missing. Run `dvc repro corrections`",
    ),
    ("train", "negative weight"): (
        {"files": with_params("train", corrections=-1)},
        "train.corrections must be at least 0.",
    ),
    ("train", "weights of another network"): (
        {"files": with_params("train", filters=[8, 8, 8]), "start": True},
        "is not an .h5 of the network in params.yaml",
    ),
    ("train", "unknown key"): (
        {"files": with_params("train", epoch=1)},
        "params.yaml has unknown keys: train.epoch.",
    ),
    ("train", "wrong type"): (
        {"files": with_params("train", filters=[4, "eight", 8])},
        "params.yaml: train.filters is 'eight', but must be int.",
    ),
    ("train", "no epochs"): (
        {"files": with_params("train", epochs=0)},
        "train.epochs and train.batch_size must be at least 1.",
    ),
    ("train", "no images"): (one("data/images.npz", None), "images.npz is missing. Run `dvc repro images`"),
    ("train", "damaged images"): (one("data/images.npz", NO_ZIP), "Delete it. Run `dvc repro images`"),
    ("train", "foreign images"): (
        one("data/images.npz", {"copy": "data/digits.npz"}),
        "images.npz was not written by the stage `images`: see training in it.",
    ),
    ("train", "images of other data"): (
        one("data/images.npz", {"copy": "other.npz"}),
        "was made from other data than",
    ),
    ("compile", "no network"): (
        one("models/mnist.h5", None),
        "mnist.h5 does not exist. Train a network first.",
    ),
    ("compile", "damaged network"): (
        one("models/mnist.h5", {"copy": "models/mnist.h5", "part": 0.5}),
        "mnist.h5 is not a model that Keras saved",
    ),
    ("evaluate", "unknown key"): (
        {"files": with_params("evaluate", threshold=0.9)},
        "params.yaml has unknown keys: evaluate.threshold.",
    ),
    ("evaluate", "no network"): (one("models/mnist.h5", None), "mnist.h5 is missing. Run `dvc repro train`."),
    ("evaluate", "not compiled"): (
        one("models/mnist.tflite", None),
        "mnist.tflite is missing. Run `dvc repro compile`.",
    ),
    ("evaluate", "badly compiled"): (
        one("models/mnist.tflite", NO_ZIP),
        "Run `dvc repro --force compile`.",
    ),
    ("evaluate", "another network"): (
        one("models/mnist.h5", NO_ZIP),
        "mnist.h5 does not belong to the run in",
    ),
    ("evaluate", "damaged facts"): (
        one("metrics/training.json", NO_ZIP),
        "training.json is damaged. Run `dvc repro --force train`.",
    ),
    ("evaluate", "no images"): (
        one("data/images.npz", None),
        "images.npz is missing. Run `dvc repro images`",
    ),
}
MISTAKES |= {
    (stage, "full disk"): ({"disk": 0}, "File too large. Solve this and run it again") for stage in STAGES
}
# these import TensorFlow
WITH_TENSORFLOW = ("train", "compile")


@pytest.fixture(scope="module")
def outcomes(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcomes of all runs with mistakes, and of some others, in a copy of the trained clone."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "project")
    arrays = read(DIGITS, folder / "data" / "digits.npz")
    # like data/images.npz, but made from other data
    with np.load(folder / "data" / "images.npz") as file:
        facts = json.dumps({"params": {}, "data_sha256": "0" * 64})
        np.savez(folder / "other.npz", **(dict(file) | {"facts": np.array([facts])}))
    assert len(arrays["x_train"]) == 600
    said = {"images": arrays["x_test"][:3], "labels": arrays["y_test"][:3]}
    said |= {"held_out": np.array([False, False, True]), "ids": np.array(["a-0", "b-0", "c-0"])}
    np.savez(folder / "said.npz", **said)
    few = ["--images", "few/data/images.npz", "--out", "few"]
    # by whether they need TensorFlow
    runs: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    runs[False]["few images"] = {
        "argv": ["digits.training.images", "--limit", "3", "--out", "few/data/images.npz"],
        "files": with_params(
            "images",
            synthetic_fraction=0,
            low_resolution_fraction=0,
            printed_fraction=0,
            outliers=SMALL_OUTLIERS | {"fraction": 0},
        ),
    }
    runs[False]["too few"] = {"argv": ["digits.training.images", "--limit", "2"]}
    runs[True]["again"] = {"argv": ["train.py", "--out", "again"]}
    runs[True]["few"] = {"argv": ["train.py", "--epochs", "1", *few]}
    runs[True]["corrected"] = {
        "argv": ["train.py", "--epochs", "1", "--corrections", "said.npz", "--out", "corrected"]
    }
    runs[True]["started"] = {
        "argv": ["train.py", "--epochs", "1", "--start", "models/mnist.h5", "--out", "started"]
    }
    runs[True]["few compiled"] = {
        "argv": ["digits.training.compile", "few/models/mnist.h5", "few/models/mnist.tflite"]
    }
    runs[True]["stopped"] = {"argv": ["train.py", "--epochs", "500", "--out", "."], "stop": True}
    for (stage, what), (changes, _) in MISTAKES.items():
        start = ["--start", "models/mnist.h5"] if changes.pop("start", False) else []
        runs[stage in WITH_TENSORFLOW][f"{stage}: {what}"] = {"argv": [*STAGES[stage], *start]} | changes
    # images in several processes must not be forked from one with TensorFlow's threads
    found: dict[str, Any] = {}
    for each in runs.values():
        script = str(ROOT / "tests" / "support" / "stage_runs.py")
        found |= json.loads(run(folder, sys.executable, script, json.dumps(each)).stdout)
    # without git
    run(folder, sys.executable, "-m", "digits.training.evaluate", *few, PATH=str(folder))
    return found | {"folder": folder}


@pytest.mark.parametrize(("stage", "what"), MISTAKES)
def test_a_mistake_is_reported_in_one_line_and_the_old_outputs_stay(
    outcomes: dict[str, Any], stage: str, what: str
) -> None:
    done = outcomes[f"{stage}: {what}"]
    assert done["code"] == 1
    # Keras prints a line for each epoch, and TensorFlow what it finds in the machine
    said = [
        line for line in done["printed"].splitlines() if not line.startswith(("Epoch", "WARN", "I0", "W0"))
    ]
    assert MISTAKES[stage, what][1] in said[-1]
    assert said[:-1] == [] or what == "full disk", said
    assert "Traceback" not in done["printed"]
    assert done["changed"] == []


def test_a_training_that_is_stopped_says_so_and_keeps_the_old_model(outcomes: dict[str, Any]) -> None:
    done = outcomes["stopped"]
    assert done["code"] == 130
    # it was in the middle of training
    assert "Epoch 1/500" in done["printed"]
    assert done["printed"].splitlines()[-1] == "Stopped. The old files have not been changed."
    assert "Traceback" not in done["printed"]
    assert done["changed"] == []
    assert not list(outcomes["folder"].glob(".new-*"))


def test_ctrl_c_while_images_are_made_stops_all_processes(trained: Path, tmp_path: Path) -> None:
    whole = run(trained, "git", "ls-files").stdout.splitlines()
    folder = tmp_path / "project"
    for name in [*whole, "data/digits.npz"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained / name, folder / name)
    params = small_params()
    # enough for a minute
    params["images"]["outliers"]["fraction"] = 500
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "data" / "images.npz").write_text("old")
    code = (
        "import os, runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "runpy.run_module('digits.training.images', run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stderr=subprocess.PIPE, text=True, process_group=0
    )
    children: list[str] = []
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children and process.poll() is None:
        children = listed.read_text().split()
    # as a terminal does
    os.killpg(process.pid, 2)
    assert process.communicate(timeout=20)[1] == "Stopped. The old files have not been changed.\n"
    assert process.returncode == 130
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert (folder / "data" / "images.npz").read_text() == "old"
    assert [path.name for path in (folder / "data").iterdir() if path.name.startswith(".new")] == []


def test_a_run_writes_model_card_metrics_and_plots(trained: Path) -> None:
    card = json.loads((trained / "models" / "mnist.json").read_text())
    assert card["trained_on"] == "synthetic"
    assert card["parameters"] > 1000
    assert sum(map(sum, card["confusion_matrix"])) == 100
    assert 0 <= card["test"]["accuracy"] <= 1
    assert card["params"]["train"]["epochs"] == 2
    assert card["libraries"]["tensorflow"]
    metrics = json.loads((trained / "metrics" / "metrics.json").read_text())
    assert metrics["test"].items() <= card["test"].items()
    assert metrics["sure_threshold"] == card["sure_threshold"]
    assert 0 < card["sure_threshold"] < 1
    assert 0 <= card["test"]["ece"] <= 1
    assert set(card["validation"]["outliers"]) == set(card["params"]["images"]["outliers"]["kinds"])
    assert (trained / "metrics" / "plots" / "outliers.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "metrics" / "plots" / "misclassified.png").read_bytes().startswith(b"\x89PNG")
    Classifier(load(trained / "models" / "mnist.h5"))


def test_validation_figures_come_from_images_that_nothing_was_fitted_to(trained: Path) -> None:
    card = json.loads((trained / "models" / "mnist.json").read_text())
    arrays = read(DIGITS, trained / "data" / "digits.npz")
    unseen = read(IMAGES, trained / "data" / "images.npz")["validation"]
    held_out = np.random.default_rng(card["params"]["images"]["seed"]).permutation(600)[:100]
    assert unseen.tolist() == held_out[50:].tolist()
    classifier = Classifier(load(trained / "models" / "mnist.h5"))
    probabilities = classifier.probabilities(arrays["x_train"][unseen][..., None] / np.float32(255))
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    right = probabilities[np.arange(50), arrays["y_train"][unseen]]
    assert card["validation"]["loss"] == pytest.approx(-np.log(np.maximum(right, 1e-7)).mean(), rel=1e-3)


def test_after_a_run_nothing_is_out_of_date(trained: Path) -> None:
    assert "up to date" in run(trained, "dvc", "status", "--with-deps", "evaluate").stdout
    done = run(trained, "dvc", "repro", "evaluate")
    assert "Running stage" not in done.stdout
    assert run(trained, "git", "status", "--porcelain").stdout == ""


def test_a_change_of_code_that_makes_the_same_images_does_not_train_again(trained: Path) -> None:
    path = trained / "digits" / "imaging" / "errors.py"
    written = path.read_text()
    path.write_text(written + "# a comment\n")
    done = run(trained, "dvc", "repro", "evaluate").stdout
    run(trained, "git", "checkout", "--", "dvc.lock", "digits")
    assert "Running stage 'images'" in done
    assert all(f"Stage '{name}' didn't change" in done for name in ("data", "train", "compile", "evaluate"))


def test_training_loads_nothing_of_the_service(outcomes: dict[str, Any]) -> None:
    assert "tensorflow" in outcomes["modules"]
    assert not {"flask", "gunicorn", "gevent", "prometheus_client", "digits.imaging"} & set(
        outcomes["modules"]
    )


def test_plots_and_metrics_are_shown(trained: Path, tmp_path: Path) -> None:
    shown = run(trained, "dvc", "metrics", "show").stdout
    assert "test.accuracy" in shown
    assert max(map(len, shown.splitlines())) <= 120
    run(trained, "dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    for name in ("loss", "accuracy", "confusion", "misclassified.png", "reliability", "outliers.png"):
        assert name in page


@pytest.mark.e2e
def test_a_change_can_be_tried_in_a_new_clone(project: Path, tmp_path: Path) -> None:
    fresh = clone(project, tmp_path / "fresh")
    environment = Path(sys.prefix)
    # -o: as it is, without installing anything
    run(fresh, "make", "-o", f"{environment}/.installed", f"VENV={environment}", "train-quick", "LIMIT=200")
    assert (fresh / "tmp" / "train" / "metrics" / "metrics.json").is_file()


def test_push_and_pull_through_a_local_folder(trained: Path, tmp_path: Path) -> None:
    run(trained, "dvc", "remote", "add", "--default", "--local", "storage", str(tmp_path / "storage"))
    run(trained, "dvc", "push", "--with-deps", "evaluate")
    fresh = clone(trained, tmp_path / "fresh")
    run(fresh, "dvc", "remote", "add", "--default", "--local", "storage", str(tmp_path / "storage"))
    run(fresh, "dvc", "pull", "--with-deps", "evaluate")
    for name in ("digits.npz", "images.npz"):
        assert (fresh / "data" / name).read_bytes() == (trained / "data" / name).read_bytes()
    assert "up to date" in run(fresh, "dvc", "status", "--with-deps", "evaluate").stdout
    assert "Running stage" not in run(fresh, "dvc", "repro", "evaluate").stdout


def test_two_runs_with_one_seed_give_the_same_bytes(trained: Path, outcomes: dict[str, Any]) -> None:
    assert outcomes["again"]["code"] == 0, outcomes["again"]["printed"]
    again = outcomes["folder"] / "again" / "models" / "mnist.h5"
    assert again.read_bytes() == (trained / "models" / "mnist.h5").read_bytes()


def test_corrections_are_trained_on_and_the_card_names_them(outcomes: dict[str, Any]) -> None:
    assert outcomes["corrected"]["code"] == 0, outcomes["corrected"]["printed"]
    about = json.loads((outcomes["folder"] / "corrected" / "metrics" / "training.json").read_text())
    assert about["params"]["corrections"]["images"] == 2
    assert about["params"]["corrections"]["held_out"] == 1
    # without any, the card says nothing of them
    about = json.loads((outcomes["folder"] / "metrics" / "training.json").read_text())
    assert "corrections" not in about["params"]


def test_a_run_can_begin_with_the_weights_of_another(trained: Path, outcomes: dict[str, Any]) -> None:
    assert outcomes["started"]["code"] == 0, outcomes["started"]["printed"]
    about = json.loads((outcomes["folder"] / "started" / "metrics" / "training.json").read_text())
    assert about["params"]["start"] == load(trained / "models" / "mnist.h5").version


def test_a_run_with_a_handful_of_images_works_without_git(outcomes: dict[str, Any]) -> None:
    for name in ("few images", "few", "few compiled"):
        assert outcomes[name]["code"] == 0, outcomes[name]["printed"]
        # data/, models/ and metrics/ are the pipeline's
        assert outcomes[name]["changed"] == []
    card = json.loads((outcomes["folder"] / "few" / "models" / "mnist.json").read_text())
    assert card["trained_on"] == "synthetic, 3 images"
    assert card["params"]["images"]["validation"] == 2
    assert card["validation"]["outliers"] == {}
    assert 0 < card["sure_threshold"] < 1


def test_a_limit_that_is_too_low_is_refused(outcomes: dict[str, Any]) -> None:
    assert outcomes["too few"]["code"] == 2
    assert "--limit must be at least 3" in outcomes["too few"]["printed"]
