"""The digits, letters and signs that are written on pages: MNIST's training digits, digits and signs drawn
with a pen from strokes, and glyphs of fonts. All have the same form, a mask with the outline of its ink, so
that a sheet places, slants and labels them alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from digits.training.arrays import DIGITS as DATA_SET
from digits.training.arrays import read
from digits.training.detector.downloads import font_files
from digits.training.drawings import INK_LEVEL, SIGNS
from digits.training.synthetic import smooth_digit, smooth_strokes

Rng = np.random.Generator

MARK = 10  # the class of what is no digit
DIGITS = "0123456789"
# letters that stand alone: without those that look like digits
LONE = "ACDEFGHJKLMNPRTUVWXYacdefhjkmnprtuvwxy"
# the font size from which glyphs are scaled, in pixels
EM = 72
# what is drawn with a pen
PEN_SIGNS, PEN_LETTERS = SIGNS["on a line"], SIGNS["latin"]
OTHER_SIGNS = [shape for script in ("greek", "signs") for shape in SIGNS[script].values()]


def pick(rng: Rng, weights: dict[str, float]) -> str:
    """One of the names, by their relative weights."""
    share = np.array(list(weights.values()), float)
    return list(weights)[rng.choice(len(share), p=share / share.sum())]


@dataclass(frozen=True)
class Glyph:
    """One character: its mask, uint8 (h, w), bright ink; `outline`, float32 (n, 2), points of the ink's hull as
    x, y; `unit`, the height of a digit in the mask's pixels; `foot`, the baseline's y; `label`, 0 to 9 or
    MARK."""

    mask: np.ndarray
    outline: np.ndarray
    unit: float
    foot: float
    label: int


class Digits:
    """MNIST's training digits: all but the last `held_out`, or with `held=True` only these."""

    def __init__(self, path: Path, held_out: int, held: bool) -> None:
        arrays = read(DATA_SET, path)
        part = slice(-held_out, None) if held else slice(0, -held_out)
        self.images, labels = arrays["x_train"][part], arrays["y_train"][part]
        self.of = [np.flatnonzero(labels == digit) for digit in range(10)]

    def draw(self, digit: int, rng: Rng) -> Glyph:
        """One of them. Specks beside the digit stay in the mask, but don't count as its ink."""
        image = self.images[self.of[digit][rng.integers(len(self.of[digit]))]]
        ink = (image > INK_LEVEL).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
        if count > 2:
            areas = stats[1:, cv2.CC_STAT_AREA]
            small = 1 + np.flatnonzero(areas < max(8, 0.1 * areas.max()))
            if len(small):
                ink[np.isin(parts, small)] = 0
        outline = hull(np.argwhere(ink)[:, ::-1] + 0.5, 0.5)
        return Glyph(image, outline, 20.0, float(outline[:, 1].max()), digit)


def hull(points: np.ndarray, half: float) -> np.ndarray:
    """The corners of the convex hull of points (n, 2), moved out by half a pixel or pen: float32 (m, 2)."""
    corners = cv2.convexHull(points.astype(np.float32))[:, 0]
    middle = (corners.min(0) + corners.max(0)) / 2
    return corners + np.sign(corners - middle) * half


def pen_glyph(strokes: list[np.ndarray], pen: float, label: int, whole: bool) -> Glyph:
    """A glyph of strokes.

    Args:
        strokes: float (n, 2) each, with a digit's height of about 1.
        pen: the width of the stroke as a fraction of the height.
        label: 0 to 9 or MARK.
        whole: whether the strokes fill the height, as a digit does; otherwise their y is meant as it is, from 0 at
            the top to 1 on the baseline.
    """
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    unit = scale = 56.0
    if whole:
        scale = unit * (1 - pen) / max(float(high[1] - low[1]), 0.3 * float(high[0] - low[0]), 1e-3)
    width = max(1, round(pen * unit))
    border = width / 2 + 3
    size = np.ceil((high - low) * scale + 2 * border).astype(int)
    mask = np.zeros((int(size[1]), int(size[0])), np.uint8)
    place = [(stroke - low) * scale + border for stroke in strokes]
    cv2.polylines(mask, [(p * 16).astype(np.int32) for p in place], False, 255, width, cv2.LINE_AA, 4)
    outline = hull(np.concatenate(place), width / 2)
    foot = float(outline[:, 1].max()) if whole else float((1 - low[1]) * scale + border)
    return Glyph(mask, outline, unit, foot, label)


class Strokes:
    """Digits, letters and signs as strokes. Smooth strokes take long to make, so there is a stock of each
    shape, and each is bent anew when it is drawn."""

    def __init__(self, each: int, seed: int) -> None:
        rng = np.random.default_rng([seed, each])
        self.digits = [[thinned(smooth_digit(digit, rng)) for _ in range(each)] for digit in range(10)]
        few = max(2, each // 15)
        self.letters = {
            letter: [thinned(smooth_strokes(shape, rng)) for _ in range(few)]
            for letter, shape in PEN_LETTERS.items()
        }
        self.signs = [thinned(smooth_strokes(shape, rng)) for shape in OTHER_SIGNS for _ in range(few)]
        self.ticks, self.crosses = (
            [thinned(smooth_strokes(shape, rng)) for _ in range(4 * few)] for shape in SIGNS["ticks"].values()
        )

    def digit(self, digit: int, pen: float, rng: Rng) -> Glyph:
        """A digit drawn with a pen, in styles that MNIST's writers don't use."""
        if digit in (0, 8) and rng.random() < 0.3:
            return pen_glyph([loop(digit == 8, rng)], pen, digit, True)
        return self._bent(self.digits[digit], pen, rng, digit)

    def mark(self, sign: str, pen: float, rng: Rng) -> Glyph:
        """A sign of PEN_SIGNS or a letter of PEN_LETTERS drawn with a pen."""
        if sign in PEN_SIGNS:
            strokes = [np.array(s, float) + rng.normal(0, 0.02, (len(s), 2)) for s in PEN_SIGNS[sign]]
            middle = np.mean(np.concatenate(strokes), 0)
            size = rng.uniform(0.75, 1.35)
            return pen_glyph([(s - middle) * size + middle for s in strokes], pen, MARK, False)
        glyph = self._bent(self.letters[sign], pen, rng)
        # small letters are shorter than digits
        short = rng.uniform(1.2, 1.6) if sign.islower() and sign not in "bdfhklt" else rng.uniform(0.9, 1.1)
        return replace(glyph, unit=glyph.unit * short)

    def sign(self, pen: float, rng: Rng) -> Glyph:
        """A Greek letter or another symbol, drawn with a pen."""
        if rng.random() < 0.3:
            return self.tick(pen, rng)
        return self._bent(self.signs, pen, rng)

    def tick(self, pen: float, rng: Rng) -> Glyph:
        """A tick or a cross."""
        return self._bent(self.ticks if rng.random() < 0.55 else self.crosses, pen, rng)

    @staticmethod
    def _bent(some: list[list[np.ndarray]], pen: float, rng: Rng, label: int = MARK) -> Glyph:
        """One of the shapes, moved along slow waves."""
        strokes = some[rng.integers(len(some))]
        wave, phase, far = rng.uniform(2, 6, (2, 2)), rng.uniform(0, 6.3, 2), rng.normal(0, 0.03, 2)
        bent = [stroke + far * np.sin(stroke @ wave + phase) for stroke in strokes]
        return pen_glyph(bent, pen, label, True)


def thinned(strokes: list[np.ndarray]) -> list[np.ndarray]:
    """The strokes with every fourth of their points, and their ends."""
    return [np.concatenate([stroke[:-1:4], stroke[-1:]]) for stroke in strokes]


def loop(twice: bool, rng: Rng) -> np.ndarray:
    """A tilted ellipse that may not close, or a curve like a figure of eight, float (n, 2)."""
    turn = np.linspace(0, 2 * np.pi * rng.uniform(0.93, 1.08), 30) + rng.uniform(0, 2 * np.pi)
    wide = rng.uniform(0.3, 0.75)
    if twice:
        x, y = wide * np.sin(2 * turn) * 0.6, np.cos(turn)
    else:
        x, y = wide * np.cos(turn), np.sin(turn)
    tilt = rng.normal(0, 0.3)
    return np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], 1) / 2


class Font:
    """A font, whose glyphs are drawn once."""

    def __init__(self, path: Path) -> None:
        self.font = ImageFont.truetype(path, EM)
        # old-style digits differ in height
        boxes = [self.font.getbbox(digit, anchor="ls") for digit in DIGITS]
        self.unit = float(np.median([bottom - top for _, top, _, bottom in boxes]))
        self.missing = bytes(self.font.getmask("\U000fffff"))
        self.glyph = lru_cache(maxsize=None)(self._glyph)

    def _glyph(self, character: str) -> tuple[Glyph | None, float]:
        """The glyph, or None where the font has no such character, and the width to the next one in the mask's
        pixels."""
        left, top, right, bottom = self.font.getbbox(character, anchor="ls")
        advance = float(self.font.getlength(character))
        if right <= left or bottom <= top or bytes(self.font.getmask(character)) == self.missing:
            return None, advance
        border = 4
        size = int(right - left) + 2 * border, int(bottom - top) + 2 * border
        picture = Image.new("L", size)
        ImageDraw.Draw(picture).text((border - left, border - top), character, 255, self.font, anchor="ls")
        mask = np.asarray(picture)
        pixels = np.argwhere(mask > 100)[:, ::-1]
        if not len(pixels):
            return None, advance
        label = int(character) if character in DIGITS else MARK
        return Glyph(mask, hull(pixels + 0.5, 0.5), self.unit, border - top, label), advance


class Stock:
    """What pages are written with: MNIST's digits, the fonts, and strokes.

    Args:
        params: `detector.pages` of params.yaml.
        data: the folder with digits.npz and fonts.
        held: whether the stock is for held-out pages, which has other digits and other handwriting fonts than the
            one for training.
    """

    def __init__(self, params: dict[str, Any], data: Path, held: bool = False) -> None:
        self.digits = Digits(data / "digits.npz", params["held_out_digits"], held)
        hands, printed = (font_files(data / "fonts", kind) for kind in ("handwriting", "printed"))
        self.hands = [Font(path) for path in hands if (path.stem in params["held_out_fonts"]) == held]
        self.printed = [Font(path) for path in printed]
        self.strokes = Strokes(params["strokes"], int(held))

    def hand(self, rng: Rng) -> Font:
        """A handwriting font."""
        return self.hands[rng.integers(len(self.hands))]

    def print(self, rng: Rng) -> Font:
        """A printed font."""
        return self.printed[rng.integers(len(self.printed))]
