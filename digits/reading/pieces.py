"""Finds the hypotheses for the digits of a line: connected components, their parts where they may be cut, and
joined neighbours. digits.reading.read calls `hypotheses`, which classifies them with the network in two batches
per picture."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import cv2
import numpy as np

from digits.imaging.normalize import to_mnist
from digits.model import scale
from digits.reading.cuts import MOST_INK, cuts
from digits.reading.layout import Layout
from digits.reading.scores import unfold

# a component that is a digit with at least this probability, and not wider than this, is not cut
SURE, WIDE = 0.97, 1.15
# components in a line of more than SHORT are only cut if at least LIKELY_SHARE of them are digits with a
# probability of LIKELY, so that printed text is not cut
SHORT, LIKELY, LIKELY_SHARE = 12, 0.6, 0.6
# narrower and wider components are not cut, relative to their height
NARROWEST, WIDEST_CUT = 0.5, 12
# components are reduced to this number of rows for cutting
CUT_ROWS = 28
# maximum number of pieces in a hypothesis
MOST_PIECES = 6
# the maximum width of a digit and distance of its parts, relative to the line's height
WIDEST, APART = 1.6, 0.25
# maximum number of images to classify at a time
MOST = 14_000

Corners = tuple[int, int, int, int]


class Piece(NamedTuple):
    """Ink that is not divided further: its label, box (left, top, right, bottom), component, and how much ink the
    cut on its left crosses, as a fraction of a digit's height, or None if there is no cut."""

    label: int
    box: Corners
    component: int
    cut: float | None


class Hypothesis(NamedTuple):
    """The pieces from `start` to `stop` of a line as one digit, or as a mark that is not a digit, if these are
    allowed.

    box: left, top, right, bottom. shape: SHAPE features for scores.py.
    """

    start: int
    stop: int
    labels: tuple[int, ...]
    box: Corners
    may_be_digit: bool
    may_be_none: bool
    shape: tuple[float, ...]


class Judged(NamedTuple):
    """The hypotheses of a line with `pieces` pieces, and the network's probabilities for each, (n, 10)."""

    pieces: int
    hypotheses: list[Hypothesis]
    served: np.ndarray


class Judge:
    """Classifies parts of a picture's ink with the network. seconds: the time that the network has taken so
    far."""

    def __init__(self, layout: Layout, classify: Callable[[np.ndarray], np.ndarray]) -> None:
        self.ink, self.labels = layout.ink, layout.labels.copy()
        self.next_label = len(layout.areas) + 1
        self.seconds = 0.0
        self._classify = classify
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, wanted: dict[tuple[int, ...], Any]) -> dict[tuple[int, ...], np.ndarray]:
        """The network's probabilities, float32 (10,), for each set of labels. wanted: their boxes."""
        fresh = [labels for labels in wanted if labels not in self._known][:MOST]
        if fresh:
            served = self.classify(np.stack([self._image(labels, wanted[labels]) for labels in fresh]))
            self._known.update(zip(fresh, served, strict=True))
        return self._known

    def classify(self, images: np.ndarray) -> np.ndarray:
        """The network's probabilities, float32 (n, 10), for images uint8 (n, 28, 28)."""
        begun = perf_counter()
        served = self._classify(scale(images))
        self.seconds += perf_counter() - begun
        return served

    def _image(self, labels: tuple[int, ...], box: Corners) -> np.ndarray:
        """The ink of these labels in MNIST's format."""
        height, width = self.labels.shape
        left, top = max(0, box[0] - 1), max(0, box[1] - 1)
        right, bottom = min(width, box[2] + 1), min(height, box[3] + 1)
        there = self.labels[top:bottom, left:right]
        own = (there == labels[0]).astype(np.uint8)
        for label in labels[1:]:
            own |= there == label
        # include the faint edges
        own = cv2.dilate(own, np.ones((3, 3), np.uint8)) & ((there == 0) | (own > 0))
        return to_mnist(self.ink[top:bottom, left:right] * own)

    def divide(self, component: int, box: Corners, line_height: float) -> list[Piece]:
        """Divide a component into pieces along the paths from `cuts`."""
        left, top, right, bottom = box
        own = self.labels[top:bottom, left:right] == component + 1
        high, wide = own.shape
        rows = min(CUT_ROWS, high)
        columns = max(4, round(wide * rows / high))
        small = cv2.resize(own.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        seams, costs = cuts(small, max(1.0, rows * line_height / high))
        if not seams:
            return [Piece(component + 1, box, component, None)]
        side = np.zeros(own.shape, np.int32)
        y = np.minimum((np.arange(high) * rows) // high, rows - 1)
        for seam in seams:
            side += np.arange(wide)[None, :] >= (seam[y] * wide / columns)[:, None]
        found: list[Piece] = []
        for part in range(len(seams) + 1):
            mask = own & (side == part)
            x, y0, w, h = cv2.boundingRect(mask.astype(np.uint8))
            if w:
                self.labels[top:bottom, left:right][mask] = self.next_label
                corners = (left + x, top + y0, left + x + w, top + y0 + h)
                found.append(Piece(self.next_label, corners, component, costs[part - 1] if found else None))
                self.next_label += 1
        return found


def hypotheses(layout: Layout, judge: Judge) -> list[Judged]:
    """The classified hypotheses of each line in the layout."""
    boxes = [tuple(box) for box in layout.boxes.tolist()]
    known = judge({(int(i) + 1,): boxes[i] for line in layout.lines for i in line})
    lines = []
    for line, height in zip(layout.lines, layout.heights, strict=True):
        pieces: list[Piece] = []
        seen = [known.get((int(i) + 1,)) for i in line]
        likely = sum(served is not None and served.max() > LIKELY for served in seen)
        numbers = len(line) <= SHORT or likely >= LIKELY_SHARE * len(line)
        for i in line.tolist():
            box = boxes[i]
            wide, high = box[2] - box[0], box[3] - box[1]
            whole = wide < NARROWEST * high or wide > WIDEST_CUT * high or high < 0.5 * height
            served = known.get((i + 1,))
            if (
                not numbers
                or whole
                or served is None
                or (unfold(served[None])[0].max() > SURE and wide < WIDE * high)
            ):
                pieces.append(Piece(i + 1, box, i, None))
            else:
                pieces += judge.divide(i, box, height)
        found = [each for start in range(len(pieces)) for each in _runs(pieces, start, height, boxes)]
        lines.append((len(pieces), found))
    known = judge({each.labels: each.box for _, found in lines for each in found})
    flat = np.full(10, 0.1, np.float32)
    return [
        Judged(count, found, np.array([known.get(each.labels, flat) for each in found]).reshape(-1, 10))
        for count, found in lines
    ]


def _runs(line: list[Piece], start: int, height: float, boxes: list[Corners]) -> list[Hypothesis]:
    """The hypotheses of neighbouring pieces that begin at `start`."""
    found: list[Hypothesis] = []
    first = line[start]
    left, top, right, bottom = first.box
    ignored = gaps = 0.0
    joined = 0
    single = True
    for stop in range(start + 1, len(line) + 1):
        last = line[stop - 1]
        if stop > start + 1:
            if last.component == line[stop - 2].component:
                ignored += MOST_INK - (last.cut or 0.0)
            else:
                gap = last.box[0] - right
                single = False
                if gap > APART * height:
                    break
                joined += 1
                gaps = max(gaps, gap / height)
        left, top = min(left, last.box[0]), min(top, last.box[1])
        right, bottom = max(right, last.box[2]), max(bottom, last.box[3])
        follows = line[stop] if stop < len(line) else None
        cut_right = follows.cut if follows is not None and follows.component == last.component else None
        whole = single and first.cut is None and cut_right is None
        fits = stop - start <= MOST_PIECES and (stop == start + 1 or right - left <= WIDEST * height)
        if not fits and not (whole and stop > start + 1):
            if not single:
                break
            continue
        labels = (
            (last.component + 1,) if whole and stop == start + 1 else tuple(p.label for p in line[start:stop])
        )
        wide, high = (right - left) / height, (bottom - top) / height
        size = max(high, 0.6 * wide)
        is_cut = first.cut is not None or cut_right is not None
        shape = (
            1.0,
            float(first.cut is not None),
            first.cut or 0.0,
            float(cut_right is not None),
            cut_right or 0.0,
            ignored,
            float(joined),
            gaps,
            max(0.0, 0.6 - size),
            max(0.0, wide - 1),
            float(is_cut and wide < 0.35 * high),
            float(size < 0.25),
            max(0.0, high - 1.25),
            min(2.0, wide),
        )
        box = left, top, right, bottom
        found.append(Hypothesis(start, stop, labels, box, fits, whole or stop == start + 1, shape))
    return found
