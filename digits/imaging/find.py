"""Which of a picture's pixels are the digit's ink. The background is a plane along the picture's border, for a
soft shadow, and on it whatever is too wide for a stroke, for a shadow's hard edge or a sheet of paper; what
departs from both is ink (`ink`). Connected components of it are then kept or dropped by size and place
(`pick_digit`). A ground with writing on it is looked at by itself, and so is the place of a small digit
(`find_digit`)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

# a worker process a CPU: threads of OpenCV's own would only get in each other's way
cv2.setNumThreads(1)

# pixels of the longer side that a digit is looked at with: more than four for each that the network sees
WORK_SIZE = 128
# the same for large pictures, in which the digit has to be found first
FIRST_SIZE = 480
# of 255: what is fainter is no writing
MIN_CONTRAST = 14
# of the picture's longer side: a marker's digit that fills the picture has places this wide where strokes meet
WIDE_STROKE = 0.6
# the same for a digit on uneven ground, which has to be small for its ground to be seen
NARROW_STROKE = 0.08
# of an ink map: above it a pixel belongs to a component, which must not hang together by a blur
INK = 0.3
# the same for the box around the digit, whose faint ends count
EDGE = 0.25
# of the largest component's area: what is smaller is a speck
MIN_AREA = 0.06
# of the picture's side: a component clear of the border that is larger may be the digit
MIN_DIGIT = 0.06
# the same for a frame, which need not touch the border
FRAME = 0.84
# a frame keeps to this part, one in so many, of the picture; a round 0 that touches all sides does not, as
# its ring is 0.146 of the sides away from a corner
FRAME_MARGIN = 7
# a table's lines may be further in, around what is larger than this share of the picture: no dot in a 0 is
TABLE_MARGIN = 4
MIN_IN_TABLE = 0.36
# of the shorter side: a ruled line is no thicker, and is thinner than the strokes by at least this factor
MAX_RULE = 0.04
THINNER = 0.7
# of the picture's sides: a component with so much room around it does not touch the border
MARGIN = 0.08
# of the border: light and shade, not writing, lie along more of it in a photograph
MAX_BORDER = 0.25
# of its box: what fills more, and is larger than this share of the picture, is a ground with writing on it, as a
# sheet of paper; a thick 8 fills as much, but what is within it is smaller than MIN_WRITTEN of it
GROUND_FILL = 0.72
MIN_GROUND = 0.25
MIN_WRITTEN = 0.4

# of a cell's side: its lines, cut along and slanted, are within so much of it
CELL_RIM = 0.08
# of the border within them: so much of it is paper
MIN_PAPER = 0.8
# of the cell's side: what is smaller is no digit written in it
MIN_IN_CELL = 0.25

LEVELS = np.arange(256, dtype=np.float32)


class Components(NamedTuple):
    """Pixels that hang together (8 neighbours): label 0 is what is no ink.

    labels: uint16 or int32 (height, width). boxes: int32 (n, 4): left, top, right, bottom. areas: int32 (n,), in
    pixels. Row i of boxes and areas is of label i + 1.
    """

    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


def components(mask: np.ndarray) -> Components:
    """The components of a mask, bool or uint8 (height, width)."""
    # labels of 16 bits, where they must suffice (four pixels a component), take half the time
    kind = cv2.CV_16U if mask.size < 1 << 18 else cv2.CV_32S
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8, ltype=kind)
    left, top, width, height, areas = stats[1:].T
    return Components(labels, np.stack([left, top, left + width, top + height], 1), areas)


def fit_background(grey: np.ndarray) -> tuple[np.ndarray, int]:
    """The plane that most of the border of `grey` (uint8, height x width) lies on: its slope, float32 (height,
    width) and 0 in the middle, and its level there, 0 to 255.

    The least median of squares (Rousseeuw 1984, doi:10.1080/01621459.1984.10477105) bears ink on nearly half of
    the border; ink on more of it is rarer than ink on more than half of a tight crop.
    """
    height, width = grey.shape
    step = max(1, max(height, width) // 24)
    # the four sides, as places (x, y)
    x, y = np.arange(0, width, step, dtype=np.float32), np.arange(0, height, step, dtype=np.float32)
    places = np.zeros((2 * (x.size + y.size), 2), np.float32)
    places[: x.size, 0] = places[x.size : 2 * x.size, 0] = x
    places[x.size : 2 * x.size, 1] = height - 1
    places[2 * x.size : -y.size, 1] = places[-y.size :, 1] = y
    places[-y.size :, 0] = width - 1
    levels = np.concatenate([grey[0, ::step], grey[-1, ::step], grey[::step, 0], grey[::step, -1]])
    # OpenCV fits affine maps robustly: the plane is the one that moves each place aside by its brightness
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
    """How much each pixel is ink, float32 (height, width) in [0, 1]; None where there is no writing.

    grey: uint8 (height, width). max_stroke: of the longer side; what is wider is background. flat: the ground
    is evenly lit, and ink is on that side of the border's plane where more departs from it; else on the side
    with more of what is no wider than max_stroke. Dark ink is what a closing fills (black top-hat; Serra
    1982, "Image Analysis and Mathematical Morphology"), bright ink what it fills in the negative.
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
    # one noisy pixel must not raise its surroundings; ink on the border has paper beyond it
    background = cv2.dilate(
        cv2.medianBlur(grey, 3), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=level
    )
    background = cv2.erode(background, kernel)
    return _strength(cv2.subtract(background, grey))


def _strength(departs: np.ndarray) -> np.ndarray | None:
    """`departs`, uint8, scaled so that paper's noise is 0 and ink 1."""
    counts = cv2.calcHist([departs], [0], None, [256], [0, 256]).ravel()
    # of the few pixels that depart most, not of the one that a scratch may be
    few = max(4, departs.size // 16_000)
    strong = 255 - int(np.searchsorted(np.cumsum(counts[::-1]), few))
    # told by what is paper, as a tight crop is mostly ink
    paper = np.cumsum(counts[: max(1, strong // 2)])
    noise = int(np.searchsorted(paper, paper[-1] / 2))
    if strong < max(MIN_CONTRAST, 5 * noise):
        return None
    low = max(0.12 * strong, min(2.5 * noise, 0.4 * strong))
    table = np.clip((LEVELS - np.float32(low)) * np.float32(1 / (0.85 * strong - low)), 0, 1)
    return cv2.LUT(departs, table)


class Found(NamedTuple):
    """A picture's ink without what is not the digit.

    strength: float32 (height, width) in [0, 1], as `ink`. box: left, top, right, bottom of the largest component.
    area: its pixels. share: its longer side's of the picture's same side. clear: it keeps off the border.
    """

    strength: np.ndarray
    box: list[int]
    area: int
    share: float
    clear: bool

    def border(self) -> float:
        """How much of the picture's border is ink, 0 to 1."""
        ink_mask = self.strength > INK
        sides = ink_mask[0], ink_mask[-1], ink_mask[:, 0], ink_mask[:, -1]
        return float(np.concatenate(sides).mean())


def pick_digit(strength: np.ndarray | None, may_have_rules: bool = True) -> Found | None:
    """The digit among what an ink map (float32, height x width) shows, without specks, frames and neighbours; None
    where nothing is ink."""
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
        # a digit that fills its picture is within it, which a frame and a table's lines are not, and is no smaller
        # than what lies inside, as a neighbour that is cut off is
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
    """Which pixels of a mask, uint8 (height, width), are of ruled lines, uint8 too.

    A ruled line is straight, goes from border to border, and is thinner than the strokes that are left without
    it. Where a stroke crosses it, its pixels are the stroke's.
    """
    rules = np.zeros_like(mask)
    most = max(2, round(MAX_RULE * min(mask.shape)))
    # an upright line is a level one of the picture turned
    for seen, out in ((mask, rules), (np.ascontiguousarray(mask.T), rules.T)):
        width = seen.shape[1]
        thin = seen - cv2.morphologyEx(seen, cv2.MORPH_OPEN, np.ones((most + 1, 1), np.uint8))
        # what a stroke interrupts hangs together again
        joined = cv2.morphologyEx(thin, cv2.MORPH_CLOSE, np.ones((1, width // 3 | 1), np.uint8))
        labels, boxes, areas = components(joined)
        is_rule = np.zeros(areas.size + 1, bool)
        is_rule[1:] = (boxes[:, 0] <= 1) & (boxes[:, 2] >= width - 1)
        is_rule[1:] &= boxes[:, 3] - boxes[:, 1] <= 2 * most + width // 16
        out[is_rule[labels] & (thin == 1)] = 1
    strokes, lines = (cv2.distanceTransform(each, cv2.DIST_L1, 3).max() for each in (mask - rules, rules))
    return rules if lines <= THINNER * strokes else np.zeros_like(mask)


def _without(strength: np.ndarray, mask: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """An ink map without the pixels `drop`, of those of its ink, `mask`: both uint8 (height, width). Their faint
    rims go with them, the rims of what stays do not."""
    dropped = cv2.dilate(drop, np.ones((5, 5), np.uint8))
    kept = cv2.dilate(mask - drop, np.ones((3, 3), np.uint8))
    return np.where((dropped == 1) & (kept == 0), np.float32(0), strength)


def find_digit(grey: np.ndarray) -> np.ndarray | None:
    """The digit's ink, float32 in [0, 1], cropped to its box; None where there is none.

    grey: uint8 (height, width) of any size.
    """
    found = _look(grey) or _look_in_cell(grey)
    if found is None:
        return None
    x, y, width, height = _ink_box(found.strength)
    return found.strength[y : y + height, x : x + width]


def _look_in_cell(grey: np.ndarray) -> Found | None:
    """What is in a form's cell that was cut out along its lines: on its border is no paper to tell ink from."""
    rim = int(CELL_RIM * min(grey.shape))
    cell = grey[rim : grey.shape[0] - rim, rim : grey.shape[1] - rim]
    border = np.concatenate([cell[0], cell[-1], cell[:, 0], cell[:, -1]]).astype(np.int16)
    if np.mean(np.abs(border - np.median(border)) <= MIN_CONTRAST) < MIN_PAPER:
        return None
    found = _look(cell)
    return found if found is not None and found.clear and found.share > MIN_IN_CELL else None


def _look(grey: np.ndarray) -> Found | None:
    small = shrink(grey, FIRST_SIZE if max(grey.shape) > 4 * WORK_SIZE else WORK_SIZE)
    found, flat = pick_digit(ink(small)), True
    # small pictures are crops, and a crop's digit may be on much of its border
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
        # what is seen of a ground's edge is neither the one nor the other
        inset = 0.03 * longer
        top, bottom = int((top + inset) * scale), int((bottom - inset) * scale)
        left, right = int((left + inset) * scale), int((right - inset) * scale)
        written = _look(grey[top:bottom, left:right]) if top < bottom and left < right else None
        if written is not None and written.border() < MAX_BORDER / 2 and written.share > MIN_WRITTEN:
            return written
    if scale > 1 and longer < WORK_SIZE / 2:
        return _look_closer(grey, found, scale, flat)
    return found


def _look_closer(grey: np.ndarray, found: Found, scale: float, flat: bool) -> Found:
    """A small digit in a large picture, `scale` times as large as it was found in, seen with more pixels."""
    x, y, width, height = _ink_box(found.strength)
    margin = int(0.4 * max(width, height))
    rows = slice(max(0, y - margin), y + height + margin + 1)
    columns = slice(max(0, x - margin), x + width + margin + 1)
    part = grey[
        int(rows.start * scale) : int(rows.stop * scale),
        int(columns.start * scale) : int(columns.stop * scale),
    ]
    strength = ink(shrink(part, WORK_SIZE), WIDE_STROKE if flat else WIDE_STROKE / 2, flat)
    if strength is None:
        return found
    # what the first look took away, as a frame around the digit, stays away
    seen = cv2.dilate((found.strength[rows, columns] > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    size = strength.shape[1], strength.shape[0]
    return pick_digit(strength * cv2.resize(seen, size, interpolation=cv2.INTER_NEAREST)) or found


def _ink_box(strength: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width, height of what is ink."""
    x, y, width, height = cv2.boundingRect((strength > EDGE).astype(np.uint8))
    return x, y, width, height


def shrink(grey: np.ndarray, longest: int) -> np.ndarray:
    """The picture with its longer side at most `longest` pixels, uint8 like it."""
    height, width = grey.shape
    ratio = longest / max(height, width)
    if ratio >= 1:
        return grey
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    # down to a half, no pixel is left out by the faster way
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if ratio < 0.5 else cv2.INTER_LINEAR)
