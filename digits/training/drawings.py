"""Draws pictures that show no digit: printed and handwritten letters and symbols, scribbles, shapes, textures and
lines. Each function takes a random generator and returns a picture, uint8 (height, width), bright on black.

signs.json contains the handwritten letters and symbols by script, each with its strokes in the format of
strokes.json. Those "on a line" have their place on it: y is 0 at the top of a digit, and 1 on the baseline.
Symbols that look like digits are left out: O and o (0), I, l and | (1), Z and z (2), S and s (5), b and G (6), B
and & (8), g, q and y (9 or 4).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from digits.training.synthetic import smooth_strokes

SIZE = 84
# script -> symbol -> strokes
SIGNS: dict[str, dict[str, list[Any]]] = json.loads(Path(__file__).with_name("signs.json").read_text())
SHAPES = [shape for script in ("latin", "greek", "signs") for shape in SIGNS[script].values()]

LETTERS = "ACDEFHJKLMNPQRTUVWXYadefhijkmnprtuvwx" + "?#%+=*@<^~{}€£" + "αγδεηκλμνπτφχψωΓΔΛΞΠΣΦΨΩ"
# OpenCV's fonts are Rubik, its italics, and WenQuanYi Micro Hei; Pillow's is Aileron, with Latin letters only
FACES = [cv2.FontFace(name) for name in ("sans", "italic", "uni")]
AILERON = ImageFont.load_default(56)

# brighter pixels of 255 are ink
INK_LEVEL = 60

Picture = np.ndarray
# the two ends of a line
Ends = tuple[tuple[float, float], tuple[float, float]]


def letter(rng: np.random.Generator) -> Picture:
    """A printed letter or symbol."""
    text = LETTERS[rng.integers(len(LETTERS))]
    if text.isascii() and rng.random() < 0.25:
        image = Image.new("L", (96, 96))
        ImageDraw.Draw(image).text((48, 48), text, 255, AILERON, anchor="mm")
        return bent(warped(np.asarray(image), rng), rng)
    return printed(text, rng)


def printed(text: str, rng: np.random.Generator) -> Picture:
    """A letter or digit in one of OpenCV's fonts, with a random weight, slanted, rotated and bent."""
    picture = np.zeros((96, 96), np.uint8)
    face, weight = FACES[rng.integers(len(FACES))], int(rng.integers(100, 900))
    cv2.putText(picture, text, (24, 70), 255, face, 56, weight)
    return bent(warped(picture, rng), rng)


def sign(rng: np.random.Generator) -> Picture:
    """A handwritten letter or symbol from signs.json."""
    strokes = smooth_strokes(SHAPES[rng.integers(len(SHAPES))], rng)
    return inked(strokes, rng.uniform(0.04, 0.2), rng)


def invented(rng: np.random.Generator) -> Picture:
    """A symbol of no script: three to five strokes between the knots of a grid. Most are straight, some of these
    horizontal or vertical, and a few are bent or closed."""
    strokes = []
    for _ in range(int(rng.integers(3, 6))):
        knots = rng.integers(0, 4, (2 + int(rng.random() < 0.35), 2)) / 3
        way = rng.random()
        if way < 0.5:
            # horizontal or vertical, and long
            along = int(way < 0.25)
            knots[-1, along], knots[0, 1 - along] = knots[0, along], rng.uniform(0, 0.4)
            knots[-1, 1 - along] = rng.uniform(0.6, 1)
        elif way > 0.9:
            angle = np.linspace(0, 2 * np.pi, 7)[:, None] + rng.uniform(0, 6)
            knots = knots[:1] + rng.uniform(0.1, 0.3) * np.hstack([np.cos(angle), np.sin(angle)])
        strokes.append(knots)
    return inked(smooth_strokes(strokes, rng), rng.uniform(0.03, 0.14), rng)


def scribble(rng: np.random.Generator) -> Picture:
    """A random curve, a zigzag or a spiral."""
    way, count = rng.integers(3), int(rng.integers(7, 18))
    if way == 0:
        x, y = rng.uniform(0, 1, (2, count))
    elif way == 1:
        x, y = np.linspace(0, 1, count), np.arange(count) % 2 * rng.uniform(0.4, 1.2)
        x, y = x + rng.normal(0, 0.06, count), y + rng.normal(0, 0.06, count)
    else:
        angle = np.linspace(0, rng.uniform(9, 30), 3 * count) + rng.uniform(0, 6)
        wide = np.linspace(rng.uniform(0, 0.5), 0.5, 3 * count)
        x, y = np.cos(angle) * wide + angle * rng.uniform(0, 0.08), np.sin(angle) * wide
    return inked(smooth_strokes([np.stack([x, y], 1)], rng), rng.uniform(0.03, 0.14), rng)


def shape(rng: np.random.Generator) -> Picture:
    """A solid or outlined polygon or star, overlapping discs, or blots."""
    picture = np.zeros((SIZE, SIZE), np.uint8)
    way = rng.integers(4)
    if way == 0:
        return blot(rng)
    if way == 1:
        for grey in (255, *rng.choice([0, 255], int(rng.integers(3))).tolist()):
            centre, axes = rng.integers(28, 56, 2), rng.integers(14, 30, 2)
            cv2.ellipse(picture, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, grey, -1)
        return bent(picture, rng)
    corners = int(rng.integers(3, 8))
    angle: np.ndarray = np.sort(rng.uniform(0, 0.7, corners) + np.arange(corners)) * (2 * np.pi / corners)
    far: np.ndarray = rng.uniform(0.75, 1, corners)
    if way == 2:
        # a star, with every second corner near the middle
        angle = np.arange(2 * corners) * (np.pi / corners) + rng.uniform(0, 1)
        far = np.where(np.arange(2 * corners) % 2, rng.uniform(0.3, 0.7), 1.0)
    points = 42 + 36 * (np.stack([np.cos(angle), np.sin(angle)]) * far).T * rng.uniform(0.6, 1, 2)
    polygon = [(points * 16).astype(np.int32)]
    # an outline with many corners would look like a 0
    if rng.random() < 0.6 or (way == 3 and corners > 4):
        cv2.fillPoly(picture, polygon, 255, cv2.LINE_AA, 4)
    else:
        cv2.polylines(picture, polygon, True, 255, int(rng.integers(2, 10)), cv2.LINE_AA, 4)
    return picture


def curve(rng: np.random.Generator) -> Picture:
    """A closed or self-crossing curve that is no digit: an ellipse or a figure of eight that lies, a spiral, a
    Lissajous figure, a rose, or a row of loops."""
    way, tilt, pen = rng.integers(6), rng.normal(0, 0.3), rng.uniform(0.04, 0.16)
    turn = np.linspace(0, 2 * np.pi, 90)
    if way < 2:
        x, y = np.cos(turn), rng.uniform(0.25, 0.55) * np.sin(turn * (1 + way))
    elif way == 2:
        angle, pen = turn * rng.uniform(1.7, 3.5) * rng.choice([-1, 1]), pen / 2
        radius, tilt = (0.1 + turn / turn[-1]) ** rng.uniform(0.7, 1.3), rng.uniform(0, 2 * np.pi)
        x, y = radius * np.cos(angle), radius * np.sin(angle)
    elif way == 3:
        across, down = [(3, 2), (2, 3), (3, 4)][rng.integers(3)]
        x, y = np.sin(across * turn + rng.uniform(0.3, 1.3)), rng.uniform(0.6, 1) * np.sin(down * turn)
    elif way == 4:
        radius = 1 + rng.uniform(0.4, 1.1) * np.cos(int(rng.integers(3, 7)) * turn)
        x, y = radius * np.cos(turn), radius * np.sin(turn)
    else:
        angle = turn * rng.uniform(2, 4)
        x, y = 0.35 * angle - rng.uniform(0.6, 1.2) * np.sin(angle), -rng.uniform(0.7, 1.6) * np.cos(angle)
    points = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], 1)
    return inked([points], pen, rng)


def blot(rng: np.random.Generator) -> Picture:
    """One or several blots with hard or soft edges, where smooth noise exceeds a threshold."""
    noise = smooth_noise(rng, int(rng.integers(3, 9)))
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    noise = noise - rng.uniform(0.3, 0.9) * (x * x + y * y)
    level = np.quantile(noise, rng.uniform(0.5, 0.9))
    return np.clip((noise - level) * 255 * rng.uniform(3, 40), 0, 255).astype(np.uint8)


def texture(rng: np.random.Generator) -> Picture:
    """Overlapping leaves (dead leaves model: Lee, Mumford and Huang 2001, with the statistics of photographs),
    smooth noise, a gradient, stripes or a checkerboard, sometimes masked by a blot."""
    way = rng.integers(4)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    if way == 0:
        grey = np.full((SIZE, SIZE), float(rng.uniform(0, 255)), np.float32)
        for _ in range(int(rng.integers(8, 60))):
            radius = min(40, 3 / rng.uniform(0.05, 1))
            axes = (int(radius) + 1, int(radius * rng.uniform(0.3, 1)) + 1)
            centre = rng.integers(0, SIZE, 2).tolist()
            cv2.ellipse(
                grey, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0, 255)), -1
            )
    elif way == 1:
        grey = np.sum([smooth_noise(rng, knots) / knots for knots in (3, 6, 12, 24)], axis=0)
    elif way == 2:
        grey = x * rng.normal() + y * rng.normal() + (x * x + y * y) * rng.normal()
    else:
        angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 9)
        grey = np.sin(np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)))
        if rng.random() < 0.5:
            grey = grey * np.sin(np.pi * waves * (y * np.cos(angle) - x * np.sin(angle)))
        grey = np.clip(grey * rng.uniform(1, 6), -1, 1)
    grey = grey - grey.min()
    grey = grey / max(float(grey.max()), 1e-6) * 255
    if rng.random() < 0.3:
        grey = grey * (blot(rng) / 255)
    return grey.astype(np.uint8)


def line(rng: np.random.Generator) -> Picture:
    """Lines that don't look like a 1: horizontal or strongly slanted, parallel, crossing, a grid, axes with a
    curve."""
    picture = np.zeros((SIZE, SIZE), np.uint8)
    pen, way = int(rng.integers(2, 10)), rng.integers(5)
    low, high = 8.0, SIZE - 8.0
    ends: list[Ends]
    if way == 0:
        angle = rng.uniform(-30, 30) * np.pi / 180
        ends = [_ray(angle, 34, 0)]
    elif way == 1:
        angle, apart = rng.uniform(0, np.pi), rng.uniform(12, 24)
        ends = [_ray(angle, rng.uniform(20, 34), apart * (i - 1)) for i in range(int(rng.integers(2, 4)))]
    elif way == 2:
        ends = [_ray(rng.uniform(0, np.pi), 34, rng.uniform(-14, 14)) for _ in range(int(rng.integers(3, 7)))]
    elif way == 3:
        pen = min(pen, 5)
        ends = [((at, low), (at, high)) for at in np.linspace(low, high, int(rng.integers(2, 6)))]
        ends += [((low, at), (high, at)) for at in np.linspace(low, high, int(rng.integers(2, 6)))]
        ends = [ends[i] for i in np.flatnonzero(rng.random(len(ends)) < 0.9)] or ends
    else:
        pen = min(pen, 6)
        ends = [((low, low), (low, high)), ((low, high), (high, high))]
        curve = np.stack([np.linspace(low, high, 9), rng.uniform(low, high, 9)], 1)
        cv2.polylines(picture, [curve.astype(np.int32)], False, 255, pen, cv2.LINE_AA)
    for (left, top), (right, bottom) in ends:
        cv2.line(picture, (round(left), round(top)), (round(right), round(bottom)), 255, pen, cv2.LINE_AA)
    return bent(picture, rng) if rng.random() < 0.5 else picture


def _ray(angle: float, half: float, aside: float) -> Ends:
    """A line of twice the length `half`, at the distance `aside` from the middle of the picture."""
    right, down = float(np.cos(angle)), float(np.sin(angle))
    x, y = SIZE / 2 - aside * down, SIZE / 2 + aside * right
    return (x - half * right, y - half * down), (x + half * right, y + half * down)


def inked(strokes: list[np.ndarray], pen: float, rng: np.random.Generator) -> Picture:
    """Draw strokes, float (n, 2) each. pen: stroke width as a fraction of the picture's width."""
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    width = max(1, round(pen * SIZE))
    scale = (SIZE - 8 - width) / max(float((high - low).max()), 1e-6)
    place = [((stroke - (low + high) / 2) * scale + SIZE / 2) * 16 for stroke in strokes]
    picture = np.zeros((SIZE, SIZE), np.uint8)
    cv2.polylines(picture, [p.astype(np.int32) for p in place], False, 255, width, cv2.LINE_AA, 4)
    return bent(picture, rng) if rng.random() < 0.5 else picture


def warped(picture: Picture, rng: np.random.Generator) -> Picture:
    """Slant, rotate and scale a picture at random."""
    middle = np.array(picture.shape[::-1]) / 2
    turn, slant = rng.normal(0, 0.15), rng.normal(0, 0.2)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = matrix @ np.array([[1, slant], [0, 1]]) @ np.diag(rng.uniform(0.75, 1.1, 2))
    shift = middle - matrix @ middle
    return cv2.warpAffine(picture, np.hstack([matrix, shift[:, None]]), picture.shape[::-1])


def bent(picture: Picture, rng: np.random.Generator) -> Picture:
    """Distort a picture elastically, like an unsteady hand (Simard, Steinkraus and Platt 2003)."""
    height, width = picture.shape
    push = rng.normal(0, rng.uniform(0, 3.5), (2, 4, 4)).astype(np.float32)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x = x + cv2.resize(push[0], (width, height), interpolation=cv2.INTER_CUBIC)
    y = y + cv2.resize(push[1], (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR)


def cropped(picture: Picture) -> Picture:
    """The part of the picture that has ink. It is empty if there is none."""
    x, y, width, height = cv2.boundingRect((picture > INK_LEVEL).astype(np.uint8))
    return picture[y : y + height, x : x + width]


def smooth_noise(rng: np.random.Generator, knots: int) -> np.ndarray:
    """Noise that is interpolated between random knots, float32 (SIZE, SIZE)."""
    grid = rng.normal(0, 1, (knots, knots)).astype(np.float32)
    return cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
