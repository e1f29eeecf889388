"""Finds the places where touching digits may be cut. digits.reading.pieces calls `cuts`, which finds paths from
top to bottom that cross little ink."""

from __future__ import annotations

import numpy as np

# as fractions of a digit's height: paths that cross more ink than this are not cuts; paths that differ by less
# are the same; the minimum distance of two cuts; and that of a cut from the ends of the component
MOST_INK, SAME, APART, MARGIN = 0.6, 0.03, 0.05, 0.1
# the cost of a step aside, in rows of ink; if it is low, paths around ink lead far into the neighbours
ASIDE = 0.6
# maximum number of cuts per digit's height of width
MOST = 8


def cuts(ink: np.ndarray, height: float) -> tuple[list[np.ndarray], list[float]]:
    """Paths from the top to the bottom of `ink`, float32 (rows, columns), that cross little ink. Returns the
    column in each row for each path, and how much ink it crosses, as a fraction of a digit's height.

    height: a digit's height in rows.
    """
    rows, columns = ink.shape
    middle = rows // 2
    upper, from_upper = _descend(ink[: middle + 1])
    lower, from_lower = _descend(ink[middle:][::-1])
    total = (upper + lower - ink[middle]) / height
    margin = max(2, round(MARGIN * height))
    if columns <= 2 * margin:
        return [], []
    chosen: list[int] = []
    taken = np.ones(columns, bool)
    taken[margin:-margin] = False
    while not taken.all() and len(chosen) < MOST * columns / height:
        cost = np.where(taken, np.inf, total)
        least = cost.min()
        if least > MOST_INK:
            break
        # one path for all places with about the same cost
        left = right = int(cost.argmin())
        while cost[left - 1] <= least + SAME:
            left -= 1
        while cost[right + 1] <= least + SAME:
            right += 1
        chosen.append((left + right) // 2)
        near = round(APART * height)
        taken[max(0, left - near) : right + near + 1] = True
    seams, costs = [], []
    for x in sorted(chosen):
        seam = np.empty(rows)
        at = x
        for y in range(middle, -1, -1):
            seam[y] = at
            at += from_upper[y][at] if y else 0
        at = x
        for y in range(middle, rows):
            seam[y] = at
            at += from_lower[rows - 1 - y][at] if y < rows - 1 else 0
        seams.append(seam)
        costs.append(float(total[x]))
    return seams, costs


def _descend(ink: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The least ink on a path from the first row to each place in the last row, with at most one column aside per
    row, and the steps back for each row."""
    cost = ink[0].copy()
    back = [np.zeros(len(cost), np.int64)]
    for row in ink[1:]:
        padded = np.pad(cost, 1, constant_values=np.inf)
        options = np.stack([padded[1:-1], padded[:-2] + ASIDE, padded[2:] + ASIDE])
        step = options.argmin(0)
        cost = options.min(0) + row
        back.append(np.array([0, -1, 1])[step])
    return cost, back
