"""The hands of data/glyphs.npz: the glyphs of handwriting fonts, of which some are only for measuring."""

from __future__ import annotations

from functools import cache

import numpy as np

from digits.training.arrays import Layout, read
from digits.training.stage import ROOT

# the side of a glyph's image, and the row of its baseline, in pixels
SIDE, BASE = 64, 44
# images: uint8 (n, 64, 64), bright on black, centred on the character's width. characters, families: of each.
# held_out: 1 for families that are not trained with, else 0
GLYPHS = Layout(
    ROOT / "data" / "glyphs.npz",
    "glyphs",
    {"images": ("u", (SIDE, SIDE)), "characters": ("U", ()), "families": ("U", ()), "held_out": ("u", ())},
)
# the image of each character
Hand = dict[str, np.ndarray]


@cache
def hands(held_out: bool = False) -> tuple[Hand, ...]:
    """A hand for each family. held_out: only the families that are not trained with; else only the others.

    Raises StageError if data/glyphs.npz is missing or damaged.
    """
    arrays = read(GLYPHS)
    found: dict[str, Hand] = {}
    for i in np.flatnonzero(arrays["held_out"] == held_out):
        found.setdefault(str(arrays["families"][i]), {})[str(arrays["characters"][i])] = arrays["images"][i]
    return tuple(found.values())


def letters(hand: Hand) -> list[str]:
    """The letters and signs of a hand, none of which looks like a digit."""
    return sorted(character for character in hand if not character.isdigit())
