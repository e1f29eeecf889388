"""Pictures and tables of what a network gets wrong, and of the outliers that it was tested with. `dvc plots diff`
draws the tables, and shows the pictures beside those of another run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# maximum number of images on the sheet
MAX_SHOWN = 100
COLUMNS = 10
# outliers of each kind
SHOWN = 24


def write_confusion(path: Path, labels: np.ndarray, predicted: np.ndarray) -> None:
    """Write a CSV file with the actual and the predicted digit of each image. labels, predicted: (n,)."""
    rows = "".join(f"{label},{answer}\n" for label, answer in zip(labels, predicted, strict=True))
    path.write_text(f"actual,predicted\n{rows}")


def write_reliability(path: Path, bins: list[tuple[float, float, int]]) -> None:
    """Write a CSV file for the reliability diagram. bins: of `measures.reliability`."""
    rows = "".join(f"{probability:.5f},{accuracy:.5f},{count}\n" for probability, accuracy, count in bins)
    path.write_text(f"probability,accuracy,images\n{rows}")


def misclassified(images: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> Image.Image:
    """A sheet with at most MAX_SHOWN misclassified images, dark on light, each below "label > prediction".

    Args:
        images: uint8 (n, 28, 28), bright on black.
        labels, predicted: actual and predicted digits, (n,).
    """
    wrong = np.flatnonzero(predicted != labels)[:MAX_SHOWN]
    rows = max(1, -(-len(wrong) // COLUMNS))
    sheet = Image.new("L", (COLUMNS * 64, rows * 80), 255)
    draw = ImageDraw.Draw(sheet)
    for place, i in enumerate(wrong):
        x, y = place % COLUMNS * 64, place // COLUMNS * 80
        draw.text((x + 18, y + 2), f"{labels[i]} > {predicted[i]}", fill=0)
        sheet.paste(Image.fromarray(255 - images[i]).resize((56, 56)), (x + 4, y + 18))
    return sheet


def contact_sheet(made: dict[str, np.ndarray]) -> Image.Image:
    """A sheet with the name and the first SHOWN images of each kind in a row, bright on black like the network's
    input. made: uint8 (n, 28, 28) for each kind."""
    sheet = Image.new("L", (80 + SHOWN * 30, max(1, len(made)) * 30))
    pen = ImageDraw.Draw(sheet)
    for row, (kind, images) in enumerate(made.items()):
        pen.text((4, row * 30 + 9), kind, fill=255)
        for column, image in enumerate(images[:SHOWN]):
            sheet.paste(Image.fromarray(image), (80 + column * 30, row * 30))
    return sheet
