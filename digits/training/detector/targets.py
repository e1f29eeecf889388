"""What the network is to answer for a page: for each sub-cell, 4 pixels high and 2 wide, whether the middle
of a digit or mark lies there, which one, and its box.
"""

from __future__ import annotations

import numpy as np

from digits.training.detector.pages import ASKED, HEIGHT, MARK, WIDTH, Page

CELL = 4  # pixels: a cell is square and has two sub-cells side by side
ROWS, COLUMNS = HEIGHT // CELL, 2 * WIDTH // CELL
# the values of a target
HEAT, ASK, CLASS, WEIGHT, BOX, VALUES = 0, 1, 2, 3, 4, 8
OWNED = 0.35  # cells with more heat than this belong to the digit
MARK_WEIGHT = 0.5
REACH_ROWS, REACH_COLUMNS = 3, 5


def target(page: Page) -> np.ndarray:
    """The target, float16 (ROWS, COLUMNS, VALUES).

    HEAT: 1 in the sub-cell where a digit or mark has its middle, falling off like a Gaussian. ASK: how much the
    objectness of the sub-cell counts, 0 where it may be anything. CLASS: 0 to 9 or MARK, where WEIGHT is
    above 0; the weights of a digit add up to 1, those of a mark to MARK_WEIGHT. BOX: dx and dy from the
    sub-cell's middle in units of 8 pixels, log(w / 16), log(h / 24).
    """
    out = np.zeros((ROWS, COLUMNS, VALUES), np.float32)
    out[..., ASK] = 1
    asked = page.states == ASKED
    for x0, y0, x1, y1 in page.boxes[~asked]:
        rows = slice(max(0, int(y0 / CELL)), max(0, int(np.ceil(y1 / CELL))))
        columns = slice(max(0, int(2 * x0 / CELL)), max(0, int(np.ceil(2 * x1 / CELL))))
        out[rows, columns, ASK] = 0
    boxes, labels = page.boxes[asked], page.labels[asked]
    if not len(boxes):
        return out.astype(np.float16)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 2)
    column = np.clip((centre[:, 0] * 2 / CELL).astype(int), 0, COLUMNS - 1)
    row = np.clip((centre[:, 1] / CELL).astype(int), 0, ROWS - 1)
    sigma_x, sigma_y = np.clip(size[:, 0] / 8, 1.1, 3.0), np.clip(size[:, 1] / 8, 1.6, 4.5)
    down, across = np.mgrid[-REACH_ROWS : REACH_ROWS + 1, -REACH_COLUMNS : REACH_COLUMNS + 1]
    heat = np.exp(
        -0.5
        * ((across * CELL / 2 / sigma_x[:, None, None]) ** 2 + (down * CELL / sigma_y[:, None, None]) ** 2)
    )
    rows, columns = row[:, None, None] + down, column[:, None, None] + across
    inside = (rows >= 0) & (rows < ROWS) & (columns >= 0) & (columns < COLUMNS)
    who = np.broadcast_to(np.arange(len(boxes))[:, None, None], heat.shape)[inside]
    at, heat = (rows * COLUMNS + columns)[inside], heat[inside]
    # the hottest comes last and owns the sub-cell
    order = np.argsort(heat, kind="stable")
    at, heat, who = at[order], heat[order], who[order]
    flat = out.reshape(-1, VALUES)
    flat[at, HEAT] = heat
    owner = np.full(len(flat), -1)
    owner[at] = np.where(heat > OWNED, who, -1)
    cells = np.flatnonzero(owner >= 0)
    own = owner[cells]
    worth = np.where(labels == MARK, MARK_WEIGHT, 1.0)
    warm = flat[cells, HEAT]
    flat[cells, WEIGHT] = warm / np.bincount(own, warm, len(boxes))[own] * worth[own]
    flat[cells, CLASS] = labels[own]
    x, y = (cells % COLUMNS + 0.5) * CELL / 2, (cells // COLUMNS + 0.5) * CELL
    flat[cells, BOX] = (centre[own, 0] - x) / 8
    flat[cells, BOX + 1] = (centre[own, 1] - y) / 8
    flat[cells, BOX + 2] = np.log(size[own, 0] / 16)
    flat[cells, BOX + 3] = np.log(size[own, 1] / 24)
    # a middle is asked for even where something else is not
    peaks = row * COLUMNS + column
    flat[peaks, ASK] = worth
    return out.astype(np.float16)
