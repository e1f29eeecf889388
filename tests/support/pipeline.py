"""A clone of the project, commands in it, and parameters with which the pipeline trains in seconds."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from project import ROOT

SMALL = {"data": {"source": "synthetic", "synthetic": {"train": 600, "test": 100, "seed": 5}}}


# changes to params.yaml that make everything small; tests/training/test_outliers.py draws all kinds
SMALL_IMAGES = {"validation": 100}


SMALL_OUTLIERS = {"sets": 2, "kinds": {"pairs": 1, "letters": 1}}


SMALL_TRAIN = {"epochs": 2, "filters": [4, 8, 8], "dense": [16, 16]}


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


def small_params() -> dict[str, Any]:
    """params.yaml with few and small images, and a small network."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | copy.deepcopy(SMALL)
    params["images"] |= SMALL_IMAGES
    params["images"]["outliers"] |= SMALL_OUTLIERS
    params["train"] |= SMALL_TRAIN
    return params
