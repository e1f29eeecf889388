"""Searches a picture for digits of every size. `Search` runs the detector on a pyramid of sizes, from coarse to
fine, and then on strips along the lines of text, in which all digits have about the height that the detector reads
best. The pixels that it examines are limited, whatever the picture shows. `locate` finds a single digit."""

from __future__ import annotations

from time import perf_counter

import cv2
import numpy as np

from digits.detector import CLASS, MARK, SCORE, Detector, H, W, X, Y
from digits.imaging.contrast import normalize
from digits.imaging.find import Box
from digits.reading.layout import Frame

# pixels of the largest level that is always examined, and of all levels and all strips together
BASE, MOST_LEVELS, MOST_STRIPS = 200_000, 3_500_000, 2_000_000
# levels have at least this many pixels on their shorter side
SMALLEST = 24
# digits between these heights in pixels are seen well; where there are lower ones, a finer level is examined
LOW, HIGH = 12, 38
# objectness of what may be a digit, and of what probably is one
MAYBE, LIKELY = 0.25, 0.5
# most peaks to compare, the best first
MOST_PEAKS = 8_000
# two peaks are the same if their centres are nearer than these fractions of the width and height, if their boxes
# have at least this in common, or if this much of the smaller one is inside the other
CLOSE, EQUAL, PART = (0.22, 0.35), 0.6, 0.45
# heights in pixels of the digits in strips, of which the results are averaged, and the height of strips
SIZES, STRIP = (26, 22, 30), 64
# pixels around a strip that only show the light
MARGIN = 48
# normalized values from which a pixel belongs to a line that crosses a strip, and how much of the strip it crosses
CROSSING, ACROSS = 0.3, 0.85
# width and height of a dot, in heights of digits
DOT = 0.35
# of a single digit: its least probability, and that and the height of a second one, relative to the first one's
DIGIT, SECOND, SIMILAR = 0.3, 0.65, 0.6
# paper around its picture, as a part of the longer side, and pixels of the longer side of the sample in which the
# paper's brightness is found
PAPER, SAMPLE_SIDE = 4, 256
# column that `averaged` adds: the lowest objectness at any size
LOWEST = CLASS + 11


class Search:
    """A picture and the detector. seconds: how long the detector has run.

    Args:
        detector: finds the digits.
        grey: the picture's brightness, uint8, perhaps reduced.
        size: height and width of the picture, in whose pixels all results are; by default those of `grey`.
    """

    def __init__(self, detector: Detector, grey: np.ndarray, size: tuple[int, int] | None = None) -> None:
        self.detector, self.size, self.seconds = detector, size or grey.shape, 0.0
        levels = [grey]
        while min(levels[-1].shape) >= 2 * SMALLEST:
            half = [(side + 1) // 2 for side in levels[-1].shape[::-1]]
            levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
        if grey.size < BASE:
            levels.insert(0, cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR))
        # from coarse to fine
        self.levels = [(max(level.shape) / max(self.size), level) for level in levels[::-1]]

    def _detect(self, *arguments: object) -> tuple[np.ndarray, int]:
        begun = perf_counter()
        found = self.detector.detect(*arguments)  # type: ignore[arg-type]
        self.seconds += perf_counter() - begun
        return found

    def candidates(self) -> np.ndarray:
        """What may be a digit or a mark, (n, 16), in pixels of the picture."""
        found, fits, left, places = [np.empty((0, CLASS + 11))], [np.empty(0)], MOST_LEVELS, None
        for scale, grey in self.levels:
            if grey.size > BASE or scale > 1:
                # look closer where digits are low, or everywhere if there is none
                if any((peaks[:, SCORE] > LIKELY).any() for peaks in found):
                    low = found[-1][(found[-1][:, H] * scale < 2 * LOW) & (found[-1][:, SCORE] > MAYBE)]
                    places = low[:MOST_PEAKS, [X, Y, SCORE]] * [scale, scale, 1]
                if grey.size > left if places is None else not len(places):
                    break
            peaks, spent = self._detect(grey, 0, places, left)
            left -= spent
            # what is too low or too high for its level is not seen well
            fits.append(peaks[:, SCORE] * np.minimum(peaks[:, H] / LOW, HIGH / peaks[:, H]).clip(0, 1) ** 2)
            peaks[:, X:CLASS] /= scale
            found.append(peaks)
        group = np.repeat(np.arange(len(found)), [len(peaks) for peaks in found])
        every = np.concatenate(found)
        return every[best_of(every, np.concatenate(fits), group)]

    def strips(self, frames: list[Frame]) -> list[tuple[list[np.ndarray], np.ndarray]]:
        """For each line, what the detector finds there at each of the sizes, and the places of ruled lines that
        cross it, in the line's units. If there are too many pixels for all, the last sizes are left out."""
        length = sum(frame.stop - frame.start for frame in frames)
        sizes = [size for i, size in enumerate(SIZES) if STRIP * sum(SIZES[: i + 1]) * length < MOST_STRIPS]
        found: list[list[np.ndarray]] = [[] for _ in frames]
        crossing = [np.empty(0)] * len(frames)
        # one size after the other, as most of its strips have tiles of the same height
        for size in sizes:
            for i, (frame, mine) in enumerate(zip(frames, found, strict=True)):
                strip = self.strip(frame, size)
                if size == SIZES[0]:
                    crossing[i] = frame.start + _crossing(strip) / size
                peaks, _ = self._detect(strip, MARGIN)
                peaks[:, Y] -= STRIP / 2
                peaks[:, X:CLASS] /= size
                peaks[:, X] += frame.start
                mine.append(peaks[(peaks[:, X] > frame.start) & (peaks[:, X] < frame.stop)])
        return list(zip(found, crossing, strict=True))

    def strip(self, frame: Frame, size: int) -> np.ndarray:
        """A line in which digits are `size` pixels high, uint8 (STRIP + 2 MARGIN, width + 2 MARGIN)."""
        fine = (level for level in self.levels if level[0] * frame.height >= size)
        scale, grey = next(fine, self.levels[-1])
        # the places in the picture of the strip's corner and of the next pixels to the right and down
        places = np.zeros((3, CLASS))
        places[:, X] = frame.start + np.array([-MARGIN, 1 - MARGIN, -MARGIN]) / size
        places[:, Y] = (np.array([0, 0, 1]) - MARGIN - STRIP / 2) / size
        corner, right, down = frame.outside(places)[:, [X, Y]] * scale
        matrix = np.stack([right - corner, down - corner, corner], 1)
        shape = int((frame.stop - frame.start) * size) + 1 + 2 * MARGIN, STRIP + 2 * MARGIN
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(grey, matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _crossing(strip: np.ndarray) -> np.ndarray:
    """Where lines that are clearly higher than a digit cross a strip of the first size, in its pixels."""
    high = slice(MARGIN + STRIP // 2 - SIZES[0], MARGIN + STRIP // 2 + SIZES[0])
    middle, kernel = normalize(strip)[high, MARGIN:-MARGIN], np.ones((1, 3), np.uint8)
    dark, bright = (cv2.dilate(each, kernel) > CROSSING for each in (-middle, middle))
    across = np.maximum(dark.mean(0), bright.mean(0)) > ACROSS
    edges = np.flatnonzero(np.diff(across, prepend=False, append=False))
    return (edges[::2] + edges[1::2]) / 2


def leaders(peaks: np.ndarray, rank: np.ndarray, group: np.ndarray, least: float = 0) -> np.ndarray:
    """For each peak, (n, 16), the index of the one of the highest rank that is the same thing, perhaps itself; -1
    for those that are too many.

    Two peaks are the same if their centres are close or their boxes nearly equal, and in different groups also if
    much of the smaller box is inside the larger one. Within a group, digits may overlap.

    Args:
        peaks: what was found.
        rank: of each.
        group: of each, any numbers.
        least: dots count as this high and wide, and 1s as twice as wide, as they would else hardly meet.
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
        same = (dx < CLOSE[0] * np.maximum(wide, 2 * least)) & (dy < CLOSE[1] * high)
        same |= inside > EQUAL * (areas - inside)
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


def averaged(found: list[np.ndarray]) -> np.ndarray:
    """The average of what was found at several sizes, each (n, 16), with one more column, LOWEST. What is missing
    at a size loses objectness."""
    peaks = np.concatenate(found)
    size = np.repeat(np.arange(len(found)), [len(each) for each in found])
    # there are at most as many as one leader can have
    leader = leaders(peaks, peaks[:, SCORE], np.zeros(len(peaks)), DOT)
    peaks, size, leader = (each[leader >= 0] for each in (peaks, size, leader))
    alone, cluster = np.unique(leader, return_inverse=True)
    best = np.zeros((len(alone), len(found)))
    np.maximum.at(best, (cluster, size), peaks[:, SCORE])
    values = peaks.copy()
    values[:, CLASS:] = np.log(peaks[:, CLASS:] + 1e-6)
    out = np.zeros((len(alone), CLASS + 12))
    np.add.at(out[:, :LOWEST], cluster, values * peaks[:, SCORE, None])
    out /= np.bincount(cluster, peaks[:, SCORE])[:, None]
    classes = np.exp(out[:, CLASS:LOWEST])
    out[:, CLASS:LOWEST] = classes / classes.sum(1, keepdims=True)
    out[:, SCORE], out[:, LOWEST] = best.mean(1), best.min(1)
    return out


def locate(detector: Detector, grey: np.ndarray) -> Box | None:
    """The box of the digit in a picture, uint8 (height, width), in its pixels: left, top, right, bottom. Of
    several digits, the box around all, except those that the picture's border cuts off. None if there is none."""
    # a digit that fills its picture is seen better with paper around it, the colour of most of the picture
    margin, step = max(grey.shape) // PAPER, -(-max(grey.shape) // SAMPLE_SIDE)
    paper = int(np.median(grey[::step, ::step]))
    padded = np.pad(grey, margin, constant_values=paper)
    peaks = Search(detector, padded).candidates()
    peaks[:, [X, Y]] -= margin
    half, sides = peaks[:, [W, H]] / 2, grey.shape[::-1]
    low, high = peaks[:, [X, Y]] - half, peaks[:, [X, Y]] + half
    # of what the border cuts off, only the part inside counts
    inside = (np.clip(high, 0, sides) - np.clip(low, 0, sides)).prod(1) / (high - low).prod(1)
    probable = peaks[:, SCORE] * (1 - peaks[:, CLASS + MARK]) * inside
    if probable.max(initial=0) < DIGIT:
        return None
    first = peaks[probable.argmax()]
    whole = (low > 0).all(1) & (high < sides).all(1)
    chosen = (probable >= SECOND * probable.max()) & (peaks[:, H] > SIMILAR * first[H]) & whole
    chosen[probable.argmax()] = True
    left, top = low[chosen].min(0).tolist()
    right, bottom = high[chosen].max(0).tolist()
    return left, top, right, bottom
