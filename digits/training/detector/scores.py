"""Measures a network on held-out pages: how many digits it finds, and how many strings are wholly right."""

from __future__ import annotations

import numpy as np

from digits.training.detector.network import CLASSES, VALUES
from digits.training.detector.pages import ASKED, MARK, Page
from digits.training.detector.targets import CELL

THRESHOLD = 0.4
OVERLAP = 0.4  # least intersection over union of a box that is right


def detections(answer: np.ndarray, least: float = THRESHOLD) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What an answer, float32 (h / 4, w / 4, 2 * VALUES), shows: classes, int (n,); scores, float (n,); boxes,
    float (n, 4). Of boxes about the same place the one with the highest score is kept."""
    values = answer.reshape(answer.shape[0], -1, VALUES)
    score = 1 / (1 + np.exp(-values[..., 0]))
    padded = np.pad(score, 1)
    rows, columns = score.shape
    around = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    row, column = np.nonzero((score >= np.max(around, 0)) & (score > least))
    found = values[row, column]
    x = (column + 0.5) * CELL / 2 + found[:, 1 + CLASSES] * 8
    y = (row + 0.5) * CELL + found[:, 2 + CLASSES] * 8
    half = np.exp(np.clip(found[:, 3 + CLASSES :], -4, 3)) * (8, 12)
    boxes = np.stack([x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]], 1)
    order = np.argsort(-score[row, column], kind="stable")
    kept: list[int] = []
    for at in order:
        near = [
            k
            for k in kept
            if (
                abs(x[k] - x[at]) < 0.44 * min(half[k, 0], half[at, 0])
                and abs(y[k] - y[at]) < 0.7 * half[k, 1]
            )
            or overlap(boxes[k : k + 1], boxes[at])[0] > 0.6
        ]
        if not near:
            kept.append(at)
    return found[kept, 1 : 1 + CLASSES].argmax(1), score[row, column][kept], boxes[kept]


def overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The intersection over union of each of the boxes, (n, 4), with one box, (4,)."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    both = np.prod(np.maximum(high - low, 0), 1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1) + np.prod(box[2:] - box[:2])
    return both / np.maximum(areas - both, 1e-6)


def scores(pages: list[Page], answers: np.ndarray) -> dict[str, float]:
    """The fractions `precision`, `recall` and `f1` of digits found with the right class, `found` of digits
    found with any, and `strings` of the strings that are wholly right."""
    right = wanted = given = place = 0
    strings: list[bool] = []
    for page, answer in zip(pages, answers, strict=True):
        classes, _, boxes = detections(answer)
        digit = classes < MARK
        classes, boxes = classes[digit], boxes[digit]
        free = np.ones(len(boxes), bool)
        hit = np.zeros(len(page.labels), bool)
        asked = (page.states == ASKED) & (page.labels < MARK)
        for at in np.flatnonzero(asked):
            same = np.where(free, overlap(boxes, page.boxes[at]), 0) if len(boxes) else np.zeros(0)
            if len(same) and same.max() > OVERLAP:
                free[same.argmax()] = False
                place += 1
                hit[at] = classes[same.argmax()] == page.labels[at]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        # what was not asked for is not wrong
        for x0, y0, x1, y1 in page.boxes[(page.states != ASKED)]:
            inside = (middle >= (x0, y0)).all(1) & (middle <= (x1, y1)).all(1)
            free[inside & free] = False
            given -= int(inside.sum())
        right, wanted, given = right + int(hit.sum()), wanted + int(asked.sum()), given + len(boxes)
        for string in np.unique(page.strings[page.strings >= 0]):
            of = (page.strings == string) & (page.labels != MARK)
            if not of.any() or (page.states[of] != ASKED).any():
                continue
            low, high = page.boxes[of, :2].min(0), page.boxes[of, 2:].max(0)
            more = free & (middle > low).all(1) & (middle < high).all(1)
            strings.append(bool(hit[of].all() and not more.any()))
    precision, recall = right / max(given, 1), right / max(wanted, 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-9),
        "found": place / max(wanted, 1),
        "strings": float(np.mean(strings)) if strings else 0.0,
    }
