"""Where touching digits may be cut: `cuts` finds the ways from top to bottom that cross little ink. Called by
digits.reading.pieces."""

from __future__ import annotations

import numpy as np

# of a digit's height: ways that cross more ink are no cuts; less makes no other way; how far they are apart,
# and how far from a component's ends
MOST_INK, SAME, APART, MARGIN = 0.6, 0.03, 0.05, 0.1
# rows of ink that a step aside costs: where it costs little, ways around ink lead far into the neighbours
ASIDE = 0.6
# cuts for each digit's height of width
MOST = 8


def cuts(ink: np.ndarray, height: float) -> tuple[list[np.ndarray], list[float]]:
    """Paths from the top to the bottom of `ink`, float32 (rows, columns), that cross little of it: for each
    the column by row, and how much ink it crosses of a digit's height.

    height: of a digit, in rows.
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
        # one for all places from where the way is about the same
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
    """The least ink on a way from the first row to each place of the last, one column aside a row at most;
    and for each row the step back."""
    cost = ink[0].copy()
    back = [np.zeros(len(cost), np.int64)]
    for row in ink[1:]:
        padded = np.pad(cost, 1, constant_values=np.inf)
        options = np.stack([padded[1:-1], padded[:-2] + ASIDE, padded[2:] + ASIDE])
        step = options.argmin(0)
        cost = options.min(0) + row
        back.append(np.array([0, -1, 1])[step])
    return cost, back
