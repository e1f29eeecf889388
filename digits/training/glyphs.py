"""The pipeline's `glyphs` stage: `python -m digits.training.glyphs` draws the digits, letters and signs of the
handwriting fonts once, and writes them to data/glyphs.npz. That file is in git, so that training needs neither the
fonts nor npm.

The fonts are the packages of Fontsource that params.yaml names. All families are under the SIL Open Font License,
which allows pictures of their characters to be passed on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from digits.training.arrays import Arrays
from digits.training.detector.downloads import Fonts, fetch_fonts, font_files
from digits.training.detector.params import detector_params
from digits.training.hands import BASE, GLYPHS, SIDE
from digits.training.stage import outputs, read_params, run

# letters and signs that look like digits in some hands are left out. The fonts have no Greek letters
DIGITS, LETTERS = "0123456789", "ACEFHJKLMNPRTUVWXYacdefhjkmnprtuvwx#%+=*@<~€£"
# pixels of the font's em
EM = 44


def draw(paths: list[Path], held_out: list[str]) -> Arrays:
    """The arrays of GLYPHS from one font file a family. held_out: the families that are not trained with."""
    drawn = []
    for path in paths:
        font = ImageFont.truetype(path, EM)
        missing = bytes(font.getmask("\U000fffff"))
        for character in DIGITS + LETTERS:
            left, top, right, bottom = font.getbbox(character, anchor="ms")
            outside = max(-left, right) > SIDE // 2 or -top > BASE or bottom > SIDE - BASE
            if outside or bytes(font.getmask(character)) in (missing, b""):
                continue
            picture = Image.new("L", (SIDE, SIDE))
            ImageDraw.Draw(picture).text((SIDE // 2, BASE), character, 255, font, anchor="ms")
            drawn.append((np.asarray(picture), character, path.stem, np.uint8(path.stem in held_out)))
    return {
        name: np.array(column) for name, column in zip(GLYPHS.arrays, zip(*drawn, strict=True), strict=True)
    }


def main() -> None:
    """Write data/glyphs.npz."""
    params = read_params("fonts", Fonts)
    held_out = detector_params()["pages"]["held_out_fonts"]
    with tempfile.TemporaryDirectory() as temporary, outputs(GLYPHS.path.parent, GLYPHS.path.name) as new:
        fetch_fonts(Fonts(params.version, params.handwriting, []), Path(temporary))
        arrays = draw(font_files(Path(temporary), "handwriting"), held_out)
        # NumPy gives all members of the file the same date
        np.savez_compressed(new / GLYPHS.path.name, allow_pickle=False, **arrays)
    print(f"{len(arrays['images'])} glyphs of {len(set(arrays['families']))} families in {GLYPHS.path}")


if __name__ == "__main__":
    run(main)
