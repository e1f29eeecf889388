"""Pictures become rows of the output by what the service, too, calls for a request: digits.imaging prepares a
picture, digits.model gives its digit's probabilities, digits.reading reads a picture of many digits. What
can't be read is a row with its error. tasks.py calls `rows_of` in a worker, cli.py to estimate a run's
time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from digits.bulk.items import Item
from digits.imaging import PictureError, prepare
from digits.model import Classifier, scale
from digits.reading import read

# classified at a time
BATCH = 256

COLUMNS = [
    ("path", pa.string()),
    ("digit", pa.int8()),
    ("probability", pa.float64()),
    ("unsure", pa.bool_()),
    ("error", pa.string()),
    ("status", pa.int16()),
    ("model", pa.string()),
]
LINES = pa.list_(pa.struct([("text", pa.string()), ("probability", pa.float64()), ("unsure", pa.bool_())]))


@dataclass(frozen=True)
class Options:
    """What is done with each picture, and where the pictures are.

    read: read all digits, not one. length, check: of each line that is read, as digits.reading.read takes
    them. as_is: take pictures of 28x28 pixels as they are. sure: the probability below which an answer is
    unsure, by default the model's. column: of Parquet and JSON lines, which holds the pictures."""

    read: bool = False
    length: int | None = None
    check: str | None = None
    as_is: bool = False
    sure: float | None = None
    column: str = "image"

    @property
    def schema(self) -> pa.Schema:
        """The output's columns."""
        reading = [("text", pa.string()), ("lines", LINES)] if self.read else []
        return pa.schema(COLUMNS[:4] + reading + COLUMNS[4:])


def rows_of(
    items: Iterable[Item], classifier: Classifier, options: Options
) -> Iterator[list[dict[str, Any]]]:
    """Rows of the items in order, some at a time. A row lacks what it has no value for."""
    sure = classifier.sure_threshold if options.sure is None else options.sure
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        if options.read:
            rows = [_read(item, classifier, sure, options) for item in batch]
        else:
            rows = _classify(batch, classifier, sure, options.as_is)
        yield [
            {"path": item.path, "model": classifier.version} | row
            for item, row in zip(batch, rows, strict=True)
        ]


def _classify(items: list[Item], classifier: Classifier, sure: float, as_is: bool) -> list[dict[str, Any]]:
    """A row for each item: its digit, as POST /predict gives it, or the error."""
    rows: list[dict[str, Any]] = []
    images: list[np.ndarray] = []
    places: list[int] = []
    for place, (path, value) in enumerate(items):
        row: dict[str, Any] = {}
        try:
            if isinstance(value, PictureError):
                raise value
            images.append(prepare([value], [path], as_is)[0] if isinstance(value, bytes) else value)
            places.append(place)
        except Exception as error:
            row = _failed(error, path)
        rows.append(row)
    if images:
        batch = scale(np.stack([image.astype(np.float32) for image in images]))
        for place, found in zip(places, classifier.probabilities(batch).tolist(), strict=True):
            best = max(found)
            rows[place] = {"digit": found.index(best), "probability": round(best, 6), "unsure": best < sure}
    return rows


def _read(item: Item, classifier: Classifier, sure: float, options: Options) -> dict[str, Any]:
    """A picture's row with all that was read: text and lines; the digit, where it is one."""
    data: Any = item.value
    try:
        if isinstance(data, PictureError):
            raise data
        found = read(
            data, item.path, classifier.probabilities, sure, length=options.length, check=options.check
        )
    except Exception as error:
        return _failed(error, item.path)
    lines = [
        {"text": line.text, "probability": round(line.probability, 6), "unsure": line.unsure}
        for line in found.lines
    ]
    return {
        "digit": int(found.text) if len(found.text) == 1 else None,
        # of the line that is most in doubt
        "probability": min((round(line.probability, 6) for line in found.lines), default=None),
        "unsure": any(line.unsure for line in found.lines) if lines else None,
        "text": found.text,
        "lines": lines,
    }


def _failed(error: Exception, path: str) -> dict[str, Any]:
    if isinstance(error, PictureError):
        found = error.extra.get("found")
        return {"error": error.detail + (f" Found: {found}." if found else ""), "status": error.status}
    # one picture that meets a fault of ours must not take the others' rows with it
    return {"error": f"{path} can't be read: {type(error).__name__}: {error}"[:500], "status": 500}
