"""Writes plots of a network's errors. train.py calls `write_plots` with the test results, and `write_reliability`.
`dvc plots diff` draws confusion.csv and reliability.csv, and shows misclassified.png next to that of another run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# maximum number of images on the sheet
MAX_SHOWN = 100
COLUMNS = 10


def write_plots(folder: Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> None:
    """Write confusion.csv and misclassified.png into `folder`.

    images: uint8 (n, 28, 28), bright on black. labels, predicted: actual and predicted digits, (n,).
    """
    pairs = zip(labels, predicted, strict=True)
    rows = "".join(f"{label},{answer}\n" for label, answer in pairs)
    (folder / "confusion.csv").write_text(f"actual,predicted\n{rows}")
    draw_misclassified(images, labels, predicted).save(folder / "misclassified.png")


def write_reliability(folder: Path, bins: list[tuple[float, float, int]]) -> None:
    """Write reliability.csv for the reliability diagram, with the mean probability, the accuracy and the number
    of images in each bin."""
    rows = "".join(f"{probability:.5f},{accuracy:.5f},{count}\n" for probability, accuracy, count in bins)
    (folder / "reliability.csv").write_text(f"probability,accuracy,images\n{rows}")


def draw_misclassified(images: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> Image.Image:
    """A sheet with at most MAX_SHOWN misclassified images, dark on light, each below "label > prediction"."""
    wrong = np.flatnonzero(predicted != labels)[:MAX_SHOWN]
    rows = max(1, -(-len(wrong) // COLUMNS))
    sheet = Image.new("L", (COLUMNS * 64, rows * 80), 255)
    draw = ImageDraw.Draw(sheet)
    for place, i in enumerate(wrong):
        x, y = place % COLUMNS * 64, place // COLUMNS * 80
        draw.text((x + 18, y + 2), f"{labels[i]} > {predicted[i]}", fill=0)
        sheet.paste(Image.fromarray(255 - images[i]).resize((56, 56)), (x + 4, y + 18))
    return sheet
