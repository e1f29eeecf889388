"""Separates the ink of a whole picture from the paper. digits.reading.read calls `find_ink`, which handles even
and uneven light and removes ruled lines and boxes."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import cv2
import numpy as np

from digits.imaging.find import GROUND_FILL, MIN_CONTRAST, MIN_GROUND, components, fit_background, shrink

# pixels of the longer side at which the background is examined
GROUND_SIZE = 480
# maximum width of a stroke in uneven light, as a fraction of the picture's longer side
STROKE = 0.08
# background pixels differ from their plane by less than this fraction of the largest difference
EVEN = 0.2
# maximum fraction of ink in an evenly lit picture, and on its border
MOST_INK, MAX_BORDER = 0.45, 0.3
# pixels above this are ink
INK = 0.35
# pixels above this may be a ruled line that is fainter than the digits
FAINT = 0.2
# the thicknesses of ruled lines to look for in pixels, and their maximum as a fraction of the picture's shorter
# side
THICKNESSES, THICKEST = (3, 8, 20), 0.08
# minimum length of a ruled line in pixels, as a fraction of the picture's longer side, and as a multiple of its
# thickness; and the last for a line that is part of a box
MIN_RULE, RULE, SLENDER, STOUT = 22, 0.2, 12, 6
# the minimum fraction of a ruled line that is visible between the strokes that cross it; where it is thicker by
# the second factor, a stroke lies along it
COVERED, ALONG = 0.65, 1.6
# minimum length of a box's lines, as a fraction of its side, and of its vertical lines, as a fraction of the
# longest of them
SPANS, SIDES = 0.7, 0.85
# maximum length of a digit's stroke, relative to the digit's height
LONGER = 1.5
# maximum length in pixels of the gap that a stroke leaves in a ruled line
GAP = 2 * MIN_RULE + 1
# a component with this fraction of its pixels along a ruled line is a remnant of the line
REMNANT = 0.85
# the slopes of ruled lines, and how far one may bend, as a fraction of its length
SLOPES, BEND = np.arange(-0.2, 0.205, 0.01), 0.006
# maximum number of ruled lines in a picture, and of lines that are connected by strokes
MOST_RUNS, MOST_ON_RUN = 150, 3


def find_ink(grey: np.ndarray) -> np.ndarray | None:
    """How much each pixel is ink, float32 (height, width) in [0, 1]. None if there is no ink.

    grey: uint8 (height, width).
    """
    departs = _departs(cv2.GaussianBlur(grey, (3, 3), 0) if min(grey.shape) > 60 else grey)
    ink = _strength(departs)
    return None if ink is None else without_rules(ink)


def _departs(grey: np.ndarray) -> np.ndarray:
    """How much darker or brighter than its background each pixel is, whichever the ink is, uint8."""
    # a page of small boxes is an even grey if it is reduced more
    small = shrink(grey, max(GROUND_SIZE, max(grey.shape) // 3))
    smooth = cv2.medianBlur(small, 3)
    size = grey.shape[1], grey.shape[0]
    plane = _even_ground(smooth)
    if plane is not None:
        ground = np.clip(cv2.resize(plane, size), 0, 255).astype(np.uint8)
        dark, bright = cv2.subtract(ground, grey), cv2.subtract(grey, ground)
        return dark if cv2.norm(dark) > cv2.norm(bright) else bright
    window = int(STROKE * max(small.shape)) | 1
    kernel = np.ones((window, window), np.uint8)
    # ink is less than the paper near it, and thinner than the paper within it
    paper, thin = cv2.medianBlur(smooth, window), np.ones((max(3, window // 3),) * 2, np.uint8)
    darker = cv2.norm(cv2.subtract(paper, smooth)) * cv2.norm(
        cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, thin)
    )
    brighter = cv2.norm(cv2.subtract(smooth, paper)) * cv2.norm(
        cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, thin)
    )
    if darker >= brighter:
        return cv2.subtract(cv2.resize(cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, kernel), size), grey)
    return cv2.subtract(grey, cv2.resize(cv2.morphologyEx(smooth, cv2.MORPH_OPEN, kernel), size))


def _even_ground(grey: np.ndarray) -> np.ndarray | None:
    """The plane of a picture's background, float32 like `grey`. None if the background is not a plane, or if
    comparing thin strokes with their surroundings works better."""
    slope, level = fit_background(grey)
    plane = slope + np.float32(level)
    away = np.abs(grey - plane)
    strong = float(np.percentile(away, 99.5))
    full, some = away > 0.6 * strong, away > EVEN * strong
    if strong < MIN_CONTRAST or some.mean() > MOST_INK or some.sum() > 2 * full.sum():
        return None
    border = np.concatenate([some[0], some[-1], some[:, 0], some[:, -1]])
    _, boxes, areas = components(full)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    ground = (areas > GROUND_FILL * width * height) & (
        np.maximum(width, height) > MIN_GROUND * max(grey.shape)
    )
    return None if border.mean() > MAX_BORDER or ground.any() else plane


def _strength(departs: np.ndarray) -> np.ndarray | None:
    """`departs`, uint8, scaled so that paper's noise is 0 and ink 1, by what is strong nearby."""
    counts = cv2.calcHist([departs], [0], None, [256], [0, 256]).ravel()
    strong = 255 - int(np.searchsorted(np.cumsum(counts[::-1]), max(4, departs.size // 16_000)))
    paper = np.cumsum(counts[: max(1, strong // 2)])
    middle, upper = np.searchsorted(paper, (paper[-1] * 0.5, paper[-1] * 0.75)).tolist()
    noise = 1.5 * (upper - middle)
    if strong < max(MIN_CONTRAST, middle + 4 * noise):
        return None
    low = min(middle + 2 * noise, 0.4 * strong)
    # a pencil beside a marker is judged by itself
    size = departs.shape[1], departs.shape[0]
    step = max(1, max(departs.shape) // 100)
    few = cv2.dilate(departs, np.ones((step, step), np.uint8))[step // 2 :: step, step // 2 :: step]
    near = cv2.GaussianBlur(cv2.dilate(few, np.ones((5, 5), np.uint8)), (5, 5), 0)
    near = np.maximum(near, max(MIN_CONTRAST, low + 3 * noise, 0.25 * strong)).astype(np.float32)
    scale = cv2.resize(1 / (0.8 * near - low * 0.8), size)
    return np.clip((departs - np.float32(low)) * scale, 0, 1)


def without_rules(ink: np.ndarray) -> np.ndarray:
    """Remove ruled lines and boxes, which are straight and thin, from the ink, except where strokes cross them.

    This is similar to removing staff lines from sheet music by their vertical runs (Dalitz et al. 2008,
    doi:10.1109/TPAMI.2007.70749).
    """
    mask = (ink > INK).astype(np.uint8)
    lying, standing = _rules(mask)
    rules = lying | standing
    if not rules.any():
        return ink
    # restore strokes that cross a line, also slanted ones; not for boxes, which are seldom crossed, because parts
    # of their corners would be restored too
    if not standing.any():
        across = int(2 * cv2.distanceTransform(rules, cv2.DIST_C, 3).max()) + 3
        wider = cv2.dilate(mask - rules, np.ones((1, across), np.uint8))
        rules -= rules & cv2.morphologyEx(wider, cv2.MORPH_CLOSE, np.ones((across, 1), np.uint8))
    # remove the remnants of ruled lines beside strokes that touch them, and what is visible of faint lines
    faint = _rules((ink > FAINT).astype(np.uint8))
    level, upright = (
        cv2.dilate(one | other, np.ones((5, 5), np.uint8))
        for one, other in zip((lying, standing), faint, strict=True)
    )
    level = cv2.morphologyEx(level, cv2.MORPH_CLOSE, np.ones((1, GAP), np.uint8))
    upright = cv2.morphologyEx(upright, cv2.MORPH_CLOSE, np.ones((GAP, 1), np.uint8))
    along = cv2.bitwise_or(level, upright)
    labels, _, areas = components(mask - rules)
    within = np.bincount(labels[along == 1], minlength=len(areas) + 1)[1:]
    remnants = np.concatenate([[False], within > REMNANT * areas])
    rules |= remnants[labels].astype(np.uint8)
    # remove the faint edges of ruled lines, but keep those of the remaining strokes
    rim = cv2.dilate(rules, np.ones((5, 5), np.uint8))
    strokes = np.minimum(cv2.dilate(mask - rules, np.ones((3, 3), np.uint8)), 1 - rules)
    return np.where((rim == 1) & (strokes == 0), np.float32(0), ink)


class _Segment(NamedTuple):
    """A straight, thin line of ink: its pixels, its length, whether it is horizontal, and its place, which is its
    mean y if it is horizontal, and otherwise its mean x."""

    y: np.ndarray
    x: np.ndarray
    length: int
    level: bool
    place: float

    @property
    def slender(self) -> float:
        """The length as a multiple of the thickness."""
        return self.length**2 / len(self.x)


def _segment(y: np.ndarray, x: np.ndarray, length: int, level: bool) -> _Segment:
    return _Segment(y, x, length, level, float((y if level else x).mean()))


def _rules(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a mask, uint8 (height, width), that belong to horizontal and to vertical ruled lines, each
    uint8."""
    out = np.zeros_like(mask), np.zeros_like(mask)
    # without the lines that were found
    level_left, upright_left = mask.copy(), np.ascontiguousarray(mask.T)
    runs: list[tuple[np.ndarray, np.ndarray, int, bool]] = []
    for thick in THICKNESSES:
        if thick <= max(THICKNESSES[0], THICKEST * min(mask.shape)):
            for y, x, length in _level_runs(level_left, thick):
                level_left[y, x] = 0
                runs.append((y, x, length, True))
            for x, y, length in _level_runs(upright_left, thick):
                upright_left[x, y] = 0
                runs.append((y, x, length, False))
    if not runs:
        return out
    labels, boxes, _ = components(mask)
    height, width = mask.shape
    by_component: dict[int, list[_Segment]] = defaultdict(list)
    for y, x, length, level in runs:
        on = labels[y, x]
        parts = np.bincount(on)
        whole = int(parts.argmax())
        by_component[whole - 1].append(_segment(y, x, length, level))
        # adjacent boxes have sides on the same line
        for component in np.flatnonzero(parts >= MIN_RULE).tolist():
            if component != whole:
                own = on == component
                along = x[own] if level else y[own]
                part = _segment(y[own], x[own], int(np.ptp(along)) + 1, level)
                by_component[component - 1].append(part)
    for component, found in by_component.items():
        left, top, right, bottom = boxes[component].tolist()
        # a 1 may be nearly as high as its box
        longest = max((each.length for each in found if not each.level), default=0)
        high = max(SPANS * (bottom - top), SIDES * longest)
        sides = [
            [each for each in found if each.level == level and each.length >= least]
            for level, least in ((True, SPANS * (right - left)), (False, high))
        ]
        is_box = all(_apart(side) for side in sides)
        alone = min(LONGER * (bottom - top), 0.95 * width)
        lying = [
            each
            for each in found
            if each.level and ((each.length > alone and each.slender > SLENDER) or _apart(sides[0]))
        ]
        # a vertical line may be a 1, so it must go from one horizontal line to another, or from the border to one
        between = _apart(lying)
        least = high if between else RULE * max(height, width)
        meets = bool(lying) or top <= 2 or bottom >= height - 2
        slender = STOUT if between else SLENDER
        standing = [
            each
            for each in found
            if not each.level and each.length >= least and meets and each.slender > slender
        ]
        for each in (*lying, *standing, *(sides[0] + sides[1] if is_box else ())):
            out[0 if each.level else 1][each.y, each.x] = 1
    return out


def _apart(segments: list[_Segment]) -> bool:
    """Whether there are at least two lines, and not the same one twice."""
    places = [each.place for each in segments]
    return bool(places) and max(places) - min(places) > MIN_RULE / 2


def _level_runs(mask: np.ndarray, thick: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """The straight horizontal lines that are up to `thick` pixels thick: their pixels (y, x) and their lengths."""
    thin = mask - cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((thick + 1, 1), np.uint8))
    found = components(cv2.morphologyEx(thin, cv2.MORPH_CLOSE, np.ones((3, 4 * thick), np.uint8)))
    lengths = found.boxes[:, 2] - found.boxes[:, 0]
    out = []
    for i in np.argsort(-lengths)[:MOST_RUNS]:
        left, top, right, bottom = found.boxes[i]
        if lengths[i] < MIN_RULE:
            break
        if bottom - top > lengths[i]:
            continue
        y, x = np.nonzero(thin[top:bottom, left:right] & (found.labels[top:bottom, left:right] == i + 1))
        # strokes may connect it with other lines
        for _ in range(MOST_ON_RUN):
            on, rest = _straight(y, x)
            if not on.any():
                break
            out.append((y[on] + top, x[on] + left, int(np.ptp(x[on])) + 1))
            y, x = y[rest], x[rest]
    return out


def _straight(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of these pixels belong to the longest straight line, and which don't, both bool. None belong to it if
    it is not a ruled line."""
    none = np.zeros(len(x), bool)
    if not len(x) or np.ptp(x) < MIN_RULE:
        return none, none
    # find the line through most pixels with a Hough transform, and fit it to these pixels
    few = slice(None, None, 1 + len(x) // 400)
    across = np.round((y[few][None] - SLOPES[:, None] * x[few][None]) / 2).astype(int)
    across -= across.min()
    counts = np.array([np.bincount(row, minlength=across.max() + 1) for row in across])
    slope, place = np.unravel_index(counts.argmax(), counts.shape)
    first = np.flatnonzero(across[slope] == place)[0]
    near = np.abs(y - y[few][first] - SLOPES[slope] * (x - x[few][first])) <= 3
    for _ in range(2):
        if np.ptp(x[near]) < MIN_RULE:
            return none, none
        right, down = x[near] - x[near].mean(), y[near] - y[near].mean()
        slant = (right @ down) / (right @ right)
        away = np.abs(y - y[near].mean() - slant * (x - x[near].mean()))
        thickness = near.sum() / np.count_nonzero(np.bincount(x[near]))
        tolerance = max(1.5, 0.75 * thickness + 1, BEND * np.ptp(x[near]))
        near = away <= tolerance
    # leave out places where a stroke continues beyond the line
    length = np.ptp(x[near]) + 1
    beyond = np.zeros(x.max() + 1, bool)
    beyond[x[~near & (away <= tolerance + 1.5)]] = True
    # and places where a stroke lies along it
    columns = np.bincount(x[near], minlength=len(beyond))
    beyond |= columns > ALONG * np.median(columns[columns > 0]) + 1
    near &= ~beyond[x]
    seen = np.zeros(x.max() + 1, bool)
    seen[x[near]] = True
    covered = np.count_nonzero(seen)
    is_rule = thickness * STOUT <= length and length >= MIN_RULE and covered >= COVERED * length
    return (near if is_rule else none), away > tolerance + 1.5
