"""The keys of the section `detector` in params.yaml, where each is explained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from digits.training.stage import PARAMS, read_params

Weights = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Network:
    """`detector.network`."""

    stem: int
    fine: int
    middle: int
    coarse: int
    head: int


@dataclasses.dataclass(frozen=True)
class PageParams:
    """`detector.pages`."""

    seed: int
    held_out_digits: int
    held_out_fonts: list[str]
    strokes: int
    kinds: Weights
    digits: Weights
    drawings: Weights
    ruled: float
    squared: float
    plain: float
    empty: float
    inverted: float
    panel: float
    table: float
    tight: float
    bleed: float
    perspective: float
    faint: float
    shadow: float
    fold: float
    strong_blur: float
    noise: float
    jpeg: float


@dataclasses.dataclass(frozen=True)
class Params:
    """`detector`."""

    seed: int
    pages_in_all: int
    batch: int
    learning_rate: float
    warmup: int
    decay: float
    weight_decay: float
    clip: float
    ema: float
    evaluate_every: int
    held_out_pages: int
    precision: str
    threads: int
    processes: int
    network: Network
    pages: PageParams


def detector_params(path: Path = PARAMS) -> dict[str, Any]:
    """The section `detector` of params.yaml.

    Raises StageError for keys that are missing or unknown, and for values of another type.
    """
    return dataclasses.asdict(read_params("detector", Params, path))
