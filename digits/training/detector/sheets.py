"""Draws contact sheets of pages, with a box around everything that the detector is to find: green for digits,
blue for marks, grey for what it is neither to find nor to leave out."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import yaml

from digits.training.data import DataError
from digits.training.detector.fonts import FontError
from digits.training.detector.pages import ASKED, HEIGHT, MARK, WIDTH, Page, Pages

ROOT = Path(__file__).resolve().parents[3]
SHEETS = ROOT / "metrics" / "detector" / "pages"
COLUMNS, ROWS = 3, 4


def framed(page: Page, times: int = 2) -> np.ndarray:
    """The page's input as a picture with boxes, uint8 (times * HEIGHT, times * WIDTH, 3), as OpenCV orders
    colours."""
    grey = np.clip((page.input + 1.5) * 64, 0, 255).astype(np.uint8)
    picture = cv2.cvtColor(
        cv2.resize(grey, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2BGR
    )
    for label, box, state in zip(page.labels, page.boxes, page.states, strict=True):
        colour = (150, 150, 150) if state != ASKED else (255, 120, 0) if label == MARK else (0, 200, 0)
        x0, y0, x1, y1 = (round(float(v) * times) for v in box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1)
        if state == ASKED and label < MARK:
            cv2.putText(picture, str(label), (x0, y0 - 1), cv2.FONT_HERSHEY_PLAIN, 0.8, (0, 0, 255), 1)
    return picture


def contact_sheet(pages: list[Page], columns: int = 3, times: int = 2) -> np.ndarray:
    """Pages side by side, uint8 (rows, columns, 3)."""
    empty = np.full((HEIGHT * times, WIDTH * times, 3), 255, np.uint8)
    pictures = [framed(page, times) for page in pages] + [empty] * (-len(pages) % columns)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)


def main() -> None:
    """Write the contact sheets of all kinds in params.yaml."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["detector"]["pages"]
    try:
        pages = Pages(params, ROOT / "data")
    except (DataError, FontError, FileNotFoundError) as error:
        sys.exit(str(error))
    shutil.rmtree(SHEETS, ignore_errors=True)
    SHEETS.mkdir(parents=True)
    for kind in pages.kinds:
        sheet = contact_sheet([pages.page(number, kind) for number in range(COLUMNS * ROWS)], COLUMNS)
        cv2.imwrite(str(SHEETS / f"{kind}.jpg"), sheet, [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(f"{len(pages.kinds)} contact sheets in {SHEETS}")


if __name__ == "__main__":
    main()
