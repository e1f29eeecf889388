"""Finds the columns that the words of a page stand under, as in a table, also if the page is turned a little or
was photographed at an angle."""

from __future__ import annotations

import numpy as np

# the largest slant of a column, dx / dy (15 degrees), and the slants that are tried
SLANT = 0.27
SLANTS = np.linspace(-SLANT, SLANT, 121)
# into how many parts the page is divided to count the words above each other
BINS = 400


def columns_of(boxes: list[list[tuple[int, int, int, int]]]) -> list[list[int]]:
    """The index of each word's column, from left to right. Words of a line are in one column if they were parted
    by mistake, as in "10 0".

    Args:
        boxes: (x, y, width, height) of the words in each line, in pixels.
    """
    words = np.array([(x, x + w, y + h / 2, i) for i, line in enumerate(boxes) for x, y, w, h in line])
    words = words.reshape(-1, 4).astype(float)
    words[:, :2] -= (slant_of(words) * words[:, 2])[:, None]
    columns = np.zeros(len(words), int)
    groups, column = [np.arange(len(words))], 0
    while groups:
        group = groups.pop()
        parts = parted(group, words)
        if len(parts) > 1:
            groups += reversed(parts)
        else:
            columns[group] = column
            column += 1
    ends = np.cumsum([len(line) for line in boxes], dtype=int)
    return [part.tolist() for part in np.split(columns, ends)[:-1]]


def slant_of(words: np.ndarray) -> float:
    """The slant, dx / dy, at which most words stand exactly one below another. words: (n, 4): left, right, y and
    the number of the line."""
    far = max(words[:, :3].max(initial=0), 1)
    # left and right as if each slant were straightened, from 0 to 1 + 2 * SLANT
    edges = (words[:, :2] - SLANTS[:, None, None] * words[:, 2:3]) / far + SLANT
    edges = np.round(edges * BINS).astype(int) + np.arange(len(SLANTS))[:, None, None] * 2 * BINS
    begun, ended = (np.bincount(edges[..., k].ravel(), minlength=len(SLANTS) * 2 * BINS) for k in (0, 1))
    counts = np.cumsum(begun - ended).reshape(len(SLANTS), -1)
    # words of a few lines could stand exactly one below another by chance, so a small slant is more likely
    return float(SLANTS[np.argmax((counts**2).sum(1) * (1 - np.abs(SLANTS)))])


def parted(group: np.ndarray, words: np.ndarray) -> list[np.ndarray]:
    """Part words of straightened columns at gaps that no word reaches into, or else where this parts the words of
    most lines more than it cuts words, so that a wide word does not join two columns.

    Args:
        group: indices of the words to part.
        words: (n, 4): left, right, y and the number of the line.
    """
    group = group[np.argsort(words[group, 0], kind="stable")]
    left, right, _, line = words[group].T
    gaps = np.flatnonzero(left[1:] >= np.maximum.accumulate(right)[:-1]) + 1
    if len(gaps) or not len(group):
        return np.split(group, gaps)
    middle = (left + right) / 2
    lines, at = np.unique(line, return_inverse=True)
    first, last = np.full(len(lines), np.inf), np.full(len(lines), -np.inf)
    np.minimum.at(first, at, middle)
    np.maximum.at(last, at, middle)
    # for each word's left edge, the lines that have words on both sides, less the words on both sides
    gain = np.searchsorted(np.sort(first), left) - np.searchsorted(np.sort(last), left)
    gain -= np.searchsorted(left, left) - np.searchsorted(np.sort(right), left, "right")
    if gain.max() <= 0:
        return [group]
    before = middle < left[gain.argmax()]
    return [group[before], group[~before]]
