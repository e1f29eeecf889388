"""Orders digits by their places. `find_lines` groups them into lines of text, which may slant, and `Frame` has the
coordinates of a line. `words_of` parts a line where its digits stand clearly apart or have a mark between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from digits.detector import H, W, X, Y

# maximum slant of lines in degrees, and the number of digits that it is estimated from
MAX_SLANT, SAMPLE = 15, 250
# digits of a line are this near to its middle, in heights, and their heights differ at most by this ratio
LEVEL, ALIKE = 0.55, 1.9
# how far there may be more digits beside those of a line, in heights
BEYOND = 1.5
# a word ends where the next digit's centre is further away than usual by this factor, and at least by this number
# of heights, and its edge by this
WIDER, APART, GAP_LEAST = 1.7, 1.2, 0.4
# the number of distances in a line that count as much as those elsewhere
ELSEWHERE = 3


class Frame(NamedTuple):
    """The coordinates of a line of text: x along the line, and y from its middle, in heights of its digits."""

    slope: float  # dy / dx
    across: float  # the line's y where x is 0, divided by the cosine
    height: float  # of digits, in pixels
    start: float = 0  # where the line may have digits
    stop: float = 0

    def inside(self, peaks: np.ndarray) -> np.ndarray:
        """Peaks in these coordinates, from those in pixels of the picture, (n, 16)."""
        return self._turned(peaks, -self.slope, 1 / self.height, -self.across / self.height)

    def outside(self, peaks: np.ndarray) -> np.ndarray:
        """Peaks in pixels of the picture, from those in these coordinates, (n, 16)."""
        moved = peaks.copy()
        moved[:, Y] += self.across / self.height
        return self._turned(moved, self.slope, self.height, 0.0)

    def _turned(self, peaks: np.ndarray, slope: float, scale: float, down: float) -> np.ndarray:
        out, cosine = peaks.copy(), 1 / np.sqrt(1 + slope**2)
        out[:, X : H + 1] *= scale
        x, y = out[:, X].copy(), out[:, Y].copy()
        out[:, X], out[:, Y] = (x - y * slope) * cosine, (y + x * slope) * cosine + down
        return out


def slope_of(peaks: np.ndarray) -> float:
    """The slope (dy / dx) of the lines at which most of the digits, (n, 16), are level with others.

    It is 0 unless others are clearly better, because a few digits are level at many slopes.
    """
    if len(peaks) > SAMPLE:
        peaks = peaks[np.random.default_rng(0).permutation(len(peaks))[:SAMPLE]]
    first, second = np.triu_indices(len(peaks), 1)
    height = np.sqrt(peaks[first, H] * peaks[second, H])
    dx, dy = ((peaks[second, axis] - peaks[first, axis]) / height for axis in (X, Y))
    alike = np.maximum(peaks[first, H], peaks[second, H]) < ALIKE * height
    close = alike & (np.abs(dx) < 8) & (np.abs(dx) > 0.3)
    dx, dy = dx[close], dy[close]
    slopes = np.tan(np.radians(np.linspace(-MAX_SLANT, MAX_SLANT, 61)))
    # neighbours tell most, and a digit has two of them
    weight = np.minimum(1, 1.5 / np.abs(dx))
    level = [(weight * np.exp(-((dy - slope * dx) ** 2) / 0.05)).sum() for slope in slopes]
    return float(slopes[int(np.argmax(np.array(level) - (0.5 + 0.05 * len(peaks)) * np.abs(slopes) / 0.27))])


def find_lines(peaks: np.ndarray) -> list[np.ndarray]:
    """The lines of digits, (n, 16), from top to bottom, as indices from left to right."""
    slope = slope_of(peaks) if len(peaks) > 1 else 0.0
    along, across, height = peaks[:, X] + slope * peaks[:, Y], peaks[:, Y] - slope * peaks[:, X], peaks[:, H]
    lines: list[list[int]] = []
    # for each line, where it is: the mean of the last digits is steadier than the last one
    at, tall = np.zeros(len(peaks)), np.zeros(len(peaks))
    for i in np.argsort(along, kind="stable").tolist():
        number = len(lines)
        larger, smaller = np.maximum(tall[:number], height[i]), np.minimum(tall[:number], height[i])
        away = np.abs(across[i] - at[:number]) / larger
        away[(away > LEVEL) | (larger > ALIKE * smaller)] = np.inf
        best = int(np.argmin(away)) if np.isfinite(away).any() else number
        if best == number:
            lines.append([])
        lines[best].append(i)
        recent = lines[best][-4:]
        at[best], tall[best] = across[recent].mean(), np.median(height[recent])
    lines.sort(key=lambda line: float(across[line].mean()))
    return [np.array(line) for line in lines]


def frame_of(line: np.ndarray) -> Frame:
    """The frame of a line of digits, (n, 16), by least squares. The slope of few digits is drawn towards 0."""
    x, y, height = line[:, X].mean(), line[:, Y].mean(), float(np.median(line[:, H]))
    dx, dy = line[:, X] - x, line[:, Y] - y
    slope = float(np.clip((dx * dy).sum() / ((dx * dx).sum() + (1.5 * height) ** 2), -0.3, 0.3))
    frame = Frame(slope, float(y - slope * x) / np.sqrt(1 + slope**2), height)
    places = frame.inside(line)[:, X]
    return frame._replace(start=float(places.min()) - BEYOND, stop=float(places.max()) + BEYOND)


def words_of(peaks: np.ndarray, between: np.ndarray, elsewhere: float = 0.9) -> list[np.ndarray]:
    """The words of a line of digits, (n, 16), from left to right: their indices. The unit is the digits' height.

    Args:
        peaks: the digits.
        between: centres of what parts two digits: marks and ruled lines.
        elsewhere: the usual distance of neighbours in other lines, which matters for a line of few digits.
    """
    x, half = peaks[:, X], peaks[:, W] / 2
    apart, gap = np.diff(x), (x - half)[1:] - (x + half)[:-1]
    # a low quantile, as a line may have more distances between words than in them
    usual = float(np.quantile(apart, 0.25)) if len(apart) else 0.0
    usual = (usual * len(apart) + elsewhere * ELSEWHERE) / (len(apart) + ELSEWHERE)
    ends = (apart > max(WIDER * usual, APART)) & (gap > GAP_LEAST)
    ends |= parted(x, between)
    return np.split(np.arange(len(x)), np.flatnonzero(ends) + 1)


def parted(x: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Which neighbours of the sorted centres `x` have something between them, bool (n - 1,)."""
    return np.diff(np.searchsorted(np.sort(between), x)) > 0
