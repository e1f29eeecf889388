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
from digits.reading.context import context
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
# the maximum width of a piece that two digits may share, relative to the line's height
SHARED = 0.3
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

    box: left, top, right, bottom. shape: features for scores.py.
    """

    start: int
    stop: int
    labels: tuple[int, ...]
    box: Corners
    may_be_digit: bool
    may_be_none: bool
    shape: tuple[float, ...]


class Judged(NamedTuple):
    """The hypotheses of a line with `pieces` pieces, the network's probabilities for each, (n, 10), and their
    features, (n, number)."""

    pieces: int
    hypotheses: list[Hypothesis]
    served: np.ndarray
    shape: np.ndarray


class Judge:
    """Classifies parts of a picture's ink with the network. seconds: the time that the network has taken so
    far."""

    def __init__(self, layout: Layout, classify: Callable[[np.ndarray], np.ndarray]) -> None:
        self.ink, self.labels = layout.ink, layout.labels.copy()
        self.next_label = len(layout.areas) + 1
        self.seconds = 0.0
        self._classify = classify
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        # the number of pixels of each set of labels, and how much they are ink on average
        self.measured: dict[tuple[int, ...], tuple[int, float]] = {}

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
        pixels = int(np.count_nonzero(own))
        self.measured[labels] = pixels, float((self.ink[top:bottom, left:right] * own).sum()) / max(pixels, 1)
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
        spans: list[tuple[int, int]] = []
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
            spans.append((spans[-1][1] if spans else 0, len(pieces)))
        found = [each for start in range(len(pieces)) for each in _runs(pieces, start, height, boxes)]
        lines.append((len(pieces), found, spans))
    known = judge({each.labels: each.box for _, found, _ in lines for each in found})
    flat = np.full(10, 0.1, np.float32)
    out = []
    for (count, found, spans), line, height in zip(lines, layout.lines, layout.heights, strict=True):
        served = np.array([known.get(each.labels, flat) for each in found])
        whole = np.array([judge.measured.get((int(i) + 1,), (int(layout.areas[i]), 1.0)) for i in line])
        unknown = 0.0, float(np.median(whole[:, 1]))
        measured = np.array([judge.measured.get(each.labels, unknown) for each in found])
        beside = context(found, served, spans, measured, whole, layout.boxes[line], height)
        shape = np.array([each.shape for each in found])
        out.append(Judged(count, found, served, np.hstack([shape, beside])))
    return out


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
        left, top, right, bottom = _around([(left, top, right, bottom), last.box])
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
        before = line[start - 1] if single and first.cut is not None else None
        after = follows if single and cut_right is not None else None
        for shared in _shared(before, after, height):
            box = _around([(left, top, right, bottom), *(piece.box for piece in shared)])
            wide, high = (box[2] - box[0]) / height, (box[3] - box[1]) / height
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
                high,
                min(2.0, wide),
                float(len(shared)),
            )
            every = tuple(sorted((*labels, *(piece.label for piece in shared))))
            may_be_none = not shared and (whole or stop == start + 1)
            found.append(Hypothesis(start, stop, every, box, fits, may_be_none, shape))
    return found


def _shared(before: Piece | None, after: Piece | None, height: float) -> list[tuple[Piece, ...]]:
    """The neighbouring pieces that may also belong to a digit, because strokes of two digits overlap there."""
    narrow = [piece for piece in (before, after) if piece and piece.box[2] - piece.box[0] < SHARED * height]
    return [(), *((piece,) for piece in narrow), *([tuple(narrow)] if len(narrow) == 2 else [])]


def _around(boxes: list[Corners]) -> Corners:
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)
