"""Finds the best readings of a line. digits.reading.read calls `best_readings`, which finds the best paths
through the line's hypotheses (the graph of LeCun et al. 1998, VI), optionally with a given number of digits or a
check digit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import nlargest
from typing import NamedTuple

from digits.reading.pieces import Judged
from digits.reading.scores import calibrated, scores

Box = tuple[int, int, int, int]

# maximum number of paths to follow at each piece (beam search), so that a line of a hundred pieces takes seconds
MOST_PATHS = 200
# the number of readings in the comparison with the best one
RUNNERS_UP = 4


class Edge(NamedTuple):
    """A hypothesis: the pieces from `start` to `stop` are one digit, or a mark that is not a digit.

    options: digit or None, its score (a logarithm), and the network's probability. box: left, top, right, bottom.
    """

    start: int
    stop: int
    options: list[tuple[int | None, float, float]]
    box: Box


class Graph(NamedTuple):
    """The hypotheses of a line with `pieces` pieces, from left to right."""

    pieces: int
    edges: list[Edge]


class Best(NamedTuple):
    """The best reading of a line.

    digits: digit, probability, box. skipped: boxes of marks that are not digits. probability: of the whole line.
    alternatives: texts and probabilities of other readings.
    """

    digits: list[tuple[int, float, Box]]
    skipped: list[Box]
    probability: float
    alternatives: list[tuple[str, float]]


class _Path(NamedTuple):
    score: float
    text: str
    edge: Edge | None
    option: int
    rest: _Path | None


def graph(line: Judged) -> Graph:
    """The graph of a line's hypotheses with their scores."""
    found = scores(line.served, line.shape)
    edges = []
    for each, row, served in zip(line.hypotheses, found.tolist(), line.served.tolist(), strict=True):
        options: list[tuple[int | None, float, float]] = []
        if each.may_be_digit:
            options = [(digit, row[digit], served[digit]) for digit in range(10)]
        if each.may_be_none:
            options.append((None, row[10], 0.0))
        edges.append(Edge(each.start, each.stop, options, each.box))
    return Graph(line.pieces, edges)


def best_readings(
    graph: Graph, alternatives: int = 0, length: int | None = None, check: str | None = None
) -> Best | None:
    """The best reading. length: the number of its digits, if given. check: "luhn" if its check digit must be
    correct. None if no reading fits."""
    paths = _paths(graph, max(RUNNERS_UP, alternatives + 1), length, check)
    if not paths:
        return None
    shares = _probabilities([path.score for path in paths])
    probability = calibrated(shares[0])
    # distribute the rest over the other readings, in proportion to their shares
    left = (1 - probability) / max(1 - shares[0], 1e-12)
    probabilities = [probability, *(min(share * left, probability) for share in shares[1:])]
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
    return Best(digits, skipped, probabilities[0], others[:alternatives])


def _probabilities(scores: Sequence[float]) -> list[float]:
    """The shares of readings from their scores, the best first."""
    powers = [math.exp(score - scores[0]) for score in scores]
    return [power / sum(powers) for power in powers]


def _paths(graph: Graph, count: int, length: int | None, check: str | None) -> list[_Path]:
    """The best paths with different texts, the best first."""
    luhn = check == "luhn"
    # from right to left, as the check digit requires: for each node, the best paths to the end by (number of
    # digits, their sum), if these matter
    best: list[dict[tuple[int, int], dict[str, _Path]]] = [{} for _ in range(graph.pieces + 1)]
    best[graph.pieces][0, 0] = {"": _Path(0.0, "", None, 0, None)}
    leaving: list[list[Edge]] = [[] for _ in range(graph.pieces)]
    for edge in graph.edges:
        leaving[edge.start].append(edge)
    for node in range(graph.pieces - 1, -1, -1):
        states = best[node]
        for edge in leaving[node]:
            for state, paths in best[edge.stop].items():
                # each digit takes a piece at least
                if length is not None and state[0] + edge.stop < length:
                    continue
                for i, (digit, score, _) in enumerate(edge.options):
                    after = _after(state, digit, length, luhn)
                    if after is None:
                        continue
                    found = states.setdefault(after, {})
                    for path in paths.values():
                        text = path.text if digit is None else str(digit) + path.text
                        found[text] = _either(found.get(text), _Path(path.score + score, text, edge, i, path))
        paths_here = [
            (path, state)
            for state, found in states.items()
            for path in nlargest(count, found.values(), key=_score)
        ]
        states.clear()
        for path, state in nlargest(MOST_PATHS, paths_here, key=lambda each: each[0].score):
            states.setdefault(state, {})[path.text] = path
    ends = [
        path
        for (number, total), found in best[0].items()
        if (length is None or number == length) and (not luhn or total == 0)
        for path in found.values()
        if not luhn or len(path.text) > 1
    ]
    return nlargest(count, ends, key=_score)


def _score(path: _Path) -> float:
    return path.score


def _either(one: _Path | None, other: _Path) -> _Path:
    """The better of two paths with the same text, with the score of both together."""
    if one is None:
        return other
    best, less = (one, other) if one.score >= other.score else (other, one)
    # a path with less than a millionth of the other's probability adds nothing
    if best.score - less.score > 14:
        return best
    score = best.score + math.log1p(math.exp(less.score - best.score))
    return _Path(score, best.text, best.edge, best.option, best.rest)


def _after(
    state: tuple[int, int], digit: int | None, length: int | None, luhn: bool
) -> tuple[int, int] | None:
    """The state after adding a digit in front. None if there are too many digits."""
    if digit is None:
        return state
    number, total = state
    if luhn:
        worth = digit if number % 2 == 0 else 2 * digit - 9 * (digit > 4)
        total = (total + worth) % 10
    if length is not None:
        return (number + 1, total) if number < length else None
    return ((number + 1) % 2 if luhn else 0), total
