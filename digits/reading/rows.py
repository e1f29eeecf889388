"""Finds the rows of digits in a picture. `find_rows` gathers what the detector has found along each line of text.
`Row.words` parts it into words, and `Row.features` tells how certain it is, for the calibrated probability of the
line."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from digits.detector import KINDS, MARK, SCORE, H, W, X, Y
from digits.reading.choose import Text
from digits.reading.layout import Frame, find_lines, frame_of, parted, words_of
from digits.reading.search import AGREE, LIKELY, LOWEST, MAYBE, Search, best_of, fused

# a digit found around a line belongs to it if it is this near to its middle, in heights, and about as high; a mark
# may be further away, as a comma is, and parts two digits from this objectness on
NEAR, LEAST, MOST = 0.6, 0.5, 1.7
MARK_NEAR, MARK_PARTS = 0.85, 0.25
# lines are those of a table if they are between fewer of the neighbouring digits than the first fraction, and
# these are further apart than the others by the second factor; else they are those of boxes
FORM, WIDER = 0.75, 1.2
# the distance of neighbouring digits, in heights, where there are none to tell
USUAL = 0.9


class Row(NamedTuple):
    """What may be a digit or a mark in a line of text, from left to right.

    peaks: as search.fused gives them, in the units of `frame`; an objectness of 0.5 is at the detector's
    threshold. crossing: the places of lines that part the words. elsewhere: as in layout.words_of.
    """

    frame: Frame
    peaks: np.ndarray
    crossing: np.ndarray
    elsewhere: float = USUAL

    @property
    def is_mark(self) -> np.ndarray:
        """Which are more likely a mark than a digit."""
        return self.peaks[:, KINDS + MARK] > 0.5

    def digits(self) -> np.ndarray:
        """Which are digits if each is decided alone."""
        return (self.peaks[:, SCORE] >= 0.5) & ~self.is_mark

    def marks(self) -> np.ndarray:
        """Which are marks, likewise."""
        return (self.peaks[:, SCORE] >= MARK_PARTS) & self.is_mark

    def words(self) -> list[np.ndarray]:
        """The indices of what may be the digits of each word. What is too uncertain to be a digit is with the word
        that is nearer."""
        chosen, x = np.flatnonzero(self.digits()), self.peaks[:, X]
        between = np.concatenate([x[self.marks()], self.crossing])
        groups = [x[chosen[group]] for group in words_of(self.peaks[chosen], between, self.elsewhere)]
        ends = [(one[-1] + other[0]) / 2 for one, other in pairwise(groups)]
        possible = np.flatnonzero(~self.is_mark)
        return np.split(possible, np.searchsorted(x[possible], ends))

    def features(self, words: list[np.ndarray], texts: list[Text]) -> np.ndarray:
        """How certain the words' texts are, float (FEATURES,)."""
        chosen = np.array([words[i][k] for i, text in enumerate(texts) for k, _ in text.choice], np.intp)
        kinds = np.array([kind for text in texts for _, kind in text.choice], np.intp)
        ends = np.cumsum([len(text.choice) for text in texts])[:-1]
        peaks, rest = self.peaks[chosen], np.delete(self.peaks, chosen, axis=0)
        there, kind = peaks[:, SCORE], peaks[np.arange(len(peaks)), KINDS + kinds]
        around = rest[(rest[:, X] > peaks[0, X] - 1) & (rest[:, X] < peaks[-1, X] + 1)]
        marks = around[:, SCORE] * around[:, KINDS + MARK]
        rivals = around[:, SCORE] * (1 - around[:, KINDS + MARK])
        inside = np.concatenate([np.diff(self.peaks[word, X]) for word in np.split(chosen, ends)])
        lefts, rights = (peaks[:, X] + side * peaks[:, W] / 2 for side in (-1, 1))
        certain = [-np.log(np.clip(1 - each, 1e-4, 1)) / 4 for each in (there, kind)]
        return np.array(
            [
                *(each.min() for each in certain),
                *(each.mean() for each in certain),
                *(-np.log(np.clip(each, 1e-3, 1)).sum() for each in (there, kind)),
                rivals.max(initial=0),
                -np.log(1 - np.clip(rivals, 0, 0.99)).sum(),
                marks.max(initial=0),
                marks.sum() / (marks.sum() + len(peaks)),
                peaks[:, LOWEST].min(),
                1 - peaks[:, AGREE].min(),
                # a digit may be missing in a gap, and two digits may be read as one or one as two
                np.max(inside, initial=0) / max(0.5, float(np.median(inside) if len(inside) else 1)),
                np.max(rights[:-1] - lefts[1:], initial=-0.5),
                np.abs(np.log(peaks[:, H] / np.median(peaks[:, H]))).max(),
                np.ptp(peaks[:, Y]),
                1 / len(peaks),
                math.log(self.frame.height),
            ]
        )


def find_rows(search: Search, threshold: float) -> tuple[list[Row], np.ndarray]:
    """The rows of digits in a picture, from top to bottom, and all marks, (n, 16), in its pixels.

    threshold: the objectness from which something is a digit.
    """
    candidates = search.candidates()
    is_mark = candidates[:, KINDS + MARK] > 0.5
    marks = candidates[is_mark & (candidates[:, SCORE] > MAYBE)]
    digits = candidates[~is_mark & (candidates[:, SCORE] > MAYBE)]
    lines = [digits[line] for line in find_lines(digits)]
    frames = [frame_of(line) for line in lines]
    spans = [frame.spans(line) for frame, line in zip(frames, lines, strict=True)]
    found = iter(search.strips([span for each in spans for span in each]))
    rows = []
    for frame, line, parts in zip(frames, lines, spans, strict=True):
        own, peaks, crossing = frame.inside(np.concatenate([line, marks])), [], []
        for span in parts:
            sizes, across = next(found)
            sizes.append(own[(own[:, X] > span.start) & (own[:, X] < span.stop)])
            peaks.append(fused([_beside(each) for each in sizes]))
            crossing.append(across)
        rows.append(Row(frame, np.concatenate(peaks), np.concatenate(crossing)))
    rows = [_decided(row, threshold) for row in _apart(rows, threshold)]
    rows = [row for row in rows if row.digits().any()]
    marks = np.concatenate([marks, *(row.frame.outside(row.peaks[row.marks()])[:, :LOWEST] for row in rows)])
    marks = marks[(marks[:, SCORE] > LIKELY) & best_of(marks, marks[:, SCORE], np.arange(len(marks)))]
    x = [row.peaks[row.digits(), X] for row in rows]
    apart = np.concatenate([np.empty(0), *map(np.diff, x)])
    usual = float(np.quantile(apart, 0.25)) if len(apart) else USUAL
    # in a form there is a line between most digits, and they are as far apart where there is none
    lined = [parted(each, row.crossing) for each, row in zip(x, rows, strict=True)]
    crossed = np.concatenate([np.empty(0, bool), *lined])
    is_table = 0 < crossed.sum() < FORM * len(crossed) and np.median(apart[crossed]) > WIDER * np.median(
        apart[~crossed]
    )
    return [
        row._replace(crossing=row.crossing[: None if is_table else 0], elsewhere=usual) for row in rows
    ], marks


def _beside(peaks: np.ndarray) -> np.ndarray:
    """Those that may belong to the line in whose units they are."""
    near = np.where(peaks[:, KINDS + MARK] > 0.5, MARK_NEAR, NEAR)
    return peaks[(np.abs(peaks[:, Y]) < near) & (peaks[:, H] < MOST)]


def _apart(rows: list[Row], threshold: float) -> list[Row]:
    """The rows without what they share, at their ends or between them: the longer row keeps it."""
    if not rows:
        return []
    owner = np.repeat(np.arange(len(rows)), [len(row.peaks) for row in rows])
    number = np.array([min((row.peaks[:, SCORE] >= threshold).sum(), 9) for row in rows])
    every = np.concatenate([row.frame.outside(row.peaks) for row in rows])
    alone = best_of(every, every[:, SCORE] + number[owner], owner)
    return [row._replace(peaks=row.peaks[alone[owner == i]]) for i, row in enumerate(rows)]


def _decided(row: Row, threshold: float) -> Row:
    """The row from left to right, with objectness such that 0.5 is at the threshold."""
    peaks = row.peaks[np.argsort(row.peaks[:, X], kind="stable")]
    odds = peaks[:, SCORE] / np.maximum(1 - peaks[:, SCORE], 1e-6) * (1 - threshold) / threshold
    peaks[:, SCORE] = odds / (1 + odds)
    row = row._replace(peaks=peaks)
    if row.digits().any():
        # a part of a digit, or a letter, is lower than the digits
        low = ~row.is_mark & (peaks[:, H] < LEAST * np.median(peaks[row.digits(), H]))
        peaks[low, SCORE] = np.minimum(peaks[low, SCORE], 0.45)
    return row
