"""Searches a picture for digits of every size. `Search` runs the detector on a pyramid of sizes, from coarse to
fine, and then on strips along the lines of text, in which all digits have about the height that the detector reads
best. The pixels that it examines are limited, whatever the picture shows."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from time import perf_counter

import cv2
import numpy as np

from digits.detector import KINDS, SCORE, Detector, H, W, X, Y, part_of
from digits.imaging.contrast import normalize
from digits.reading.layout import Span

# pixels of the level that is always examined, of the largest level, and of all levels and all strips together
BASE, FINEST, MOST_LEVELS, MOST_STRIPS = 131_072, 8_400_000, 4_000_000, 3_500_000
# levels have at least this many pixels on their shorter side, and enlarge the picture at most this many times
SMALLEST, ENLARGED = 24, 2
# digits between these heights in pixels are seen well; where there are lower ones, a finer level is examined
LOW, HIGH = 12, 38
# normalized values from which a pixel may be ink, and a line that crosses a strip
INK, CROSSING = 0.3, 0.3
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
# width and height of a dot, in heights of digits
DOT = 0.35
# columns that `fused` adds: the lowest objectness at any size, and the share of sizes with the same class
LOWEST, AGREE = KINDS + 11, KINDS + 12


class Search:
    """A picture and the detector. seconds: how long the detector has run."""

    def __init__(
        self, detector: Detector, quick: np.ndarray, full: Callable[[], np.ndarray], size: tuple[int, int]
    ) -> None:
        """quick: the picture's brightness, uint8, perhaps reduced. full: gives all pixels. size: height and width
        of the picture, in whose pixels all results are."""
        self.detector, self.size, self.seconds = detector, size, 0.0
        self._full, self._greys = full, {max(quick.shape) / max(size): quick}

    def _grey(self, scale: float) -> np.ndarray:
        """The picture's brightness at a scale, 1 for the sent size."""
        if scale > max(self._greys) and max(self._greys) < 1:
            full = self._full()
            self._greys[max(full.shape) / max(self.size)] = full
        if scale not in self._greys:
            source = min((each for each in self._greys if each > scale), default=max(self._greys))
            size = [max(1, round(side * scale)) for side in self.size[::-1]]
            # the faster way uses every pixel if the picture is at most halved
            kind = cv2.INTER_AREA if scale < 0.5 * source else cv2.INTER_LINEAR
            self._greys[scale] = cv2.resize(self._greys[source], size, interpolation=kind)
        return self._greys[scale]

    def candidates(self) -> np.ndarray:
        """What may be a digit or a mark, (n, 16), in pixels of the picture."""
        area = self.size[0] * self.size[1]
        scale = min(1.0, sqrt(BASE / area))
        finest = min(ENLARGED if area < BASE else 1.0, sqrt(FINEST / area))
        halves = [scale]
        while halves[-1] / 2 * min(self.size) >= SMALLEST:
            halves.append(halves[-1] / 2)
        coarse = self._together([normalize(self._grey(half)) for half in halves[1:]])
        levels = [(half, peaks) for half, peaks in zip(halves[1:], coarse, strict=True)]
        wanted, left = np.ones((1, 1), np.float32), float(MOST_LEVELS)
        while wanted.any():
            begun = perf_counter()
            grey = self._grey(scale)
            peaks, spent = self.detector.detect(part_of(grey), grey.shape, wanted, left)
            self.seconds += perf_counter() - begun
            levels.append((scale, peaks))
            if scale > 0.99 * finest:
                break
            wanted, left = self._wanted(levels, grey), left - spent
            scale = min(2 * scale, finest)
        fits = []
        for level, peaks in levels:
            # what is too low or too high for its level is not seen well
            fits.append(peaks[:, SCORE] * np.minimum(peaks[:, H] / LOW, HIGH / peaks[:, H]).clip(0, 1) ** 2)
            peaks[:, X : H + 1] /= level
        number = np.repeat(np.arange(len(levels)), [len(peaks) for _, peaks in levels])
        every = np.concatenate([peaks for _, peaks in levels])
        return every[best_of(every, np.concatenate(fits), number)]

    def _wanted(self, levels: list[tuple[float, np.ndarray]], grey: np.ndarray) -> np.ndarray:
        """How much each part of the last level, `grey`, is worth a closer look, (height / 32, width / 32): where
        digits are low, and if no digit was found at any level, where there is ink."""
        wanted = np.zeros([-(-side // 32) for side in grey.shape], np.float32)
        if not any((peaks[:, SCORE] > LIKELY).any() for _, peaks in levels):
            ink = np.abs(normalize(self._grey(min(self._greys))))
            wanted[cv2.resize(ink, wanted.shape[::-1]) > INK] = 0.01
        peaks = levels[-1][1]
        for peak in peaks[(peaks[:, H] < LOW) & (peaks[:, SCORE] > MAYBE)][:MOST_PEAKS]:
            (left, top), (right, bottom) = (
                ((peak[X:W] + side * 3 * peak[H]) / 32).astype(int) for side in (-1, 1)
            )
            wanted[max(0, top) : bottom + 1, max(0, left) : right + 1] += peak[SCORE]
        return wanted

    def strips(self, spans: list[Span]) -> list[tuple[list[np.ndarray], np.ndarray]]:
        """For each span of a line, what the detector finds there at each of the sizes, and the places of lines
        that cross it, in the line's units. If there are too many pixels for all, the last sizes are left out."""
        length = sum(span.stop - span.start for span in spans)
        pixels = np.cumsum([STRIP * (size * length + (BETWEEN + 1) * len(spans)) for size in SIZES])
        sizes = SIZES[: int((pixels <= MOST_STRIPS).sum())] if spans else ()
        parts = [self.strip(span, size) for size in sizes for span in spans]
        found = self._together(parts)
        for i, peaks in enumerate(found):
            peaks[:, Y] -= STRIP / 2
            peaks[:, X : H + 1] /= sizes[i // len(spans)]
            peaks[:, X] += spans[i % len(spans)].start
        number = len(spans)
        lines = [span.start + _crossing(part) / SIZES[0] for span, part in zip(spans, parts, strict=False)]
        return [(found[i::number], lines[i] if lines else np.empty(0)) for i in range(number)]

    def strip(self, span: Span, size: int) -> np.ndarray:
        """A span of a line, normalized, in which digits are `size` pixels high, float32 (STRIP, width)."""
        scales = [scale for scale in self._greys if scale * span.frame.height >= size]
        scale = min(scales, default=max(self._greys))
        # the places in the picture of the strip's corner and of the next pixels to the right and down
        places = np.zeros((3, KINDS))
        places[:, X] = span.start + np.array([-MARGIN, 1 - MARGIN, -MARGIN]) / size
        places[:, Y] = (np.array([0, 0, 1]) - MARGIN - STRIP / 2) / size
        corner, right, down = span.frame.outside(places)[:, [X, Y]] * scale
        matrix = np.stack([right - corner, down - corner, corner], 1)
        shape = int((span.stop - span.start) * size) + 1 + 2 * MARGIN, STRIP + 2 * MARGIN
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(self._greys[scale], matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return normalize(part)[MARGIN:-MARGIN, MARGIN:-MARGIN]

    def _together(self, parts: list[np.ndarray]) -> list[np.ndarray]:
        """What the detector finds in each of some normalized parts, in their pixels. They are laid side by side,
        so that the detector seldom has to adapt to another size."""
        if not parts:
            return []
        starts = np.cumsum([0, *(part.shape[1] + BETWEEN for part in parts)])
        sheet = np.zeros((max(len(part) for part in parts), starts[-1]), np.float32)
        for part, start in zip(parts, starts, strict=False):
            sheet[: len(part), start : start + part.shape[1]] = part
        begun = perf_counter()
        peaks, _ = self.detector.detect(
            lambda top, bottom, left, right: sheet[top:bottom, left:right], sheet.shape
        )
        self.seconds += perf_counter() - begun
        peaks = peaks[np.argsort(peaks[:, X], kind="stable")]
        found = np.split(peaks, np.searchsorted(peaks[:, X], starts[1:-1]))
        for mine, start in zip(found, starts, strict=False):
            mine[:, X] -= start
        return [
            mine[(mine[:, X] < part.shape[1]) & (mine[:, Y] < len(part))]
            for mine, part in zip(found, parts, strict=True)
        ]


def _crossing(part: np.ndarray) -> np.ndarray:
    """Where lines that are clearly higher than a digit cross a strip, in pixels."""
    middle, kernel = part[STRIP // 2 - SIZES[0] : STRIP // 2 + SIZES[0]], np.ones((1, 3), np.uint8)
    dark, bright = (cv2.dilate(each, kernel) > CROSSING for each in (-middle, middle))
    across = np.maximum(dark.mean(0), bright.mean(0)) > 0.85
    edges = np.flatnonzero(np.diff(across, prepend=False, append=False))
    return (edges[::2] + edges[1::2]) / 2


def leaders(peaks: np.ndarray, rank: np.ndarray, group: np.ndarray, least: float = 0) -> np.ndarray:
    """For each peak, (n, 16), the index of the one of the highest rank that is the same thing, perhaps itself; -1
    for those that are too many.

    Two peaks are the same if their centres are close or their boxes nearly equal, and in different groups also if
    much of the smaller box is inside the larger one. Within a group, digits may overlap. least: dots
    count as this high and wide, and 1s as twice as wide, as they would else hardly meet.
    """
    most = np.argsort(-rank, kind="stable")[:MOST_PEAKS]
    order = most[np.argsort(peaks[most, X], kind="stable")]
    x, y, w, h = (peaks[order, axis] for axis in (X, Y, W, H))
    w, h = np.where(h < least, np.maximum(w, least), w), np.maximum(h, least)
    widest, pairs = float(w.max(initial=0)), [np.empty((0, 2), np.intp)]
    # compare each with its k-th neighbour to the right
    for k in range(1, len(x)):
        dx = x[k:] - x[:-k]
        if dx.min() > widest:
            break
        i = np.flatnonzero(dx < (w[k:] + w[:-k]) / 2)
        j, dx = i + k, dx[i]
        dy, high, wide = np.abs(y[j] - y[i]), np.minimum(h[i], h[j]), np.minimum(w[i], w[j])
        inside = np.minimum((w[i] + w[j]) / 2 - dx, wide) * np.clip((h[i] + h[j]) / 2 - dy, 0, high)
        areas, smaller = w[i] * h[i] + w[j] * h[j], np.minimum(w[i] * h[i], w[j] * h[j])
        same = (dx < CLOSE[0] * np.maximum(wide, 2 * least)) & (dy < CLOSE[1] * high) | (
            inside > EQUAL * (areas - inside)
        )
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
    """Which of the peaks are not the same thing as one of a higher rank, bool (n,)."""
    return leaders(peaks, rank, group) == np.arange(len(peaks))


def fused(found: list[np.ndarray]) -> np.ndarray:
    """The average of what was found at several sizes, each (n, 16), with two more columns, LOWEST and AGREE. What
    is missing at a size loses objectness."""
    peaks = np.concatenate(found)
    source = np.repeat(np.arange(len(found)), [len(each) for each in found])
    leader = leaders(peaks, peaks[:, SCORE], np.zeros(len(peaks)), DOT)
    alone, cluster = np.unique(leader, return_inverse=True)
    # the best of each size, which is written last
    member, order = np.full((len(alone), len(found)), -1), np.argsort(peaks[:, SCORE], kind="stable")
    member[cluster[order], source[order]] = order
    weight = np.where(member >= 0, peaks[member, SCORE], 0)
    share = (weight / weight.sum(1, keepdims=True))[:, :, None]
    out = np.pad((peaks[member] * share).sum(1), ((0, 0), (0, 2)))
    out[:, SCORE], out[:, LOWEST] = weight.mean(1), weight.min(1)
    kinds = np.exp((np.log(peaks[member, KINDS:] + 1e-6) * share).sum(1))
    out[:, KINDS:LOWEST] = kinds / kinds.sum(1, keepdims=True)
    same = peaks[member, KINDS:].argmax(2) == kinds.argmax(1)[:, None]
    out[:, AGREE] = (same & (member >= 0)).sum(1) / (member >= 0).sum(1)
    return out
