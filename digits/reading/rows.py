"""Finds the rows of digits in a picture. `find_rows` gathers what the detector has found along each line of text.
`Row.words` parts it into words, and `Row.features` tells how certain it is, for the calibrated probability of the
line."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from digits.detector import CLASS, MARK, SCORE, H, X, Y
from digits.reading.choose import Choice, Logistic
from digits.reading.layout import Frame, find_lines, frame_of, parted, words_of
from digits.reading.search import LIKELY, LOWEST, MAYBE, Search, averaged, best_of

# a digit found around a line belongs to it if it is this near to its middle, in heights, and not higher; a mark
# may be further away, as a comma is, and parts two digits from this objectness on
NEAR, MOST = 0.6, 1.7
MARK_NEAR, MARK_PARTS = 0.85, 0.2
# a minus is lower than this, in heights of digits, and its middle nearer than this to the first digit's
FLAT, MINUS_NEAR = 0.4, 1.6
# lines are those of a table if they are between fewer of the neighbouring digits than the first fraction, and
# these are further apart than the others by the second factor; else they are those of boxes
FORM, WIDER = 0.75, 1.2
# the distance of neighbouring digits, in heights, where there are none to tell
USUAL = 0.9


class Row(NamedTuple):
    """What may be a digit or a mark in a line of text, from left to right."""

    frame: Frame
    peaks: np.ndarray  # as search.averaged gives them, in the units of `frame`
    crossing: np.ndarray  # the places of ruled lines that part words
    elsewhere: float = USUAL  # as in layout.words_of

    @property
    def is_mark(self) -> np.ndarray:
        """Which are more likely a mark than a digit."""
        return self.peaks[:, CLASS + MARK] > 0.5

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
        groups = [x[chosen[word]] for word in words_of(self.peaks[chosen], between, self.elsewhere)]
        ends = [(one[-1] + other[0]) / 2 for one, other in pairwise(groups)]
        possible = np.flatnonzero(~self.is_mark)
        return np.split(possible, np.searchsorted(x[possible], ends))

    def negative(self) -> bool:
        """Whether there may be a minus before the first digit: a flat mark at its middle."""
        x, y, w, h = self.peaks[:, X:CLASS].T
        flat = self.is_mark & (h < np.minimum(FLAT, 0.7 * w)) & (np.abs(y) < FLAT)
        before = x[self.digits()].min() - x[flat]
        return bool(((before > 0) & (before < MINUS_NEAR)).any())

    def probabilities(self, choice: Choice) -> np.ndarray:
        """The probability of each digit of a choice, (n,): that one is there, and that it is this one."""
        chosen, digits = np.array(choice).T
        return self.peaks[chosen, SCORE] * self.peaks[chosen, CLASS + digits]

    def features(self, choice: Choice) -> np.ndarray:
        """How certain a choice of digits is, float (6,)."""
        chosen = [index for index, _ in choice]
        peaks, rest = self.peaks[chosen], np.delete(self.peaks, chosen, axis=0)
        there = peaks[:, SCORE]
        certain = -np.log(np.clip(1 - there, 1e-4, 1))
        # the objectness of those that are no marks already says whether they are digits
        rivals = rest[:, SCORE] * np.where(rest[:, CLASS + MARK] > 0.5, 1 - rest[:, CLASS + MARK], 1)
        # the probability of all if they were independent
        right = float(np.concatenate([self.probabilities(choice), 1 - rivals]).clip(0.01, 1).prod())
        return np.array(
            [
                certain.min(),
                certain.mean(),
                -np.log(there.clip(1e-3, 1)).sum(),
                peaks[:, LOWEST].min(),
                1 / len(peaks),
                np.log((right + 1e-3) / (1 - right + 1e-3)),
            ]
        )


def find_rows(search: Search) -> tuple[list[Row], np.ndarray]:
    """The rows of what may be digits in a picture, from top to bottom, and all marks, (n, 16), in its pixels."""
    candidates = search.candidates()
    candidates = candidates[candidates[:, SCORE] > MAYBE]
    is_mark = candidates[:, CLASS + MARK] > 0.5
    marks, digits = candidates[is_mark], candidates[~is_mark]
    frames = [frame_of(digits[line]) for line in find_lines(digits)]
    rows = []
    for frame, (sizes, crossing) in zip(frames, search.strips(frames), strict=True):
        own = frame.inside(candidates)
        sizes.append(own[(own[:, X] > frame.start) & (own[:, X] < frame.stop)])
        rows.append(Row(frame, averaged([_beside(each) for each in sizes]), crossing))
    rows = _apart(rows)
    found = [row.frame.outside(row.peaks[row.is_mark])[:, :LOWEST] for row in rows]
    marks = np.concatenate([marks, *found])
    marks = marks[(marks[:, SCORE] > LIKELY) & best_of(marks, marks[:, SCORE], np.arange(len(marks)))]
    return rows, marks


def judged(rows: list[Row], presence: Logistic) -> list[Row]:
    """The rows with digits, with the probability that each digit is there as its objectness."""
    rows = [row._replace(peaks=row.peaks.copy()) for row in rows]
    for row in rows:
        row.peaks[:, SCORE] = np.where(row.is_mark, row.peaks[:, SCORE], presence(there_features(row.peaks)))
    rows = [row for row in rows if row.digits().any()]
    x = [row.peaks[row.digits(), X] for row in rows]
    steps = np.concatenate([np.empty(0), *map(np.diff, x)])
    usual = float(np.quantile(steps, 0.25)) if len(steps) else USUAL
    # in a form there is a line between most digits, and they are as far apart where there is none
    lined = [parted(each, row.crossing) for each, row in zip(x, rows, strict=True)]
    crossed = np.concatenate([np.empty(0, bool), *lined])
    table = 0 < crossed.sum() < FORM * len(crossed) and (
        np.median(steps[crossed]) > WIDER * np.median(steps[~crossed])
    )
    return [
        row._replace(crossing=row.crossing if table else row.crossing[:0], elsewhere=usual) for row in rows
    ]


def there_features(peaks: np.ndarray) -> np.ndarray:
    """What tells whether each peak of a row, (n, 17), is a digit, float (n, 3)."""
    odds = peaks[:, [SCORE, CLASS + MARK]].clip(0.01, 0.99)
    return np.column_stack([np.log(odds / (1 - odds)), np.abs(np.log(peaks[:, H]))])


def _beside(peaks: np.ndarray) -> np.ndarray:
    """Those that may belong to the line in whose units they are."""
    near = np.where(peaks[:, CLASS + MARK] > 0.5, MARK_NEAR, NEAR)
    return peaks[(np.abs(peaks[:, Y]) < near) & (peaks[:, H] < MOST)]


def _apart(rows: list[Row]) -> list[Row]:
    """The rows without what they share, at their ends or between them: the longer row keeps it."""
    if not rows:
        return []
    owner = np.repeat(np.arange(len(rows)), [len(row.peaks) for row in rows])
    number = np.array([min((row.peaks[:, SCORE] > LIKELY).sum(), 9) for row in rows])
    every = np.concatenate([row.frame.outside(row.peaks) for row in rows])
    alone = best_of(every, every[:, SCORE] + number[owner], owner)
    found = (row.peaks[alone[owner == i]] for i, row in enumerate(rows))
    ordered = (peaks[np.argsort(peaks[:, X], kind="stable")] for peaks in found)
    return [row._replace(peaks=peaks) for row, peaks in zip(rows, ordered, strict=True)]
