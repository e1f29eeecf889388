"""The model card, models/mnist.json, which describes the model's files and their origin. train.py calls
`revision` at the start, because the code may change during training, `write_card` after writing the files, and
`replace` at the end. The service returns the card on `GET /model`. Facts that can't be determined are null, so
that they don't fail the training."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("tensorflow", "keras", "numpy", "h5py")


def write_card(folder: Path, git_revision: str | None, **facts: Any) -> None:
    """Write mnist.json next to mnist.h5 and mnist.tflite in `folder`. facts: further fields."""
    h5, tflite = (
        hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("mnist.h5", "mnist.tflite")
    )
    card = {
        "name": "mnist",
        "version": h5[:12],
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "h5_sha256": h5,
        "tflite_sha256": tflite,
        "git_revision": git_revision,
        "libraries": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        **facts,
    }
    (folder / "mnist.json").write_text(json.dumps(card, indent=2) + "\n")


def revision(project: Path = ROOT) -> str | None:
    """The git commit of the training code, with "-dirty" appended if that code has changes; None without git.

    The training code is params.yaml and all dependencies of the stages in dvc.yaml.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"].values()
        trains = sorted({path for stage in stages for path in stage["deps"]})
        dirty = git("status", "--porcelain", "--", "params.yaml", *trains)
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def replace(new: Path, out: Path) -> None:
    """Move models/ and metrics/ from `new` to `out`, which is on the same file system."""
    (out / "models").mkdir(exist_ok=True)
    # the card last: until then the hashes don't match, and a service that starts now waits until they do
    for name in ("mnist.h5", "mnist.tflite", "mnist.json"):
        (new / "models" / name).replace(out / "models" / name)
    shutil.rmtree(out / "metrics", ignore_errors=True)
    (new / "metrics").replace(out / "metrics")


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        # TensorFlow also comes as tensorflow-cpu
        return None
