"""Searches a picture for digits of every size. `Search` runs the detector on a pyramid of sizes, from coarse to
fine, and then on strips along the lines of text in which all digits have about the height at which the detector
reads best. The pixels that it examines are limited, whatever the picture shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np

from digits.detector import KINDS, MARK, SCORE, Detector, H, W, X, Y, normalize, part_of

# pixels of the level that is always examined, of the largest level, and of all that are examined: levels and strips
BASE, FINEST, MOST_LEVELS, MOST_STRIPS = 196_608, 8_400_000, 4_500_000, 4_000_000
# levels have at least this many pixels on their shorter side
SMALLEST = 24
# digits of this height in pixels are seen well; where there are lower ones, a finer level is examined
LOW, HIGH = 12, 38
# a picture is enlarged at most this many times
ENLARGED = 2
# a normalized value from which a pixel may be ink
INK = 0.9
# objectness of what may be a digit, and of what probably is one
MAYBE, LIKELY = 0.25, 0.5
# most peaks to compare, the best first
MOST_PEAKS = 12_000
# heights in pixels of the digits in strips, of which the results are averaged, and the height of strips
SIZES, STRIP = (24, 20, 29), 64
# pixels around a strip on which its normalized values depend, and between strips
MARGIN, BETWEEN = 48, 16
# how far strips extend beyond the digits, and the widest gap in a strip, in heights of digits
BEYOND, GAP = 1.5, 4.0


class Strip(NamedTuple):
    """A part of a line of text: its middle at the left end, its direction (cosine and sine), and its length, and
    the height of its digits in pixels of the picture."""

    x: float
    y: float
    along: tuple[float, float]
    length: float
    height: float

    def inside(self, peaks: np.ndarray) -> np.ndarray:
        """Peaks in pixels of the picture, (n, 16), in the strip's units, in which digits have the height 1, x is
        the distance from the left end, and y from the middle."""
        out, (c, s) = peaks.copy(), self.along
        dx, dy = peaks[:, X] - self.x, peaks[:, Y] - self.y
        out[:, X], out[:, Y] = dx * c + dy * s, dy * c - dx * s
        out[:, X : H + 1] /= self.height
        return out

    def outside(self, peaks: np.ndarray) -> np.ndarray:
        """The inverse of `inside`."""
        out, (c, s) = peaks.copy(), self.along
        out[:, X : H + 1] *= self.height
        u, v = out[:, X].copy(), out[:, Y].copy()
        out[:, X], out[:, Y] = self.x + u * c - v * s, self.y + u * s + v * c
        return out


class Search:
    """A picture and the detector. seconds: how long the detector has run."""

    def __init__(
        self, detector: Detector, quick: np.ndarray, full: Callable[[], np.ndarray], size: tuple[int, int]
    ) -> None:
        """quick: the picture's brightness, uint8, perhaps reduced. full: gives all pixels. size: height and width
        of the picture, in whose pixels all results are."""
        self.detector, self.size, self.seconds = detector, size, 0.0
        self._greys = {max(quick.shape) / max(size): quick}
        self._full = full

    def grey(self, scale: float) -> np.ndarray:
        """The picture's brightness at a scale: 1 for the sent size."""
        if scale not in self._greys:
            if scale > max(self._greys) and max(self._greys) < 1:
                full = self._full()
                self._greys[max(full.shape) / max(self.size)] = full
            least = min((each for each in self._greys if each >= scale), default=max(self._greys))
            size = [max(1, round(side * scale)) for side in self.size[::-1]]
            ratio = scale / least
            kind = cv2.INTER_AREA if ratio < 0.5 else cv2.INTER_LINEAR if ratio <= 1 else cv2.INTER_CUBIC
            self._greys[scale] = cv2.resize(self._greys[least], size, interpolation=kind)
        return self._greys[scale]

    def candidates(self) -> np.ndarray:
        """What may be a digit or a mark, (n, 16), in pixels of the picture."""
        area = self.size[0] * self.size[1]
        base = min(1.0, sqrt(BASE / area))
        finest = min(ENLARGED if area < BASE else 1.0, sqrt(FINEST / area))
        scales = [base]
        while scales[-1] / 2 * min(self.size) >= SMALLEST:
            scales.append(scales[-1] / 2)
        found = [self._level(scale, None, np.inf)[0] for scale in scales]
        left, scale = MOST_LEVELS, base
        while scale < 0.99 * finest:
            wanted = self._wanted(found, scale)
            scale = min(scale * 2, finest)
            if not wanted.any():
                break
            peaks, spent = self._level(scale, wanted, left)
            found.insert(0, peaks)
            left -= spent
        peaks = np.concatenate(found)
        level = np.repeat(np.arange(len(found)), [len(each) for each in found])
        return peaks[suppressed(peaks, _fit(peaks, level, scale), level)]

    def _level(self, scale: float, wanted: np.ndarray | None, most: float) -> tuple[np.ndarray, int]:
        grey, begun = self.grey(scale), perf_counter()
        peaks, spent = self.detector.detect(part_of(grey), grey.shape, wanted, most)
        self.seconds += perf_counter() - begun
        peaks[:, X : H + 1] /= scale
        return peaks, spent

    def _wanted(self, found: list[np.ndarray], scale: float) -> np.ndarray:
        """How much each part of the picture is worth a look at a finer level than `scale`, (height / 32, width /
        32) at this scale: where digits seem to be low, and where there is ink if there is nothing else."""
        grey = self.grey(scale)
        wanted = np.zeros([-(-side // 32) for side in grey.shape], np.float32)
        likely = [each[each[:, SCORE] > LIKELY] for each in found]
        if not sum(map(len, likely)):
            # at a coarse size ink is enough to see
            ink = cv2.resize(
                np.abs(normalize(self.grey(min(self._greys)))),
                wanted.shape[::-1],
                interpolation=cv2.INTER_LINEAR,
            )
            wanted[ink > INK / 3] = 0.01
        low = found[0][(found[0][:, H] * scale < LOW) & (found[0][:, SCORE] > MAYBE)]
        for peak in low[:MOST_PEAKS]:
            x, y, reach = peak[X] * scale / 32, peak[Y] * scale / 32, 3 * peak[H] * scale / 32
            part = np.s_[
                max(0, int(y - reach)) : int(y + reach) + 1, max(0, int(x - reach)) : int(x + reach) + 1
            ]
            wanted[part] += peak[SCORE]
        return wanted

    def strips(self, strips: list[Strip]) -> list[list[np.ndarray]]:
        """What the detector finds along each strip at each of the sizes, in the strip's units. There are fewer
        sizes if there are too many pixels for all; then a size is missing for all strips."""
        out: list[list[np.ndarray]] = [[] for _ in strips]
        left = MOST_STRIPS
        for size in SIZES if strips else ():
            widths = [int(strip.length / strip.height * size) + 1 for strip in strips]
            pixels = STRIP * sum(width + BETWEEN for width in widths)
            if pixels > left:
                break
            left -= pixels
            sheet = np.zeros((STRIP, sum(widths) + BETWEEN * len(widths)), np.float32)
            starts = np.cumsum([0, *(width + BETWEEN for width in widths[:-1])])
            for strip, start, width in zip(strips, starts, widths, strict=True):
                sheet[:, start : start + width] = self._straight(strip, size, width)
            begun = perf_counter()
            peaks, _ = self.detector.detect(partial(_part, sheet), sheet.shape)
            self.seconds += perf_counter() - begun
            owner = np.searchsorted(starts, peaks[:, X], "right") - 1
            peaks[:, X] -= starts[owner]
            peaks[:, Y] -= STRIP / 2
            peaks[:, X : H + 1] /= size
            for i, width in enumerate(widths):
                mine = peaks[owner == i]
                out[i].append(mine[mine[:, X] < width / size])
        return out

    def _straight(self, strip: Strip, size: int, width: int) -> np.ndarray:
        """A strip of the picture, normalized, in which digits are `size` pixels high, (STRIP, width)."""
        scales = [each for each in self._greys if each * strip.height >= size]
        scale = min(scales, default=max(self._greys))
        grey, (c, s) = self._greys[scale], np.multiply(strip.along, strip.height * scale / size)
        u, v = -MARGIN, -MARGIN - STRIP / 2
        matrix = np.array(
            [
                [c, -s, strip.x * scale + u * c - v * s],
                [s, c, strip.y * scale + u * s + v * c],
            ]
        )
        shape = width + 2 * MARGIN, STRIP + 2 * MARGIN
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(grey, matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return normalize(part)[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _part(values: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    return values[top:bottom, left:right]


def _fit(peaks: np.ndarray, level: np.ndarray, scale: float) -> np.ndarray:
    """The objectness of peaks, less where digits are too low or too high for their level to be seen well."""
    heights = peaks[:, H] * scale / 2.0**level
    return peaks[:, SCORE] * np.clip(np.minimum(heights / LOW, HIGH / heights), 0, 1) ** 2


def near(peak: np.ndarray, others: np.ndarray, part: float | None = None) -> np.ndarray:
    """Which of the others are the same thing as a peak: their centres are close, or their boxes nearly the same.
    part: or this fraction of the smaller box is inside the larger one."""
    dx, dy = np.abs(others[:, X] - peak[X]), np.abs(others[:, Y] - peak[Y])
    both = np.minimum(others[:, W : H + 1], peak[W : H + 1])
    across = np.clip((others[:, W] + peak[W]) / 2 - dx, 0, both[:, 0])
    down = np.clip((others[:, H] + peak[H]) / 2 - dy, 0, both[:, 1])
    inside, areas, area = across * down, others[:, W] * others[:, H], peak[W] * peak[H]
    same = (dx < 0.22 * np.minimum(peak[W], others[:, W])) & (dy < 0.35 * peak[H])
    same |= inside > 0.6 * (areas + area - inside)
    return same if part is None else same | (inside > part * np.minimum(areas, area))


def suppressed(peaks: np.ndarray, rank: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The indices of the peaks that remain if each removes those of lower rank that are the same thing. Within a
    group, digits may overlap."""
    order = np.argsort(peaks[:, X], kind="stable")
    ranked = np.argsort(-rank[order], kind="stable")[:MOST_PEAKS]
    order = order[np.sort(ranked)]
    sorted_peaks, groups, ranks = peaks[order], group[order], rank[order]
    x, widest = sorted_peaks[:, X], sorted_peaks[:, W]
    alive, kept = np.ones(len(order), bool), []
    reach = float(widest.max(initial=0))
    for i in np.argsort(-ranks, kind="stable"):
        if not alive[i]:
            continue
        kept.append(int(order[i]))
        a, b = np.searchsorted(x, (x[i] - (widest[i] + reach) / 2, x[i] + (widest[i] + reach) / 2))
        others = sorted_peaks[a:b]
        alive[a:b] &= ~np.where(
            groups[a:b] == groups[i], near(sorted_peaks[i], others), near(sorted_peaks[i], others, 0.45)
        )
    return np.array(kept, np.intp)


class Fused(NamedTuple):
    """What the sizes agree on.

    peaks: (n, 16) with the mean objectness, place and probabilities. least: the lowest objectness at any size.
    agree: the share of the sizes at which the class is the most likely one."""

    peaks: np.ndarray
    least: np.ndarray
    agree: np.ndarray


def fused(found: list[np.ndarray]) -> Fused:
    """Average what was found at several sizes, each (n, 16). What is found at one size only loses objectness."""
    peaks = np.concatenate(found)
    source = np.repeat(np.arange(len(found)), [len(each) for each in found])
    free = np.ones(len(peaks), bool)
    rows, least, agree = [], [], []
    for i in np.argsort(-peaks[:, SCORE], kind="stable"):
        if not free[i]:
            continue
        same = np.flatnonzero(free & near(peaks[i], peaks))
        free[same] = False
        # the best of each size
        best = [
            group[np.argmax(peaks[group, SCORE])]
            for k in range(len(found))
            if len(group := same[source[same] == k])
        ]
        weights = peaks[best, SCORE]
        row = np.average(peaks[best], axis=0, weights=weights)
        row[SCORE] = weights.sum() / len(found)
        row[KINDS:] = np.exp(np.average(np.log(peaks[best, KINDS:] + 1e-6), axis=0, weights=weights))
        row[KINDS:] /= row[KINDS:].sum()
        rows.append(row)
        least.append(weights.min() if len(best) == len(found) else 0.0)
        agree.append(np.mean(peaks[best, KINDS:].argmax(1) == row[KINDS:].argmax()))
    shape = (-1, KINDS + MARK + 1)
    return Fused(np.array(rows, np.float32).reshape(shape), np.array(least), np.array(agree))
