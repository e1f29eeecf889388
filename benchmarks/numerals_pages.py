"""Makes pictures in which light and paper are the difficulty, or the places of numbers are what counts: tables of
3 x 3 cells, sheets of paper on a table, shadows with hard edges, and folds. The digits are MNIST's test digits or
the pen's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numerals_pens import number, written
from numerals_scores import Box, Picture
from numerals_strings import Digits, Rng, put
from paper import jpeg, png
from PIL import Image, ImageDraw, ImageFilter


def smooth(rng: Rng, height: int, width: int, down: float, across: float) -> np.ndarray:
    """Smooth noise, float (height, width), with a mean of 0 and a deviation of about 1.

    down, across: how far it stays alike in each direction, in pixels.
    """
    coarse = rng.normal(0, 1, (max(2, round(height / down)), max(2, round(width / across))))
    picture = Image.fromarray(coarse.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def file_of(picture: np.ndarray, rng: Rng) -> bytes:
    """The file of a picture with values around 0..255, grey or RGB: a PNG, or more often a JPEG."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return png(image) if rng.random() < 0.4 else jpeg(image, int(rng.integers(50, 95)))


def lit(ink: np.ndarray, rng: Rng, dark: bool = True) -> np.ndarray:
    """Ink on paper, float (height, width) in 0..255, in uneven light, with noise and blur.

    ink: uint8 (height, width), bright on black. dark: dark ink on light paper, else the reverse.
    """
    tones = (
        (rng.uniform(190, 255), rng.uniform(0, 90)) if dark else (rng.uniform(0, 50), rng.uniform(160, 255))
    )
    if rng.random() < 0.4:
        ink = np.asarray(Image.fromarray(ink).filter(ImageFilter.BoxBlur(rng.uniform(0, 1))))
    grey = tones[0] + (tones[1] - tones[0]) * (ink / 255)
    if rng.random() < 0.5:
        grey *= 1 + rng.uniform(0, 0.12) * smooth(rng, *ink.shape, max(ink.shape) / 2, max(ink.shape) / 2)
    return grey + rng.normal(0, rng.uniform(0, 5), ink.shape)


def turned(place: tuple[float, float], degrees: float, size: tuple[int, int]) -> tuple[float, float]:
    """Where a place of a picture with this width and height is after Pillow's rotate."""
    angle, x, y = np.radians(degrees), place[0] - size[0] / 2, place[1] - size[1] / 2
    return (
        size[0] / 2 + np.cos(angle) * x + np.sin(angle) * y,
        size[1] / 2 - np.sin(angle) * x + np.cos(angle) * y,
    )


def grid(
    draw: ImageDraw.ImageDraw, xs: list[int], ys: list[int], rng: Rng, width: int, framed: bool = True
) -> None:
    """Draw the lines of a table at these places, without the outer ones if it is not framed."""
    tone = int(rng.integers(120, 256))
    inner = slice(None) if framed else slice(1, -1)
    for x in xs[inner]:
        draw.line((x, ys[0], x, ys[-1]), tone, width)
    for y in ys[inner]:
        draw.line((xs[0], y, xs[-1], y), tone, width)


def tables(digits: Digits, rng: Rng, index: int) -> Picture:
    """Nine numbers of one to four digits in three rows and columns, with lines between them or only space."""
    ruled, height = index % 2 == 0, float(rng.integers(20, 57))
    hand = digits if rng.random() < 0.7 else None
    texts = [number(rng, 1, 4) for _ in range(9)]
    images: list[np.ndarray | None] = [written(text, rng, height, hand) for text in texts]
    if ruled and rng.random() < 0.25:
        images[int(rng.integers(9))] = None
    space = height * (rng.uniform(0.5, 1.5) if ruled else rng.uniform(1.7, 3))
    down = height * (rng.uniform(0.5, 1.2) if ruled else rng.uniform(0.5, 2))
    margin = int(1.5 * height)
    wide = [int(max(image.shape[1] for image in images[i::3] if image is not None) + space) for i in range(3)]
    tall = [
        int(max(image.shape[0] for image in images[3 * i : 3 * i + 3] if image is not None) + down)
        for i in range(3)
    ]
    xs, ys = ([margin, *(margin + np.cumsum(sides)).tolist()] for sides in (wide, tall))
    picture = Image.new("L", (xs[-1] + margin, ys[-1] + margin))
    if ruled:
        grid(
            ImageDraw.Draw(picture),
            xs,
            ys,
            rng,
            max(1, round(height * rng.uniform(0.03, 0.1))),
            rng.random() < 0.8,
        )
    sheet, align, turn = np.array(picture), rng.choice([0.15, 0.5, 0.85]), rng.uniform(-1.5, 1.5)
    cells: list[tuple[str, Box]] = []
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        if image is None:
            continue
        free = wide[column] - image.shape[1], tall[row] - image.shape[0]
        put(sheet, image, int(xs[column] + free[0] * align), int(ys[row] + free[1] * rng.uniform(0.4, 0.6)))
        centre = xs[column] + wide[column] / 2, ys[row] + tall[row] / 2
        x, y = turned(centre, turn, picture.size)
        cells.append((texts[i], (x - wide[column] / 2, y - tall[row] / 2, wide[column], tall[row])))
    ink = np.asarray(Image.fromarray(sheet).rotate(turn, Image.Resampling.BICUBIC))
    name = "ruled" if ruled else "not ruled"
    return Picture(file_of(lit(ink, rng, rng.random() < 0.8), rng), cells=cells, sub=name)


def page(digits: Digits, rng: Rng, height: float, count: int) -> tuple[np.ndarray, list[str]]:
    """Lines of two to seven digits, as ink on black, with a margin around them."""
    hand = digits if rng.random() < 0.7 else None
    lines = [number(rng, 2, 7) for _ in range(count)]
    images = [written(line, rng, height, hand) for line in lines]
    pitch = int(max(image.shape[0] for image in images) + height * rng.uniform(0.35, 1))
    margin = int(height * rng.uniform(0.8, 2))
    wide = max(image.shape[1] for image in images)
    sheet = np.zeros((2 * margin + count * pitch, 2 * margin + int(wide * rng.uniform(1, 1.4))), np.uint8)
    left = rng.uniform(0, 0.3)
    for i, image in enumerate(images):
        put(sheet, image, margin + int(left * (wide - image.shape[1])), margin + i * pitch)
    return sheet, lines


def wood(rng: Rng, height: int, width: int) -> np.ndarray:
    """Planks with their grain, float RGB."""
    grain = smooth(rng, height, width, rng.uniform(3, 8), width / 3) + 0.5 * smooth(rng, height, width, 2, 60)
    base = 1 + 0.07 * grain
    pitch = int(rng.integers(height // 4, height))
    for seam in range(int(rng.integers(pitch)), height, pitch):
        base[seam : seam + 3] *= 0.6
        base[seam:] *= rng.uniform(0.93, 1.07)
    return base[..., None] * np.array([150, 105, 65]) * rng.uniform(0.5, 1.2)


def cloth(rng: Rng, height: int, width: int) -> np.ndarray:
    """A cloth with checks or stripes, float RGB."""
    y, x = np.mgrid[:height, :width]
    pitch = rng.uniform(30, 120)
    bands = (x / pitch % 1 < 0.5) * 1.0 + (y / pitch % 1 < 0.5) * float(rng.random() < 0.6)
    weave = 1 + 0.04 * rng.normal(0, 1, (height, width))
    colours = rng.uniform(60, 200, (2, 3))
    return weave[..., None] * (colours[0] + (colours[1] - colours[0]) * bands[..., None] / 2)


def plain(rng: Rng, height: int, width: int) -> np.ndarray:
    """A painted table in uneven light, float RGB."""
    light = 1 + 0.1 * smooth(rng, height, width, height / 2, width / 2) + rng.normal(0, 0.02, (height, width))
    return light[..., None] * rng.uniform(20, 170, 3)


Surface = Callable[[Rng, int, int], np.ndarray]
TABLES: list[Surface] = [wood, cloth, plain]


def perspective(size: tuple[int, int], corners: np.ndarray) -> list[float]:
    """Pillow's eight coefficients for drawing a picture of this width and height with its corners, from the upper
    left one clockwise, at these places (4, 2)."""
    source = [(0, 0), (size[0], 0), size, (0, size[1])]
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows, float), np.array(values, float)).tolist()


def on_a_table(ink: np.ndarray, rng: Rng, tables: Sequence[Surface] = TABLES) -> np.ndarray:
    """A sheet with this ink, seen at an angle, on a table with one of these surfaces."""
    tall, wide = ink.shape
    height, width = int(tall * rng.uniform(1.3, 1.9)), int(wide * rng.uniform(1.3, 1.9))
    table = tables[int(rng.integers(len(tables)))](rng, height, width)
    turn = np.radians(rng.uniform(-7, 7))
    corners = np.array([(-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall)]) / 2
    corners = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners *= min(1, 0.94 * width / np.ptp(corners[:, 0]), 0.94 * height / np.ptp(corners[:, 1]))
    corners += rng.uniform(-0.025, 0.025, (4, 2)) * min(tall, wide)
    free = np.array([width, height]) - corners.max(0) + corners.min(0)
    corners += free * rng.uniform(0.2, 0.8, 2) - corners.min(0)
    sheet = lit(ink, rng)
    coefficients = perspective((wide, tall), corners)

    def seen(layer: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(layer.astype(np.float32))
        way = Image.Transform.PERSPECTIVE
        return np.asarray(picture.transform((width, height), way, coefficients, Image.Resampling.BICUBIC))

    cover = np.clip(seen(np.ones_like(sheet)), 0, 1)
    reach = int(rng.integers(2, 12))
    blurred = Image.fromarray((cover * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(reach / 2))
    shade = 1 - rng.uniform(0.1, 0.5) * np.roll(np.asarray(blurred) / 255, (reach, reach), (0, 1))
    paper = seen(sheet)[..., None] * np.array([1, 0.98, rng.uniform(0.9, 1)])
    return np.where(cover[..., None] > 0.5, paper, table * shade[..., None])


def in_shadow(ink: np.ndarray, rng: Rng) -> np.ndarray:
    """A page on which a shadow with a hard edge falls, of 10 to 50 %, often across the digits."""
    grey = lit(ink, rng)
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    shade = np.ones(ink.shape)
    for _ in range(int(rng.integers(1, 3))):
        angle = rng.uniform(0, 2 * np.pi)
        place = rng.uniform(0.25, 0.75, 2) * ink.shape[::-1]
        far = (x - place[0]) * np.cos(angle) + (y - place[1]) * np.sin(angle)
        shade = np.minimum(shade, 1 - np.clip(far / rng.uniform(0.5, 3), 0, 1))
    return grey * (1 - rng.uniform(0.1, 0.5) * shade)


def folded(ink: np.ndarray, rng: Rng) -> np.ndarray:
    """A page that was folded one to three times: each crease has a dark and a bright side, and the light changes
    there."""
    grey = lit(ink, rng)
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    for fold in range(int(rng.integers(1, 4))):
        along, place = (x, y) if (fold + rng.integers(2)) % 2 else (y, x)
        middle = place.max() * rng.uniform(0.2, 0.8) + along * rng.uniform(-0.03, 0.03)
        far, wide = place - middle, rng.uniform(1, 2.5)
        ridge = np.exp(-(((far + wide) / wide) ** 2)) - np.exp(-(((far - wide) / wide) ** 2))
        grey = grey * (1 + rng.uniform(0.03, 0.15) * np.tanh(far / 2)) + rng.uniform(10, 40) * ridge
    return grey


def sheets(digits: Digits, rng: Rng, index: int) -> Picture:
    """Sheets on a table, shadows with hard edges, and folds, in turns."""
    name, make = list(SHEETS.items())[index % len(SHEETS)]
    smallest, largest, most = (32, 64, 4) if make is on_a_table else (28, 80, 3)
    ink, lines = page(digits, rng, float(rng.integers(smallest, largest)), int(rng.integers(1, most + 1)))
    return Picture(file_of(make(ink, rng), rng), lines, sub=name)


SHEETS: dict[str, Callable[[np.ndarray, Rng], np.ndarray]] = {
    "on a table": on_a_table,
    "hard shadow": in_shadow,
    "folds": folded,
}
