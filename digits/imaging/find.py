"""Finds a digit's ink in a picture. What clearly stands out from the background is taken (`_plain`).
Otherwise, as on a sheet in front of something, in the light and shadow of a photograph, or among lines, `locate`
says where the digit is, and ink is what is thin there (`_inside`): shadows and the edges of paper are not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from digits.imaging.ink import MIN_CONTRAST, from_border, scaled

# left, top, right, bottom in pixels
Box = tuple[float, float, float, float]
# gives the box of the digit in a picture, uint8 (height, width), or None
Locate = Callable[[np.ndarray], Box | None]

# pixels of the longer side at which a digit is examined: four for each pixel of the network's input
WORK_SIZE = 112
# the same for large pictures, in which the digit has to be found first
FIRST_SIZE = 480
# thresholds of an ink map for components, which blurred edges must not connect, and for the digit's box, which
# includes faint ends
PART, EDGE = 0.3, 0.25
# components smaller than this fraction of the largest one's area are specks
MIN_AREA = 0.06
# pictures up to this number of pixels are taken for a digit without a margin
NATIVE = 32
# a component that is larger than this fraction of both sides, or touches the border, may be a frame
FRAME = 0.84
# in a plain picture, ink is this dark on average, since light and shadow are paler, and the root of the largest
# component's area is at most this fraction of its longer side, since sheets of paper are solid
MIN_DARK, MAX_AREA = 0.6, 0.7
# what is examined around a digit's box, how far the digit may reach beyond it, and the maximum width of strokes,
# as fractions of its longer side
AROUND, GROW, THICK_STROKE = 0.4, 0.1, 0.5


def find_digit(grey: np.ndarray, locate: Locate | None = None) -> np.ndarray | None:
    """The digit's ink, float32 in [0, 1], cropped to its box. None if there is no digit.

    Args:
        grey: uint8 (height, width) of any size.
        locate: where a digit is that does not stand out clearly, which may be called once; without it, or if it
            finds none, everything that differs from the background is taken.
    """
    strength, plain = _plain(grey)
    if plain and strength is not None:
        scale = max(grey.shape) / max(strength.shape)
        left, top, right, bottom = (side * scale for side in ink_box(strength))
        if scale > 1 and max(right - left, bottom - top) < WORK_SIZE / 2 * scale:
            # examine a small digit in a large picture with more pixels
            closer, plain = _plain(_around(grey, (left, top, right, bottom))[0])
            strength = strength if closer is None else closer
    if not plain and locate is not None and np.ptp(grey) >= MIN_CONTRAST and (box := locate(grey)):
        inside = _inside(grey, box)
        strength = strength if inside is None else inside
    if strength is None:
        return None
    left, top, right, bottom = ink_box(strength)
    return strength[top:bottom, left:right]


def _plain(grey: np.ndarray) -> tuple[np.ndarray | None, bool]:
    """The ink of a picture without specks, and whether it clearly stands out. Several parts are kept together, so
    that the network can tell that they are no digit."""
    strength = from_border(shrink(grey, FIRST_SIZE if max(grey.shape) > 4 * WORK_SIZE else WORK_SIZE))
    if strength is None:
        return None, False
    mask = (strength > PART).astype(np.uint8)
    labels, stats = _components(mask)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = areas >= MIN_AREA * areas.max(initial=1)
    if not kept.any():
        return None, False
    ends, sides = stats[kept, :2] + stats[kept, 2:4], mask.shape[::-1]
    frame = (
        stats[kept, :2].min() == 0
        or (ends == sides).any()
        or (stats[kept, 2:4] > np.multiply(FRAME, sides)).all(1).any()
    )
    solid = areas.max() > (MAX_AREA * stats[areas.argmax(), 2:4].max()) ** 2
    plain = not frame and not solid and cv2.mean(strength, mask)[0] >= MIN_DARK
    return _only(strength, labels, kept), plain or max(grey.shape) <= NATIVE


def _inside(grey: np.ndarray, box: Box) -> np.ndarray | None:
    """The ink of the digit in a box. None if there is none.

    Paper is the median of the surroundings, and ink is darker or brighter, whichever differs more. It is thinner
    than shadows: dark ink is what a closing fills, and bright ink what it fills in the negative (top-hat; Serra
    1982, "Image Analysis and Mathematical Morphology").
    """
    part, (left, top, right, bottom) = _around(grey, box)
    small = shrink(part, WORK_SIZE)
    scale = max(small.shape) / max(part.shape)
    rows, columns = slice(int(top * scale), int(bottom * scale)), slice(int(left * scale), int(right * scale))
    size = max(bottom - top, right - left) * scale
    smooth, paper = cv2.medianBlur(small, 3), cv2.medianBlur(small, int(size) | 1)
    dark, bright = (
        cv2.norm(np.ascontiguousarray(departs[rows, columns]))
        for departs in (cv2.subtract(paper, smooth), cv2.subtract(smooth, paper))
    )
    if bright > dark:
        small, smooth = cv2.bitwise_not(small), cv2.bitwise_not(smooth)
    kernel = np.ones((max(3, int(THICK_STROKE * size) | 1),) * 2, np.uint8)
    strength = scaled(cv2.subtract(cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, kernel), small))
    if strength is None:
        return None
    # lines that go on further are cut off
    grow, near = int(GROW * size), np.zeros_like(small)
    near[max(0, rows.start - grow) : rows.stop + grow, max(0, columns.start - grow) : columns.stop + grow] = 1
    labels, stats = _components((strength > PART).astype(np.uint8) * near)
    inside = np.bincount(labels[rows, columns].ravel(), minlength=len(stats) + 1)[1:]
    if not inside.any():
        return None
    kept = (inside > stats[:, cv2.CC_STAT_AREA] / 2) & (inside >= MIN_AREA * inside.max())
    return _only(strength, labels, kept if kept.any() else inside == inside.max())


def _around(grey: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
    """The part of a picture in and around a box, and the box in it."""
    left, top, right, bottom = box
    margin = AROUND * max(right - left, bottom - top)
    x, y = max(0, int(left - margin)), max(0, int(top - margin))
    part = grey[y : int(bottom + margin) + 1, x : int(right + margin) + 1]
    return part, (max(0, left - x), max(0, top - y), right - x, bottom - y)


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected components (8 neighbours) of a mask, uint8 (height, width): labels from 1, uint16 (height,
    width), and the left, top, width, height and area of each, int32 (n, 5)."""
    # 16-bit labels take half the time, and suffice for less than 2^18 pixels
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_16U)
    return labels, stats[1:]


def _only(strength: np.ndarray, labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """An ink map with nothing but the components that are kept and their faint edges."""
    mask = np.append(False, kept)[labels].astype(np.uint8)
    return cv2.copyTo(strength, cv2.dilate(mask, np.ones((5, 5), np.uint8)))


def ink_box(strength: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the ink."""
    x, y, width, height = cv2.boundingRect((strength > EDGE).astype(np.uint8))
    return x, y, x + width, y + height


def shrink(grey: np.ndarray, longest: int) -> np.ndarray:
    """Reduce a picture, uint8, so that its longer side has at most `longest` pixels."""
    height, width = grey.shape
    ratio = longest / max(height, width)
    if ratio >= 1:
        return grey
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    # averages of whole pixels are much faster than of parts of pixels, and so is the rest, which at most halves it
    if (times := int(1 / ratio)) > 1 and min(height, width) >= times:
        whole = grey[: height // times * times, : width // times * times]
        grey = cv2.resize(whole, (width // times, height // times), interpolation=cv2.INTER_AREA)
    return cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR)
