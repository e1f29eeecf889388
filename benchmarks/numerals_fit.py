"""Fits WEIGHTS and CALIBRATION in digits/reading/scores.py, and prints them. `make numbers-fit` runs it.

The pictures are those of numerals.py with MNIST's training digits, and words without digits. The weights maximize
the probability of the correct texts among all paths through the hypotheses of their lines (discriminative forward
training: LeCun et al. 1998, VI.B), with a small penalty on large weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numerals import KINDS, ROOT, SIGNS, WORDS, Digits, photograph, pictures
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import minimize

from digits.model import Classifier, load
from digits.reading import layout_of, scores
from digits.reading.path import best_readings, graph
from digits.reading.pieces import Judge, Judged, hypotheses
from digits.reading.scores import WEIGHTS, features

# penalty on the squared distance from the present weights
RIDGE = 0.001
# added to the probability of the correct text, so that lines whose digits were not found don't influence the
# weights
HOPELESS = 1e-3
NONE = 10


def words(count: int) -> Iterator[bytes]:
    """Pictures of letters and symbols without digits."""
    rng = np.random.default_rng(7)
    files = sorted(Path("/usr/share/fonts").rglob("DejaVu*.ttf"))
    for number in range(count):
        text = " ".join(rng.choice(WORDS + SIGNS, int(rng.integers(1, 5))))
        size = int(rng.integers(60, 110))
        font = (
            ImageFont.truetype(files[rng.integers(len(files))], size)
            if files
            else ImageFont.load_default(size)
        )
        left, top, right, bottom = font.getbbox(text)
        picture = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
        ImageDraw.Draw(picture).text((4 - left, 4 - top), text, 255, font)
        yield photograph(picture, number % 2 == 0, rng)


class Lattice:
    """The hypotheses of a line and its text.

    edges: (start, stop) of each. features: (edges, 11, weights). may: (edges, 11), whether an option is allowed.
    """

    def __init__(self, judged: Judged, text: str) -> None:
        self.pieces, self.text = judged.pieces, [int(sign) for sign in text]
        self.edges = [(each.start, each.stop) for each in judged.hypotheses]
        self.features = features(judged.served, np.array([each.shape for each in judged.hypotheses]))
        self.may = np.ones((len(self.edges), 11), bool)
        self.may[:, NONE] = [each.may_be_none for each in judged.hypotheses]
        self.may[:, :NONE] = [[each.may_be_digit] for each in judged.hypotheses]

    def loss(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative logarithm of the text's probability plus HOPELESS, and its gradient."""
        scores = np.where(self.may, self.features @ weights, -np.inf)
        right, among_right = self._sums(scores, self.text)
        every, among_all = self._sums(scores, None)
        if not np.isfinite(right):
            return -np.log(HOPELESS), np.zeros_like(weights)
        probability = np.exp(right - every)
        share = probability / (probability + HOPELESS)
        slope = np.einsum("eo,eow->w", among_all - among_right, self.features)
        return -np.log(probability + HOPELESS), share * slope

    def _sums(self, scores: np.ndarray, text: list[int] | None) -> tuple[float, np.ndarray]:
        """The logarithm of the sum of the exponentials of all paths, or of those with the text, and the share of
        each option."""
        places = 1 if text is None else len(text) + 1
        forward = np.full((self.pieces + 1, places), -np.inf)
        backward = forward.copy()
        forward[0, 0] = backward[-1, -1] = 0
        # (edges, places): the score of a digit between one place in the text and the next
        any_digit = np.logaddexp.reduce(scores[:, :NONE], 1)[:, None]
        digit = any_digit if text is None else scores[:, text]
        none = scores[:, NONE]
        step = 0 if text is None else 1
        for e in np.argsort([start for start, _ in self.edges], kind="stable"):
            start, stop = self.edges[e]
            forward[stop] = np.logaddexp(forward[stop], forward[start] + none[e])
            n = places - step
            forward[stop, step:] = np.logaddexp(forward[stop, step:], forward[start, :n] + digit[e])
        for e in np.argsort([-stop for _, stop in self.edges], kind="stable"):
            start, stop = self.edges[e]
            backward[start] = np.logaddexp(backward[start], backward[stop] + none[e])
            n = places - step
            backward[start, :n] = np.logaddexp(backward[start, :n], backward[stop, step:] + digit[e])
        total = forward[-1, -1]
        shares = np.zeros_like(scores)
        if not np.isfinite(total):
            return float(total), shares
        starts, stops = np.array(self.edges).T
        shares[:, NONE] = np.exp(forward[starts] + backward[stops] + none[:, None] - total).sum(1)
        n = places - step
        between = np.exp(forward[starts, :n] + backward[stops, step:] + digit - total)
        if text is None:
            with np.errstate(invalid="ignore"):
                within = np.exp(scores[:, :NONE] - digit)
            shares[:, :NONE] = between * np.nan_to_num(within)
        else:
            for place, d in enumerate(text):
                shares[:, d] += between[:, place]
        return float(total), shares


def lines_of(classifier: Classifier, count: int, kinds: list[str], seed: int) -> Iterator[tuple[Judged, str]]:
    """The lines, with their texts, of `count` pictures of each kind in which all lines were found."""
    digits = Digits("train")
    made = [each for kind in kinds for each in pictures(kind, count, digits, seed)]
    made += [(content, None) for content in words(count)]
    for content, lines in made:
        found = layout_of(content, "image")
        if found is None:
            continue
        layout, _ = found
        judged = hypotheses(layout, Judge(layout, classifier.probabilities))
        judged = [each for each in judged if each.hypotheses]
        texts = lines or [""] * len(judged)
        if len(texts) == len(judged):
            yield from zip(judged, texts, strict=True)


def fit_weights(lines: list[tuple[Judged, str]], steps: int) -> np.ndarray:
    """The weights that maximize the probability of the lines' texts."""
    made = [Lattice(judged, text) for judged, text in lines]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(divide="ignore"):
            parts = [lattice.loss(weights) for lattice in made]
        apart = weights - WEIGHTS
        value = sum(part[0] for part in parts) / len(parts) + RIDGE * apart @ apart
        print(f"{value:.4f}", file=sys.stderr, flush=True)
        return value, sum(part[1] for part in parts) / len(parts) + 2 * RIDGE * apart

    return minimize(loss, WEIGHTS, jac=True, method="L-BFGS-B", options={"maxiter": steps}).x


def fit_calibration(lines: list[tuple[Judged, str]]) -> tuple[float, float]:
    """Fit the slope and offset that map the logit of a line's share to its probability of being correct."""
    scores.CALIBRATION = 1.0, 0.0
    shares, right = [], []
    for judged, text in lines:
        best = best_readings(graph(judged))
        if best is not None and best.digits:
            shares.append(np.clip(best.probability, 1e-6, 1 - 1e-6))
            right.append("".join(str(digit) for digit, _, _ in best.digits) == text)
    logits, signs = np.log(np.array(shares) / (1 - np.array(shares))), np.where(right, 1, -1)

    def loss(line: np.ndarray) -> float:
        return np.logaddexp(0, -signs * (line[0] * logits + line[1])).sum() + 0.1 * (line[0] - 1) ** 2

    found = minimize(loss, (1, 0))
    return float(found.x[0]), float(found.x[1])


def main() -> None:
    """Fit and print the weights and the calibration."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=150, help="pictures of each kind")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "mnist.h5")
    args = parser.parse_args()
    classifier = Classifier(load(args.model))
    scores.WEIGHTS = fit_weights(list(lines_of(classifier, args.count, list(KINDS), seed=5)), args.steps)
    print("WEIGHTS:", ", ".join(f"{weight:.3f}" for weight in scores.WEIGHTS))
    slope, offset = fit_calibration(list(lines_of(classifier, args.count, list(KINDS), seed=6)))
    print(f"CALIBRATION: {slope:.3f}, {offset:.3f}")


if __name__ == "__main__":
    main()
