"""Finds the digits in a grey picture with a small fully convolutional network, which LiteRT runs. `detect` returns
what the network finds; digits/reading chooses the sizes of the picture, and makes sense of it."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import cv2
import numpy as np

from digits.imaging.contrast import normalize
from digits.model import Model, ModelError, Network

cv2.setNumThreads(1)

# ten digits, and a sign or a letter that stands alone
CLASSES, MARK = 11, 10
# an output has a cell for 4x4 pixels with two columns, so that digits that overlap have cells of their own
CELL, COLUMNS, VALUES = 4, 2, 16
# maximum side of a tile in pixels, by how much tiles overlap, the pixels of the edge's values around it, and what
# both of its sides are multiples of
TILE, OVERLAP, EDGE, MULTIPLE = 384, 48, 8, 16
# pixels around a tile on which its normalized values depend
HALO = 100
# minimum objectness of a peak
LEAST = 0.1
# columns of what `detect` returns; the probabilities of the classes follow
SCORE, X, Y, W, H, CLASS = range(6)


class Detector:
    """Runs a model that finds digits. Threads may share it."""

    def __init__(self, model: Model) -> None:
        """Create the interpreter and run it once. Raises ModelError for a network of another shape."""
        self.version, self.card, self.model = model.version, model.card, model
        try:
            self._network = Network(model.compiled, (1,), (COLUMNS * VALUES,))
            self._network(np.zeros((1, MULTIPLE, MULTIPLE, 1), np.float32))
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"The detector {model.version} can't be run: {error}") from None

    def detect(
        self, grey: np.ndarray, margin: int = 0, places: np.ndarray | None = None, most: float = np.inf
    ) -> tuple[np.ndarray, int]:
        """What is found in a picture, uint8 (h, w): float32 (n, 16), and the number of pixels that were examined.

        The columns are the objectness in [0, 1], the centre's x and y, width and height in pixels, and the
        probabilities of the ten digits and of a mark.

        Args:
            grey: the picture.
            margin: pixels at each side that only show the light; the results are relative to them.
            places: float (n, 3), x, y and worth of what to look at; everything without.
            most: maximum number of pixels, spent on the tiles that are worth most.
        """
        height, width = (side - 2 * margin for side in grey.shape)
        tiles = [(1.0, y, x) for y in _tiles(height) for x in _tiles(width)]
        if places is not None:
            tiles = [(_worth(places, y, x), y, x) for _, y, x in tiles]
            tiles = sorted((tile for tile in tiles if tile[0]), key=lambda tile: -tile[0])
        found, spent = [np.empty((0, CLASS + CLASSES), np.float32)], 0
        for _, (top, bottom, first, last), (left, right, begin, end) in tiles:
            shape = [-(-(n + 2 * EDGE) // MULTIPLE) * MULTIPLE for n in (bottom - top, right - left)]
            if spent + shape[0] * shape[1] > most:
                break
            spent += shape[0] * shape[1]
            up, aside = max(0, top + margin - HALO), max(0, left + margin - HALO)
            values = normalize(grey[up : bottom + margin + HALO, aside : right + margin + HALO])
            values = values[
                top + margin - up : bottom + margin - up, left + margin - aside : right + margin - aside
            ]
            below, after = (n - m - EDGE for n, m in zip(shape, values.shape, strict=True))
            padded = cv2.copyMakeBorder(values, EDGE, below, EDGE, after, cv2.BORDER_REPLICATE)
            peaks = _peaks(self._run(padded))
            peaks[:, X] += left - EDGE
            peaks[:, Y] += top - EDGE
            inside = (peaks[:, X] >= begin) & (peaks[:, X] < end)
            found.append(peaks[inside & (peaks[:, Y] >= first) & (peaks[:, Y] < last)])
        return np.concatenate(found), spent

    def _run(self, values: np.ndarray) -> np.ndarray:
        try:
            return self._network(values[None, :, :, None])[0]
        except RuntimeError:
            # a network that has run before only fails where there is no memory
            raise MemoryError from None


# where a tile starts and stops, and where that starts and ends in which its peaks count
Side = tuple[int, int, float, float]


def _tiles(size: int) -> Iterator[Side]:
    """Divide a side into equal tiles."""
    number = max(1, ceil((size - OVERLAP) / (TILE - OVERLAP)))
    step = (size - OVERLAP) / number
    for i in range(number):
        start = round(i * step)
        stop = min(size, start + ceil(step) + OVERLAP) if number > 1 else size
        first = start + OVERLAP / 2 if i else -np.inf
        yield start, stop, first, round((i + 1) * step) + OVERLAP / 2 if i < number - 1 else np.inf


def _worth(places: np.ndarray, y: Side, x: Side) -> float:
    """What the places in or near a tile are worth together."""
    near = (places[:, :2] > [x[0] - OVERLAP, y[0] - OVERLAP]) & (
        places[:, :2] < [x[1] + OVERLAP, y[1] + OVERLAP]
    )
    return float(places[near.all(1), 2].sum())


def _peaks(output: np.ndarray) -> np.ndarray:
    """The local maxima of objectness in an output, (h / 4, w / 4, 32), as `Detector.detect` describes them."""
    rows, columns = output.shape[0], output.shape[1] * COLUMNS
    cells = output.reshape(rows, columns, VALUES)
    logits = np.ascontiguousarray(cells[:, :, 0])
    highest = cv2.dilate(logits, np.ones((3, 3), np.uint8))
    i, j = np.nonzero((logits == highest) & (logits > np.log(LEAST / (1 - LEAST))))
    values = cells[i, j]
    classes = np.exp(values[:, 1 : 1 + CLASSES] - values[:, 1 : 1 + CLASSES].max(1, keepdims=True))
    out = np.empty((len(i), CLASS + CLASSES), np.float32)
    out[:, SCORE] = 1 / (1 + np.exp(-values[:, 0]))
    out[:, X] = (j + 0.5) * CELL / COLUMNS + 8 * values[:, 12]
    out[:, Y] = (i + 0.5) * CELL + 8 * values[:, 13]
    out[:, W] = 16 * np.exp(values[:, 14].clip(-4, 4))
    out[:, H] = 24 * np.exp(values[:, 15].clip(-4, 4))
    out[:, CLASS:] = classes / classes.sum(1, keepdims=True)
    return out
