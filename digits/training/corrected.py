"""data/corrections.npz: images of which people have said what they show, because the service answered something
else. Most are to train with, and some are held out, for comparing models."""

from __future__ import annotations

from digits.training.arrays import IMAGE, LABEL, Layout
from digits.training.stage import ROOT

# images: uint8 (n, 28, 28), bright on black. labels: their digits, or NO_DIGIT of digits/training/network.py,
# uint8 (n,). held_out: whether each is for comparing models. ids: the request and the place in it, such as "4bf-0"
CORRECTIONS = Layout(
    ROOT / "data" / "corrections.npz",
    "corrections",
    {"images": IMAGE, "labels": LABEL, "held_out": ("b", ()), "ids": ("U", ())},
)
