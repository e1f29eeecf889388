"""Converts tensors in other servers' protocols to a batch of images. Unlike in POST /predict, these are nested
lists of any depth, mostly of values in [0, 1]."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from flask import request

from digits.imaging.inputs import blank
from digits.model import scale
from digits.web import bodies
from digits.web.bodies import PIXELS, SIDE
from digits.web.problems import Problem, why_not_found

# the model's name in these protocols
NAME = "mnist"
# the shapes of an image
SHAPES = ((SIDE, SIDE, 1), (SIDE, SIDE), (PIXELS,))
WORDS = re.compile(rb"\b(?:true|false)\b")
# a request for numbers has about twenty strings, which are names
MAX_QUOTES = 200


def explained(status: int, detail: str, path: str) -> str:
    """What to say of an error: of a path without a route, the path of the model, and else `detail`."""
    if status == 404 and request.url_rule is None:
        return why_not_found(f"There is no such route. The name of the model is {NAME}: GET {path}.")
    return detail


def array(value: Any, name: str, body: bytes) -> np.ndarray:
    """The array of ints or floats in nested lists. body: the JSON that contains them.

    Raises Problem 400 if rows have unequal lengths, or a value is not a number.
    """
    if body.count(b'"') > MAX_QUOTES and _has(str, value):
        # NumPy would make all values as long as the longest
        raise Problem(400, f"{name} must contain only numbers.")
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError):
        raise Problem(400, f"{name} has lists of unequal length.") from None
    # NumPy reads true as 1 among numbers; checking every value is slow, so only if the body contains the word
    if found.dtype.kind not in "iuf" or (WORDS.search(body) and _has(bool, value)):
        raise Problem(400, f"{name} must contain only numbers.")
    return found


def _has(json_type: type, value: Any) -> bool:
    return isinstance(value, json_type) or (
        isinstance(value, list) and any(_has(json_type, v) for v in value)
    )


def batch(array: np.ndarray, name: str, top: int = 1) -> np.ndarray:
    """float32 (n, 28, 28, 1) in [0, 1] from an array that `check` accepts. Raises Problem as `check` does, and 400
    for a blank image."""
    check(array, name, top)
    if problem := blank(array, top):
        raise Problem(400, f"{name}[{problem[0]}] {problem[1]}")
    return scale(array, top)


def check(array: np.ndarray, name: str, top: int = 1) -> None:
    """Accept an array of images.

    Args:
        array: (n, 28, 28, 1), (n, 28, 28) or (n, 784), with values in [0, top].
        name: what to call it in a problem.
        top: value of full brightness, 1 or 255.

    Raises Problem: 400 for another shape or range, 413 for too many images.
    """
    if array.shape[:1] == (0,):
        raise Problem(400, f"{name} is empty.")
    if array.shape[1:] not in SHAPES:
        shapes = "[n, 28, 28, 1], [n, 28, 28] or [n, 784]"
        raise Problem(400, f"{name} has the shape {list(array.shape)}, but must have {shapes}.")
    bodies.check_count(len(array))
    # NaN compares false with everything, so it fails here too
    least, most = array.min(), array.max()
    if not (least >= 0 and most <= top):
        # values slightly above 1 are rounding errors, for which the hint would be wrong
        hint = " Divide 0..255 by 255." if top == 1 and least >= 0 and 2 <= most <= 255 else ""
        raise Problem(400, f"{name} has values outside 0 to {top}{': NaN' * bool(np.isnan(least))}.{hint}")
