"""Reads every digit in a picture, line by line. Other packages call `read` and pass the network to it. paper.py
separates ink from paper, ruled lines and boxes. layout.py groups connected components into lines of text.
pieces.py cuts touching digits and joins the parts of broken ones, so that each sequence of pieces is a hypothesis
of a digit, and path.py finds the best path through the hypotheses (LeCun et al. 1998, "Gradient-based learning
applied to document recognition", VI)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np

from digits.imaging.decode import DRAFT_SIDE, decode_grey, open_picture
from digits.imaging.errors import HugePictures, PictureError
from digits.imaging.find import find_digit, shrink
from digits.imaging.normalize import to_mnist
from digits.reading.layout import Layout, find_lines
from digits.reading.paper import find_ink
from digits.reading.path import best_readings, graph
from digits.reading.pieces import Judge, hypotheses

__all__ = ["MOST_DIGITS", "Digit", "Line", "Reading", "read"]

# maximum number of digits in a picture
MOST_DIGITS = 5000
# pixels of the longer side: a picture is reduced to the first, and if its digits are small, again to at most the
# second, or enlarged to at most the third
COARSE, FINE, ENLARGED = 1000, 3600, 2000
# minimum width and height at which a JPEG is decoded for that
COARSE_SIDE, FINE_SIDE = COARSE // 2, FINE // 2
# digits lower than the first number of pixels are small, and are examined again at about the second height
SMALL, SHARP = 32, 45
# a line is sure from the first probability, and is not a number below the second to the power of its digits
SURE_LINE, LEAST_LINE = 0.9, 0.5
# in a picture with more components than the first, of which less than the second fraction are digits, only sure
# lines are numbers
CROWD, CROWD_SHARE = 150, 0.6
# if a smaller fraction of the components are digits, a line's probability must be at least the fraction of others
FEW_SHARE = 0.5
# minimum probability of the digit in a picture without lines
SURE_DIGIT = 0.97
# maximum number of boxes of marks that are not digits
MOST_MARKS = 1000

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Digit:
    """A digit that was read.

    probability: the network's probability of the digit, in [0, 1]. unsure: whether it is below the threshold.
    box: x, y, width, height in pixels of the picture, after applying its Exif orientation.
    """

    digit: int
    probability: float
    unsure: bool
    box: Box


@dataclass(frozen=True)
class Line:
    """A line of digits.

    probability: that the whole line is correct, in [0, 1]. alternatives: the requested number of other readings
    with their probabilities, the best first.
    """

    text: str
    digits: list[Digit]
    probability: float
    unsure: bool
    alternatives: list[tuple[str, float]]


@dataclass(frozen=True)
class Reading:
    """The result of reading a picture.

    lines: from top to bottom. marks: boxes of marks that are not digits. found_in: seconds for everything except
    the network. classified_in: seconds for running the network.
    """

    lines: list[Line]
    marks: list[Box]
    found_in: float
    classified_in: float

    @property
    def text(self) -> str:
        """The digits, one line of text per line."""
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

    name: what to call the picture in error messages. classify: returns probabilities float32 (n, 10) for images
    float32 (n, 28, 28, 1) in [0, 1]. sure_threshold: a digit with a lower probability is unsure. length: return
    the best reading of each line with this number of digits. check: "luhn" returns the best reading whose last
    digit is the Luhn check digit of the others (ISO/IEC 7812-1, annex B). If a line has no such reading, its best
    one is returned as unsure. alternatives: the number of other readings to list. max_pixels: raise HugePictures
    if decoding needs more pixels than this, like imaging.prepare.

    Raises PictureError: 413 for too many pixels or more than MOST_DIGITS digits, 415 for another format, 422 for a
    damaged picture. An empty picture has no lines.
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
    # without conditions there is always a reading
    first = [(each, best) for each in graphs if (best := best_readings(each, alternatives)) is not None]
    seen, digits_seen = sum(map(len, layout.lines)), sum(len(best.digits) for _, best in first)
    # in noise or in print, a few components look like digits by chance
    share = digits_seen / max(seen, 1)
    crowd = seen > CROWD and share < CROWD_SHARE
    for each, best in first:
        least = 1 - share if share < FEW_SHARE else LEAST_LINE ** len(best.digits)
        least = SURE_LINE if crowd else least
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
    if not out and length in (None, 1) and check is None:
        out = _one_digit(data, name, judge, sure_threshold)
    if sum(len(line.digits) for line in out) > MOST_DIGITS:
        raise PictureError(
            413,
            f"{name} shows more than {MOST_DIGITS:,} digits.",
            field=name,
            found=f"{sum(len(line.digits) for line in out)} digits",
        )
    return Reading(out, marks[:MOST_MARKS], perf_counter() - begun - judge.seconds, judge.seconds)


def layout_of(data: bytes, name: str, max_pixels: int | None = None) -> tuple[Layout, float] | None:
    """The lines of the picture, which is reduced to the size that its digits need, and the factor between that
    size and the sent picture's. None if the picture is empty. Raises the same exceptions as `read`."""
    fine = open_picture(data, name, FINE_SIDE)
    if max_pixels is not None and fine.held > max_pixels:
        raise HugePictures(fine.held)
    first = open_picture(data, name, COARSE_SIDE)
    drafted = first.picture.size != fine.picture.size
    grey = decode_grey(first.picture if drafted else fine.picture, name)
    small = shrink(grey, COARSE)
    ink = find_ink(small)
    layout = find_lines(ink, SMALL)
    typical = 0.0 if layout is None else _typical(layout)
    if typical < SMALL:
        if drafted:
            grey = decode_grey(fine.picture, name)
        size = min(FINE, round(SHARP / typical * max(small.shape))) if typical else FINE
        # noise has no detail to see
        most = ENLARGED if layout is not None and typical and len(layout.areas) <= CROWD else 0
        size = min(size, max(most, *grey.shape))
        layout = find_lines(find_ink(_resized(grey, size)) if size > max(small.shape) else ink)
    # the shorter side of an enlarged narrow picture has been rounded, so only the longer side gives the factor
    return None if layout is None else (layout, max(fine.size) / max(layout.ink.shape))


def _resized(grey: np.ndarray, longest: int) -> np.ndarray:
    """Reduce or enlarge a picture, uint8, so that its longer side has `longest` pixels."""
    if longest <= max(grey.shape):
        return shrink(grey, longest)
    ratio = longest / max(grey.shape)
    return cv2.resize(grey, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_CUBIC)


def _typical(layout: Layout) -> float:
    """The typical height of the digits: that of the small components if most are small, because the others may be
    remnants of boxes."""
    if layout.typical < SMALL or not layout.lines:
        return layout.typical
    boxes = layout.boxes[np.concatenate(layout.lines)]
    heights = boxes[:, 3] - boxes[:, 1]
    small = heights[heights < SMALL]
    return float(np.median(small)) if len(small) > len(heights) / 2 else layout.typical


def _one_digit(data: bytes, name: str, judge: Judge, sure_threshold: float) -> list[Line]:
    """A line with the one digit that POST /predict would find, for example in a panel; empty if there is none."""
    opened = open_picture(data, name, DRAFT_SIDE)
    grey = decode_grey(opened.picture, name)
    found = find_digit(grey)
    if found is None:
        return []
    ink, corners = found
    probabilities = judge.classify(to_mnist(ink)[None])[0]
    digit, probability = int(probabilities.argmax()), float(probabilities.max())
    if probability < SURE_DIGIT:
        return []
    box = _box(corners, max(opened.size) / max(grey.shape))
    unsure = probability < sure_threshold
    return [Line(str(digit), [Digit(digit, probability, unsure, box)], probability, unsure, [])]


def _box(corners: Sequence[float], scale: float) -> Box:
    """Convert left, top, right, bottom to x, y, width, height in pixels of the sent picture."""
    left, top = (int(value * scale) for value in corners[:2])
    right, bottom = (round(value * scale) for value in corners[2:])
    return left, top, max(1, right - left), max(1, bottom - top)
