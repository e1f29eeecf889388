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
BASE, FINEST, MOST_LEVELS, MOST_STRIPS = 131_072, 8_400_000, 4_500_000, 4_000_000
# levels have at least this many pixels on their shorter side
SMALLEST = 24
# digits of this height in pixels are seen well; where there are lower ones, a finer level is examined
LOW, HIGH = 12, 38
# a picture is enlarged at most this many times
ENLARGED = 2
# a normalized value from which a pixel may be ink
INK = 0.9
# a normalized value of a line that crosses a strip
CROSSING = 0.3
# objectness of what may be a digit, and of what probably is one
MAYBE, LIKELY = 0.25, 0.5
# most peaks to compare, the best first
MOST_PEAKS = 8_000
# two peaks are the same if their centres are nearer than these fractions of the width and height, if their boxes
# have at least this in common, or if this much of the smaller one is inside the other
CLOSE, EQUAL, PART = (0.22, 0.35), 0.6, 0.45
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
        found = [self._level(base, None, np.inf)[0]]
        coarse = self._together([normalize(self.grey(scale)) for scale in scales[1:]])
        for scale, peaks in zip(scales[1:], coarse, strict=True):
            peaks[:, X : H + 1] /= scale
            found.append(peaks)
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
        return peaks[best_of(peaks, _fit(peaks, level, scale), level)]

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

    def strips(self, strips: list[Strip]) -> list[tuple[list[np.ndarray], np.ndarray]]:
        """What the detector finds along each strip at each of the sizes, and the places of lines that cross the
        strip, in the strip's units. If there are too many pixels for all sizes, the last ones are left out."""
        length = sum(strip.length / strip.height for strip in strips)
        pixels = np.cumsum([STRIP * (size * length + (BETWEEN + 1) * len(strips)) for size in SIZES])
        sizes = SIZES[: int((pixels <= MOST_STRIPS).sum())]
        parts = [self._straight(strip, size) for size in sizes for strip in strips]
        found = self._together(parts)
        for i, peaks in enumerate(found):
            peaks[:, Y] -= STRIP / 2
            peaks[:, X : H + 1] /= sizes[i // len(strips)]
        crossing = [_crossing(part) / SIZES[0] for part in parts[: len(strips)]] or [np.empty(0)] * len(strips)
        return [(found[i :: len(strips)], crossing[i]) for i in range(len(strips))]

    def _together(self, parts: list[np.ndarray]) -> list[np.ndarray]:
        """What the detector finds in each of some normalized parts, in their pixels. They are laid side by side, so
        that the detector seldom has to adapt to another size."""
        if not parts:
            return []
        starts = np.cumsum([0, *(part.shape[1] + BETWEEN for part in parts)])
        sheet = np.zeros((max(len(part) for part in parts), starts[-1]), np.float32)
        for part, start in zip(parts, starts, strict=False):
            sheet[: len(part), start : start + part.shape[1]] = part
        begun = perf_counter()
        peaks, _ = self.detector.detect(partial(_part, sheet), sheet.shape)
        self.seconds += perf_counter() - begun
        owner = np.searchsorted(starts, peaks[:, X], "right") - 1
        order = np.argsort(owner, kind="stable")
        out = np.split(peaks[order], np.searchsorted(owner[order], np.arange(1, len(parts))))
        for mine, part, start in zip(out, parts, starts, strict=False):
            mine[:, X] -= start
        return [mine[(mine[:, X] < part.shape[1]) & (mine[:, Y] < len(part))] for mine, part in zip(out, parts, strict=True)]

    def _straight(self, strip: Strip, size: int) -> np.ndarray:
        """A strip of the picture, normalized, in which digits are `size` pixels high, (STRIP, width)."""
        width = int(strip.length / strip.height * size) + 1
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


def _crossing(part: np.ndarray) -> np.ndarray:
    """Where a line that is clearly higher than a digit crosses a strip, in pixels."""
    middle, kernel = part[STRIP // 2 - SIZES[0] : STRIP // 2 + SIZES[0]], np.ones((1, 3), np.uint8)
    dark, bright = (cv2.dilate(each, kernel) > CROSSING for each in (-middle, middle))
    # the line of a row at the edge of a table ends with it
    across = np.maximum(dark.mean(0), bright.mean(0)) > 0.85
    edges = np.flatnonzero(np.diff(across, prepend=False, append=False))
    return (edges[::2] + edges[1::2]) / 2


def _fit(peaks: np.ndarray, level: np.ndarray, scale: float) -> np.ndarray:
    """The objectness of peaks, less where digits are too low or too high for their level to be seen well."""
    heights = peaks[:, H] * scale / 2.0**level
    return peaks[:, SCORE] * np.clip(np.minimum(heights / LOW, HIGH / heights), 0, 1) ** 2


def leaders(peaks: np.ndarray, rank: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each peak, (n, 16), the index of the one of the highest rank that is the same thing, perhaps itself; -1
    for those that are too many.

    Two peaks are the same if their centres are close or their boxes nearly equal, and in different groups also if
    much of the smaller box is inside the larger one. Within a group, digits may overlap.
    """
    most = np.argsort(-rank, kind="stable")[:MOST_PEAKS]
    order = most[np.argsort(peaks[most, X], kind="stable")]
    x, y, w, h = (peaks[order, axis] for axis in (X, Y, W, H))
    widest, pairs = float(w.max(initial=0)), [np.empty((0, 2), np.intp)]
    for k in range(1, len(x)):
        dx = x[k:] - x[:-k]
        if dx.min() > widest:
            break
        i = np.flatnonzero(dx < (w[k:] + w[:-k]) / 2)
        j, dx = i + k, dx[i]
        dy, high, wide = np.abs(y[j] - y[i]), np.minimum(h[i], h[j]), np.minimum(w[i], w[j])
        inside = np.minimum((w[i] + w[j]) / 2 - dx, wide) * np.clip((h[i] + h[j]) / 2 - dy, 0, high)
        areas, smaller = w[i] * h[i] + w[j] * h[j], np.minimum(w[i] * h[i], w[j] * h[j])
        same = (dx < CLOSE[0] * wide) & (dy < CLOSE[1] * high) | (inside > EQUAL * (areas - inside))
        same |= (group[order[i]] != group[order[j]]) & (inside > PART * smaller)
        pairs.append(np.stack([i[same], j[same]], 1))
    both = np.concatenate([*pairs, *(each[:, ::-1] for each in pairs)])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(len(x) + 1)).tolist()
    others, out = both[:, 1].tolist(), [-1] * len(x)
    for i in np.argsort(-rank[order], kind="stable").tolist():
        if out[i] < 0:
            out[i] = i
            for j in others[starts[i] : starts[i + 1]]:
                out[j] = i if out[j] < 0 else out[j]
    result = np.full(len(peaks), -1)
    result[order] = order[out]
    return result


def best_of(peaks: np.ndarray, rank: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The indices of the peaks that are not the same thing as one of a higher rank."""
    return np.flatnonzero(leaders(peaks, rank, group) == np.arange(len(peaks)))


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
    leader = leaders(peaks, peaks[:, SCORE], np.zeros(len(peaks)))
    alone, cluster = np.unique(leader, return_inverse=True)
    # the best of each size: the last one written
    member = np.full((len(alone), len(found)), -1)
    order = np.argsort(peaks[:, SCORE], kind="stable")
    member[cluster[order], source[order]] = order
    weight = np.where(member >= 0, peaks[member, SCORE], 0)
    share = (weight / weight.sum(1, keepdims=True))[:, :, None]
    out = (peaks[member] * share).sum(1)
    out[:, SCORE] = weight.mean(1)
    out[:, KINDS:] = np.exp((np.log(peaks[member, KINDS:] + 1e-6) * share).sum(1))
    out[:, KINDS:] /= out[:, KINDS:].sum(1, keepdims=True)
    same = peaks[member, KINDS:].argmax(2) == out[:, None, KINDS:].argmax(2)
    return Fused(out, weight.min(1), (same & (member >= 0)).sum(1) / (member >= 0).sum(1))
