"""Calibrates how sure POST /read is of a line. `python -m digits.training.detector.calibrate`, the pipeline's
`calibrate` stage, reads pages that the detector has not learned from, and fits the probability that a line is
right. It writes this and the thresholds from which a line and a digit are sure into the model's card,
models/detector.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from digits.detector import KINDS, SCORE, Detector, H, W, X, Y
from digits.model import Model, ModelError
from digits.reading.choose import best_texts
from digits.reading.layout import BEYOND
from digits.reading.rows import NEAR, Row, find_rows
from digits.reading.search import Search
from digits.training.detector.pages import ASKED, HEIGHT, HIGH, LOW, MARK, WIDTH, Page, Pages
from digits.training.stage import PARAMS, ROOT, StageError, outputs, run

# the first pages are those of the learning curve
FIRST = 10_000
# of the squares of the standardized weights
RIDGE = 1.0
# distance from the page's edge within which a digit may be cut off
EDGE = 3


def lines_of(
    page: Page, detector: Detector, threshold: float, zoom: float
) -> list[tuple[np.ndarray, bool, np.ndarray]]:
    """The lines that are read on a page enlarged by `zoom`: features, whether the line is right, and for each
    digit, (n, 2), its probability and whether it is right. Lines with digits that are not asked for are left out.
    """
    picture = cv2.resize(page.grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    rows, _ = find_rows(Search(detector, picture, lambda: picture, picture.shape), threshold)
    out = []
    for row in rows:
        words = row.words()
        texts = [best_texts(row.peaks[word], 1)[0] for word in words]
        found = [[word[k] for k, _ in text.choice] for word, text in zip(words, texts, strict=True)]
        kinds = [kind for text in texts for _, kind in text.choice]
        peaks = row.frame.outside(row.peaks[np.concatenate(found)])
        peaks[:, X : H + 1] /= zoom
        at = [_owner(peak, page.boxes) for peak in peaks]
        asked = [i for i in at if i >= 0]
        of = _beside(page, row, peaks, zoom)
        of[asked] = True
        if (page.states[of] != ASKED).any() or any(map(_unknown, peaks[np.array(at) < 0])):
            continue
        digits = [
            i >= 0 and page.labels[i] == kind and at.count(i) == 1 for i, kind in zip(at, kinds, strict=True)
        ]
        there = peaks[:, SCORE] * peaks[np.arange(len(peaks)), KINDS + np.array(kinds)]
        right = (
            all(digits) and of.sum() == len(asked) and not _joined(page, at, [len(each) for each in found])
        )
        out.append((row.features(words, texts), right, np.stack([there, digits], 1)))
    return out


def _owner(peak: np.ndarray, boxes: np.ndarray) -> int:
    """The index of the box in which a peak is, and which is about as large; -1 if there is none."""
    x, y, w, h = peak[[X, Y, W, H]]
    across = np.minimum(boxes[:, 2], x + w / 2) - np.maximum(boxes[:, 0], x - w / 2)
    down = np.minimum(boxes[:, 3], y + h / 2) - np.maximum(boxes[:, 1], y - h / 2)
    both = np.clip(across, 0, None) * np.clip(down, 0, None)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    share = both / np.maximum(areas + w * h - both, 1e-6)
    return int(share.argmax()) if len(share) and share.max() > 0.3 else -1


def _beside(page: Page, row: Row, peaks: np.ndarray, zoom: float) -> np.ndarray:
    """Which of the page's objects are digits that belong to a row whose digits are at `peaks`, bool (n,)."""
    places = np.zeros((len(page.boxes) + len(peaks), KINDS))
    places[:, X] = np.concatenate([page.boxes[:, [0, 2]].mean(1), peaks[:, X]]) * zoom
    places[:, Y] = np.concatenate([page.boxes[:, [1, 3]].mean(1), peaks[:, Y]]) * zoom
    inside = row.frame.inside(places)
    x, y, own = inside[:, X], inside[:, Y], inside[len(page.boxes) :, X]
    beside = (np.abs(y) < NEAR) & (x > own.min() - BEYOND) & (x < own.max() + BEYOND)
    return beside[: len(page.boxes)] & (page.labels < MARK)


def _unknown(peak: np.ndarray) -> bool:
    """Whether a page does not tell if there is a digit, because it would be too high, too low or cut off."""
    x, y, w, h = peak[[X, Y, W, H]]
    inside = w / 2 + EDGE < x < WIDTH - w / 2 - EDGE and h / 2 + EDGE < y < HEIGHT - h / 2 - EDGE
    return not (inside and LOW < h < HIGH)


def _joined(page: Page, found: list[int], counts: list[int]) -> bool:
    """Whether a word has a mark of its string between its digits. How far words are apart does not matter, as not
    even people agree about it."""
    for word in np.split(np.array(found), np.cumsum(counts)[:-1]):
        marks = page.boxes[(page.labels == MARK) & np.isin(page.strings, page.strings[word])]
        middle, ends = marks[:, [0, 2]].mean(1), page.boxes[word][:, [0, 2]].mean(1)
        if ((middle > ends.min()) & (middle < ends.max())).any():
            return True
    return False


def logistic(features: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
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
    return raw, float(weights[-1] - raw @ mean)


def sure_from(probability: np.ndarray, right: np.ndarray, errors: float) -> float:
    """The lowest threshold from which at most this fraction is wrong, 1 if there is none.

    right: whether each is right, or the calibrated probability that it is, which is steadier than a count of few
    errors.
    """
    order = np.argsort(-probability, kind="stable")
    wrong = np.cumsum(1 - right[order].astype(float)) / np.arange(1, len(order) + 1)
    fine = np.flatnonzero(wrong <= errors)
    return float(probability[order[fine[-1]]]) if len(fine) else 1.0


def calibrate(
    detector: Detector, pages: Pages, params: dict[str, Any], report: bool = True
) -> dict[str, Any]:
    """The card's `calibration`. params: `calibration` in params.yaml."""
    rng = np.random.default_rng(params["seed"])
    features, right, digits, page_of = [], [], [], []
    for number in range(params["pages"]):
        zoom = float(rng.uniform(1, 3))
        page = pages.page(FIRST + number)
        if page.grey.shape != (HEIGHT, WIDTH):
            # a tight part has moved in the network's input, to which the boxes belong
            continue
        for row, is_right, of_digits in lines_of(page, detector, params["threshold"], zoom):
            features.append(row)
            right.append(is_right)
            digits.append(of_digits)
            page_of.append(number)
        if report and number % 100 == 99:
            print(f"{number + 1} pages, {len(right)} lines, {np.mean(right):.1%} right", flush=True)
    x, y, half = np.array(features), np.array(right), np.array(page_of) % 2
    # the thresholds come from other pages than the weights
    probability = np.empty(len(y))
    for part in (0, 1):
        weights, bias = logistic(x[half != part], y[half != part])
        probability[half == part] = 1 / (1 + np.exp(-np.clip(x[half == part] @ weights + bias, -30, 30)))
    weights, bias = logistic(x, y)
    sure, each = sure_from(probability, probability, params["line_errors"]), np.concatenate(digits)
    result = {
        "weights": [round(float(weight), 5) for weight in weights],
        "bias": round(bias, 5),
        "sure": round(sure, 5),
        "sure_digit": round(sure_from(each[:, 0], each[:, 1], params["digit_errors"]), 5),
        "lines": len(y),
        "right": round(float(y.mean()), 4),
        "sure_share": round(float((probability >= sure).mean()), 4),
        "sure_and_wrong": round(float(((probability >= sure) & ~y).mean()), 5),
    }
    return result


def main() -> None:
    """Calibrate by params.yaml and write the card."""
    parser = argparse.ArgumentParser(description="Calibrate the detector.")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "detector.h5")
    parser.add_argument("--trained", type=Path, default=ROOT / "metrics" / "detector" / "trained.json")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the folder with the data")
    parser.add_argument("--pages", type=int, help="pages to read, instead of params.yaml's")
    args = parser.parse_args()
    params = yaml.safe_load(PARAMS.read_text())
    calibration = params["calibration"]
    if args.pages:
        calibration["pages"] = args.pages
    card = json.loads(args.trained.read_text())
    pages = Pages(params["detector"]["pages"], args.data, held=True)
    compiled = args.model.with_suffix(".tflite").read_bytes()
    if hashlib.sha256(compiled).hexdigest() != card["tflite_sha256"]:
        raise StageError(f"{args.trained} was not written for {args.model.with_suffix('.tflite')}.")
    try:
        detector = Detector(Model(compiled, card["version"], card))
    except ModelError as error:
        raise StageError(str(error)) from None
    card["threshold"] = calibration["threshold"]
    card["calibration"] = calibrate(detector, pages, calibration)
    print(json.dumps(card["calibration"]))
    name = args.model.with_suffix(".json").name
    with outputs(args.model.parent, name) as new:
        (new / name).write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
