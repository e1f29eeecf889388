"""Separates the digit's ink from the background. The background consists of a plane that is fitted along the
picture's border, for soft shadows, and of everything too wide for a stroke, for hard shadows and sheets of paper.
Pixels that differ from both are ink (`ink`). Connected components of ink are kept or dropped by size and place
(`pick_digit`). A surface with writing on it is examined alone, and so is the place of a small digit
(`find_digit`)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

# there already is a worker process for each CPU, so OpenCV's threads would only compete
cv2.setNumThreads(1)

# pixels of the longer side at which a digit is examined, more than four for each pixel of the network's input
WORK_SIZE = 128
# the same for large pictures, in which the digit has to be found first
FIRST_SIZE = 480
# minimum contrast of writing, of 255
MIN_CONTRAST = 14
# maximum stroke width, as a fraction of the picture's longer side; a digit that fills the picture and is drawn
# with a marker is this wide where strokes meet
WIDE_STROKE = 0.6
# the same for a digit on an uneven background, which must be small for the background to be visible
NARROW_STROKE = 0.08
# threshold of an ink map for components, which must not be connected by blurred edges
INK = 0.3
# the same for the digit's box, which includes faint ends
EDGE = 0.25
# components smaller than this fraction of the largest one's area are specks
MIN_AREA = 0.06
# minimum size of the digit, as a fraction of the picture's side
MIN_DIGIT = 0.06
# minimum size of a frame, which need not touch the border
FRAME = 0.84
# a frame is within a 7th of the picture's size from the border; the ring of a round 0 that touches all sides is
# not, because its distance from the corners is 0.146 of the sides
FRAME_MARGIN = 7
# the lines of a table may be further inside, if they surround a component larger than this fraction of the
# picture, which a dot in a 0 is not
TABLE_MARGIN = 4
MIN_IN_TABLE = 0.36
# maximum thickness of a ruled line as a fraction of the shorter side, and relative to the strokes
MAX_RULE = 0.04
THINNER = 0.7
# a component inside has at least this distance from the border, as a fraction of the picture's sides
MARGIN = 0.08
# maximum fraction of ink on the border; if there is more, it is light and shadow in a photograph
MAX_BORDER = 0.25
# a component that fills more than this fraction of its box, and is larger than MIN_GROUND, may be a surface with
# writing on it, such as a sheet of paper; a thick 8 fills as much, but its holes are smaller than MIN_WRITTEN
GROUND_FILL = 0.72
MIN_GROUND = 0.25
MIN_WRITTEN = 0.4

# the lines of a cell, which may be cut and slanted, are within this fraction of its side
CELL_RIM = 0.08
# minimum fraction of paper on the border inside these lines
MIN_PAPER = 0.8
# minimum size of a digit in a cell, as a fraction of the cell's side
MIN_IN_CELL = 0.25

LEVELS = np.arange(256, dtype=np.float32)


class Components(NamedTuple):
    """Connected components (8 neighbours).

    labels: uint16 or int32 (height, width), 0 for the background. boxes: int32 (n, 4): left, top, right, bottom.
    areas: int32 (n,), in pixels. Row i of boxes and areas belongs to label i + 1.
    """

    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


def components(mask: np.ndarray) -> Components:
    """The components of a mask, bool or uint8 (height, width)."""
    # 16-bit labels take half the time; they suffice if the mask has less than 2^18 pixels
    kind = cv2.CV_16U if mask.size < 1 << 18 else cv2.CV_32S
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8, ltype=kind)
    left, top, width, height, areas = stats[1:].T
    return Components(labels, np.stack([left, top, left + width, top + height], 1), areas)


def fit_background(grey: np.ndarray) -> tuple[np.ndarray, int]:
    """Fit a plane to the brightness along the border of `grey`, uint8 (height, width). Returns its slope, float32
    (height, width), which is 0 in the middle, and its level there, 0 to 255.

    The least median of squares (Rousseeuw 1984, doi:10.1080/01621459.1984.10477105) tolerates ink on nearly half
    of the border. More ink than that on the border is rare, even in a tight crop.
    """
    height, width = grey.shape
    step = max(1, max(height, width) // 24)
    # places (x, y) along the four sides
    x, y = np.arange(0, width, step, dtype=np.float32), np.arange(0, height, step, dtype=np.float32)
    places = np.zeros((2 * (x.size + y.size), 2), np.float32)
    places[: x.size, 0] = places[x.size : 2 * x.size, 0] = x
    places[x.size : 2 * x.size, 1] = height - 1
    places[2 * x.size : -y.size, 1] = places[-y.size :, 1] = y
    places[-y.size :, 0] = width - 1
    levels = np.concatenate([grey[0, ::step], grey[-1, ::step], grey[::step, 0], grey[::step, -1]])
    # OpenCV fits affine maps robustly, so fit the map that moves each place aside by its brightness
    moved = places.copy()
    moved[:, 0] += levels
    fit, _ = cv2.estimateAffine2D(places, moved, method=cv2.LMEDS)
    if fit is None:
        return np.zeros(grey.shape, np.float32), int(np.median(levels))
    a, b, c = (fit[0] - (1, 0, 0)).tolist()
    across = (np.arange(width, dtype=np.float32) - np.float32(width / 2)) * np.float32(a)
    down = (np.arange(height, dtype=np.float32) - np.float32(height / 2)) * np.float32(b)
    level = round(min(max(c + a * width / 2 + b * height / 2, 0), 255))
    return down[:, None] + across, level


def ink(grey: np.ndarray, max_stroke: float = WIDE_STROKE, flat: bool = True) -> np.ndarray | None:
    """How much each pixel is ink, float32 (height, width) in [0, 1]. None if there is no writing.

    grey: uint8 (height, width). max_stroke: maximum stroke width, as a fraction of the longer side. flat: whether
    the light is even. If so, ink is darker or brighter than the border's plane, whichever differs more from it,
    else whichever has more thin strokes. Dark ink is what a closing fills (black top-hat; Serra 1982, "Image
    Analysis and Mathematical Morphology"), and bright ink what it fills in the negative.
    """
    kernel = np.ones((int(max_stroke * max(grey.shape)) | 1,) * 2, np.uint8)
    level = 0
    if flat:
        slope, level = fit_background(cv2.medianBlur(grey, 3))
        grey = cv2.subtract(grey, slope, dtype=cv2.CV_8U)
        levels = np.full_like(grey, level)
        dark, bright = cv2.subtract(levels, grey), cv2.subtract(grey, levels)
    else:
        # strokes are thinner than the gaps between them, or between them and a shadow's edge
        smooth, thin = cv2.medianBlur(grey, 3), kernel[::2, ::2]
        dark = cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, thin)
        bright = cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, thin)
    if cv2.norm(bright) > cv2.norm(dark):
        grey, level = cv2.bitwise_not(grey), 255 - level
    # the median keeps a noisy pixel from changing its surroundings; outside the border, assume paper
    background = cv2.dilate(
        cv2.medianBlur(grey, 3), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=level
    )
    background = cv2.erode(background, kernel)
    return _strength(cv2.subtract(background, grey))


def _strength(departs: np.ndarray) -> np.ndarray | None:
    """Scale the differences from the background, uint8, so that the paper's noise is 0 and ink is 1."""
    counts = cv2.calcHist([departs], [0], None, [256], [0, 256]).ravel()
    # use the few pixels that differ most, because a single one may be a scratch
    few = max(4, departs.size // 16_000)
    strong = 255 - int(np.searchsorted(np.cumsum(counts[::-1]), few))
    # estimate the noise from the paper only, because a tight crop is mostly ink
    paper = np.cumsum(counts[: max(1, strong // 2)])
    noise = int(np.searchsorted(paper, paper[-1] / 2))
    if strong < max(MIN_CONTRAST, 5 * noise):
        return None
    low = max(0.12 * strong, min(2.5 * noise, 0.4 * strong))
    table = np.clip((LEVELS - np.float32(low)) * np.float32(1 / (0.85 * strong - low)), 0, 1)
    return cv2.LUT(departs, table)


class Found(NamedTuple):
    """The digit's ink in a picture.

    strength: float32 (height, width) in [0, 1], like the result of `ink`. box: left, top, right, bottom of the
    largest component. area: its area in pixels. share: its size as a fraction of the picture's side. clear:
    whether it does not touch the border. scale: the picture's size relative to that of `strength`. left, top:
    where `strength` begins in the picture, in the picture's pixels.
    """

    strength: np.ndarray
    box: list[int]
    area: int
    share: float
    clear: bool
    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def border(self) -> float:
        """The fraction of the picture's border that is ink."""
        ink_mask = self.strength > INK
        sides = ink_mask[0], ink_mask[-1], ink_mask[:, 0], ink_mask[:, -1]
        return float(np.concatenate(sides).mean())


def pick_digit(strength: np.ndarray | None, may_have_rules: bool = True) -> Found | None:
    """The digit in an ink map, float32 (height, width), without specks, frames and neighbours. None if there is no
    ink."""
    if strength is None:
        return None
    height, width = strength.shape
    mask = (strength > INK).astype(np.uint8)
    labels, boxes, areas = components(mask)
    if not areas.size:
        return None
    left, top, right, bottom = boxes.T
    share = np.maximum((right - left) / width, (bottom - top) / height)
    touches = (left == 0) | (top == 0) | (right == width) | (bottom == height)
    inside = np.minimum(left / width, top / height) > MARGIN
    inside &= np.maximum(right / width, bottom / height) < 1 - MARGIN
    inside &= share > MIN_DIGIT
    size = areas.copy()
    if areas.size > 1 and inside.any() and not inside.all():
        # unlike a frame and the lines of a table, a digit that fills its picture is also in the middle; unlike a
        # cut off neighbour, it is not smaller than the components inside
        part = TABLE_MARGIN if share[inside].max() > MIN_IN_TABLE else FRAME_MARGIN
        y, x = height // part, width // part
        aside = np.ones(areas.size + 1, bool)
        aside[labels[y : height - y, x : width - x]] = False
        frame = (touches | (share > FRAME)) & aside[1:]
        size[frame | (touches & (areas < areas[inside].max() / 2))] = 0
    main = int(size.argmax())
    spans = (left[main] == 0 and right[main] == width) or (top[main] == 0 and bottom[main] == height)
    if spans and may_have_rules and (rules := find_rules(mask)).any():
        return pick_digit(_without(strength, mask, rules), may_have_rules=False)
    drop = np.zeros(areas.size + 1, np.uint8)
    drop[1:] = size < MIN_AREA * size[main]
    if drop.any():
        strength = _without(strength, mask, drop[labels])
    return Found(strength, boxes[main].tolist(), int(areas[main]), float(share[main]), not touches[main])


def find_rules(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask, uint8 (height, width), that belong to ruled lines, also uint8.

    A ruled line is straight, goes from border to border, and is thinner than the remaining strokes. Where a stroke
    crosses it, the pixels belong to the stroke.
    """
    rules = np.zeros_like(mask)
    most = max(2, round(MAX_RULE * min(mask.shape)))
    # a vertical line is a horizontal one in the transposed picture
    for seen, out in ((mask, rules), (np.ascontiguousarray(mask.T), rules.T)):
        width = seen.shape[1]
        thin = seen - cv2.morphologyEx(seen, cv2.MORPH_OPEN, np.ones((most + 1, 1), np.uint8))
        # connect lines across the strokes that interrupt them
        joined = cv2.morphologyEx(thin, cv2.MORPH_CLOSE, np.ones((1, width // 3 | 1), np.uint8))
        labels, boxes, areas = components(joined)
        is_rule = np.zeros(areas.size + 1, bool)
        is_rule[1:] = (boxes[:, 0] <= 1) & (boxes[:, 2] >= width - 1)
        is_rule[1:] &= boxes[:, 3] - boxes[:, 1] <= 2 * most + width // 16
        out[is_rule[labels] & (thin == 1)] = 1
    strokes, lines = (cv2.distanceTransform(each, cv2.DIST_L1, 3).max() for each in (mask - rules, rules))
    return rules if lines <= THINNER * strokes else np.zeros_like(mask)


def _without(strength: np.ndarray, mask: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """Remove the pixels `drop` of the ink `mask`, both uint8 (height, width), from an ink map, together with
    their faint edges. The edges of the remaining ink are kept."""
    dropped = cv2.dilate(drop, np.ones((5, 5), np.uint8))
    kept = cv2.dilate(mask - drop, np.ones((3, 3), np.uint8))
    return np.where((dropped == 1) & (kept == 0), np.float32(0), strength)


def find_digit(grey: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float, float]] | None:
    """The digit's ink, float32 in [0, 1], cropped to its box, and the box in the picture's pixels: left, top,
    right, bottom. None if there is no digit.

    grey: uint8 (height, width) of any size.
    """
    found = _look(grey) or _look_in_cell(grey)
    if found is None:
        return None
    x, y, width, height = _ink_box(found.strength)
    left, top, scale = found.left, found.top, found.scale
    box = left + x * scale, top + y * scale, left + (x + width) * scale, top + (y + height) * scale
    return found.strength[y : y + height, x : x + width], box


def _look_in_cell(grey: np.ndarray) -> Found | None:
    """Find the digit in a cell of a form that was cut out along its lines, so that there is no paper on the
    border."""
    rim = int(CELL_RIM * min(grey.shape))
    cell = grey[rim : grey.shape[0] - rim, rim : grey.shape[1] - rim]
    border = np.concatenate([cell[0], cell[-1], cell[:, 0], cell[:, -1]]).astype(np.int16)
    if np.mean(np.abs(border - np.median(border)) <= MIN_CONTRAST) < MIN_PAPER:
        return None
    found = _look(cell)
    if found is None or not found.clear or found.share <= MIN_IN_CELL:
        return None
    return found._replace(left=found.left + rim, top=found.top + rim)


def _look(grey: np.ndarray) -> Found | None:
    small = shrink(grey, FIRST_SIZE if max(grey.shape) > 4 * WORK_SIZE else WORK_SIZE)
    found, flat = pick_digit(ink(small)), True
    # not for small pictures, because they may be crops, in which the digit may cover much of the border
    if max(small.shape) > WORK_SIZE and (found is None or found.border() > MAX_BORDER):
        uneven = pick_digit(ink(small, NARROW_STROKE, flat=False))
        if uneven is not None and uneven.clear:
            found, flat = uneven, False
    if found is None:
        return None
    scale = max(grey.shape) / max(small.shape)
    left, top, right, bottom = found.box
    longer = max(right - left, bottom - top)
    fill = found.area / ((right - left) * (bottom - top))
    if fill > GROUND_FILL and longer > MIN_GROUND * max(small.shape) and min(small.shape) > WORK_SIZE / 4:
        # leave out the edge of the surface
        inset = 0.03 * longer
        top, bottom = int((top + inset) * scale), int((bottom - inset) * scale)
        left, right = int((left + inset) * scale), int((right - inset) * scale)
        written = _look(grey[top:bottom, left:right]) if top < bottom and left < right else None
        if written is not None and written.border() < MAX_BORDER / 2 and written.share > MIN_WRITTEN:
            return written._replace(left=written.left + left, top=written.top + top)
    if scale > 1 and longer < WORK_SIZE / 2:
        closer = _look_closer(grey, found, scale, flat)
        if closer is not None:
            return closer
    return found._replace(scale=scale)


def _look_closer(grey: np.ndarray, found: Found, scale: float, flat: bool) -> Found | None:
    """Examine a small digit in a large picture with more pixels. scale: the picture's size relative to that in
    which the digit was found."""
    x, y, width, height = _ink_box(found.strength)
    margin = int(0.4 * max(width, height))
    rows = slice(max(0, y - margin), y + height + margin + 1)
    columns = slice(max(0, x - margin), x + width + margin + 1)
    top, left = int(rows.start * scale), int(columns.start * scale)
    part = grey[top : int(rows.stop * scale), left : int(columns.stop * scale)]
    strength = ink(shrink(part, WORK_SIZE), WIDE_STROKE if flat else WIDE_STROKE / 2, flat)
    if strength is None:
        return None
    # don't restore what was removed before, such as a frame around the digit
    seen = cv2.dilate((found.strength[rows, columns] > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    size = strength.shape[1], strength.shape[0]
    closer = pick_digit(strength * cv2.resize(seen, size, interpolation=cv2.INTER_NEAREST))
    if closer is None:
        return None
    return closer._replace(scale=max(part.shape) / max(strength.shape), left=left, top=top)


def _ink_box(strength: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of the ink."""
    x, y, width, height = cv2.boundingRect((strength > EDGE).astype(np.uint8))
    return x, y, width, height


def shrink(grey: np.ndarray, longest: int) -> np.ndarray:
    """Reduce a picture, uint8, so that its longer side has at most `longest` pixels."""
    height, width = grey.shape
    ratio = longest / max(height, width)
    if ratio >= 1:
        return grey
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    # the faster way uses every pixel if the picture is at most halved
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if ratio < 0.5 else cv2.INTER_LINEAR)
