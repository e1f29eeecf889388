"""Every digit in a picture, line by line: `read` is all that others call. paper.py tells ink from paper,
rules and boxes; layout.py puts its components in lines; pieces.py cuts what touches and joins what is apart,
each run of pieces being one hypothesis of a digit; path.py picks the best path through them (LeCun et al.
1998, "Gradient-based learning applied to document recognition", VI). The network is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from digits.imaging.decode import MAX_PIXELS_TOGETHER, decode_grey, open_picture
from digits.imaging.errors import HugePictures, PictureError
from digits.imaging.find import shrink
from digits.reading.layout import find_lines
from digits.reading.paper import find_ink
from digits.reading.path import best_readings
from digits.reading.pieces import Hypotheses

__all__ = ["MOST_DIGITS", "Digit", "Line", "Reading", "read"]

# of a picture
MOST_DIGITS = 5000
# pixels that a JPEG keeps at least, wide or high
DRAFT_SIDE = 1000
# pixels of the longer side that a picture is read with
WORK_SIZE = 3600
# a line is sure from this probability on
SURE_LINE = 0.9

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
    opened = open_picture(data, name, DRAFT_SIDE)
    if opened.held > MAX_PIXELS_TOGETHER:
        raise PictureError(
            413, f"{name} has more pixels than are taken.", field=name, found=f"{opened.held} pixels"
        )
    if max_pixels is not None and opened.held > max_pixels:
        raise HugePictures(opened.held)
    decoded = opened.picture.width * opened.picture.height
    grey = decode_grey(opened.picture, name)
    work = shrink(grey, WORK_SIZE)
    scale = (opened.declared / decoded) ** 0.5 * max(grey.shape) / max(work.shape)
    found = find_ink(work)
    if found is None:
        return Reading([], [], perf_counter() - begun, 0.0)
    lines = find_lines(found)
    hypotheses = Hypotheses(lines, classify, MOST_DIGITS, name)
    readings = [best_readings(line, alternatives, length, check) for line in hypotheses.lines]
    marks = [_scaled(box, scale) for box in hypotheses.marks]
    out: list[Line] = []
    for best in readings:
        marks += [_scaled(box, scale) for box in best.skipped]
        if best.digits:
            digits = [
                Digit(digit, served, served < sure_threshold, _scaled(box, scale))
                for digit, served, box in best.digits
            ]
            text = "".join(str(digit.digit) for digit in digits)
            unsure = best.probability < SURE_LINE or not best.fits
            out.append(Line(text, digits, best.probability, unsure, best.alternatives))
    if sum(len(line.digits) for line in out) > MOST_DIGITS:
        raise PictureError(
            413,
            f"{name} shows more than {MOST_DIGITS:,} digits.",
            field=name,
            found=f"{sum(len(line.digits) for line in out)} digits",
        )
    spent = hypotheses.classified_in
    return Reading(out, marks, perf_counter() - begun - spent, spent)


def _scaled(box: Box, scale: float) -> Box:
    """A box (x, y, width, height) in the sent picture's pixels."""
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    x, y = round(left * scale), round(top * scale)
    return x, y, max(1, round(right * scale) - x), max(1, round(bottom * scale) - y)
