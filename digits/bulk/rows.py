"""Makes a row of the output from each picture with the same functions as the service: digits.imaging prepares
pictures, digits.model classifies them, and digits.reading reads pictures of several digits. A picture that
can't be read gets a row with an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from digits.bulk.pictures import Item, ItemError
from digits.detector import Detector
from digits.imaging import PictureError, prepare
from digits.imaging.find import Locate
from digits.model import Classifier, scale
from digits.reading import Reading, read

# the number of pictures that are classified at a time
BATCH = 256
# the service's status for each kind of PictureError
STATUSES = {"large": 413, "format": 415, "content": 422}

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
    """The options of a run on which its rows depend.

    Attributes:
        read: whether to read all digits in a picture instead of one.
        length, check: arguments of `digits.reading.read`.
        as_is: whether to use pictures of 28x28 pixels without preparing them.
        sure: probability below which an answer is unsure; None for the model's threshold.
        column: the column of Parquet files, or the field of JSON Lines, that contains the pictures.
    """

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
    items: Iterable[Item],
    network: Classifier | Detector,
    locate: Locate | None,
    options: Options,
    before: Callable[[str], None] = lambda path: None,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of the items in order, in lists of up to BATCH. A row lacks the columns for which it has no value.

    Args:
        items: the pictures.
        network: a classifier for a digit in each, or a detector for all digits.
        locate: argument of `digits.imaging.prepare`.
        options: those of the run.
        before: called with the path of each picture before it is decoded.
    """
    remaining = iter(items)
    while True:
        # one at a time, because a batch of large files would fill the memory
        batch = islice(remaining, BATCH)
        if isinstance(network, Detector):
            rows = [_read(item, network, options, before) for item in batch]
        else:
            sure = network.sure_threshold if options.sure is None else options.sure
            rows = _classify(batch, network, sure, options.as_is, locate, before)
        if not rows:
            return
        yield [{"model": network.version} | row for row in rows]


def _classify(
    items: Iterable[Item],
    classifier: Classifier,
    sure: float,
    as_is: bool,
    locate: Locate | None,
    before: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row for each item, with the digit that POST /predict would answer, or an error."""
    rows: list[dict[str, Any]] = []
    images: list[np.ndarray] = []
    places: list[int] = []
    for place, (path, value) in enumerate(items):
        row: dict[str, Any] = {"path": path}
        before(path)
        try:
            if isinstance(value, ItemError):
                raise value
            images.append(prepare([value], [path], as_is, locate)[0] if isinstance(value, bytes) else value)
            places.append(place)
        except Exception as error:
            row |= _failed(error, path)
        rows.append(row)
    if images:
        batch = scale(np.stack([image.astype(np.float32) for image in images]))
        for place, found in zip(places, classifier.probabilities(batch).tolist(), strict=True):
            best = max(found)
            rows[place] |= {"digit": found.index(best), "probability": round(best, 6), "unsure": best < sure}
    return rows


def _read(item: Item, detector: Detector, options: Options, before: Callable[[str], None]) -> dict[str, Any]:
    """A picture's row with the text and lines of all of its pages, and with the digit if there is only one."""
    data: Any = item.value
    before(item.path)
    try:
        if isinstance(data, ItemError):
            raise data
        conditions: dict[str, Any] = {"length": options.length, "check": options.check, "sure": options.sure}
        pages: list[Reading] = []
        while not pages or len(pages) < pages[0].pages:
            pages.append(read(data, item.path, detector, page=len(pages) + 1, **conditions))
    except Exception as error:
        return {"path": item.path} | _failed(error, item.path)
    lines: list[dict[str, Any]] = [
        {"text": line.text, "probability": round(line.probability, 6), "unsure": line.unsure}
        for page in pages
        for line in page.lines
    ]
    text = "\n".join(line["text"] for line in lines)
    return {
        "path": item.path,
        "digit": int(text) if len(text) == 1 else None,
        # that of the least certain line
        "probability": min((line["probability"] for line in lines), default=None),
        "unsure": any(line["unsure"] for line in lines) if lines else None,
        "text": text,
        "lines": lines,
    }


def _failed(error: Exception, path: str) -> dict[str, Any]:
    if isinstance(error, MemoryError):
        return {"error": f"{path} needs too much memory.", "status": 413}
    if isinstance(error, PictureError):
        error = ItemError(STATUSES[error.kind], str(error), error.extra.get("found", ""))
    if isinstance(error, ItemError):
        return {"error": error.detail, "status": error.status}
    # a bug that one picture triggers must not cost the rows of the others
    return {"error": f"{path} can't be read: {type(error).__name__}: {error}"[:500], "status": 500}
