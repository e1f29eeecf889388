"""Chooses what a word says. `best_texts` finds the most probable texts of a word among what may be digits, with a
given length or check digit if wanted, and `Calibration` gives the probability that a line is right."""

from __future__ import annotations

import math
from heapq import nlargest
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from digits.detector import KINDS, MARK, SCORE

# most classes of a digit to try, and most texts to keep at each digit (beam search): fewer in a long word
MOST_CLASSES, MOST_TEXTS, MOST_STEPS = 3, 100, 30_000
# bounds of probabilities, so that their logarithms are finite
LEAST = 1e-5


class Text(NamedTuple):
    """A reading of a word. score: the logarithm of its probability relative to other texts of the same digits.
    choice: the indices of its digits and their classes."""

    score: float
    text: str
    choice: list[tuple[int, int]]


def best_texts(
    peaks: np.ndarray, count: int, length: int | None = None, check: str | None = None
) -> list[Text]:
    """The most probable texts of what may be digits, (n, 16), from left to right: at most `count`, the best first.

    length: the number of digits. check: "luhn" if the last digit must be the check digit of the others.
    """
    most = max(MOST_TEXTS // 5, min(MOST_TEXTS, MOST_STEPS // max(1, len(peaks))))
    # from right to left, as the check digit requires: the best texts by number of digits and their sum, each with
    # its score and its choice, of which every digit refers to the next
    states: dict[tuple[int, int], dict[str, tuple[float, Any]]] = {(0, 0): {"": (0.0, None)}}
    for i in range(len(peaks) - 1, -1, -1):
        there = min(max(float(peaks[i, SCORE]), LEAST), 1 - LEAST)
        options: list[tuple[int | None, str, float]] = [(None, "", math.log(1 - there))]
        kinds = peaks[i, KINDS : KINDS + MARK]
        for kind in np.argsort(-kinds)[:MOST_CLASSES].tolist():
            # that it is hard to say which digit it is does not mean that there is none
            options.append((kind, str(kind), math.log(there * max(float(kinds[kind] / kinds.max()), LEAST))))
        after: dict[tuple[int, int], dict[str, tuple[float, Any]]] = {}
        for (number, total), texts in states.items():
            for kind, sign, score in options:
                state = number, total
                if kind is not None:
                    # without a length, only whether the number is odd matters
                    longer = number + 1 if length is not None else 1 - number % 2
                    value = kind if number % 2 == 0 else sum(divmod(2 * kind, 10))
                    state = (
                        longer * (length is not None or check is not None),
                        (total + value) % 10 * (check is not None),
                    )
                if length is not None and not length - i <= state[0] <= length:
                    # too few are left, or these are too many
                    continue
                found = after.setdefault(state, {})
                for text, (before, choice) in texts.items():
                    new = sign + text
                    if new not in found or found[new][0] < before + score:
                        found[new] = before + score, choice if kind is None else (i, kind, choice)
        # the best of each state first, because any of them may be the only one that fits in the end
        ranked = [
            (-place, *each, state)
            for state, texts in after.items()
            for place, each in enumerate(
                nlargest(count + 1, ((value[0], text) for text, value in texts.items()))
            )
        ]
        states = {}
        for _, _, text, state in nlargest(most, ranked):
            states.setdefault(state, {})[text] = after[state][text]
    ends = [
        (score, text, choice)
        for (number, total), texts in states.items()
        if (length is None or number == length) and (check is None or total == 0)
        for text, (score, choice) in texts.items()
        if len(text) > (check is not None)
    ]
    return [
        Text(score, text, _unlinked(choice))
        for score, text, choice in nlargest(count, ends, key=itemgetter(0))
    ]


def _unlinked(choice: Any) -> list[tuple[int, int]]:
    out = []
    while choice is not None:
        out.append(choice[:2])
        choice = choice[2]
    return out


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
