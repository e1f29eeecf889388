"""Outliers: images in MNIST's format that show no digit. The network trains with them, so that it is unsure about
images other than digits (outlier exposure: Hendrycks, Mazeika and Dietterich 2019, arXiv:1812.04606). They are
made from MNIST's training images and from the pictures of digits/training/drawings.py, and only depend on the
seed. Three fifths are prepared as in the service, and the others are scaled as clients that send pixels would do.

There are no katakana and no photographs among them, so that `make eval` can measure the answers to images of
unknown kinds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np

from digits.imaging import PictureError, prepare_grey
from digits.training import drawings, handwritten
from digits.training.drawings import INK_LEVEL, Picture, cropped
from digits.training.stage import StageError
from digits.training.synthetic import centred

# the digits that are outliers when they are mirrored, and when they are on their side; others still look like a
# digit
MIRRORED, LYING = (3, 4, 6, 7, 9), (2, 3, 4, 5)
SIDES = ("top", "right", "bottom", "left")
# the halves of digits that look like no other digit
HALVES = [*((0, side) for side in SIDES), (2, "bottom"), (4, "top"), (5, "top"), (8, "left"), (9, "left")]
# the digits to which a stroke at a side is too much
EXTRA = {"top": (0, 2, 3, 7, 8, 9), "right": (0, 3, 8), "bottom": (0, 2, 3, 5, 6, 8), "left": (0, 8)}

# images of each digit
Digits = list[list[np.ndarray]]
Draw = Callable[[Digits, np.random.Generator], Picture]


def numbers(count: int, kinds: dict[str, float]) -> dict[str, int]:
    """How many of about `count` outliers each kind gets. kinds: the relative weight of each kind; 0 leaves it out.
    Raises StageError for an unknown kind."""
    unknown = set(kinds) - set(KINDS)
    if unknown:
        names = ", ".join(sorted(unknown)), ", ".join(KINDS)
        raise StageError("params.yaml has unknown kinds of outliers: {}. Known kinds are: {}.".format(*names))
    total = sum(kinds.values())
    return {kind: round(count * weight / total) if weight else 0 for kind, weight in kinds.items()}


def draw_kind(kind: str, number: int, images: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Outliers of a kind, uint8 (number, 28, 28), or none if no image shows a digit. They only depend on the seed
    and their number.

    Args:
        images: uint8 (n, 28, 28), digits from which some kinds are made.
        labels: their digits, (n,).
    """
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    inked = images.max((1, 2), initial=0) > INK_LEVEL
    digits = [list(images[inked & (labels == digit)]) for digit in range(10)]
    drawn = [_one(kind, digits, rng) for _ in range(number if any(digits) else 0)]
    return np.array(drawn, np.uint8).reshape(-1, 28, 28)


def _one(kind: str, digits: Digits, rng: np.random.Generator) -> np.ndarray:
    while True:
        picture = KINDS[kind](digits, rng)
        if rng.random() < 0.25:
            picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2.5))
        # the service would remove the frame and leave the digit
        image = _in_mnist_form(picture, rng) if kind == "frames" else image_of(picture, rng)
        if image is not None and (image > INK_LEVEL).sum() >= 8:
            return image


def image_of(picture: Picture, rng: np.random.Generator) -> np.ndarray | None:
    """A picture, uint8 (height, width), bright on black, as an image, uint8 (28, 28). None if nothing is left of
    it."""
    return _as_prepared(picture, rng) if rng.random() < 0.6 else _in_mnist_form(picture, rng)


def _as_prepared(picture: Picture, rng: np.random.Generator) -> np.ndarray | None:
    """As the service prepares the picture with a size of 24 to 84 pixels, dark on light or light on dark."""
    size = rng.uniform(24, 84) / max(picture.shape)
    small = cv2.resize(picture, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
    small = np.pad(small, int(rng.integers(4, 12)))
    try:
        return prepare_grey(small if rng.random() < 0.5 else 255 - small)
    except PictureError:
        return None


def _in_mnist_form(picture: Picture, rng: np.random.Generator) -> np.ndarray | None:
    """Scaled to fit into about 20x20, and its mass centred in 28x28, as MNIST's authors did."""
    ink = cropped(picture)
    if not ink.size:
        return None
    scale = rng.choice([20, 20, 20, 18, 23]) / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    small = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    return (centred(small) * (rng.uniform(0.85, 1) * 255 / max(small.max(), 1))).astype(np.uint8)


def _any(digits: Digits, rng: np.random.Generator, of: tuple[int, ...] = tuple(range(10))) -> np.ndarray:
    """A random image of one of these digits, cropped to its ink."""
    there = [digits[digit] for digit in of if digits[digit]] or [some for some in digits if some]
    some = there[rng.integers(len(there))]
    return cropped(some[rng.integers(len(some))])


def _enlarged(picture: Picture) -> Picture:
    # OpenCV takes no views of arrays that are mirrored or turned
    return cv2.resize(np.ascontiguousarray(picture), None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)


def _row(several: list[Picture], low: int, high: int, rng: np.random.Generator) -> tuple[Picture, list[int]]:
    """Digits side by side, `low` to `high` pixels apart, and the left edge of each, followed by the end of the
    last."""
    picture = np.zeros((32, sum(digit.shape[1] + max(high, 0) for digit in several) + 12), np.uint8)
    left, places = 6, []
    for digit in several:
        tall, wide = digit.shape
        top = min(max((32 - tall) // 2 + int(rng.integers(-3, 4)), 0), 32 - tall)
        there = picture[top : top + tall, left : left + wide]
        np.maximum(there, digit, out=there)
        places.append(left)
        left += wide + int(rng.integers(low, high + 1))
        end = places[-1] + wide
    return picture[:, : end + 6], [*places, end]


def _pair(digits: Digits, rng: np.random.Generator) -> Picture:
    """Two to four digits side by side, or two digits one below the other or on top of each other."""
    way = rng.random()
    if way < 0.8:
        count = int(rng.choice([2, 2, 2, 3, 3, 4]))
        return _enlarged(_row([_any(digits, rng) for _ in range(count)], -3, 7, rng)[0])
    one, two = _any(digits, rng), _any(digits, rng)
    if way < 0.9:
        return _enlarged(_row([one.T, two.T], -2, 6, rng)[0].T)
    # shifted, because two 1s on top of each other, or a 1 in an 8, would still look like a digit
    gap = int(rng.integers(4, 9)) - min(one.shape[1], two.shape[1])
    return _enlarged(_row([one, two], gap, gap, rng)[0])


def _part(digits: Digits, rng: np.random.Generator) -> Picture:
    """A part of a digit beside or above a part of its neighbour, or the pieces of a digit in the wrong order."""
    way = rng.random()
    if way < 0.85:
        several = [_any(digits, rng) for _ in range(3)]
        if way > 0.7:
            several = [digit.T for digit in several]
        picture, places = _row(several, -3, 4, rng)
        width = max(places[2] - places[1], 8)
        shift = rng.uniform(0.4, 0.8) * width * rng.choice([-1, 1])
        left, right = places[1] + shift, places[1] + shift + width * rng.uniform(0.9, 1.2)
        # don't include a whole neighbour
        left = max(left, places[0] + 0.3 * (places[1] - places[0]))
        right = min(right, places[3] - 0.3 * (places[3] - places[2]))
        cut = np.pad(picture[:, int(left) : int(right)], ((0, 0), (4, 4)))
        return _enlarged(cut.T if way > 0.7 else cut)
    digit = _any(digits, rng, (2, 3, 4, 5, 6, 7, 8, 9))
    middle = digit.shape[0] // 2
    upper, lower = digit[:middle], digit[middle:]
    if way < 0.93:
        return _enlarged(np.vstack([lower, upper]))
    return _enlarged(np.vstack([upper, np.zeros_like(upper[:4]), np.roll(lower, digit.shape[1] // 2, 1)]))


def _half(digits: Digits, rng: np.random.Generator) -> Picture:
    """What a wrong cut leaves of a digit with loops or bows: a half of it, with open ends."""
    digit, side = HALVES[rng.integers(len(HALVES))]
    turns = SIDES.index(side)
    image = np.rot90(_any(digits, rng, (digit,)), turns)
    height = max(1, round(image.shape[0] * rng.uniform(0.4, 0.6)))
    return _enlarged(np.rot90(image[:height], -turns))


def _extra(digits: Digits, rng: np.random.Generator) -> Picture:
    """A digit with a stroke too many, as in letters of other scripts, which touches it or is close to it."""
    side = SIDES[rng.choice(4, p=(0.4, 0.15, 0.3, 0.15))]
    digit = _enlarged(_any(digits, rng, EXTRA[side]))
    # seen from the side of the stroke, which then goes up
    turns = SIDES.index(side)
    seen = np.rot90(digit, turns)
    long = max(seen.shape)
    seen = np.pad(seen, long // 2)
    x = round(seen.shape[1] / 2 + min(digit.shape) * rng.uniform(-0.25, 0.25))
    ink = np.flatnonzero(seen[:, x] > INK_LEVEL)
    y = (int(ink[0]) if ink.size else long // 2) - round(rng.choice([0, 0, 0.12]) * long)
    angle, far = rng.normal(0, 0.35), long * rng.uniform(0.2, 0.45)
    end = round(x + far * np.sin(angle)), round(y - far * np.cos(angle))
    picture = cv2.line(np.ascontiguousarray(seen), (x, y), end, 255, int(rng.integers(4, 11)), cv2.LINE_AA)
    return drawings.bent(np.ascontiguousarray(np.rot90(picture, -turns)), rng)


def _composed(rng: np.random.Generator) -> Picture:
    """A symbol of two to four strokes, as in many scripts: bars, posts, slanted and bent strokes, hooks and dots.
    Each begins on the one before, crosses it, or runs beside it."""
    while True:
        strokes = [_stroke(rng)]
        for _ in range(int(rng.choice([1, 2, 2, 3]))):
            before, stroke = strokes[rng.integers(len(strokes))], _stroke(rng)
            # not at its ends, because two strokes that meet there may be a 7 or a 1
            at = before[rng.integers(len(before) // 4, len(before) * 3 // 4 + 1)]
            own = stroke[int(rng.choice([0, 0, int(rng.integers(len(stroke)))]))]
            aside = rng.normal(0, 0.25, 2) if rng.random() < 0.35 else 0
            strokes.append(stroke - own + at + aside)
        # what is narrow may be a 1
        if min(np.ptp(np.concatenate(strokes), 0)) > 0.5:
            return drawings.inked(strokes, rng.uniform(0.03, 0.15), rng)


def _stroke(rng: np.random.Generator) -> np.ndarray:
    """A stroke of `_composed`, float (n, 2), of a length of about 1."""
    way = rng.integers(6)
    angle = np.pi * (0, 0.5, 0.65, 0.3, 0, rng.uniform(0.1, 0.9))[way] + rng.normal(0, 0.12)
    long = rng.uniform(0.1, 0.3) if way == 5 else rng.uniform(0.6, 1.1)
    along = np.linspace(0, 1, 16)[:, None]
    bow = rng.normal(0, 0.1) * np.sin(np.pi * along)
    stroke = long * (along * (np.cos(angle), np.sin(angle)) + bow * (-np.sin(angle), np.cos(angle)))
    if way != 4:
        return stroke
    # a bar with a hook or a slanted stroke at its end
    turn = angle + rng.uniform(0.4, 0.8) * np.pi
    hook = rng.uniform(0.15, 0.9) * along * (np.cos(turn), np.sin(turn))
    return np.concatenate([stroke, stroke[-1] + hook])


def _turned(digits: Digits, rng: np.random.Generator) -> Picture:
    """A digit that is mirrored or on its side."""
    if rng.random() < 0.5:
        return _enlarged(_any(digits, rng, MIRRORED)[:, ::-1])
    return _enlarged(np.rot90(_any(digits, rng, LYING), rng.choice([1, 3])))


def _frame(digits: Digits, rng: np.random.Generator) -> Picture:
    """A digit in a round or angular frame, closed or open, a digit that is crossed out, or an empty frame."""
    picture = np.zeros((112, 112), np.uint8)
    if rng.random() < 0.85:
        digit = _enlarged(_any(digits, rng))
        top, left = (112 - digit.shape[0]) // 2, (112 - digit.shape[1]) // 2
        picture[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    pen, way = int(rng.integers(2, 8)), rng.integers(4)
    low, high = rng.integers(6, 22, 2), 112 - rng.integers(6, 22, 2)
    if way == 0:
        cv2.rectangle(picture, low.tolist(), high.tolist(), 255, pen)
    elif way == 1:
        corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
        corners = corners + rng.integers(-6, 7, corners.shape)
        sides = np.stack([corners, np.roll(corners, -1, 0)], 1)
        keep = rng.permutation(4)[: rng.integers(2, 5)]
        cv2.polylines(picture, list(sides[keep].astype(np.int32)), False, 255, pen, cv2.LINE_AA)
    elif way == 2 and picture.any():
        axes = rng.integers(38, 50, 2).tolist()
        cv2.ellipse(picture, (56, 56), axes, 0, 0, int(rng.integers(300, 361)), 255, pen, cv2.LINE_AA)
    else:
        for at in (low, high, (low + high) // 2):
            level = int(at[1])
            cv2.line(picture, (4, level), (108, level + int(rng.integers(-6, 7))), 255, pen, cv2.LINE_AA)
    return picture


def _alone(draw: Callable[[np.random.Generator], Picture]) -> Draw:
    return lambda digits, rng: draw(rng)


KINDS: dict[str, Draw] = {
    "pairs": _pair,
    "parts": _part,
    "halves": _half,
    "extra": _extra,
    "turned": _turned,
    "frames": _frame,
    "letters": _alone(drawings.letter),
    "signs": _alone(drawings.sign),
    "written": _alone(handwritten.letter),
    "words": _alone(handwritten.piece),
    "invented": _alone(drawings.invented),
    "composed": _alone(_composed),
    "scribbles": _alone(drawings.scribble),
    "shapes": _alone(drawings.shape),
    "curves": _alone(drawings.curve),
    "textures": _alone(drawings.texture),
    "lines": _alone(drawings.line),
}
