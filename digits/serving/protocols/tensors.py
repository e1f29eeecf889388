"""Numbers as the protocols of other servers carry them become a batch of images;
digits/serving/protocols/tfserving.py and digits/serving/protocols/kserve.py call it. Unlike POST
/predict's they are nested lists of any depth, and floats in [0, 1]."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np

from digits.serving import inputs
from digits.serving.errors import Problem
from digits.serving.inputs import PIXELS, SIDE

# the shapes of n images, after the n
SHAPES = ((SIDE, SIDE, 1), (SIDE, SIDE), (PIXELS,))
WORDS = re.compile(rb"\b(?:true|false)\b")


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises Problem 400."""
    document = inputs.in_turn(body, partial(inputs.parse, body))
    if not isinstance(document, dict):
        raise Problem(400, "The body is not a JSON object.")
    return document


def numbers(value: Any, name: str, body: bytes) -> np.ndarray:
    """The array that nested lists make, as NumPy finds it: ints or floats. `body`: the JSON they came in.

    Raises Problem 400 for rows of unequal length and for what is no number.
    """
    try:
        array = inputs.in_turn(body, partial(np.asarray, value))
    except (ValueError, OverflowError):
        raise Problem(400, f"{name} has lists of unequal length.") from None
    # NumPy takes true for 1 among numbers; looking into each is slow, so only if the body has the word
    if array.dtype.kind not in "iuf" or (WORDS.search(body) and _has_bool(value)):
        raise Problem(400, f"{name} has something other than numbers.")
    return array


def _has_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list) and any(map(_has_bool, value)))


def batch(array: np.ndarray, name: str, most: int, top: int = 1) -> np.ndarray:
    """float32 (n, 28, 28, 1) in [0, 1] from an array (n, 28, 28, 1), (n, 28, 28) or (n, 784) in [0, top].

    Raises Problem: 400 for another shape or range, 413 for more than `most` images.
    """
    if array.shape[1:] not in SHAPES:
        shape = list(array.shape)
        raise Problem(
            400, f"{name} has the shape {shape}; [n, 28, 28, 1], [n, 28, 28] or [n, 784] is wanted."
        )
    n = len(array)
    if n == 0:
        raise Problem(400, f"{name} is empty.")
    inputs.limit(n, most)
    # NaN compares false with everything, so it fails here too
    if not (array.min() >= 0 and array.max() <= top):
        if np.isnan(array.min()):
            raise Problem(400, f"{name} has NaN among its values.")
        # a little over 1 is a slip of rounding
        hint = " Divide 0..255 by 255." if top == 1 and array.min() >= 0 and 2 <= array.max() <= 255 else ""
        raise Problem(400, f"{name} has values outside 0 to {top}.{hint}")
    if problem := inputs.blank(array, top):
        raise Problem(400, f"{name}[{problem[0]}] {problem[1]}")
    return inputs.scale(array, top)
