"""The pipeline's `pages` stage: `python -m digits.training.detector.sheets` draws pages of each kind as the
detector's training would. It writes contact sheets, with a box around everything that the detector is to find:
green for digits, blue for marks, grey for what it is neither to find nor to leave out. It also writes the hashes
of the pages: the detector is trained again when these change, and not when only the code does."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np

from digits.training.detector.pages import ASKED, MARK, Page, Pages
from digits.training.detector.params import detector_params
from digits.training.stage import ROOT, outputs, run

COLUMNS, ROWS = 3, 4
# pixels of the sheet per pixel of a page
TIMES = 2
# pages of each kind whose hash is taken, half of them held out
HASHED = 60


def framed(page: Page) -> np.ndarray:
    """The page's input as a picture with boxes, uint8 (TIMES * HEIGHT, TIMES * WIDTH, 3), as OpenCV orders
    colours."""
    grey = np.clip((page.input + 1.5) * 64, 0, 255).astype(np.uint8)
    picture = cv2.cvtColor(cv2.resize(grey, None, fx=TIMES, fy=TIMES), cv2.COLOR_GRAY2BGR)
    for label, box, state in zip(page.labels, page.boxes, page.states, strict=True):
        colour = (150, 150, 150) if state != ASKED else (255, 120, 0) if label == MARK else (0, 200, 0)
        x0, y0, x1, y1 = (round(float(edge) * TIMES) for edge in box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1)
        if state == ASKED and label < MARK:
            cv2.putText(picture, str(label), (x0, y0 - 1), cv2.FONT_HERSHEY_PLAIN, 0.8, (0, 0, 255), 1)
    return picture


def contact_sheet(pages: list[Page]) -> np.ndarray:
    """COLUMNS * ROWS pages, uint8 (height, width, 3)."""
    pictures = [framed(page) for page in pages]
    return np.vstack([np.hstack(pictures[row * COLUMNS :][:COLUMNS]) for row in range(ROWS)])


def digest(pages: list[Page]) -> str:
    """SHA-256 of all that the detector learns from pages, in hexadecimal."""
    sha256 = hashlib.sha256()
    for page in pages:
        for array in (page.input, page.labels, page.boxes, page.states):
            sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()


def main() -> None:
    """Write the contact sheet and the hash of each kind in params.yaml."""
    parser = argparse.ArgumentParser(description="Draw contact sheets of the detector's pages.")
    parser.add_argument("--out", type=Path, default=ROOT, help="the folder that gets metrics/")
    out = parser.parse_args().out
    params = detector_params()["pages"]
    drawn, held = (Pages(params, ROOT / "data", held) for held in (False, True))
    hashes = {}
    with outputs(out, "metrics/detector/pages", "metrics/detector/pages.json") as new:
        sheets = new / "metrics" / "detector" / "pages"
        sheets.mkdir()
        for kind in params["kinds"]:
            some = [drawn.page(number, kind) for number in range(HASHED // 2)]
            hashes[kind] = digest([*some, *(held.page(number, kind) for number in range(HASHED // 2))])
            sheet = contact_sheet(some[: COLUMNS * ROWS])
            cv2.imwrite(str(sheets / f"{kind}.jpg"), sheet, [cv2.IMWRITE_JPEG_QUALITY, 80])
        sheets.with_suffix(".json").write_text(json.dumps(hashes, indent=2) + "\n")
    print(f"{len(hashes)} contact sheets in {out / 'metrics' / 'detector' / 'pages'}")


if __name__ == "__main__":
    run(main)
