"""Compares each hypothesis with the rest of its line, because a mark is more likely to be a digit if the others
are, and if it is as thick, as dark and as high as they are. digits.reading.pieces calls `context`."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from digits.reading.scores import unfold

if TYPE_CHECKING:
    from digits.reading.pieces import Hypothesis

# the weight of a difference in ink, which is small
TONE = 4


def context(
    found: list[Hypothesis],
    served: np.ndarray,
    spans: list[tuple[int, int]],
    measured: np.ndarray,
    whole: np.ndarray,
    boxes: np.ndarray,
    height: float,
) -> np.ndarray:
    """Features of a line's hypotheses, (n, 6): how well their pieces can be read as digits, how well the line's
    other components can be, the thickness of their strokes and their ink compared with the line's, and how far
    they extend above and below its middle.

    served: (n, 10), the network's probabilities. spans: the first piece of each component, and the first after
    it. measured: (n, 2), the number of pixels of each hypothesis, and how much they are ink on average. whole: the
    same of each component. boxes: (components, 4), left, top, right, bottom. height: a digit's height in pixels.
    """
    return np.hstack([_as_digits(found, served, spans), _compared(found, measured, whole, boxes, height)])


def _as_digits(found: list[Hypothesis], served: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    likely = unfold(served)[0].max(1).tolist()
    leaving: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for each, probability in zip(found, likely, strict=True):
        if each.may_be_digit:
            leaving[each.start].append((each.stop, probability))

    known: dict[tuple[int, int], float] = {}
    wanted = {*spans, *((each.start, each.stop) for each in found)}
    for start in {start for start, _ in wanted}:
        # the lowest probability on the path of digits to each place on which it is highest
        best = {start: 1.0}
        last = max(stop for first, stop in wanted if first == start)
        for node in range(start, last):
            for after, probability in leaving[node] if node in best else ():
                best[after] = max(best.get(after, 0.0), min(best[node], probability))
        known |= {span: best.get(span[1], 0.0) for span in wanted if span[0] == start}
    total = sum(known[span] for span in spans)
    rows = []
    for each in found:
        within = [known[span] for span in spans if span[0] < each.stop and span[1] > each.start]
        others = len(spans) - len(within)
        rows.append((known[each.start, each.stop], (total - sum(within)) / others if others else 0.5))
    return np.array(rows)


def _compared(
    found: list[Hypothesis], measured: np.ndarray, whole: np.ndarray, boxes: np.ndarray, height: float
) -> np.ndarray:
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    slope, level = (
        np.polyfit(x, y, 1, w=sides) if np.ptp(x) > 3 * height else (0, np.average(y, weights=sides))
    )
    left, top, right, bottom = np.array([each.box for each in found]).T
    thickness = measured[:, 0] / np.maximum(right - left, bottom - top)
    middle = level + slope * (left + right) / 2
    return np.stack(
        [
            np.minimum(thickness / np.median(whole[:, 0] / sides), 3) - 1,
            TONE * (measured[:, 1] - np.median(whole[:, 1])),
            np.clip((middle - top) / height, -1, 2),
            np.clip((bottom - middle) / height, -1, 2),
        ],
        1,
    )
