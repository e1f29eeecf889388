"""Chooses what a word says. `best_texts` finds the most probable texts of a word among what may be digits, with a
given length or check digit if wanted, and `Calibration` gives the probability that a line is right."""

from __future__ import annotations

import math
from heapq import nlargest
from typing import Any, NamedTuple

import numpy as np

from digits.detector import KINDS, MARK, SCORE

# most classes of a digit to try, and most texts to keep at each digit (beam search)
MOST_CLASSES, MOST_TEXTS = 3, 100
# bounds of probabilities, so that their logarithms are finite
LEAST = 1e-4


class Text(NamedTuple):
    """A reading of a word. score: the logarithm of its probability, if its digits are independent. choice: the
    indices of its digits and their classes."""

    score: float
    choice: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """The digits."""
        return "".join(str(kind) for _, kind in self.choice)


def best_texts(
    peaks: np.ndarray, count: int, length: int | None = None, check: str | None = None
) -> list[Text]:
    """The most probable texts of what may be digits, (n, 16), from left to right: at most `count`, the best first.

    length: the number of digits. check: "luhn" if the last digit must be the check digit of the others.
    """
    # from right to left, as the check digit requires: the best texts by number of digits and their sum
    states: dict[tuple[int, int], dict[str, Text]] = {(0, 0): {"": Text(0.0, ())}}
    for left, i in enumerate(range(len(peaks) - 1, -1, -1)):
        there = float(np.clip(peaks[i, SCORE], LEAST, 1 - LEAST))
        classes = np.argsort(-peaks[i, KINDS : KINDS + MARK])[:MOST_CLASSES]
        options = [
            (int(kind), math.log(max(there * float(peaks[i, KINDS + kind]), LEAST / 10))) for kind in classes
        ]
        after: dict[tuple[int, int], dict[str, Text]] = {}
        for (number, total), texts in states.items():
            for kind, score in [(None, math.log(1 - there)), *options]:
                state = number, total
                if kind is not None:
                    if length is not None and number == length:
                        continue
                    state = number + 1 if length is not None else 0, 0
                    if check is not None:
                        # in the state without a length, only whether the number is odd matters
                        odd = number % 2
                        doubled = kind if not odd else sum(divmod(2 * kind, 10))
                        state = number + 1 if length is not None else 1 - odd, (total + doubled) % 10
                # too few digits are left
                if length is not None and state[0] + len(peaks) - 1 - left < length:
                    continue
                found = after.setdefault(state, {})
                for text, before in texts.items():
                    longer = text if kind is None else str(kind) + text
                    choice = before.choice if kind is None else ((i, kind), *before.choice)
                    if longer not in found or found[longer].score < before.score + score:
                        found[longer] = Text(before.score + score, choice)
        # the best of each state first, because any of them may be the only one that fits in the end
        ranked = [
            (-place, text, state)
            for state, texts in after.items()
            for place, text in enumerate(nlargest(count + 1, texts.values()))
        ]
        states = {}
        for _, each, state in nlargest(MOST_TEXTS, ranked):
            states.setdefault(state, {})[each.text] = each
    ends = [
        text
        for (number, total), texts in states.items()
        if (length is None or number == length) and (check is None or total == 0)
        for text in texts.values()
        if text.choice and (check is None or len(text.choice) > 1)
    ]
    return nlargest(count, ends)


class Calibration:
    """The probability that a line is right, by a logistic function of its features, from the detector's card."""

    def __init__(self, card: dict[str, Any], sure: float | None = None) -> None:
        given = card.get("calibration", {})
        self.weights = np.array(given.get("weights", ()), float)
        self.bias = float(given.get("bias", 0))
        self.sure = float(given.get("sure", 0.9)) if sure is None else sure
        self.sure_digit = float(given.get("sure_digit", 0.9))

    def probability(self, features: np.ndarray) -> float:
        """The probability for one line's features, (n,)."""
        weights = self.weights if len(self.weights) else np.eye(1, len(features))[0]
        return float(1 / (1 + math.exp(-np.clip(features @ weights + self.bias, -30, 30))))
