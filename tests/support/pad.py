"""Drawing on the page, and what the page then says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from project import ROOT

SAMPLES = ROOT / "digits/web/static/samples"


# the strokes of each digit, on a pad from 0 to 1
DIGITS: dict[int, list[list[tuple[float, float]]]] = {
    0: [
        [
            (0.5, 0.2),
            (0.36, 0.3),
            (0.33, 0.5),
            (0.38, 0.72),
            (0.5, 0.8),
            (0.63, 0.7),
            (0.66, 0.5),
            (0.6, 0.27),
            (0.5, 0.2),
        ]
    ],
    1: [[(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)]],
    2: [
        [
            (0.35, 0.32),
            (0.45, 0.2),
            (0.6, 0.24),
            (0.62, 0.4),
            (0.48, 0.6),
            (0.34, 0.78),
            (0.5, 0.78),
            (0.68, 0.78),
        ]
    ],
    3: [[(0.36, 0.24), (0.52, 0.2), (0.62, 0.32), (0.5, 0.46), (0.64, 0.6), (0.56, 0.78), (0.36, 0.76)]],
    4: [[(0.42, 0.2), (0.34, 0.5), (0.66, 0.52)], [(0.6, 0.3), (0.58, 0.82)]],
    7: [[(0.34, 0.24), (0.64, 0.22), (0.56, 0.45), (0.46, 0.8)]],
}


def on_pad(page: Any) -> Callable[[tuple[float, float]], tuple[float, float]]:
    """Convert a point on the pad, from 0 to 1, to pixels in the window."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    return lambda point: (box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"])


def curve(points: list[tuple[float, float]], steps: int = 6) -> list[tuple[float, float]]:
    """Points along a smooth line through `points` (Catmull-Rom), like the movement of a hand."""
    p = np.array([points[0], *points, points[-1]])
    line = [points[0]]
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        for t in np.linspace(0, 1, steps + 1)[1:]:
            q = (
                2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
            ) / 2
            line.append((float(q[0]), float(q[1])))
    return line


def draw(page: Any, strokes: list[list[tuple[float, float]]]) -> None:
    """Draw with the mouse."""
    at = on_pad(page)
    for stroke in strokes:
        page.mouse.move(*at(stroke[0]))
        page.mouse.down()
        for point in curve(stroke)[1:]:
            page.mouse.move(*at(point))
        page.mouse.up()


def says(page: Any, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#said")).to_contain_text(text, timeout=20_000)


def reads(page: Any, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#text")).to_have_text(re.compile(f"^{text}$"), timeout=20_000)
