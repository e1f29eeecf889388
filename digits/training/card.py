"""The model card, models/mnist.json: what the model files are and where they come from. train.py calls `revision`
when it begins, as the code may change while it trains, and `write_card` once the files are written; the service
answers with the card on `GET /model`."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("tensorflow", "keras", "numpy", "h5py")


def write_card(folder: Path, git_revision: str | None, **facts: Any) -> None:
    """Write mnist.json beside the mnist.h5 and mnist.tflite in `folder`, with `facts` at its end."""
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
        "libraries": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        **facts,
    }
    (folder / "mnist.json").write_text(json.dumps(card, indent=2) + "\n")


def revision() -> str | None:
    """The git commit of the code that trains, "-dirty" behind it if that code differs; None outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    commit = git("rev-parse", "HEAD")
    # dvc.lock changes while the pipeline runs; what counts is what trains
    changed = git("status", "--porcelain", "--", "train.py", "params.yaml", "digits")
    return (commit + ("-dirty" if changed else "")) or None
