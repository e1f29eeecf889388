"""Calibrates how sure POST /read is of a line. `python -m digits.training.detector.calibrate`, the pipeline's
`calibrate` stage, reads pages that the detector has not learned from, and fits the probability that a line is
right. It writes this and the thresholds from which a line and a digit are sure into the model's card,
models/detector.json."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from digits.detector import CLASS, SCORE, Detector, H, W, X, Y
from digits.model import Model, ModelError
from digits.reading.choose import Logistic, best_lines
from digits.reading.layout import BEYOND
from digits.reading.rows import NEAR, Row, find_rows, judged, there_features
from digits.reading.search import Search
from digits.training.detector.pages import ASKED, HEIGHT, HIGH, LOW, MARK, WIDTH, Page, Pages
from digits.training.detector.params import Weights, detector_params
from digits.training.stage import ROOT, StageError, outputs, read_params, run

# the first pages are those of the learning curve
FIRST = 10_000
# of the squares of the standardized weights
RIDGE = 1.0
# distance from the page's edge within which a digit may be cut off
EDGE = 3


@dataclass(frozen=True)
class Params:
    """`calibration` in params.yaml, where each key is explained."""

    seed: int
    number: int
    kinds: Weights
    pages: Weights
    line_errors: float
    digit_errors: float


class Seen(NamedTuple):
    """A page that was read, enlarged by `zoom`, and the rows of what may be digits."""

    page: Page
    zoom: float
    rows: list[Row]


def peaks_of(seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """What tells whether each peak that may be a digit is one, float (n, m), and whether it is."""
    features, right = [np.empty((0, 3))], [np.empty(0, bool)]
    for row in seen.rows:
        owner, unknown = _owners(seen, row)
        is_digit = (owner >= 0) & ~unknown
        best = np.argsort(-row.peaks[:, SCORE], kind="stable")
        best = best[is_digit[best]]
        first = best[np.unique(owner[best], return_index=True)[1]]
        known = ~row.is_mark & ~unknown
        features.append(there_features(row.peaks)[known])
        right.append(np.isin(np.arange(len(owner)), first)[known])
    return np.concatenate(features), np.concatenate(right)


def lines_of(seen: Seen, presence: Logistic) -> list[tuple[np.ndarray, bool, np.ndarray]]:
    """The lines that are read on a page: features, whether the line is right, and for each digit, (n, 2), its
    probability and whether it is right. Lines with digits that are not asked for are left out."""
    page, out = seen.page, []
    for row in judged(seen.rows, presence):
        words = row.words()
        (best,), _ = best_lines(row.peaks, words, 1)
        chosen, classes = np.array(best.choice).T
        owner, unknown = _owners(seen, row)
        asked = owner[chosen][owner[chosen] >= 0]
        of = _beside(seen, row, row.peaks[chosen, X])
        of[asked] = True
        if unknown[chosen].any() or (page.states[of] != ASKED).any():
            continue
        digits = [
            i >= 0 and page.labels[i] == digit and (asked == i).sum() == 1
            for i, digit in zip(owner[chosen].tolist(), classes.tolist(), strict=True)
        ]
        joined = any(_joined(page, owner[np.intersect1d(word, chosen)]) for word in words)
        right = all(digits) and of.sum() == len(asked) and not joined
        out.append((row.features(best.choice), right, np.stack([row.probabilities(best.choice), digits], 1)))
    return out


def _owners(seen: Seen, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """For each peak of a row, the index of the digit in whose box it is, and which is about as large, -1 if there
    is none; and whether the page does not tell if it is a digit, because it would be too high, too low or cut
    off."""
    page, peaks = seen.page, row.frame.outside(row.peaks)
    x, y, w, h = (peaks[:, [X, Y, W, H]] / seen.zoom).T
    boxes, is_digit = page.boxes, page.labels < MARK
    across = np.minimum(boxes[:, 2], (x + w / 2)[:, None]) - np.maximum(boxes[:, 0], (x - w / 2)[:, None])
    down = np.minimum(boxes[:, 3], (y + h / 2)[:, None]) - np.maximum(boxes[:, 1], (y - h / 2)[:, None])
    both = np.clip(across, 0, None) * np.clip(down, 0, None)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + (w * h)[:, None]
    share = np.pad(both / np.maximum(areas - both, 1e-6) * is_digit, ((0, 0), (0, 1)))
    owner = np.where(share.max(1) > 0.3, share.argmax(1), -1)
    inside = (
        (x > w / 2 + EDGE) & (x < WIDTH - w / 2 - EDGE) & (y > h / 2 + EDGE) & (y < HEIGHT - h / 2 - EDGE)
    )
    vague = ~(inside & (h > LOW) & (h < HIGH))
    states = np.append(page.states, ASKED)[owner]
    return owner, np.where(owner >= 0, states != ASKED, vague)


def _beside(seen: Seen, row: Row, own: np.ndarray) -> np.ndarray:
    """Which of the page's objects are digits that belong to a row whose digits are at x = `own`, bool (n,)."""
    boxes = seen.page.boxes
    places = np.zeros((len(boxes), CLASS))
    places[:, [X, Y]] = (boxes[:, :2] + boxes[:, 2:]) / 2 * seen.zoom
    x, y = row.frame.inside(places)[:, [X, Y]].T
    beside = (np.abs(y) < NEAR) & (x > own.min() - BEYOND) & (x < own.max() + BEYOND)
    return beside & (seen.page.labels < MARK)


def _joined(page: Page, word: np.ndarray) -> bool:
    """Whether a word of these objects has a mark of its string between its digits. How far words are apart does
    not matter, as not even people agree about it."""
    word = word[word >= 0]
    if not len(word):
        return False
    marks = page.boxes[(page.labels == MARK) & np.isin(page.strings, page.strings[word])]
    middle, ends = marks[:, [0, 2]].mean(1), page.boxes[word][:, [0, 2]].mean(1)
    return bool(((middle > ends.min()) & (middle < ends.max())).any())


def logistic(features: np.ndarray, right: np.ndarray) -> tuple[list[float], float]:
    """The weights and the bias of the logistic function that fits best, by Newton's method. features: (n, m)."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    x = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    ridge = np.full(x.shape[1], RIDGE)
    ridge[-1] = 1e-6
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(curvature, x.T @ (right - p) - ridge * weights)
        weights += step
        if np.abs(step).max() < 1e-6:
            break
    raw = weights[:-1] / spread
    return [round(weight, 5) for weight in raw.tolist()], round(float(weights[-1] - raw @ mean), 5)


def sure_from(probability: np.ndarray, right: np.ndarray, errors: float) -> float:
    """The lowest threshold from which the wrong ones are at most this fraction of all, 1 if there is none.

    right: whether each is right, or the calibrated probability that it is, which is steadier than a count of few
    errors.
    """
    order = np.argsort(-probability, kind="stable")
    fine = np.flatnonzero(np.cumsum(1 - right[order].astype(float)) <= errors * len(right))
    return float(probability[order[fine[-1]]]) if len(fine) else 1.0


def calibrate(detector: Detector, pages: Pages, params: Params) -> dict[str, Any]:
    """The card's `calibration`."""
    rng = np.random.default_rng(params.seed)
    every = []
    for number in range(params.number):
        zoom = float(rng.uniform(1, 3))
        page = pages.page(FIRST + number)
        picture = cv2.resize(page.grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        every.append(Seen(page, zoom, find_rows(Search(detector, picture))[0]))
        if number % 100 == 99:
            print(f"{number + 1} pages", flush=True)
    presence = logistic(*(np.concatenate(part) for part in zip(*map(peaks_of, every), strict=True)))
    lines = [(*line, i) for i, seen in enumerate(every) for line in lines_of(seen, Logistic(*presence))]
    x, y, digits, page = zip(*lines, strict=True)
    features, right, half, each = np.array(x), np.array(y), np.array(page) % 2, np.concatenate(digits)
    # the threshold comes from other pages than the weights
    probability = np.empty(len(right))
    for part in (0, 1):
        line = Logistic(*logistic(features[half != part], right[half != part]))
        probability[half == part] = line(features[half == part])
    sure = sure_from(probability, probability, params.line_errors)
    return {
        "presence": presence,
        "line": logistic(features, right),
        "sure": round(sure, 5),
        "sure_digit": round(sure_from(each[:, 0], each[:, 1], params.digit_errors), 5),
        "lines": len(right),
        "right": round(float(right.mean()), 4),
        "sure_share": round(float((probability >= sure).mean()), 4),
        "sure_and_wrong": round(float(((probability >= sure) & ~right).mean()), 5),
    }


def main() -> None:
    """Calibrate by params.yaml and write the card."""
    parser = argparse.ArgumentParser(description="Calibrate the detector.")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "detector.h5")
    parser.add_argument("--trained", type=Path, default=ROOT / "metrics" / "detector" / "trained.json")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the folder with the data")
    parser.add_argument("--pages", type=int, help="pages to read, instead of params.yaml's")
    args = parser.parse_args()
    params, drawn = read_params("calibration", Params), detector_params()["pages"]
    if unknown := params.pages.keys() - drawn.keys():
        raise StageError(f"params.yaml: calibration.pages has unknown keys: {', '.join(sorted(unknown))}.")
    params = replace(params, number=args.pages or params.number)
    card = json.loads(args.trained.read_text())
    pages = Pages(drawn | params.pages | {"kinds": params.kinds}, args.data, held=True)
    compiled = args.model.with_suffix(".tflite").read_bytes()
    if hashlib.sha256(compiled).hexdigest() != card["tflite_sha256"]:
        raise StageError(f"{args.trained} was not written for {args.model.with_suffix('.tflite')}.")
    try:
        detector = Detector(Model(compiled, card["version"], card))
    except ModelError as error:
        raise StageError(str(error)) from None
    card["calibration"] = calibrate(detector, pages, params)
    print(json.dumps(card["calibration"]))
    name = args.model.with_suffix(".json").name
    with outputs(args.model.parent, name) as new:
        (new / name).write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
