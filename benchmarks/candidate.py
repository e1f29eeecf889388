"""Compares a trained network, the candidate, with the one in models/, the champion, on the same images: MNIST's
test images, the kinds of pictures of `make eval`, and the corrections that are held out. It prints a table with
McNemar's exact test. The candidate's files replace the champion's only if it is right on more of the corrections,
by more than chance explains, and falls nowhere by more than a margin. If not, it exits with 1 and changes nothing.
`make candidate` trains a candidate and calls this; docs/loop.md explains the table.

    python benchmarks/candidate.py tmp/candidate
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evaluate import locator, pictures
from numerals_strings import ROOT
from outliers import KINDS as OUTLIERS
from paper import png

from digits.imaging import PictureError, prepare
from digits.model import Classifier, ModelError, load, scale
from digits.training import tracking
from digits.training.arrays import DIGITS, Arrays, read, sha256
from digits.training.corrected import CORRECTIONS
from digits.training.corrections import NO_DIGIT, SHEETS
from digits.training.plots import contact_sheet
from digits.training.stage import StageError, outputs, run

# by how much the fraction of right answers may fall: on MNIST's test images, on a kind of pictures with a digit,
# on one without, where an answer is right if it is unsure, and on all kinds of either together
TEST, DIGIT, NONE = 0.001, 0.01, 0.03
ALL = {DIGIT: ("all with a digit", 0.003), NONE: ("all without a digit", 0.01)}
# from this probability on, chance explains a difference
CHANCE = 0.05
MODEL = ("models/mnist.h5", "models/mnist.tflite", "models/mnist.json")
METRICS = ("metrics/training.csv", "metrics/training.json", "metrics/metrics.json", "metrics/plots")


@dataclass(frozen=True)
class Compared:
    """The champion's and the candidate's answers to the same images: whether each is right, bool (n,).

    margin: by which the fraction of right answers may fall; None for the corrections, where it must rise.
    """

    name: str
    champion: np.ndarray
    candidate: np.ndarray
    margin: float | None

    @property
    def lost(self) -> int:
        """Images that only the champion gets right."""
        return int((self.champion & ~self.candidate).sum())

    @property
    def won(self) -> int:
        """Images that only the candidate gets right."""
        return int((self.candidate & ~self.champion).sum())

    @property
    def difference(self) -> float:
        """The candidate's fraction of right answers minus the champion's."""
        return (self.won - self.lost) / max(1, len(self.champion))

    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the difference: Wald's, with half an image added to each of the four
        counts (Agresti and Min 2005, doi:10.1002/sim.1781)."""
        n, won, lost = len(self.champion) + 2, self.won + 0.5, self.lost + 0.5
        middle = (won - lost) / n
        width = 1.96 * math.sqrt(max(0.0, won + lost - n * middle**2)) / n
        return max(-1.0, middle - width), min(1.0, middle + width)

    def p(self) -> float:
        """The probability of such a difference, in either direction, if both were equally good: McNemar's exact
        test of the images that only one of them gets right."""
        n = self.won + self.lost
        fewer = sum(math.comb(n, k) for k in range(min(self.won, self.lost) + 1))
        return min(1.0, fewer / 2 ** (n - 1)) if n else 1.0

    def problem(self) -> str | None:
        """Why the candidate is not better, if this shows it."""
        by_chance = self.p() >= CHANCE
        if self.margin is None and (self.difference <= 0 or by_chance):
            reason = "chance explains the difference" if by_chance else "fewer are right"
            return f"{self.name}: {reason} (p = {self.p():.3f})"
        if self.margin is not None and self.difference < -self.margin and not by_chance:
            return f"{self.name}: {-self.difference:.2%} fewer are right, more than {self.margin:.1%}"
        return None

    def row(self) -> str:
        """A row of the table."""
        low, high = self.interval()
        allowed = "must rise" if self.margin is None else f"-{self.margin:.1%}"
        right = (
            f"{answers.mean():.2%}" if len(answers) else "-" for answers in (self.champion, self.candidate)
        )
        return (
            f"| {self.name} | {len(self.champion)} | {' | '.join(right)} | {self.difference:+.2%} "
            f"| {low:+.2%} to {high:+.2%} | {self.p():.3f} | {allowed} |"
        )


class Pair:
    """The two models."""

    def __init__(self, champion: Path, candidate: Path) -> None:
        self.models = [Classifier(load(folder / MODEL[0])) for folder in (champion, candidate)]

    def answers(self, images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each model, the predicted digits and whether they are sure, for images uint8 (n, 28, 28)."""
        found = []
        for model in self.models:
            probabilities = model.probabilities(scale(images))
            sure = probabilities.max(1, initial=0) >= model.sure_threshold
            found.append((probabilities.argmax(1), sure))
        return found

    def compare(self, name: str, images: np.ndarray, labels: np.ndarray, margin: float | None) -> Compared:
        """Compare the models on images uint8 (n, 28, 28). labels: their digits, or NO_DIGIT, for which an unsure
        answer is right."""
        right = [
            np.where(labels == NO_DIGIT, ~sure, digits == labels) for digits, sure in self.answers(images)
        ]
        return Compared(name, right[0], right[1], margin)

    def contradicted(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The indices of the labels that both models contradict, each being sure of another digit, and the
        candidate's digits there."""
        both = self.answers(images)
        wrong = np.logical_and.reduce([sure & (digits != labels) for digits, sure in both])
        return np.flatnonzero(wrong), both[1][0][wrong]


def every_kind(count: int) -> Iterator[tuple[str, list[tuple[bytes, int]], float]]:
    """The kinds of `make eval`: name, the pictures' files with their labels, and the margin. Kinds that can't be
    made on this machine are left out."""
    for name, singles in pictures(count, count).items():
        yield name, [(single.file, single.label) for single in singles], DIGIT
    for kind in OUTLIERS:
        drawn = [(png(picture), NO_DIGIT) for picture in kind(count, np.random.default_rng(11))]
        if drawn:
            yield f"no digit: {kind.__name__}", drawn, NONE


def prepared(files: list[tuple[bytes, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of those files in which the service finds something."""
    images, labels = [], []
    for file, label in files:
        try:
            images.append(prepare([file], ["picture"], locate=locator())[0])
            labels.append(label)
        except PictureError:
            continue
    return np.array(images, np.uint8).reshape(-1, 28, 28), np.array(labels)


def compare(pair: Pair, count: int, margin: float, arrays: Arrays, corrections: Arrays) -> Iterator[Compared]:
    """Compare the models on everything. count: pictures of each kind. margin: for MNIST's test images."""
    yield pair.compare("MNIST's test images", arrays["x_test"], arrays["y_test"], margin)
    kinds = []
    for name, files, of_kind in every_kind(count):
        images, labels = prepared(files)
        if len(images):
            kinds.append(pair.compare(name, images, labels, of_kind))
            yield kinds[-1]
    for of_kind, (name, of_all) in ALL.items():
        same = [kind for kind in kinds if kind.margin == of_kind]
        both = (
            np.concatenate([getattr(kind, model) for kind in same]) for model in ("champion", "candidate")
        )
        yield Compared(name, *both, of_all)
    held_out = corrections["held_out"]
    images, labels = corrections["images"][held_out], corrections["labels"][held_out]
    yield pair.compare("corrections held out", images, labels, None)


def check(candidate: Path, corrections: Path) -> None:
    """Raise StageError unless the candidate was trained with these corrections, and thus not with those that are
    held out."""
    for name in (*MODEL, *METRICS):
        if not (candidate / name).exists():
            raise StageError(f"{candidate / name} is missing. Run `make candidate`.")
    card = json.loads((candidate / MODEL[2]).read_text())
    if card["params"].get("corrections", {}).get("sha256") != sha256(corrections):
        raise StageError(f"{candidate} was not trained with {corrections}. Run `make candidate`.")


def list_contradicted(pair: Pair, corrections: Arrays, folder: Path) -> None:
    """Print which labels both models contradict, and write a contact sheet of them."""
    places, digits = pair.contradicted(corrections["images"], corrections["labels"])
    if not len(places):
        return
    print(f"\nBoth models are sure of another digit than {len(places)} corrections say. Look at them:")
    rows: dict[str, Any] = {}
    for place, digit in zip(places, digits, strict=True):
        label = int(corrections["labels"][place])
        said = "no digit" if label == NO_DIGIT else str(label)
        print(f"  {corrections['ids'][place]}: {said}, and both models read {digit}")
        rows.setdefault(f"{said} > {digit}", []).append(corrections["images"][place])
    contact_sheet({name: np.stack(images) for name, images in rows.items()}).save(folder / "review.png")
    print(f"The first of each kind are in {folder / 'review.png'}, and all corrections in {SHEETS}.")


def replace(champion: Path, candidate: Path) -> None:
    """Replace the champion's files. All are copied before the first is replaced, and the service never serves
    files that don't belong together."""
    names = [*MODEL, *METRICS]
    if (candidate / "dvc.lock").exists() and (champion / "dvc.lock").exists():
        names.append("dvc.lock")
    with outputs(champion, *names) as new:
        for name in names:
            if (candidate / name).is_dir():
                shutil.copytree(candidate / name, new / name)
            else:
                shutil.copy(candidate / name, new / name)


def main() -> None:
    """Compare, and replace or exit with 1."""
    parser = argparse.ArgumentParser(description="Replace the model in models/ by a better one.")
    parser.add_argument("candidate", type=Path, help="a folder with models/ and metrics/")
    parser.add_argument("--champion", type=Path, default=ROOT, help="the same")
    parser.add_argument("--corrections", type=Path, default=CORRECTIONS.path)
    parser.add_argument("--n", type=int, default=300, help="pictures of each kind")
    parser.add_argument(
        "--test-margin",
        type=float,
        default=TEST,
        help="by which the accuracy on MNIST's test images may fall",
    )
    args = parser.parse_args()
    arrays, corrections = read(DIGITS), read(CORRECTIONS, args.corrections)
    check(args.candidate, args.corrections)
    os.environ["MNIST_NPZ"] = str(DIGITS.path)
    try:
        pair = Pair(args.champion, args.candidate)
    except ModelError as error:
        raise StageError(str(error)) from None
    champion, candidate = (model.version for model in pair.models)
    print(f"champion {champion}, candidate {candidate}, {args.n} pictures of each kind\n")
    print(
        "| images | number | champion right | candidate right | difference | 95 % interval | p | may fall by |"
    )
    print("|---|---|---|---|---|---|---|---|")
    problems = []
    for compared in compare(pair, args.n, args.test_margin, arrays, corrections):
        print(compared.row(), flush=True)
        if problem := compared.problem():
            problems.append(problem)
    list_contradicted(pair, corrections, args.candidate)
    if problems:
        said = "\n".join(f"  {problem}" for problem in problems)
        sys.exit(f"\nThe candidate is not better, and nothing was changed:\n{said}")
    replace(args.champion, args.candidate)
    tracking.promote(candidate)
    print(f"\nThe candidate is better, and is in {args.champion / 'models'}. Services load it on SIGHUP.")


if __name__ == "__main__":
    run(main)
