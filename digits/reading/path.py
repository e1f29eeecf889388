"""The best readings of a line: `best_readings` finds the best paths through its hypotheses (the graph of
LeCun et al. 1998, VI), of a known number of digits or with a check digit if asked to. Called by
digits.reading.read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Box = tuple[int, int, int, int]

# readings that the best one is compared with
RUNNERS_UP = 8


class Edge(NamedTuple):
    """A hypothesis: the pieces from `start` to `stop` are one digit, or are none.

    options: digit, its score (a logarithm) and its probability as the network gives it; digit None for no
    digit. box: x, y, width, height.
    """

    start: int
    stop: int
    options: list[tuple[int | None, float, float]]
    box: Box


class Graph(NamedTuple):
    """A line's hypotheses over `pieces` pieces, from left to right."""

    pieces: int
    edges: list[Edge]


class Best(NamedTuple):
    """The best reading of a line.

    digits: digit, probability, box. skipped: boxes of what is no digit. probability: of all the line. fits:
    the reading has the length and the check digit that were asked for. alternatives: others' texts and
    probabilities.
    """

    digits: list[tuple[int, float, Box]]
    skipped: list[Box]
    probability: float
    fits: bool
    alternatives: list[tuple[str, float]]


class _Path(NamedTuple):
    score: float
    text: str
    edge: Edge | None
    option: int
    rest: _Path | None


def best_readings(graph: Graph, alternatives: int, length: int | None, check: str | None) -> Best:
    """The best reading of so many digits whose check digit fits, or the best of all where there is none."""
    paths = _paths(graph, max(RUNNERS_UP, alternatives + 1), length, check)
    fits = bool(paths)
    if not fits:
        paths = _paths(graph, max(RUNNERS_UP, alternatives + 1), None, None)
    probabilities = _probabilities([path.score for path in paths])
    digits, skipped = [], []
    path: _Path | None = paths[0]
    while path is not None and path.edge is not None:
        digit, _, served = path.edge.options[path.option]
        if digit is None:
            skipped.append(path.edge.box)
        else:
            digits.append((digit, served, path.edge.box))
        path = path.rest
    others = [
        (path.text, probability)
        for path, probability in zip(paths[1:], probabilities[1:], strict=True)
        if path.text
    ]
    return Best(digits, skipped, probabilities[0], fits, others[:alternatives])


def _probabilities(scores: Sequence[float]) -> list[float]:
    """Of readings, by their scores, the best first."""
    powers = [math.exp(score - scores[0]) for score in scores]
    return [power / sum(powers) for power in powers]


def _paths(graph: Graph, count: int, length: int | None, check: str | None) -> list[_Path]:
    """The best paths with different texts, the best first; none if no path fits."""
    luhn = check == "luhn"
    # from the right, for the check counts digits from there: at each node the best paths to the end by
    # (number of digits, their sum), as far as these matter
    best: list[dict[tuple[int, int], dict[str, _Path]]] = [{} for _ in range(graph.pieces + 1)]
    best[graph.pieces][0, 0] = {"": _Path(0.0, "", None, 0, None)}
    leaving: list[list[Edge]] = [[] for _ in range(graph.pieces)]
    for edge in graph.edges:
        leaving[edge.start].append(edge)
    for node in range(graph.pieces - 1, -1, -1):
        states = best[node]
        for edge in leaving[node]:
            for state, paths in best[edge.stop].items():
                for i, (digit, score, _) in enumerate(edge.options):
                    after = _after(state, digit, length, luhn)
                    if after is None:
                        continue
                    found = states.setdefault(after, {})
                    for path in paths.values():
                        text = path.text if digit is None else str(digit) + path.text
                        total = path.score + score
                        if text not in found or found[text].score < total:
                            found[text] = _Path(total, text, edge, i, path)
        for state, found in states.items():
            if len(found) > count:
                kept = sorted(found.values(), key=lambda path: -path.score)[:count]
                states[state] = {path.text: path for path in kept}
    ends = [
        path
        for (number, total), found in best[0].items()
        if (length is None or number == length) and (not luhn or total == 0)
        for path in found.values()
        if not luhn or len(path.text) > 1
    ]
    return sorted(ends, key=lambda path: -path.score)[:count]


def _after(
    state: tuple[int, int], digit: int | None, length: int | None, luhn: bool
) -> tuple[int, int] | None:
    """The state with one more digit in front; None where that is too many."""
    if digit is None:
        return state
    number, total = state
    if luhn:
        worth = digit if number % 2 == 0 else 2 * digit - 9 * (digit > 4)
        total = (total + worth) % 10
    if length is not None:
        return (number + 1, total) if number < length else None
    return ((number + 1) % 2 if luhn else 0), total
