"""What of a line may be one digit: components, their parts where they may be cut, and neighbours together.
`Hypotheses` has the network judge them all, in two batches a picture. Called by digits.reading.read."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np

from digits.imaging.errors import PictureError
from digits.imaging.normalize import to_mnist
from digits.reading.layout import Layout
from digits.reading.path import Box, Edge, Graph

# the share of "no digit" that the network's ten outputs have each (digits/training/network.py), and all
# together
EVEN, GUESS = 0.09, 0.1
# a component that is a digit with this probability, and no wider than this, is not cut
SURE, WIDE = 0.97, 1.15
# rows that a component is cut with
CUT_ROWS = 28
# pieces of one hypothesis
MOST_PIECES = 4
# of the line's height: a digit's widest, and how far apart its parts are
WIDEST, APART = 1.6, 0.25
# scores: of what is no digit; of ink cut through, by share of the line's height; of a digit less high than
# the line
SKIP, SKIP_PART, CUT, SMALL = -0.7, -3.0, 1.5, 4.0
# of the score of any digit
LEAST = 1e-5
# a picture with more to judge than this shows no numbers
MOST = 14_000


def unfold(served: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of each digit, (n, 10), and of no digit, (n,), from what the network answers, float32
    (n, 10).

    Each of its ten has EVEN of what is no digit, the likelier ones GUESS among them
    (digits/training/network.py).
    """
    none = np.clip(served.min(1) / EVEN, 0, 1)
    share = (1 - none) / np.maximum(1 - (1 - GUESS) * none, 1e-6)
    digits = np.maximum(served - EVEN * none[:, None], 0) * share[:, None]
    return digits, none


class Piece(NamedTuple):
    """Ink that is not divided further: its label, box (left, top, right, bottom), component, and ink cut
    through."""

    label: int
    box: tuple[int, int, int, int]
    component: int
    cut: float


class Hypotheses:
    """The graphs of a picture's lines.

    lines: one graph a line. marks: boxes of what is surely no digit. classified_in: seconds.
    """

    def __init__(
        self, layout: Layout, classify: Callable[[np.ndarray], np.ndarray], most_digits: int, name: str
    ) -> None:
        self._layout, self._classify = layout, classify
        self._labels = layout.labels
        self._next = len(layout.areas) + 1
        self.classified_in = 0.0
        self.lines: list[Graph] = []
        boxes = layout.boxes
        self.marks: list[Box] = [_box(boxes[i]) for i in layout.marks]
        wholes: dict[int, tuple[int, ...]] = {int(i): (int(i) + 1,) for line in layout.lines for i in line}
        images = [self._image(labels, boxes[i]) for i, labels in wholes.items()]
        served, digits, none = self._judge(images)
        judged = dict(zip(wholes, zip(served, digits, none, strict=True), strict=True))
        if (digits.max(1, initial=0) > 0.5).sum() > 1.5 * most_digits:
            raise PictureError(413, f"{name} shows more than {most_digits:,} digits.", field=name)
        pieces = [
            self._pieces(line, height, judged)
            for line, height in zip(layout.lines, layout.heights, strict=True)
        ]
        waiting: list[tuple[int, int, int, tuple[int, ...], tuple[int, int, int, int], float]] = []
        images = []
        for number, (line, height) in enumerate(zip(pieces, layout.heights, strict=True)):
            for start in range(len(line)):
                for stop, labels, box, penalty in self._runs(line, start, height):
                    waiting.append((number, start, stop, labels, box, penalty))
        edges: list[list[Edge]] = [[] for _ in pieces]
        known = {labels: judged[i] for i, labels in wholes.items()}
        fresh = [each for each in waiting if each[3] not in known]
        if len(fresh) > MOST:
            fresh = fresh[:MOST]
        images = [self._image(labels, box) for _, _, _, labels, box, _ in fresh]
        known |= dict(zip([each[3] for each in fresh], zip(*self._judge(images), strict=True), strict=True))
        for number, start, stop, labels, box, penalty in waiting:
            if labels not in known:
                continue
            served_row, digit_row, no_digit = known[labels]
            options: list[tuple[int | None, float, float]] = [
                (int(d), float(np.log(max(digit_row[d], LEAST))) - penalty, float(served_row[d]))
                for d in np.argsort(-digit_row)
            ]
            whole = self._skip(pieces[number][start:stop], float(no_digit), layout.heights[number])
            if whole is not None:
                options.append((None, whole, 0.0))
            edges[number].append(Edge(start, stop, options, _box(box)))
        self.lines = [Graph(len(line), found) for line, found in zip(pieces, edges, strict=True)]

    def _judge(self, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the network says of images uint8 (28, 28): its answers, the digits' probabilities, no
        digit's."""
        if not images:
            return np.empty((0, 10)), np.empty((0, 10)), np.empty(0)
        batch = np.stack(images)[..., None] / np.float32(255)
        begun = perf_counter()
        served = self._classify(batch)
        self.classified_in += perf_counter() - begun
        return served, *unfold(served)

    def _image(self, labels: tuple[int, ...], box: np.ndarray | tuple[int, int, int, int]) -> np.ndarray:
        """The ink of these labels, in MNIST's form."""
        height, width = self._labels.shape
        left, top = max(0, box[0] - 1), max(0, box[1] - 1)
        right, bottom = min(width, box[2] + 1), min(height, box[3] + 1)
        there = self._labels[top:bottom, left:right]
        own = (there == labels[0]).astype(np.uint8)
        for label in labels[1:]:
            own |= there == label
        # with its faint rim
        own = cv2.dilate(own, np.ones((3, 3), np.uint8)) & ((there == 0) | (own > 0))
        return to_mnist(self._layout.ink[top:bottom, left:right] * own)

    def _pieces(self, line: np.ndarray, height: float, judged: dict) -> list[Piece]:
        """A line's components, cut where they may be several digits."""
        out: list[Piece] = []
        for i in line:
            box = self._layout.boxes[i]
            wide, high = box[2] - box[0], box[3] - box[1]
            _, digits, _ = judged[int(i)]
            if (
                wide < 0.5 * high
                or (digits.max() > SURE and wide < WIDE * high)
                or high < 0.5 * height
                or wide > 12 * high
            ):
                out.append(Piece(int(i) + 1, tuple(box.tolist()), int(i), 0.0))
            else:
                out += self._cut(int(i), height)
        return sorted(out, key=lambda piece: piece.box[0] + piece.box[2])

    def _cut(self, i: int, line_height: float) -> list[Piece]:
        """A component in pieces, along the paths from top to bottom that cross least ink."""
        left, top, right, bottom = self._layout.boxes[i].tolist()
        own = self._labels[top:bottom, left:right] == i + 1
        high, wide = own.shape
        rows = min(CUT_ROWS, high)
        columns = max(4, round(wide * rows / high))
        small = cv2.resize(own.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        seams, costs = cuts(small, max(1.0, rows * line_height / high))
        if not seams:
            return [Piece(i + 1, (left, top, right, bottom), i, 0.0)]
        side = np.zeros(own.shape, np.int32)
        y = np.minimum((np.arange(high) * rows) // high, rows - 1)
        for seam in seams:
            side += np.arange(wide)[None, :] >= (seam[y] * wide / columns)[:, None]
        found = []
        for part in range(len(seams) + 1):
            mask = own & (side == part)
            x, y0, w, h = cv2.boundingRect(mask.astype(np.uint8))
            if not w:
                continue
            label = self._next
            self._next += 1
            self._labels[top:bottom, left:right][mask] = label
            found.append(
                Piece(
                    label,
                    (left + x, top + y0, left + x + w, top + y0 + h),
                    i,
                    costs[part - 1] if part else 0.0,
                )
            )
        return found

    def _runs(
        self, line: list[Piece], start: int, height: float
    ) -> list[tuple[int, tuple[int, ...], tuple[int, int, int, int], float]]:
        """Neighbouring pieces from `start` on that may be one digit: stop, labels, box, penalty."""
        found = []
        left, top, right, bottom = line[start].box
        for stop in range(start + 1, min(len(line), start + MOST_PIECES) + 1):
            last = line[stop - 1]
            if stop > start + 1:
                same = last.component == line[stop - 2].component
                if not same and last.box[0] - right > APART * height:
                    break
            left, top = min(left, last.box[0]), min(top, last.box[1])
            right, bottom = max(right, last.box[2]), max(bottom, last.box[3])
            if stop > start + 1 and right - left > WIDEST * height:
                break
            labels = self._whole(line[start:stop]) or tuple(piece.label for piece in line[start:stop])
            penalty = CUT * (
                line[start].cut if start and line[start - 1].component == line[start].component else 0
            )
            small = max(bottom - top, (right - left) * 0.6) / height
            penalty += SMALL * max(0.0, 0.6 - small)
            found.append((stop, labels, (left, top, right, bottom), penalty))
        return found

    def _whole(self, pieces: list[Piece]) -> tuple[int, ...] | None:
        return (pieces[0].label,) if len(pieces) == 1 else None

    def _skip(self, pieces: list[Piece], none: float, height: float) -> float | None:
        """The score of these pieces being no digit."""
        box = pieces[0].box
        if len(pieces) > 1:
            return None
        size = min(1.0, max(box[3] - box[1], box[2] - box[0]) / height)
        part = SKIP_PART if pieces[0].cut else SKIP * size
        return float(np.log(max(none, 0.01 if size > 0.5 else 0.3))) + part


def cuts(ink: np.ndarray, height: float) -> tuple[list[np.ndarray], list[float]]:
    """Paths from the top to the bottom of `ink`, float32 (rows, columns), that cross little of it: for each
    the column by row, and how much ink it crosses of a digit's height.

    height: of a digit, in rows.
    """
    rows, columns = ink.shape
    middle = rows // 2
    upper, from_upper = _descend(ink[: middle + 1])
    lower, from_lower = _descend(ink[middle:][::-1])
    total = (upper + lower - ink[middle]) / height
    margin = max(2, round(0.12 * height))
    if columns <= 2 * margin:
        return [], []
    chosen: list[int] = []
    order = (
        np.argsort(total[margin:-margin] + 1e-4 * np.abs(np.arange(columns - 2 * margin) - columns / 2))
        + margin
    )
    for x in order.tolist():
        if total[x] > 0.45 or len(chosen) > 3 * columns / height:
            break
        if all(abs(x - other) >= 0.18 * height for other in chosen):
            chosen.append(x)
    seams, costs = [], []
    for x in sorted(chosen):
        seam = np.empty(rows)
        at = x
        for y in range(middle, -1, -1):
            seam[y] = at
            at += from_upper[y][at] if y else 0
        at = x
        for y in range(middle, rows):
            seam[y] = at
            at += from_lower[rows - 1 - y][at] if y < rows - 1 else 0
        seams.append(seam)
        costs.append(float(total[x]))
    return seams, costs


def _descend(ink: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The least ink on a way from the first row to each place of the last, one column aside a row at most;
    and for each row the step back."""
    cost = ink[0].copy()
    back = [np.zeros(len(cost), np.int64)]
    for row in ink[1:]:
        padded = np.pad(cost, 1, constant_values=np.inf)
        # straight down is a little better than aside
        options = np.stack([padded[1:-1], padded[:-2] + 0.02, padded[2:] + 0.02])
        step = options.argmin(0)
        cost = options.min(0) + row
        back.append(np.array([0, -1, 1])[step])
    return cost, back


def _box(box: np.ndarray | tuple[int, int, int, int]) -> Box:
    left, top, right, bottom = (int(value) for value in box)
    return left, top, right - left, bottom - top
