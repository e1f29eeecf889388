"""Draws digits and signs as a pen does, in styles that MNIST's writers don't use: 1s with an upstroke or a foot,
open 4s and 9s, looped 2s, crossed 7s. The shapes are Bézier curves and are drawn here by the distance of each
pixel from the stroke, so that neither shapes nor drawing are those of training.

SHAPES has the paths of each character by style, in the notation of SVG with the commands M, L and C, in a square
with the sides 1, x to the right and y down.
"""

from __future__ import annotations

import numpy as np
from numerals_strings import Digits, Made, put, scaled

Rng = np.random.Generator

SHAPES: dict[str, dict[str, str]] = {
    "0": {
        "closed": "M.55 .01 C.2 -.04 0 .28 .02 .58 C.04 .86 .2 1 .45 1 C.8 1 .98 .76 .96 .46"
        " C.94 .16 .78 -.02 .5 .03",
    },
    "1": {
        "plain": "M.5 0 C.5 .3 .48 .7 .48 1",
        "upstroke": "M.08 .4 C.3 .28 .48 .14 .62 0 L.62 0 C.62 .35 .6 .7 .6 1",
        "long upstroke": "M-.1 .58 C.2 .42 .45 .2 .64 0 L.63 .5 L.61 1",
        "foot": "M.26 .22 C.4 .16 .5 .08 .56 0 L.56 1 M.16 1 L.94 .99",
        "upstroke and foot": "M.08 .36 L.55 0 L.54 .99 M.14 .99 C.4 1.01 .7 1 .96 .98",
    },
    "2": {
        "plain": "M.06 .25 C.1 -.08 .88 -.1 .86 .28 C.84 .55 .3 .76 .04 1 L.96 .99",
        "looped": "M.08 .22 C.2 -.08 .88 -.08 .86 .27 C.84 .56 .42 .84 .2 .96 C0 1.06 -.06 .82 .12 .78"
        " C.36 .74 .6 1.06 1 .9",
        "wide loop": "M.1 .16 C.34 -.08 .84 -.04 .82 .28 C.8 .6 .4 .98 .14 .99 C-.06 .99 -.02 .7 .2 .72"
        " C.44 .76 .56 1.04 .98 .98",
    },
    "3": {
        "plain": "M.08 .12 C.3 -.06 .86 -.05 .84 .24 C.82 .42 .6 .47 .38 .48 C.7 .47 .94 .55 .93 .74"
        " C.92 1.04 .3 1.08 .03 .88",
    },
    "4": {
        "closed": "M.64 1 L.66 0 L.04 .68 L.98 .66",
        "open": "M.34 0 C.28 .22 .16 .46 .04 .64 L.96 .6 M.7 .3 C.7 .55 .68 .8 .66 1",
        "upright": "M.1 .04 C.1 .2 .06 .4 .07 .55 L.9 .53 M.82 .02 C.82 .35 .8 .7 .76 1",
    },
    "5": {
        "plain": "M.2 .03 L.14 .43 C.5 .3 .95 .42 .92 .7 C.9 1.04 .3 1.08 .04 .9 M.19 .03 L.88 .01",
    },
    "6": {
        "plain": "M.78 .01 C.4 .1 .05 .4 .05 .72 C.06 1.08 .88 1.1 .9 .74 C.92 .46 .3 .44 .08 .72",
    },
    "7": {
        "plain": "M.05 .04 L.93 .02 C.7 .3 .5 .65 .42 1",
        "crossed": "M.05 .05 L.93 .03 C.72 .3 .52 .65 .44 1 M.26 .5 L.86 .47",
        "crossed, with a serif": "M.06 .2 L.07 .04 L.94 .03 L.46 1 M.3 .55 C.5 .5 .65 .52 .86 .48",
    },
    "8": {
        "plain": "M.8 .14 C.62 -.08 .12 -.04 .14 .22 C.16 .46 .9 .5 .9 .76 C.88 1.08 .08 1.08 .08 .76"
        " C.1 .5 .86 .46 .84 .18 C.82 .1 .8 .08 .74 .06",
    },
    "9": {
        "closed": "M.86 .24 C.8 -.08 .08 -.1 .06 .27 C.06 .62 .7 .62 .86 .24 C.86 .5 .82 .8 .74 1",
        "open": "M.62 .05 C.34 -.08 .04 .08 .06 .32 C.1 .6 .64 .56 .84 .3 M.88 .04 C.88 .4 .82 .75 .74 1",
    },
    ".": {"plain": "M0 .97 L.03 .98"},
    ",": {"plain": "M.1 .92 C.1 1.02 .06 1.1 0 1.17"},
    "-": {"plain": "M0 .53 L.55 .51"},
    "/": {"plain": "M.72 -.14 L0 1.14"},
}
# what MNIST's writers rarely do
STYLES = {
    "1": ["upstroke", "long upstroke", "foot", "upstroke and foot"],
    "2": ["looped", "wide loop"],
    "4": ["open", "upright"],
    "9": ["open"],
}
CROSSED = ["crossed", "crossed, with a serif"]


def points_of(path: str) -> list[np.ndarray]:
    """The strokes of a path as points float (n, 2)."""
    strokes: list[np.ndarray] = []
    for command in path.replace("M", "|M").replace("L", "|L").replace("C", "|C").split("|")[1:]:
        ends = np.array(command[1:].split(), float).reshape(-1, 2)
        if command[0] == "M":
            strokes.append(ends)
            continue
        knots = np.concatenate([strokes[-1][-1:], ends])
        t = np.linspace(0, 1, 13 if command[0] == "C" else 5)[1:, None]
        weights = (
            [1 - t, t] if len(knots) == 2 else [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
        )
        strokes[-1] = np.concatenate(
            [strokes[-1], sum(w * knot for w, knot in zip(weights, knots, strict=True))]
        )
    return strokes


class Pen:
    """A hand with its pen, so that the digits of a number look alike.

    height: of the digits, in pixels.
    """

    def __init__(self, rng: Rng, height: float) -> None:
        self.rng, self.height = rng, height
        self.slant, self.wide = rng.normal(0.1, 0.16), rng.uniform(0.5, 0.9)
        self.radius = max(0.7, height * rng.uniform(0.022, 0.075))
        self.unsteady, self.uneven = rng.uniform(0.004, 0.03), rng.uniform(0.02, 0.1)
        self.pressure = rng.uniform(0, 0.35)

    def draw(self, character: str, styles: list[str] | None = None) -> tuple[np.ndarray, int]:
        """A character as uint8 (height, width), bright on black and cropped, and how far its top is below that of
        the digits, in pixels.

        styles: one of them is drawn, instead of any.
        """
        rng, shapes = self.rng, SHAPES[character]
        path = shapes[str(rng.choice(styles or list(shapes)))]
        # signs keep their size, and with it their meaning
        size, turn = rng.normal(0, self.uneven, 2) * character.isdigit()
        wide, slant = self.wide * rng.uniform(0.88, 1.12) * (1 + size), self.slant + turn
        if character == "/":
            # upright, it would be a 1
            slant = max(slant, 0.1)
        thick = max(self.radius * 1.4, self.height * 0.06) if character in ".," else self.radius
        phase, waves = rng.uniform(0, 6.3, 2), rng.uniform(3, 8, 2)
        strokes = []
        for stroke in points_of(path):
            # a wave instead of noise, because hands don't shake from point to point
            stroke = stroke + self.unsteady * 2 * np.sin(waves * stroke[:, ::-1] + phase)
            x = stroke[:, 0] * wide + (0.5 - stroke[:, 1]) * slant
            strokes.append(np.stack([x, stroke[:, 1] * (1 + size)], 1) * self.height)
        low = np.floor(np.min([stroke.min(0) for stroke in strokes], axis=0) - 1.4 * thick - 1)
        high = np.ceil(np.max([stroke.max(0) for stroke in strokes], axis=0) + 1.4 * thick + 2)
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
        outside = np.full(x.shape, np.inf)
        for stroke in strokes:
            press = 1 + self.pressure * np.sin(np.linspace(*rng.uniform(0, 4, 2), len(stroke)))
            np.minimum(outside, distance(stroke, thick * press, x, y), out=outside)
        ink = (np.clip(0.5 - outside, 0, 1) * 255).astype(np.uint8)
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], int(low[1] + rows[0])


def distance(stroke: np.ndarray, radii: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far each pixel lies outside a stroke, in pixels, and below 0 inside it.

    stroke: points (n, 2). radii: half the stroke's width at each point. x, y: the places of the pixels.
    """
    start, step = stroke[:-1, :, None, None], np.diff(stroke, axis=0)[:, :, None, None]
    from_x, from_y = x - start[:, 0], y - start[:, 1]
    along = (from_x * step[:, 0] + from_y * step[:, 1]) / np.maximum((step**2).sum(1), 1e-9)
    along = np.clip(along, 0, 1)
    far = np.hypot(from_x - along * step[:, 0], from_y - along * step[:, 1])
    return (far - radii[:-1, None, None] - along * np.diff(radii)[:, None, None]).min(0)


def written(
    text: str,
    rng: Rng,
    height: float,
    digits: Digits | None = None,
    styles: dict[str, list[str]] | None = None,
    gap: tuple[float, float] = (0.06, 0.4),
) -> np.ndarray:
    """A line of digits and signs as uint8 (height, width), bright on black, with a margin of a few pixels.

    height: of the digits, in pixels. digits: MNIST's digits, which the pen then only gives signs. styles: those in
    which the pen draws a character. gap: the least and most space between characters, as a fraction of the height.
    """
    pen, styles = Pen(rng, height), styles or {}
    if digits:
        pen.radius = 0.06 * height
    parts: list[tuple[np.ndarray, float]] = []
    for character in text:
        if digits and character.isdigit():
            image = scaled(digits.of(int(character), rng), height / 20)
            parts.append((image, (height - image.shape[0]) / 2 + height * rng.uniform(-0.06, 0.06)))
        else:
            image, top = pen.draw(character, styles.get(character))
            parts.append((image, top + height * rng.uniform(-0.06, 0.06) * character.isdigit()))
    first = min(top for _, top in parts)
    bottom = max(top + image.shape[0] for image, top in parts)
    gaps = rng.uniform(*gap) * height * rng.uniform(0.8, 1.2, len(parts))
    sheet = np.zeros(
        (int(bottom - first) + 4, sum(image.shape[1] for image, _ in parts) + int(gaps.sum()) + 4), np.uint8
    )
    x = 2.0
    for (image, top), space in zip(parts, gaps, strict=True):
        put(sheet, image, int(x), int(top - first) + 2)
        x += image.shape[1] + space
    return sheet[:, : int(x - gaps[-1]) + 2]


def number(rng: Rng, least: int, most: int) -> str:
    """Random digits, at least and at most this many."""
    return "".join(map(str, rng.integers(0, 10, int(rng.integers(least, most + 1)))))


def pens(digits: Digits, rng: Rng) -> Made:
    """Three to seven pen-drawn digits, of which at least half are in styles that MNIST lacks."""
    text = "".join(
        str(rng.choice(list(STYLES) if rng.random() < 0.7 else list("0356789"))) for _ in number(rng, 3, 7)
    )
    return written(text, rng, 80, styles=STYLES | {"7": ["plain"]}), [text]


def sevens(digits: Digits, rng: Rng) -> Made:
    """Three to seven pen-drawn digits, among them one or several crossed 7s."""
    text = list(number(rng, 3, 7))
    for place in rng.permutation(len(text))[: int(rng.integers(1, 3))]:
        text[place] = "7"
    return written("".join(text), rng, 80, styles={"7": CROSSED}), ["".join(text)]


def decimals(digits: Digits, rng: Rng) -> Made:
    """A decimal number."""
    whole, part = number(rng, 1, 3), number(rng, 1, 3)
    mark = str(rng.choice([".", ","]))
    return written(whole + mark + part, rng, 80, _either(digits, rng)), [f"{whole} {part}"]


def fractions(digits: Digits, rng: Rng) -> Made:
    """A fraction with a slash. Its 1s are the pen's, because MNIST's lean like a slash."""
    over, under = number(rng, 1, 2), number(rng, 1, 2)
    hand = None if "1" in over + under else _either(digits, rng)
    styles = {"1": ["plain", "upstroke"], "7": ["crossed"]}
    return written(f"{over}/{under}", rng, 80, hand, styles), [f"{over} {under}"]


def stacked(digits: Digits, rng: Rng) -> Made:
    """A fraction with a bar between its numbers."""
    texts = [number(rng, 1, 2) for _ in range(2)]
    hand = _either(digits, rng)
    over, under = (written(text, rng, 80, hand) for text in texts)
    wide, thick = max(over.shape[1], under.shape[1]) + int(rng.integers(10, 40)), int(rng.integers(4, 9))
    space = int(rng.integers(10, 24))
    sheet = np.zeros((over.shape[0] + under.shape[0] + 2 * space + thick, wide), np.uint8)
    put(sheet, over, (wide - over.shape[1]) // 2, 0)
    put(sheet, np.full((thick, wide), 255, np.uint8), 0, over.shape[0] + space)
    put(sheet, under, (wide - under.shape[1]) // 2, over.shape[0] + 2 * space + thick)
    return sheet, [" ".join(texts)]


def minus(digits: Digits, rng: Rng) -> Made:
    """A number with a minus before it, or a difference."""
    text, second = number(rng, 1, 4), number(rng, 1, 3)
    if rng.random() < 0.6:
        return written("-" + text, rng, 80, _either(digits, rng)), [text]
    return written(f"{text}-{second}", rng, 80, _either(digits, rng), gap=(0.2, 0.35)), [f"{text} {second}"]


def _either(digits: Digits, rng: Rng) -> Digits | None:
    return digits if rng.random() < 0.5 else None
