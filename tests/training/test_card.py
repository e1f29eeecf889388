"""Model cards only say what depends on the model, and the commit of the training code is determined for MLflow. A
commit that can't be determined must not fail the training."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from digits.training.evaluate import write_card
from digits.training.tracking import revision
from project import ROOT


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with this project's dvc.yaml and some of its files, all committed."""
    for name in (
        "train.py",
        "params.yaml",
        "README.md",
        "digits/training/network.py",
        "digits/imaging/find.py",
        "digits/training/strokes.json",
        "digits/web/static/page.css",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("as committed")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


@pytest.mark.parametrize("name", ["digits/web/static/page.css", "README.md", "dvc.lock"])
def test_a_revision_is_clean_if_only_unrelated_files_have_changed(project: Path, name: str) -> None:
    (project / name).write_text("changed")
    assert revision(project) == git(project, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "name",
    [
        "train.py",
        "params.yaml",
        "digits/training/network.py",
        "digits/imaging/find.py",
        "digits/training/strokes.json",
        "digits/training/signs.json",
    ],
)
def test_a_revision_is_dirty_if_training_code_has_changed(project: Path, name: str) -> None:
    (project / name).write_text("changed")
    assert revision(project) == git(project, "rev-parse", "HEAD") + "-dirty"


def test_without_git_there_is_no_revision(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    assert revision(project) is None


def test_outside_a_repository_there_is_no_revision(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    shutil.rmtree(project / ".git")
    assert revision(project) is None


def test_a_card_is_the_same_whenever_and_wherever_it_is_written(tmp_path: Path) -> None:
    cards = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "own.h5").write_bytes(b"weights")
        (folder / "own.tflite").write_bytes(b"compiled weights")
        # processors differ in the last digits
        figures = {"accuracy": 0.9876543 + len(name) * 1e-9, "kinds": [{"auroc": 1 / 3}], "images": 10_000}
        write_card(folder / "own.json", folder / "own.h5", folder / "own.tflite", test=figures)
        cards.append((folder / "own.json").read_bytes())
    assert cards[0] == cards[1]
    card = json.loads(cards[0])
    assert card == {
        "name": "own",
        "version": hashlib.sha256(b"weights").hexdigest()[:12],
        "h5_sha256": hashlib.sha256(b"weights").hexdigest(),
        "tflite_sha256": hashlib.sha256(b"compiled weights").hexdigest(),
        "test": {"accuracy": 0.987654, "kinds": [{"auroc": 0.333333}], "images": 10_000},
    }
