"""Reads every digit in a picture, line by line. `read` decodes the picture, search.py finds what may be digits,
rows.py and layout.py group them into lines and words, and choose.py decides what the words say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import nlargest
from time import perf_counter

import numpy as np

from digits.detector import KINDS, SCORE, Detector, H, W, X, Y
from digits.imaging.decode import decode_grey, open_picture
from digits.imaging.errors import PictureError
from digits.imaging.find import shrink
from digits.reading.choose import Calibration, Text, best_texts
from digits.reading.layout import columns_of
from digits.reading.rows import Row, find_rows
from digits.reading.search import Search

__all__ = ["MOST_DIGITS", "Digit", "Line", "Reading", "Word", "read"]

# maximum number of digits in a picture
MOST_DIGITS = 5000
# pixels of the longer side to which pictures are reduced
FINE = 4000
# minimum width and height at which a JPEG is decoded to be searched first, and if its digits are small
QUICK_SIDE, FULL_SIDE = 440, 1800
# maximum number of boxes of marks that are not digits
MOST_MARKS = 1000
# objectness from which something is a digit, if the card has none
THRESHOLD = 0.4
# a line is a number if its probability is at least this
LEAST_LINE = 0.02
# the number of readings in the comparison with the best one
RUNNERS_UP = 5

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Digit:
    """A digit that was read.

    probability: that there is this digit, in [0, 1]. unsure: whether it is low. box: x, y, width, height in pixels
    of the picture, after applying its Exif orientation.
    """

    digit: int
    probability: float
    unsure: bool
    box: Box


@dataclass(frozen=True)
class Word:
    """Digits of a line that stand together. column: the index of the column that the word stands under."""

    text: str
    digits: list[Digit]
    box: Box
    column: int = 0


@dataclass(frozen=True)
class Line:
    """A line of words.

    text: the words, joined by spaces. probability: that all of it is right, in [0, 1]. alternatives: the requested
    number of other readings with their probabilities, the best first.
    """

    text: str
    words: list[Word]
    probability: float
    unsure: bool
    alternatives: list[tuple[str, float]]

    @property
    def digits(self) -> list[Digit]:
        """The digits of all words, from left to right."""
        return [digit for word in self.words for digit in word.digits]


@dataclass(frozen=True)
class Reading:
    """The result of reading a picture.

    lines: from top to bottom. marks: boxes of what is no digit, signs and letters first. size: width and height in
    pixels, after applying the Exif orientation. found_in: seconds for everything except the network. detected_in:
    seconds for running the network. pages: of the file.
    """

    lines: list[Line]
    marks: list[Box]
    size: tuple[int, int]
    found_in: float
    detected_in: float
    pages: int = 1

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
    """Read the digits in the picture `data`, or in this page of it.

    name: what to call the picture in error messages. length: return the best reading of each word with this number
    of digits. check: "luhn" returns the best reading whose last digit is the Luhn check digit of the others
    (ISO/IEC 7812-1, annex B). If a word has no such reading, its best one is returned and its line is unsure.
    alternatives: the number of other readings of a line to list. sure: the probability below which a line is
    unsure; by default the detector's.

    Raises PictureError: 413 for too many pixels or more than MOST_DIGITS digits, 415 for another format, 422 for a
    damaged picture. An empty picture has no lines.
    """
    if check not in (None, "luhn"):
        raise ValueError(f"check is None or 'luhn', not {check!r}")
    begun = perf_counter()
    full = open_picture(data, name, FULL_SIDE, page)
    quick = open_picture(data, name, QUICK_SIDE, page)
    drafted = quick.picture.size != full.picture.size
    grey = shrink(decode_grey((quick if drafted else full).picture, name), FINE)

    def more() -> np.ndarray:
        return shrink(decode_grey(full.picture, name), FINE) if drafted else grey

    # the size after applying the Exif orientation
    turned = (full.size[0] > full.size[1]) != (grey.shape[1] > grey.shape[0])
    height, width = full.size if turned else full.size[::-1]
    search = Search(detector, grey, more, (height, width))
    rows, marks = find_rows(search, float(detector.card.get("threshold", THRESHOLD)))
    calibration = Calibration(detector.card, sure)
    lines: list[Line] = []
    boxes = [_box(mark, search.size) for mark in marks]
    for row in rows:
        line = _line(row, calibration, search.size, length, check, alternatives)
        if line is None:
            boxes += [_box(peak, search.size) for peak in row.frame.outside(row.peaks[row.digits()])]
        else:
            lines.append(line)
    number = sum(len(line.digits) for line in lines)
    if number > MOST_DIGITS:
        detail = f"{name} shows more than {MOST_DIGITS:,} digits."
        raise PictureError(413, detail, field=name, found=f"{number} digits")
    columns = columns_of([[word.box for word in line.words] for line in lines])
    lines = [
        replace(line, words=[replace(word, column=k) for word, k in zip(line.words, numbers, strict=True)])
        for line, numbers in zip(lines, columns, strict=True)
    ]
    seconds = perf_counter() - begun - search.seconds
    return Reading(lines, boxes[:MOST_MARKS], (width, height), seconds, search.seconds, full.pages)


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
    best = [best_texts(row.peaks[word], count) for word in words]
    features = row.features(words, [texts[0] for texts in best])
    probability, fits = calibration.probability(features), True
    if probability < LEAST_LINE:
        return None
    if length is not None or check is not None:
        fitting = [best_texts(row.peaks[word], count, length, check) for word in words]
        fits = all(fitting)
        changed = [new or old for new, old in zip(fitting, best, strict=True)]
        # how much less probable they are than the best texts
        less = sum(new[0].score - old[0].score for new, old in zip(changed, best, strict=True))
        best, probability = changed, probability * min(1.0, float(np.exp(less)))
    whole = _together(best, count)
    shares = np.exp([score - whole[0][0] for score, _ in whole])
    left = (1 - probability) / max(float(shares[1:].sum()), 1e-12)
    others = [
        (" ".join(texts), min(float(share) * left, probability))
        for (_, texts), share in zip(whole[1:], shares[1:], strict=True)
    ]
    out = []
    for word, texts in zip(words, best, strict=True):
        digits = []
        for k, kind in texts[0].choice:
            peak = row.peaks[word[k]]
            there = float(peak[SCORE] * peak[KINDS + kind])
            box = _box(row.frame.outside(peak[None])[0], size)
            digits.append(Digit(kind, there, there < calibration.sure_digit, box))
        out.append(Word(texts[0].text, digits, _around([digit.box for digit in digits])))
    text = " ".join(word.text for word in out)
    unsure = probability < calibration.sure or not fits
    return Line(text, out, probability, unsure, others[:alternatives])


def _together(words: list[list[Text]], count: int) -> list[tuple[float, tuple[str, ...]]]:
    """The most probable combinations of the words' texts: their scores and texts, the best first."""
    out: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for texts in words:
        longer = [(score + each.score, (*before, each.text)) for score, before in out for each in texts]
        out = nlargest(count, longer)
    return out


def _box(peak: np.ndarray, size: tuple[int, int]) -> Box:
    """The box of a peak in pixels of the picture, of which `size` is height and width."""
    x, y, width, height = (float(value) for value in peak[[X, Y, W, H]])
    left, right = (min(max(side, 0), size[1]) for side in (x - width / 2, x + width / 2))
    top, bottom = (min(max(side, 0), size[0]) for side in (y - height / 2, y + height / 2))
    first, upper = min(int(left), size[1] - 1), min(int(top), size[0] - 1)
    return first, upper, max(1, round(right) - first), max(1, round(bottom) - upper)


def _around(boxes: list[Box]) -> Box:
    """The box around several."""
    left, top = (min(box[side] for box in boxes) for side in (0, 1))
    right, bottom = (max(box[side] + box[side + 2] for box in boxes) for side in (0, 1))
    return left, top, right - left, bottom - top
