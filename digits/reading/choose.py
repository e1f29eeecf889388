"""Chooses what a line says. `best_choices` finds the most probable numbers among what may be digits, with a given
length or check digit if wanted, and `Calibration` gives the probability that a line is right."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush, nlargest
from typing import Any, NamedTuple

import numpy as np

from digits.detector import CLASS, MARK, SCORE

# most sets of changes to try
TRIES = 3000
# bounds of probabilities, so that their logarithms are finite
LEAST = 1e-5

UNKNOWN = {"presence": ([1, -10, -2], 0.4), "line": ([0, 0, 0, 0, 0, 1], 0), "sure": 1.01, "sure_digit": 0.9}
# from left to right, the indices of digits among the peaks, and which digits they are
Choice = list[tuple[int, int]]


class Scored(NamedTuple):
    """A choice of digits."""

    score: float  # the logarithm of its probability relative to that of no digits
    choice: Choice


def best_choices(
    peaks: np.ndarray, count: int, length: int | None = None, check: str | None = None
) -> list[Scored]:
    """The most probable numbers with different texts, the best first.

    Args:
        peaks: what may be digits, (n, 16), from left to right.
        count: the maximum number of numbers.
        length: the number of digits that they must have.
        check: "luhn" if the last digit must be the check digit of the others.
    """
    there = np.clip(peaks[:, SCORE].astype(float), LEAST, 1 - LEAST)
    gain = np.log(there / (1 - there))
    offset = 0.0
    if length is not None:
        if length > len(peaks):
            return []
        # if each digit gains equally, numbers of this length keep their order, and the best one of all has it
        order = np.sort(gain)[::-1]
        offset = -(order[length - 1] + order[length : length + 1].max(initial=order[length - 1] - 1)) / 2
    digits = peaks[:, CLASS : CLASS + MARK]
    # that it is hard to say which digit it is does not mean that there is none. The last choice is to leave it out
    scores = np.zeros((len(peaks), MARK + 1))
    scores[:, :MARK] = gain[:, None] + np.log(np.maximum(digits / digits.max(1, keepdims=True), LEAST))
    true = scores.tolist()
    scores[:, :MARK] += offset
    best = scores.argmax(1)
    less = scores.max(1, keepdims=True) - scores
    less[np.arange(len(peaks)), best] = np.inf
    order = np.argsort(less, axis=None, kind="stable")[:TRIES]
    losses = less.ravel()[order].tolist()
    changes = [divmod(place, MARK + 1) for place in order.tolist()]
    found: dict[str, Scored] = {}
    # sets of changes by what they lose: each begets one with the next change, and one with it in place of the last
    sets: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(max(TRIES // 10, TRIES * 10 // max(10, len(peaks)))):
        if not sets or len(found) == count:
            break
        loss, made = heappop(sets)
        after = made[-1] + 1 if made else 0
        if after < len(losses) and losses[after] < np.inf:
            heappush(sets, (loss + losses[after], (*made, after)))
            if made:
                heappush(sets, (loss + losses[after] - losses[after - 1], (*made[:-1], after)))
        changed = dict(changes[k] for k in made)
        if len(changed) < len(made):
            # two changes of one digit
            continue
        kept = ((i, changed.get(i, digit)) for i, digit in enumerate(best.tolist()))
        choice = [(i, digit) for i, digit in kept if digit < MARK]
        text = "".join(str(digit) for _, digit in choice)
        if text and length in (None, len(text)) and (check is None or _has_check_digit(text)):
            found.setdefault(text, Scored(sum(true[i][digit] for i, digit in choice), choice))
    return list(found.values())


def _has_check_digit(text: str) -> bool:
    values = [int(digit) * (1 + i % 2) for i, digit in enumerate(reversed(text))]
    return len(text) > 1 and sum(value - 9 * (value > 9) for value in values) % 10 == 0


def best_lines(
    peaks: np.ndarray,
    parts: list[np.ndarray],
    count: int,
    length: int | None = None,
    check: str | None = None,
) -> tuple[list[Scored], bool]:
    """The most probable combinations of numbers in the parts of a line, which are indices of `peaks`, and whether
    every part has such a number; one without is as if there were no condition. Else like `best_choices`."""
    out, fits = [Scored(0.0, [])], True
    for part in parts:
        found = best_choices(peaks[part], count, length, check)
        if not found:
            found, fits = best_choices(peaks[part], count), False
        found = [Scored(score, [(int(part[i]), digit) for i, digit in choice]) for score, choice in found]
        longer = [
            Scored(one.score + other.score, one.choice + other.choice) for one in out for other in found
        ]
        out = nlargest(count, longer, key=lambda scored: scored.score)
    return out, fits


class Logistic:
    """A logistic function of features: the probability of something."""

    def __init__(self, weights: Sequence[float], bias: float) -> None:
        self.weights, self.bias = np.array(weights, float), bias

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The probabilities, (n,), for features, (n, m)."""
        return 1 / (1 + np.exp(-np.clip(features @ self.weights + self.bias, -30, 30)))


class Calibration:
    """How sure the detector is, by its card. With a card that says nothing about it, nothing is sure.

    Attributes:
        presence: gives the probability that something is a digit.
        line: gives the probability that a line is right.
        sure, sure_digit: the probabilities from which a line and a digit are sure.
    """

    def __init__(self, card: dict[str, Any], sure: float | None = None) -> None:
        given = UNKNOWN | card.get("calibration", {})
        self.presence, self.line = Logistic(*given["presence"]), Logistic(*given["line"])
        self.sure, self.sure_digit = given["sure"] if sure is None else sure, given["sure_digit"]
