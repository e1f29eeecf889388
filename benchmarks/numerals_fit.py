"""Fits the weights and the calibration in digits/reading/scores.json. `make numbers-fit` runs it.

The pictures are those of numerals.py with MNIST's training digits, single digits, and words without digits. The
weights maximize the probability of the correct texts among all paths through the hypotheses of their lines
(discriminative forward training: LeCun et al. 1998, VI.B).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from multiprocessing import Pool
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numerals_strings import (
    KINDS,
    ROOT,
    SIGNS,
    Digits,
    Made,
    Rng,
    font,
    photograph,
    pictures,
    put,
    scaled,
    string,
)
from PIL import Image, ImageDraw
from scipy.optimize import minimize

from digits.model import Classifier, load
from digits.reading import layout_of, scores
from digits.reading.path import best_readings, graph
from digits.reading.pieces import Judge, Judged, hypotheses
from digits.reading.scores import NONE, features

# units of the hidden layer, and lines per batch
UNITS, BATCH = 24, 32
# added to the probability of the correct text, so that lines whose digits were not found don't influence the
# weights
HOPELESS = 1e-3
# lines with more pieces are left out, because they take long
MOST_PIECES = 60
# the logarithm of zero
LEAST = -1e30
# letters that don't look like digits
LETTERS = list("ACDEFGHJKLMNPQRTUVWXYacdefhijkmnprtuvwxy")


def few(digits: Digits, rng: Rng) -> Made:
    """One or two digits."""
    return string(digits, rng, (0, 11), (1, 2))


def sparse(digits: Digits, rng: Rng) -> Made:
    """Two or three lines of one or two digits at different places."""
    made = [few(digits, rng) for _ in range(int(rng.integers(2, 4)))]
    pitch, width = int(rng.integers(28, 40)), 60 + max(number.shape[1] for number, _ in made)
    sheet = np.zeros((pitch * len(made) + 4, width), np.uint8)
    for i, (number, _) in enumerate(made):
        put(sheet, number, int(rng.integers(0, width - number.shape[1] + 1)), i * pitch)
    return scaled(sheet, 3), [lines[0] for _, lines in made]


KINDS.update(few=few, sparse=sparse)


def words(count: int, seed: int) -> list[bytes]:
    """Pictures of letters and symbols without digits."""
    rng = np.random.default_rng([seed, 7])
    made = []
    for number in range(count):
        parts = [
            "".join(rng.choice(LETTERS, rng.integers(1, 5))) if rng.random() < 0.6 else str(rng.choice(SIGNS))
            for _ in range(int(rng.integers(1, 5)))
        ]
        text, size = " ".join(parts), int(rng.integers(60, 110))
        typeface = font(rng, size)
        left, top, right, bottom = typeface.getbbox(text)
        picture = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
        ImageDraw.Draw(picture).text((4 - left, 4 - top), text, 255, typeface)
        made.append(photograph(picture, number % 2 == 0, rng))
    return made


class Lattices:
    """The hypotheses of some lines and their texts, for fitting.

    features: (edges, 11, features). may: (edges, 11), whether an option is allowed.
    """

    def __init__(self, lines: list[tuple[Judged, str]]) -> None:
        self.features = np.concatenate([features(judged.served, judged.shape) for judged, _ in lines])
        every = [(i, each) for i, (judged, _) in enumerate(lines) for each in judged.hypotheses]
        self.line, self.start = np.array([i for i, _ in every]), np.array([each.start for _, each in every])
        self.stop = np.array([each.stop for _, each in every])
        self.may = np.array([[each.may_be_digit] * NONE + [each.may_be_none] for _, each in every])
        self.pieces = np.array([judged.pieces for judged, _ in lines])
        self.length = np.array([len(text) for _, text in lines])
        self.text = np.zeros((len(lines), self.length.max() + 1), int)
        for row, (_, text) in zip(self.text, lines, strict=True):
            row[: len(text)] = [int(sign) for sign in text]

    def loss(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The negative logarithm of the probability of each line's text plus HOPELESS, and the gradient of their
        sum for the scores, (edges, 11)."""
        scores = np.where(self.may, scores, LEAST)
        either = np.logaddexp.reduce(scores, 1, keepdims=True)
        every, among_all = self._sums(either, np.full_like(either, LEAST), np.zeros_like(self.length))
        digits = np.take_along_axis(scores, self.text[self.line], 1)
        right, among_right = self._sums(scores[:, NONE:], digits, self.length)
        slope = np.exp(scores - either) * among_all[0]
        slope[:, NONE] -= among_right[0][:, 0]
        for place in range(self.text.shape[1]):
            np.subtract.at(
                slope, (np.arange(len(slope)), self.text[self.line, place]), among_right[1][:, place]
            )
        probability = np.exp(np.minimum(right - every, 0))
        share = probability / (probability + HOPELESS) * (right > LEAST / 2)
        return -np.log(probability + HOPELESS), slope * share[self.line, None]

    def _sums(
        self, none: np.ndarray, digits: np.ndarray, length: np.ndarray
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The logarithm of the sum of the exponentials of all paths of each line, and the share of each edge in
        it, as no digit and as the digit at each place of the text.

        none: (edges, 1), scores. digits: (edges, places). length: the number of digits on a path of each line.
        """
        places = digits.shape[1]
        forward = np.full((len(self.pieces), self.pieces.max() + 1, places), float(LEAST))
        backward = forward.copy()
        forward[:, 0, 0] = 0
        backward[np.arange(len(length)), self.pieces, length] = 0
        nodes = [np.flatnonzero(self.start == node) for node in range(self.pieces.max())]
        for node, edges in enumerate(nodes):
            before = forward[self.line[edges], node]
            both = np.logaddexp(before + none[edges], _moved(before + digits[edges], 1))
            np.logaddexp.at(forward, (self.line[edges], self.stop[edges]), both)
        for edges in nodes[::-1]:
            after = backward[self.line[edges], self.stop[edges]]
            both = np.logaddexp(after + none[edges], _moved(after, -1) + digits[edges])
            np.logaddexp.at(backward, (self.line[edges], self.start[edges]), both)
        total = backward[:, 0, 0]
        before, after = forward[self.line, self.start], backward[self.line, self.stop]
        whole = np.maximum(total, LEAST)[self.line, None]
        as_none = np.exp(np.minimum(before + after + none - whole, 0)).sum(1, keepdims=True)
        return total, (as_none, np.exp(np.minimum(before + _moved(after, -1) + digits - whole, 0)))


def _moved(rows: np.ndarray, places: int) -> np.ndarray:
    """The rows, moved to the right by this number of places."""
    out = np.full_like(rows, LEAST)
    if places > 0:
        out[:, places:] = rows[:, :-places]
    else:
        out[:, :places] = rows[:, -places:]
    return out


def lines_of(model: Path, count: int, seed: int) -> list[tuple[Judged, str]]:
    """The lines, with their texts, of `count` pictures of each kind in which all lines were found."""
    digits = Digits("train")
    made = [each for kind in KINDS for each in pictures(kind, count, digits, seed)]
    made += [(content, []) for content in words(count, seed)]
    with Pool(os.cpu_count(), initializer=_load, initargs=[model]) as pool:
        return [line for lines in pool.imap(_judged, made, chunksize=20) for line in lines]


_loaded: list[Classifier] = []


def _load(model: Path) -> None:
    _loaded.append(Classifier(load(model)))


def _judged(made: tuple[bytes, list[str]]) -> list[tuple[Judged, str]]:
    content, texts = made
    found = layout_of(content, "image")
    if found is None:
        return []
    layout, _ = found
    judged = hypotheses(layout, Judge(layout, _loaded[0].probabilities))
    texts = texts or [""] * len(judged)
    if len(texts) != len(judged) or any(each.pieces > MOST_PIECES for each in judged):
        return []
    return list(zip(judged, texts, strict=True))


def fit_weights(lines: list[tuple[Judged, str]], epochs: int, decay: float) -> dict[str, list]:
    """The weights that maximize the probability of the lines' texts."""
    lines = sorted(lines, key=lambda line: line[0].pieces)
    batches = [Lattices(lines[i : i + BATCH]) for i in range(0, len(lines), BATCH)]
    keras.utils.set_random_seed(1)
    x = keras.Input((batches[0].features.shape[-1],))
    hidden = keras.layers.Dense(UNITS, "tanh")
    output, linear = keras.layers.Dense(1, use_bias=False), keras.layers.Dense(1, use_bias=False)
    network = keras.Model(x, keras.layers.add([output(hidden(x)), linear(x)]))
    start = np.zeros((x.shape[-1], 1))
    start[:2, 0] = 2, 1
    linear.set_weights([start])
    rate = keras.optimizers.schedules.CosineDecay(0.02, epochs * len(batches))
    optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
    order = np.random.default_rng(1)
    for epoch in range(epochs):
        losses = []
        for i in order.permutation(len(batches)):
            batch = batches[i]
            flat = batch.features.reshape(-1, x.shape[-1])
            with tf.GradientTape() as tape:
                scored = network(flat)
                loss, slope = batch.loss(scored.numpy().reshape(-1, NONE + 1).astype(float))
                # its gradient is that of the loss
                value = tf.reduce_sum(scored * slope.reshape(-1, 1)) / len(loss)
            optimizer.apply(tape.gradient(value, network.trainable_variables), network.trainable_variables)
            losses.append(loss)
        print(f"epoch {epoch + 1}: {np.concatenate(losses).mean():.4f}", file=sys.stderr, flush=True)
    kernel, bias = hidden.get_weights()
    fitted = linear.get_weights()[0][:, 0], kernel, bias, output.get_weights()[0][:, 0]
    return {
        name: np.round(each.astype(float), 4).tolist()
        for name, each in zip(("linear", "hidden", "bias", "output"), fitted, strict=True)
    }


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
    return round(float(found.x[0]), 3), round(float(found.x[1]), 3)


def main() -> None:
    """Fit the weights and the calibration, and write them to scores.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300, help="pictures of each kind")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--decay", type=float, default=0.01, help="decay of the weights per step")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "mnist.h5")
    args = parser.parse_args()
    fitted = fit_weights(lines_of(args.model, args.count, seed=5), args.epochs, args.decay)
    for name in ("linear", "hidden", "bias", "output"):
        setattr(scores, name.upper(), np.array(fitted[name], np.float32))
    fitted["calibration"] = list(fit_calibration(lines_of(args.model, max(1, args.count // 3), seed=6)))
    scores.FITTED.write_text(json.dumps(fitted) + "\n")


if __name__ == "__main__":
    main()
