"""The facts in the model card about a model's origin. A fact that can't be determined must not fail the
training."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from digits.training.card import revision, write_card


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
        "digits/logs.py",
        "digits/imaging/find.py",
        "digits/training/strokes.json",
        "digits/serving/static/page.css",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("as committed")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


@pytest.mark.parametrize("name", ["digits/serving/static/page.css", "README.md", "dvc.lock"])
def test_a_revision_is_clean_if_only_unrelated_files_have_changed(project: Path, name: str) -> None:
    (project / name).write_text("changed")
    assert revision(project) == git(project, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "name",
    [
        "train.py",
        "params.yaml",
        "digits/logs.py",
        "digits/imaging/find.py",
        "digits/training/strokes.json",
        "digits/training/new.py",
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


def test_a_library_under_another_name_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digits.training.card.LIBRARIES", ("numpy", "no-such-library"))
    for name in ("mnist.h5", "mnist.tflite"):
        (tmp_path / name).write_bytes(b"weights")
    write_card(tmp_path, None, trained_on="synthetic")
    card = json.loads((tmp_path / "mnist.json").read_text())
    assert card["libraries"]["numpy"]
    assert card["libraries"]["no-such-library"] is None
    assert card["git_revision"] is None
    assert card["trained_on"] == "synthetic"
