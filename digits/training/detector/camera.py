"""Turns ink into a grey picture: paper, light, shadows, folds, a desk around the sheet, blur, noise and
JPEG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from digits.training.detector.glyphs import Rng
from digits.training.stage import StageError


class Photographs:
    """Photographs without digits, of which random parts are taken."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.*"))
        if not paths:
            raise StageError(f"{folder} has no photographs. Run `dvc repro downloads`.")
        pictures = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
        self.pictures = [picture for picture in pictures if picture is not None]

    def part(self, rng: Rng, width: int, height: int) -> np.ndarray:
        """A part of one of them, turned, mirrored and scaled at random: float32 (height, width), 0 to 1."""
        picture = self.pictures[rng.integers(len(self.pictures))]
        zoom, angle = float(np.exp(rng.uniform(np.log(0.45), np.log(3)))), rng.uniform(-np.pi, np.pi)
        angle = angle if rng.random() < 0.4 else 0.0
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
        if rng.random() < 0.5:
            matrix[:, 0] *= -1
        centre = rng.uniform(0.1, 0.9, 2) * (picture.shape[1], picture.shape[0])
        shift = centre - matrix @ (width / 2, height / 2)
        part = cv2.warpAffine(
            picture, np.hstack([matrix, shift[:, None]]), (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        return part.astype(np.float32) / 255


def smooth(rng: Rng, width: int, height: int, knots: int) -> np.ndarray:
    """Smooth noise with a standard deviation of about 1, float32 (height, width)."""
    grid = rng.standard_normal((knots, knots), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def half_plane(rng: Rng, width: int, height: int, soft: float) -> np.ndarray:
    """0 on one side of a random straight line and 1 on the other, with an edge of `soft` pixels: float32."""
    angle = rng.uniform(0, 2 * np.pi)
    x0, y0 = rng.uniform(0.1, 0.9, 2) * (width, height)
    x = (np.arange(width, dtype=np.float32) - x0) * np.float32(np.cos(angle) / soft)
    y = (np.arange(height, dtype=np.float32) - y0) * np.float32(np.sin(angle) / soft)
    return np.clip(x[None] + y[:, None] + 0.5, 0, 1)


def paper(rng: Rng, width: int, height: int) -> np.ndarray:
    """Paper in uneven light, float32 (height, width), 0 to 1."""
    bright = rng.uniform(0.45, 1.0)
    sheet = np.full((height, width), bright, np.float32)
    if rng.random() < 0.6:
        x, y = rng.normal(0, 0.12, 2)
        sheet += (np.linspace(-x, x, width)[None] + np.linspace(-y, y, height)[:, None]).astype(np.float32)
    if rng.random() < 0.3:
        sheet += smooth(rng, width, height, int(rng.integers(3, 8))) * np.float32(rng.uniform(0.01, 0.06))
    if rng.random() < 0.25:
        # the grain of paper, cloth or a wall
        sheet += smooth(rng, width, height, int(rng.integers(30, 110))) * np.float32(rng.uniform(0.005, 0.05))
    return sheet


def shadows(picture: np.ndarray, rng: Rng, params: dict[str, Any]) -> np.ndarray:
    """The picture, float32, with folds and shadows that have hard or soft edges."""
    height, width = picture.shape
    if rng.random() < params["shadow"]:
        soft = float(np.exp(rng.uniform(np.log(1), np.log(120))))
        shade = half_plane(rng, width, height, soft)
        if rng.random() < 0.4:
            shade = np.minimum(shade, half_plane(rng, width, height, soft))
        picture = picture * (1 - shade * np.float32(rng.uniform(0.15, 0.7)))
    if rng.random() < params["fold"]:
        angle, light = rng.normal(0, 0.06) + (rng.random() < 0.5) * np.pi / 2, rng.uniform(-0.3, 0.25)
        x0, y0 = rng.uniform(0.1, 0.9, 2) * (width, height)
        reach = 2.0 * (width + height)
        ends = [(int(x0 + s * reach * np.cos(angle)), int(y0 + s * reach * np.sin(angle))) for s in (-1, 1)]
        line = np.zeros((height, width), np.float32)
        cv2.line(line, ends[0], ends[1], float(light), int(rng.integers(1, 4)), cv2.LINE_AA)
        side = half_plane(rng, width, height, 2.0) * np.float32(rng.normal(0, 0.05))
        picture = picture + line * picture + side
    return picture


def exposed(picture: np.ndarray, contrast: float, rng: Rng, params: dict[str, Any]) -> np.ndarray:
    """The picture, float32 0 to 1, blurred, noisy and compressed, as uint8. contrast: the difference between
    paper and ink, which limits the noise."""
    way = rng.random()
    if way < 0.45:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 1.0)))
    elif way < 0.45 + params["strong_blur"]:
        if rng.random() < 0.6:
            picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(1.0, 2.3)))
        else:
            # moved while the shutter was open
            length = int(rng.integers(3, 8))
            kernel = np.zeros((length, length), np.float32)
            turn = rng.uniform(0, np.pi)
            reach = np.array([np.cos(turn), np.sin(turn)]) * length / 2
            ends = [np.round(length / 2 - 0.5 + s * reach).astype(int).tolist() for s in (-1, 1)]
            cv2.line(kernel, ends[0], ends[1], 1.0)
            picture = cv2.filter2D(picture, -1, kernel / max(kernel.sum(), 1))
    if rng.random() < params["noise"]:
        strength = float(np.exp(rng.uniform(np.log(0.004), np.log(0.12)))) * contrast
        noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(strength)
        picture = picture + (cv2.GaussianBlur(noise, (0, 0), 0.7) * 2 if rng.random() < 0.3 else noise)
    grey = np.clip(picture * 255, 0, 255).astype(np.uint8)
    if rng.random() < params["jpeg"]:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))]
        grey = cv2.imdecode(cv2.imencode(".jpg", grey, quality)[1], cv2.IMREAD_GRAYSCALE)
    return grey
