"""Every digit in a picture, line by line: `read` is all that others call. paper.py tells ink from paper,
rules and boxes; layout.py puts its components in lines; pieces.py cuts what touches and joins what is apart,
each run of pieces being one hypothesis of a digit; path.py picks the best path through them (LeCun et al.
1998, "Gradient-based learning applied to document recognition", VI). The network is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from digits.imaging.decode import decode_grey, open_picture
from digits.imaging.errors import HugePictures, PictureError
from digits.imaging.find import shrink
from digits.reading.layout import Layout, find_lines
from digits.reading.paper import find_ink
from digits.reading.path import best_readings, graph
from digits.reading.pieces import Judge, hypotheses

__all__ = ["MOST_DIGITS", "Digit", "Line", "Reading", "read"]

# of a picture
MOST_DIGITS = 5000
# pixels of the longer side that a picture is looked at with first, and if its digits are small
COARSE, FINE = 1000, 3600
# pixels that a JPEG keeps for that at least, wide and high
COARSE_SIDE, FINE_SIDE = COARSE // 2, FINE // 2
# pixels that digits are high: fewer are small, and looked at again with so many
SMALL, SHARP = 22, 30
# a line is sure from this probability on, and is no number below that for each of its digits
SURE_LINE, LEAST_LINE = 0.9, 0.5
# of a picture of so many components, of which no larger share is digits, only sure lines are numbers
CROWD, CROWD_SHARE = 150, 0.6
# of the boxes of what is no digit, as many are given at most
MOST_MARKS = 1000

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Digit:
    """A digit that was read.

    probability: of the digit, as the network gives it for its pixels, in [0, 1]. unsure: that is below the
    threshold. box: x, y, width, height in the sent picture's pixels, upright by its camera's mark.
    """

    digit: int
    probability: float
    unsure: bool
    box: Box


@dataclass(frozen=True)
class Line:
    """Digits side by side.

    probability: that all of the line is right, in [0, 1]. alternatives: other readings and their probabilities,
    the best first, if they were asked for.
    """

    text: str
    digits: list[Digit]
    probability: float
    unsure: bool
    alternatives: list[tuple[str, float]]


@dataclass(frozen=True)
class Reading:
    """What a picture shows.

    lines: from top to bottom. marks: boxes of what was seen and is no digit. found_in, classified_in: seconds
    that the network took, and all else.
    """

    lines: list[Line]
    marks: list[Box]
    found_in: float
    classified_in: float

    @property
    def text(self) -> str:
        """The lines' digits, a line each."""
        return "\n".join(line.text for line in self.lines)


def read(
    data: bytes,
    name: str,
    classify: Callable[[np.ndarray], np.ndarray],
    sure_threshold: float,
    *,
    length: int | None = None,
    check: str | None = None,
    alternatives: int = 0,
    max_pixels: int | None = None,
) -> Reading:
    """Read the digits in the picture `data`.

    name: what to call it in a problem. classify: probabilities float32 (n, 10) for images float32 (n, 28, 28,
    1) in [0, 1]. sure_threshold: a digit with a lower probability is unsure. length: take each line's best
    reading of so many digits. check: "luhn" takes the best reading whose last digit is the Luhn check digit
    of the others (ISO/IEC 7812-1, annex B). A line that has no such reading gets its best one, and is unsure.
    alternatives: how many runners-up to list. max_pixels: raise HugePictures if decoding needs more pixels
    than this, as imaging.prepare.

    Raises PictureError: 413 for too many pixels or more than MOST_DIGITS digits, 415 for another format, 422
    for a damaged picture. An empty picture has no lines.
    """
    if check not in (None, "luhn"):
        raise ValueError(f"check is None or 'luhn', not {check!r}")
    begun = perf_counter()
    found = layout_of(data, name, max_pixels)
    if found is None:
        return Reading([], [], perf_counter() - begun, 0.0)
    layout, scale = found
    judge = Judge(layout, classify)
    lines = hypotheses(layout, judge)
    largest = layout.marks[np.argsort(-layout.areas[layout.marks])][:MOST_MARKS]
    marks = [_box(layout.boxes[i].tolist(), scale) for i in largest]
    out: list[Line] = []
    graphs = [graph(line) for line in lines]
    # without conditions there always is one
    first = [(each, best) for each in graphs if (best := best_readings(each, alternatives)) is not None]
    seen, digits_seen = sum(map(len, layout.lines)), sum(len(best.digits) for _, best in first)
    # what looks like a digit now and then, in noise or in print, is none
    crowd = seen > CROWD and digits_seen < CROWD_SHARE * seen
    for each, best in first:
        least = SURE_LINE if crowd else LEAST_LINE ** len(best.digits)
        is_number = bool(best.digits) and best.probability >= least
        fits = True
        if is_number and (length is not None or check is not None):
            fitting = best_readings(each, alternatives, length, check)
            best, fits = fitting or best, fitting is not None
        marks += [_box(box, scale) for box in best.skipped]
        if not is_number:
            marks += [_box(box, scale) for _, _, box in best.digits]
            continue
        digits = [
            Digit(digit, served, served < sure_threshold, _box(box, scale))
            for digit, served, box in best.digits
        ]
        text = "".join(str(digit.digit) for digit in digits)
        out.append(
            Line(text, digits, best.probability, best.probability < SURE_LINE or not fits, best.alternatives)
        )
    if sum(len(line.digits) for line in out) > MOST_DIGITS:
        raise PictureError(
            413,
            f"{name} shows more than {MOST_DIGITS:,} digits.",
            field=name,
            found=f"{sum(len(line.digits) for line in out)} digits",
        )
    return Reading(out, marks[:MOST_MARKS], perf_counter() - begun - judge.seconds, judge.seconds)


def layout_of(data: bytes, name: str, max_pixels: int | None = None) -> tuple[Layout, float] | None:
    """The picture's lines, seen with as many pixels as its digits need, and the sent picture's size as a
    multiple of that; None where it is empty. Raises what `read` does."""
    fine = open_picture(data, name, FINE_SIDE)
    if max_pixels is not None and fine.held > max_pixels:
        raise HugePictures(fine.held)
    first = open_picture(data, name, COARSE_SIDE)
    drafted, most = first.picture.size != fine.picture.size, max(fine.picture.size)
    grey = decode_grey(first.picture if drafted else fine.picture, name)
    small = shrink(grey, COARSE)
    more_to_see = most > 1.2 * max(small.shape)
    layout = find_lines(find_ink(small), SMALL if more_to_see else 0)
    if more_to_see and (layout is None or layout.typical < SMALL):
        if drafted:
            grey = decode_grey(fine.picture, name)
        times = SHARP / layout.typical if layout is not None else 2
        layout = find_lines(find_ink(shrink(grey, min(FINE, round(times * max(small.shape))))))
    return None if layout is None else (layout, (fine.declared / layout.ink.size) ** 0.5)


def _box(corners: Sequence[int], scale: float) -> Box:
    """Left, top, right, bottom as x, y, width, height in the sent picture's pixels."""
    left, top, right, bottom = (round(value * scale) for value in corners)
    return left, top, max(1, right - left), max(1, bottom - top)
