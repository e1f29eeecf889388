"""Reads every digit in a picture, line by line. `read` decodes the picture, search.py finds what may be digits,
rows.py and layout.py group them into lines and words, and choose.py decides what the words say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from time import perf_counter

import numpy as np

from digits.detector import CLASS, Detector, W, X
from digits.imaging.decode import decode_grey, open_picture
from digits.imaging.errors import PictureError
from digits.imaging.find import shrink
from digits.reading.choose import Calibration, Choice, best_lines
from digits.reading.rows import Row, find_rows, judged
from digits.reading.search import Search

__all__ = ["MOST_DIGITS", "Digit", "Line", "Reading", "Word", "read"]

# maximum number of digits in a picture, and of boxes of marks that are not digits
MOST_DIGITS, MOST_MARKS = 5000, 1000
# pixels of the longer side to which pictures are reduced, and of the shorter side to which JPEGs are decoded
FINE, DRAFT = 4000, 1200
# a line is a number if any of its digits has at least this probability
LEAST_DIGIT = 0.6
# the number of readings in the comparison with the best one
RUNNERS_UP = 5

# x, y, width, height in pixels of the picture, after applying its Exif orientation
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Digit:
    """A digit that was read."""

    digit: int
    probability: float  # that there is this digit, in [0, 1]
    unsure: bool  # whether it is low
    box: Box


@dataclass(frozen=True)
class Word:
    """Digits of a line that stand together."""

    text: str
    digits: list[Digit]
    box: Box


@dataclass(frozen=True)
class Line:
    """A line of words."""

    text: str  # the words, joined by spaces
    words: list[Word]
    probability: float  # that all of it is right, in [0, 1]
    unsure: bool
    alternatives: list[tuple[str, float]]  # other readings with their probabilities, the best first

    @property
    def digits(self) -> list[Digit]:
        """The digits of all words, from left to right."""
        return [digit for word in self.words for digit in word.digits]


@dataclass(frozen=True)
class Reading:
    """The result of reading a picture."""

    lines: list[Line]  # from top to bottom
    marks: list[Box]  # boxes of what is no digit, signs and letters first
    size: tuple[int, int]  # width and height in pixels, after applying the Exif orientation
    found_in: float  # seconds for everything except the network
    detected_in: float  # seconds for running the network
    pages: int = 1  # of the file

    @property
    def text(self) -> str:
        """The text of all lines, one below the other."""
        return "\n".join(line.text for line in self.lines)


def read(
    data: bytes,
    name: str,
    detector: Detector,
    *,
    length: int | None = None,
    check: str | None = None,
    alternatives: int = 0,
    sure: float | None = None,
    page: int = 1,
) -> Reading:
    """Read the digits in a picture.

    Args:
        data: the picture's file.
        name: what to call the picture in error messages.
        detector: finds the digits.
        length: return the best reading of each word, or of a line in groups, with this number of digits. If a word
            has none, its best reading is returned and its line is unsure.
        check: "luhn", in the same way, for readings whose last digit is the Luhn check digit of the others
            (ISO/IEC 7812-1, annex B).
        alternatives: the number of other readings of a line to list.
        sure: the probability below which a line is unsure; by default the detector's.
        page: of the file, from 1.

    Raises PictureError for too many pixels, more than MOST_DIGITS digits, another format, or a damaged picture. An
    empty picture has no lines.
    """
    if check not in (None, "luhn"):
        raise ValueError(f"check is None or 'luhn', not {check!r}")
    begun = perf_counter()
    opened = open_picture(data, name, DRAFT, page)
    grey = shrink(decode_grey(opened.picture, name), FINE)
    # the size after applying the Exif orientation
    turned = (opened.size[0] > opened.size[1]) != (grey.shape[1] > grey.shape[0])
    height, width = opened.size if turned else opened.size[::-1]
    search = Search(detector, grey, (height, width))
    calibration = Calibration(detector.card, sure)
    rows, marks = find_rows(search)
    lines: list[Line] = []
    boxes = boxes_of(marks, search.size)
    for row in judged(rows, calibration.presence):
        line = _line(row, calibration, search.size, length, check, alternatives)
        if line is None:
            boxes += boxes_of(row.frame.outside(row.peaks[row.digits()]), search.size)
        else:
            lines.append(line)
    number = sum(len(line.digits) for line in lines)
    if number > MOST_DIGITS:
        problem = f"shows more than {MOST_DIGITS:,} digits."
        raise PictureError("large", name, problem, found=f"{number} digits")
    seconds = perf_counter() - begun - search.seconds
    return Reading(lines, boxes[:MOST_MARKS], (width, height), seconds, search.seconds, opened.pages)


def _line(
    row: Row,
    calibration: Calibration,
    size: tuple[int, int],
    length: int | None,
    check: str | None,
    alternatives: int,
) -> Line | None:
    """The best reading of a row. None if it is hardly a number."""
    words = row.words()
    count = RUNNERS_UP + alternatives if alternatives else 1
    best, fits = best_lines(row.peaks, words, count)
    if row.probabilities(best[0].choice).max() < LEAST_DIGIT:
        return None
    probability = float(calibration.line(row.features(best[0].choice)))
    if length is not None or check is not None:
        parts = _numbers(words, best[0].choice, length)
        changed, fits = best_lines(row.peaks, parts, count, length, check)
        # the less, the less probable it is than the best one
        probability *= min(1.0, math.exp(changed[0].score - best[0].score))
        best = changed
    word_of = {index: k for k, word in enumerate(words) for index in word.tolist()}
    grouped = [[list(each) for _, each in groupby(one.choice, lambda made: word_of[made[0]])] for one in best]
    texts = [["".join(str(digit) for _, digit in word) for word in one] for one in grouped]
    shares = np.exp([one.score - best[0].score for one in best])
    left = (1 - probability) / max(float(shares[1:].sum()), 1e-12)
    others = [
        (" ".join(text), min(float(share) * left, probability))
        for text, share in zip(texts[1:], shares[1:], strict=True)
    ]
    out = []
    for text, word in zip(texts[0], grouped[0], strict=True):
        boxes = boxes_of(row.frame.outside(row.peaks[[index for index, _ in word]]), size)
        digits = [
            Digit(digit, each, each < calibration.sure_digit, box)
            for (_, digit), each, box in zip(word, row.probabilities(word).tolist(), boxes, strict=True)
        ]
        left, top = (min(box[side] for box in boxes) for side in (0, 1))
        right, bottom = (max(box[side] + box[side + 2] for box in boxes) for side in (0, 1))
        out.append(Word(text, digits, (left, top, right - left, bottom - top)))
    unsure = probability < calibration.sure or not fits or row.negative()
    return Line(" ".join(texts[0]), out, probability, unsure, others[:alternatives])


def _numbers(words: list[np.ndarray], choice: Choice, length: int | None) -> list[np.ndarray]:
    """The words for which a length or a check digit is asked: the whole line if its number of digits is nearer to
    the length than that of each word, as if a number is written in groups."""
    counts = [sum(index in word for index, _ in choice) for word in words]
    if length is None or abs(len(choice) - length) >= min(abs(count - length) for count in counts):
        return words
    return [np.concatenate(words)]


def boxes_of(peaks: np.ndarray, size: tuple[int, int]) -> list[Box]:
    """The boxes of peaks, (n, 16), in pixels of the picture, of which `size` is height and width."""
    limit = np.array(size[::-1])
    first, last = (np.clip(peaks[:, X:W] + side * peaks[:, W:CLASS] / 2, 0, limit) for side in (-1, 1))
    start = np.minimum(first.astype(int), limit - 1)
    extent = np.maximum(1, np.round(last).astype(int) - start)
    return [(x, y, width, height) for x, y, width, height in np.hstack([start, extent]).tolist()]
