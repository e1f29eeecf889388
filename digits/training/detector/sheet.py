"""A sheet on which a page is written: ink, and what is written where. Everything is drawn at twice the page's
size and keeps the outlines of its ink, so that a page may be turned afterwards and its boxes stay tight."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from digits.training.detector import glyphs
from digits.training.detector.glyphs import Font, Glyph, Rng, Stock

SCALE = 2  # sheet pixels per page pixel
# x and y in the sheet's pixels
Point = tuple[float, float]


@dataclass
class Item:
    """Something written: its label (0 to 9 or MARK), the outline of its ink, float32 (n, 2), on the sheet,
    the height of a digit beside it, in the sheet's pixels, and the number of the string that it belongs to,
    or -1."""

    label: int
    outline: np.ndarray
    height: float
    string: int


@dataclass
class Sheet:
    """Ink, uint8 (height, width), bright on black, and the items written on it."""

    ink: np.ndarray
    items: list[Item] = field(default_factory=list)
    strings: int = 0

    @property
    def width(self) -> int:
        """In the sheet's pixels."""
        return int(self.ink.shape[1])

    @property
    def height(self) -> int:
        """In the sheet's pixels."""
        return int(self.ink.shape[0])

    def put(self, glyph: Glyph, matrix: np.ndarray, at: Point, hand: Hand, string: int = -1) -> float:
        """Write a glyph, and return the right edge of its ink.

        Args:
            matrix: (2, 2), turns the mask's pixels into the sheet's.
            at: x and y of the mask's origin on the sheet.
            hand: whose ink and size it has.
            string: the number of the string that it belongs to, or -1.
        """
        outline = (glyph.outline @ matrix.T + at).astype(np.float32)
        height, width = glyph.mask.shape
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix.T + at
        low = np.maximum(corners.min(0).astype(int), 0)
        size = np.minimum(corners.max(0).astype(int) + 2, (self.width, self.height)) - low
        if (size > 0).all():
            # pixel centres are at .5
            affine = np.column_stack([matrix, matrix.sum(1) / 2 + at - low - 0.5])
            flags = cv2.INTER_CUBIC if matrix[0, 0] > 1 else cv2.INTER_LINEAR
            patch = cv2.warpAffine(glyph.mask, affine, size.tolist(), flags=flags)
            self.paste(cv2.LUT(patch, hand.lut), *low)
        self.items.append(Item(glyph.label, outline, hand.size, string))
        return float(outline[:, 0].max())

    def lines(self, lines: list[np.ndarray], tone: int, width: float, closed: bool = False) -> None:
        """Draw polylines.

        Args:
            lines: float (n, 2) each.
            tone: of the ink, 1 to 255.
            width: in the sheet's pixels; less than one is fainter.
            closed: whether each ends where it begins.
        """
        thin = max(1, round(width))
        layer_tone = int(tone * min(1.0, max(width, 0.4)))
        points = [(np.asarray(line) * 16).round().astype(np.int32) for line in lines]
        box = np.concatenate(points) / 16
        low = np.maximum(np.floor(box.min(0)).astype(int) - thin - 2, 0)
        high = np.minimum(np.ceil(box.max(0)).astype(int) + thin + 3, (self.width, self.height))
        if (high <= low).any():
            return
        layer = np.zeros((int(high[1] - low[1]), int(high[0] - low[0])), np.uint8)
        points = [p - (low * 16).astype(np.int32) for p in points]
        cv2.polylines(layer, points, closed, layer_tone, thin, cv2.LINE_AA, 4)
        self.paste(layer, *low)

    def paste(self, picture: np.ndarray, x: int, y: int) -> None:
        """Draw a picture, uint8 (h, w), bright on black, with its upper left corner at x, y."""
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + picture.shape[1], self.width), min(y + picture.shape[0], self.height)
        if x1 > x0 and y1 > y0:
            there = self.ink[y0:y1, x0:x1]
            cv2.max(there, np.ascontiguousarray(picture[y0 - y : y1 - y, x0 - x : x1 - x]), dst=there)


@dataclass
class Hand:
    """How one writer, or a printer, writes: where digits and letters come from, and how regular they are."""

    digits: glyphs.Digits | Font | None  # None for a pen
    letters: Font | None
    strokes: glyphs.Strokes
    pen: float  # stroke width as a fraction of the height
    size: float  # height of a digit in the sheet's pixels
    slant: float
    wide: float
    unsteady: float  # 0 for a printer
    lut: np.ndarray

    def glyph(self, character: str, rng: Rng) -> tuple[Glyph | None, float]:
        """The glyph of a character, and the width to the next one in the glyph's pixels (0 where it does not
        say)."""
        label = glyphs.DIGITS.find(character)
        if label >= 0:
            if isinstance(self.digits, Font):
                return self.digits.glyph(character)
            if self.digits is None:
                return self.strokes.digit(label, self.pen * rng.uniform(0.9, 1.1), rng), 0.0
            return self.digits.draw(label, rng), 0.0
        if self.letters is None and character not in glyphs.PEN_SIGNS | glyphs.PEN_LETTERS:
            return None, 0.0
        if self.letters is None or (self.unsteady and character in ".,-:/" and rng.random() < 0.7):
            return self.strokes.mark(character, self.pen * rng.uniform(0.9, 1.2), rng), 0.0
        return self.letters.glyph(character)

    def write(
        self, sheet: Sheet, character: str, at: Point, rng: Rng, string: int, left: bool = True
    ) -> tuple[float, float]:
        """Write a character with its left edge (or with left=False its origin) at x and its foot at y.
        Returns the right edge of its ink and where the next character of a word begins."""
        glyph, advance = self.glyph(character, rng)
        scale = self.size / (glyph.unit if glyph else self.letters.unit if self.letters else 1)
        if glyph is None:
            return at[0] + advance * scale, at[0] + advance * scale
        bent = 0.06 * self.unsteady
        across, down = scale * self.wide, scale
        a, b, c, d = 1.0, -self.slant, 0.0, 1.0
        if bent:
            across, down = across * rng.normal(1, bent), down * rng.normal(1, bent)
            b, c = b + rng.normal(0, bent * 1.5), rng.normal(0, bent)
        matrix = np.array([[a * across, b * down], [c * across, d * down]])
        foot = matrix @ (0.0, glyph.foot)
        x, y = at[0], at[1] - foot[1]
        if self.unsteady:
            y += rng.normal(0, 0.03 * self.unsteady) * self.size
        if left:
            x -= float((glyph.outline @ matrix[0]).min())
        else:
            x -= foot[0] + 4 * across
        right = sheet.put(glyph, matrix, (x, y), self, string)
        return right, (at[0] + advance * across) if advance and not left else right


def ink_lut(rng: Rng, tone: float) -> np.ndarray:
    """A table from a mask's values to ink, uint8 (256,): as they are, or with steeper edges, thicker or
    thinner. tone: how dark the ink is, 0 to 1."""
    weight = float(rng.uniform(-1, 1)) if rng.random() < 0.25 else 0.0
    value = np.arange(256) / 255
    if rng.random() < 0.55 or weight:
        steep, middle = rng.uniform(1.5, 5), 0.45 - 0.25 * weight
        value = np.clip((value - middle) * steep + 0.5, 0, 1)
        value[0] = 0
    return (value * 255 * tone).astype(np.uint8)


def hand(stock: Stock, rng: Rng, size: float, weights: dict[str, float]) -> Hand:
    """A hand at random.

    Args:
        size: the height of a digit in the sheet's pixels.
        weights: of `mnist`, `pen`, `font` and `printed` as the source of the digits.
    """
    source = glyphs.pick(rng, weights)
    tone = min(1.0, rng.uniform(0.55, 1.3))
    pen = float(np.clip(rng.lognormal(np.log(0.1), 0.35), 0.04, 0.22))
    lut = ink_lut(rng, tone)
    slant = float(rng.normal(0, 0.12))
    wide = float(np.clip(rng.normal(1, 0.1), 0.7, 1.3))
    if source == "printed":
        font = stock.print(rng)
        slanted = float(rng.uniform(0.1, 0.25)) if rng.random() < 0.15 else 0.0
        return Hand(font, font, stock.strokes, pen, size, slanted, wide, 0.0, lut)
    way = rng.random()
    # printed letters beside written digits are what a form has
    letters = None if way < 0.3 else stock.print(rng) if way < 0.45 else stock.hand(rng)
    digits: glyphs.Digits | Font | None = stock.digits if source == "mnist" else None
    if source == "font":
        letters = digits = stock.hand(rng)
    return Hand(digits, letters, stock.strokes, pen, size, slant, wide, float(rng.uniform(0.5, 1.5)), lut)
