"""Keeps the state of a training so that it can be stopped and resumed: the weights, the optimizer's moments,
the moving average of the weights and the learning curve, in tmp/detector/<run>, where <run> stands for the
parameters and data.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
STATES = ROOT / "tmp" / "detector"


@dataclass
class State:
    """`step`, the number of steps that are done; `pages`, how many pages the run was to have in all;
    `arrays`, all variables in order; `curve`, the rows of the learning curve so far; `recent`, the losses of
    the steps since its last row."""

    step: int
    pages: int
    arrays: list[np.ndarray]
    curve: list[dict[str, float]] = field(default_factory=list)
    recent: list[list[float]] = field(default_factory=list)


def run_name(params: dict[str, Any], files: list[Path]) -> str:
    """A name for the parameters, except for the number of pages, and for the contents of the files: 12
    hexadecimal digits. Runs with the same name may continue each other."""
    same = {key: value for key, value in params.items() if key != "pages_in_all"}
    digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode())
    for path in files:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def save(path: Path, state: State) -> None:
    """Write the state, replacing the one before only when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps(
        {"step": state.step, "pages": state.pages, "curve": state.curve, "recent": state.recent}
    )
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        arrays = {f"a{i:04}": array for i, array in enumerate(state.arrays)}
        np.savez(file, allow_pickle=False, about=np.array(about), **arrays)
    temporary.replace(path)


def load(path: Path) -> State | None:
    """The state in the file, or None if there is no such file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = [file[name] for name in sorted(file.files) if name != "about"]
    except FileNotFoundError:
        return None
    return State(about["step"], about["pages"], arrays, about["curve"], about["recent"])


def to_resume(folder: Path, pages: int, stable_steps: int) -> State | None:
    """The latest state from which a run of so many pages goes on as if it had never been stopped.

    stable_steps: the step at which its learning rate begins to fall. A state of a run with another number of
    pages fits if neither had come so far.
    """
    states = [load(folder / name) for name in ("latest.npz", "stable.npz")]
    fitting = [state for state in states if state and (state.pages == pages or state.step <= stable_steps)]
    # where the other run's learning rate was falling already, its latest state does not fit
    fitting = [state for state in fitting if state.pages == pages or not _falling(state, states)]
    return max(fitting, key=lambda state: state.step, default=None)


def _falling(state: State, states: list[State | None]) -> bool:
    latest, stable = states
    return state is latest and stable is not None and stable.pages == state.pages and state.step > stable.step
