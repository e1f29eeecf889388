"""Finds the rows of digits in a picture, and reads them. `find_rows` gathers what the detector has found along each
line of text. `Row.words` parts it into words, and `Row.features` tells how certain it is, for the calibrated
probability of the line."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from digits.detector import KINDS, MARK, SCORE, H, X, Y
from digits.reading.choose import Text
from digits.reading.layout import find_lines, parted, strips_of, words_of
from digits.reading.search import LIKELY, MAYBE, Search, Strip, fused, best_of

# what is found around a line belongs to it if it is this near to its middle, in heights, and about as high
NEAR, LOWEST, HIGHEST = 0.6, 0.5, 1.7
# if there is a line between more of the digits than this, the lines are those of boxes and not of a table
FORM = 0.75
# the number of features of a line
FEATURES = 9


class Row(NamedTuple):
    """What may be a digit or a mark in a line of text, from left to right.

    frame: the strip in whose units peaks, (n, 16), are; an objectness of 0.5 is at the detector's threshold. least
    and agree: as in search.Fused. crossing: the places of lines that part the words. elsewhere: as in layout.words_of.
    """

    frame: Strip
    peaks: np.ndarray
    least: np.ndarray
    agree: np.ndarray
    crossing: np.ndarray
    elsewhere: float = 0.9

    @property
    def is_mark(self) -> np.ndarray:
        """Which are more likely a mark than a digit."""
        return self.peaks[:, KINDS + MARK] > 0.5

    def digits(self) -> np.ndarray:
        """Which are digits if each is decided alone."""
        return (self.peaks[:, SCORE] >= 0.5) & ~self.is_mark

    def words(self) -> list[np.ndarray]:
        """The indices of what may be the digits of each word. What is too uncertain to be a digit is with the word
        that is nearer."""
        chosen, x = np.flatnonzero(self.digits()), self.peaks[:, X]
        marks = x[self.is_mark & (self.peaks[:, SCORE] >= 0.5)]
        between = np.concatenate([marks, self.crossing])
        groups = [x[chosen[group]] for group in words_of(self.peaks[chosen], between, self.elsewhere)]
        ends = [(one[-1] + other[0]) / 2 for one, other in pairwise(groups)]
        possible = np.flatnonzero(~self.is_mark)
        return np.split(possible, np.searchsorted(x[possible], ends))

    def features(self, words: list[np.ndarray], texts: list[Text]) -> np.ndarray:
        """How certain the words' texts are, float (FEATURES,)."""
        chosen = np.array([words[i][k] for i, text in enumerate(texts) for k, _ in text.choice], np.intp)
        kinds = np.array([kind for text in texts for _, kind in text.choice], np.intp)
        peaks, rest = self.peaks[chosen], np.delete(self.peaks, chosen, axis=0)
        there = peaks[:, SCORE] * peaks[np.arange(len(peaks)), KINDS + kinds]
        doubt = -np.log(np.clip(1 - there, 1e-4, 1)) / 4
        first, last = peaks[0, X] - 1, peaks[-1, X] + 1
        around = rest[(rest[:, X] > first) & (rest[:, X] < last)]
        marks = around[:, SCORE] * around[:, KINDS + MARK]
        rivals = around[:, SCORE] * (1 - around[:, KINDS + MARK])
        inside = [
            np.diff(self.peaks[word[[k for k, _ in text.choice]], X])
            for word, text in zip(words, texts, strict=True)
        ]
        gaps = np.concatenate(inside)
        heights = np.abs(np.log(peaks[:, H] / np.median(peaks[:, H])))
        return np.array(
            [
                doubt.min(),
                -np.log(np.clip(there, 1e-3, 1)).sum(),
                rivals.max(initial=0),
                -np.log(1 - np.clip(rivals, 0, 0.99)).sum(),
                marks.max(initial=0),
                self.least[chosen].min(),
                1 - self.agree[chosen].min(),
                max(0.0, float(gaps.max(initial=0) / np.median(gaps)) - 1) if len(gaps) else 0.0,
                heights.max(),
            ]
        )


def find_rows(search: Search, threshold: float) -> tuple[list[Row], np.ndarray]:
    """The rows of digits in a picture, from top to bottom, and marks that are in none, (n, 16), in its pixels.

    threshold: the objectness from which something is a digit.
    """
    candidates = search.candidates()
    is_mark = candidates[:, KINDS + MARK] > 0.5
    marks = candidates[is_mark & (candidates[:, SCORE] > LIKELY)]
    digits = candidates[~is_mark & (candidates[:, SCORE] > MAYBE)]
    lines = [digits[line] for line in find_lines(digits)]
    strips = [(i, strip) for i, line in enumerate(lines) for strip in strips_of(line)]
    frames = dict(reversed(strips))
    parts: list[list[np.ndarray]] = [[] for _ in lines]
    crossing: list[list[np.ndarray]] = [[] for _ in lines]
    for (i, strip), (found, bars) in zip(strips, search.strips([strip for _, strip in strips]), strict=True):
        own = strip.inside(np.concatenate([lines[i], marks]))
        ends = -0.5, strip.length / strip.height + 0.5
        own = own[(own[:, X] > ends[0]) & (own[:, X] < ends[1])]
        level = [each[(np.abs(each[:, Y]) < NEAR) & (each[:, H] < HIGHEST)] for each in (own, *found)]
        both = fused(level)
        rows = np.column_stack([both.peaks, both.least, both.agree])
        rows[:, : KINDS + MARK + 1] = frames[i].inside(strip.outside(both.peaks))
        parts[i].append(rows)
        crossing[i].append(bars + (strip.x - frames[i].x) / (frames[i].height * strip.along[0]))
    joined = [np.concatenate(each) if each else np.empty((0, KINDS + MARK + 3)) for each in parts]
    # lines may share what is at their ends, or between them
    owner = np.repeat(np.arange(len(joined)), [len(each) for each in joined])
    number = np.array([(each[:, SCORE] >= threshold).sum() for each in joined])
    outside = [frames[i].outside(each) for i, each in enumerate(joined)]
    everything = np.concatenate([np.empty((0, KINDS + MARK + 3)), *outside])
    kept = best_of(
        everything, everything[:, SCORE] + np.minimum(number[owner] if len(owner) else owner, 9), owner
    )
    alive = np.zeros(len(everything), bool)
    alive[kept] = True
    out = []
    for i, each in enumerate(joined):
        mine = each[alive[owner == i]]
        mine = mine[np.argsort(mine[:, X], kind="stable")]
        odds = mine[:, SCORE] / np.maximum(1 - mine[:, SCORE], 1e-6) * (1 - threshold) / threshold
        mine[:, SCORE] = odds / (1 + odds)
        row = Row(frames[i], mine[:, :-2], mine[:, -2], mine[:, -1], np.concatenate(crossing[i]))
        # a part of a digit, or a letter, is lower than the digits
        if row.digits().any():
            usual = np.median(mine[row.digits(), H])
            low = mine[:, H] < LOWEST * usual
            row.peaks[low, SCORE] = np.minimum(row.peaks[low, SCORE], 0.45)
        out.append(row)
    out = [row for row in out if row.digits().any()]
    # in a form there is a line between any two digits
    x = [row.peaks[row.digits(), X] for row in out]
    lined = np.concatenate([np.empty(0), *(parted(each, row.crossing) for each, row in zip(x, out, strict=True))])
    crossing = slice(0 if len(lined) and lined.mean() > FORM else None)
    apart = np.concatenate([np.empty(0), *map(np.diff, x)])
    usual = float(np.quantile(apart, 0.25)) if len(apart) else 0.9
    return [row._replace(crossing=row.crossing[crossing], elsewhere=usual) for row in out], marks
