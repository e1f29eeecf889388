"""Makes the pages from which the detector learns. `Pages` makes page number i, which only depends on the seed
and i, so that any process may make it at any time: the network's input and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from digits.imaging.contrast import normalize
from digits.training.detector.camera import Photographs, exposed, paper, shadows
from digits.training.detector.glyphs import MARK as MARK
from digits.training.detector.glyphs import Rng, Stock, pick
from digits.training.detector.kinds import KINDS, Desk
from digits.training.detector.sheet import SCALE, Item, Sheet

WIDTH, HEIGHT = 288, 224
# heights of digits in pixels that the network is to find; those next to them are neither asked for nor wrong
LOW, HIGH = 11.5, 42.0
UNASKED_LOW, UNASKED_HIGH = 8.0, 54.0

# what Page.state says
ASKED, UNASKED = 1, 0


@dataclass(frozen=True)
class Page:
    """A page: `kind`, its name; `grey`, uint8 (h, w), the picture; `input`, float32 (HEIGHT, WIDTH), the
    network's input; and its n objects: `labels`, int (n,), 0 to 9 or MARK; `boxes`, float32 (n, 4), x0, y0,
    x1, y1 in pixels of the input; `states`, int (n,), ASKED or UNASKED; `strings`, int (n,), the number of
    the string, or -1."""

    kind: str
    grey: np.ndarray
    input: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    states: np.ndarray
    strings: np.ndarray


class Pages:
    """Makes pages.

    Args:
        params: `detector.pages` of params.yaml.
        data: the folder with digits.npz, fonts and photographs.
        held: whether they are held out, with random numbers, digits and fonts of their own.
    """

    def __init__(self, params: dict[str, Any], data: Path, held: bool = False) -> None:
        self.params = params
        self.stock = Stock(params, data, held)
        self.photographs = Photographs(data / "photographs")
        self.seed = [int(params["seed"]), int(held)]

    def page(self, number: int, kind: str | None = None) -> Page:
        """Page `number`, of a random kind or of this one."""
        rng = np.random.default_rng([*self.seed, number])
        kind = kind or pick(rng, self.params["kinds"])
        if kind == "photograph":
            picture = self.photographs.part(rng, WIDTH, HEIGHT)
            sheet, matrix, contrast = Sheet(np.zeros((8, 8), np.uint8)), np.eye(3), 0.5
        else:
            sheet, matrix = self._written(kind, rng)
            picture, contrast = self._photographed(sheet, matrix, rng)
        grey = exposed(picture, contrast, rng, self.params)
        return self._framed(kind, grey, sheet.items, matrix, rng)

    def _written(self, kind: str, rng: Rng) -> tuple[Sheet, np.ndarray]:
        """A sheet of the kind, and the matrix (3, 3) from its pixels to the page's."""
        way = rng.random()
        spread = 0.012 if way < 0.55 else 0.06 if way < 0.85 else 0.16
        angle = float(np.clip(rng.normal(0, spread), -0.27, 0.27))
        aside, down = HEIGHT * abs(np.sin(angle)) + 8, WIDTH * abs(np.sin(angle)) + 8
        width, height = int(SCALE * (WIDTH + aside)), int(SCALE * (HEIGHT + down))
        sheet = Sheet(np.zeros((height, width), np.uint8))
        KINDS[kind](sheet, Desk(self.stock, rng, self.params))
        if rng.random() < self.params["bleed"]:
            # the writing on the back of the paper
            back = cv2.blur(cv2.flip(sheet.ink, 1), (5, 5))
            cv2.max(sheet.ink, (back * rng.uniform(0.05, 0.3)).astype(np.uint8), dst=sheet.ink)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shear = np.array([[1, rng.normal(0, 0.05)], [rng.normal(0, 0.01), 1]])
        linear = turn @ shear / SCALE
        middle = np.array([WIDTH / 2, HEIGHT / 2]) + rng.uniform(-4, 4, 2)
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = middle - linear @ (width / 2, height / 2)
        if rng.random() < self.params["perspective"]:
            matrix[2, :2] = rng.normal(0, 0.0002, 2)
            at, shift = matrix @ (width / 2, height / 2, 1), np.eye(3)
            shift[:2, 2] = middle - at[:2] / at[2]
            matrix = shift @ matrix
        return sheet, matrix

    def _photographed(self, sheet: Sheet, matrix: np.ndarray, rng: Rng) -> tuple[np.ndarray, float]:
        """A picture of the sheet, float32 (HEIGHT, WIDTH), about 0 to 1, and the contrast of its ink."""
        size = WIDTH, HEIGHT
        if matrix[2, 0]:
            ink = cv2.warpPerspective(sheet.ink, _centred(matrix), size, flags=cv2.INTER_LINEAR)
        else:
            ink = cv2.warpAffine(sheet.ink, _centred(matrix)[:2], size, flags=cv2.INTER_LINEAR)
        ground = paper(rng, *size)
        # pale ink, coloured ink that has become grey, or ink that is nearly black
        faint = rng.random() < self.params["faint"]
        strength = np.float32(rng.uniform(0.12, 0.4) if faint else rng.uniform(0.4, 1))
        alpha = ink.astype(np.float32) * (strength / 255)
        picture = shadows(ground * (1 - alpha), rng, self.params)
        if rng.random() < self.params["inverted"]:
            picture = 1.05 - picture
        way = rng.random()
        if way < self.params["panel"]:
            # a part of the page bright on dark
            x, y = rng.uniform(0.2, 0.8, 2) * size
            part = np.s_[int(y) :] if rng.random() < 0.5 else np.s_[:, int(x) :]
            picture[part] = 1.05 - picture[part]
        elif way < self.params["panel"] + self.params["table"]:
            picture = self._on_a_table(picture, sheet, matrix, rng)
        return picture, float(strength * ground.mean())

    def _on_a_table(self, picture: np.ndarray, sheet: Sheet, matrix: np.ndarray, rng: Rng) -> np.ndarray:
        """The picture cut to a sheet of paper, with a photograph or something plain around it. Items outside
        are removed from `sheet`."""
        corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], float)
        inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        outside = rng.random((4, 2)) < 0.25
        corners += inward * np.where(outside, -40.0, rng.uniform(0, 0.22, (4, 2)) * (WIDTH, HEIGHT))
        quad = (corners * 16).astype(np.int32)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillConvexPoly(mask, quad, 255, cv2.LINE_AA, 4)
        kept = []
        for item in sheet.items:
            edges = corners.astype(np.float32)
            inside = [cv2.pointPolygonTest(edges, xy, False) for xy in project(matrix, item.outline).tolist()]
            # what the edge cuts stays, with a label that asks for nothing
            if max(inside) >= 0:
                kept.append(item if min(inside) >= 0 else Item(-1, item.outline, item.height, -1))
        sheet.items[:] = kept
        if rng.random() < 0.7:
            around = self.photographs.part(rng, WIDTH, HEIGHT)
        else:
            around = paper(rng, WIDTH, HEIGHT) - np.float32(rng.uniform(0.1, 0.6))
        cover = mask.astype(np.float32) / 255
        if rng.random() < 0.4:
            shade = cv2.GaussianBlur(cover, (0, 0), float(rng.uniform(2, 8)))
            around = around * (1 - np.float32(rng.uniform(0.1, 0.6)) * shade)
        return around + (picture - around) * cover

    def _framed(self, kind: str, grey: np.ndarray, items: list[Item], matrix: np.ndarray, rng: Rng) -> Page:
        """The page, normalized as a whole, or a tight part of it as if it were the whole picture."""
        boxes = np.zeros((len(items), 4), np.float32)
        if items:
            points = project(matrix, np.concatenate([item.outline for item in items]))
            begins = np.cumsum([0, *(len(item.outline) for item in items[:-1])])
            boxes[:, :2] = np.minimum.reduceat(points, begins)
            boxes[:, 2:] = np.maximum.reduceat(points, begins)
        labels = np.array([item.label for item in items], int)
        strings = np.array([item.string for item in items], int)
        # how much the page's matrix enlarges, at the middle of the sheet
        larger = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
        heights = np.array([item.height for item in items], np.float32) * larger
        x0, y0, x1, y1 = 0, 0, WIDTH, HEIGHT
        seen = boxes[(boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < WIDTH) & (boxes[:, 1] < HEIGHT)]
        if len(seen) and rng.random() < self.params["tight"]:
            margin = rng.uniform(1, 20, 4)
            x0, y0 = np.maximum(seen[:, :2].min(0) - margin[:2], 0).astype(int)
            x1, y1 = np.minimum(seen[:, 2:].max(0) + margin[2:], (WIDTH, HEIGHT)).astype(int)
            if min(x1 - x0, y1 - y0) < 8:
                x0, y0, x1, y1 = 0, 0, WIDTH, HEIGHT
        picture = grey[y0:y1, x0:x1]
        wide, high = x1 - x0, y1 - y0
        left, top = int(rng.integers(0, WIDTH - wide + 1)), int(rng.integers(0, HEIGHT - high + 1))
        values = cv2.copyMakeBorder(
            normalize(picture), top, HEIGHT - high - top, left, WIDTH - wide - left, cv2.BORDER_REPLICATE
        )
        area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-3)
        cut = np.concatenate([np.maximum(boxes[:, :2], (x0, y0)), np.minimum(boxes[:, 2:], (x1, y1))], 1)
        visible = np.prod(np.maximum(cut[:, 2:] - cut[:, :2], 0), axis=1) / area
        asked = (visible >= 0.8) & (heights >= LOW) & (heights <= HIGH) & (labels >= 0)
        unasked = (visible >= 0.45) & (heights >= UNASKED_LOW) & (heights <= UNASKED_HIGH) & ~asked
        keep = asked | unasked
        moved = boxes + np.array([left - x0, top - y0] * 2, np.float32)
        return Page(
            kind, picture, values, labels[keep], moved[keep].astype(np.float32),
            np.where(asked, ASKED, UNASKED)[keep], strings[keep],
        )  # fmt: skip


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points, float (n, 2), moved by a matrix (3, 3)."""
    moved = np.concatenate([points, np.ones((len(points), 1))], 1) @ matrix.T
    return moved[:, :2] / moved[:, 2:]


def _centred(matrix: np.ndarray) -> np.ndarray:
    """The matrix for pixels whose centres have whole numbers, as OpenCV has them."""
    back, forth = np.eye(3), np.eye(3)
    back[:2, 2], forth[:2, 2] = -0.5, 0.5
    return back @ matrix @ forth
