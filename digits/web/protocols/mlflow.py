"""The route POST /invocations of `mlflow models serve` and SageMaker's containers, so that their clients work
without changes. Pixels are from 0 to 255, as in POST /predict, and errors are problem details. docs/mlflow.md
describes the requests.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/,
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
from flask import Blueprint, Response, current_app, request

from digits.web import bodies, query
from digits.web.access import needs_key
from digits.web.bodies import PIXELS, Items
from digits.web.messages import json_response
from digits.web.problems import Problem
from digits.web.protocols import tensors
from digits.web.service import service

# a JSON document has exactly one of these; the last two are those of POST /predict
FORMS = ("inputs", "instances", "dataframe_split", "image", "images")

# errors of NumPy's loadtxt
NOT_A_NUMBER = re.compile(r"(?s)could not convert string (.*) to float32 at row (\d+), column (\d+)")
# longest line of an image in characters
MAX_ROW = 100_000

bp = Blueprint("mlflow", __name__)


@bp.post("/invocations")
@needs_key
def invocations() -> Response:
    """The probabilities of each image, in order."""
    current: Any = request._get_current_object()  # type: ignore[attr-defined]
    as_is = query.flag(current, "prepare", "none", "mnist")
    items = bodies.items_of(current, current_app.config["MAX_BATCH"], DECODERS)
    batch, pages = bodies.to_batch(items, as_is)
    probabilities, _ = service().classify(batch, items.pictures, pages)
    return json_response({"predictions": probabilities})


def from_json(body: bytes, max_batch: int) -> Items:
    """The images in `{"inputs": ...}`, `{"instances": ...}`, `{"dataframe_split": {"data": ...}}`, or a document
    that POST /predict accepts.

    Raises Problem: 400 for malformed JSON or tensors, 413 for more than `max_batch` images, 422 for other objects.
    """
    document = bodies.parse_object(body, members := f"with one of {', '.join(FORMS)}")
    forms = [form for form in FORMS if form in document]
    if len(forms) != 1:
        found = " and ".join(forms) or "none of them"
        raise Problem(422, f"A JSON object {members} is required.", field="", found=found)
    form, value = forms[0], document[forms[0]]
    if form in ("image", "images"):
        return bodies.from_document(document, body, max_batch)
    if form == "dataframe_split":
        if not isinstance(value, dict) or "data" not in value:
            raise Problem(400, f"The field {form} must be an object with data.")
        columns = value.get("columns", [None] * PIXELS)
        if not isinstance(columns, list) or len(columns) != PIXELS:
            raise Problem(400, f"The columns of {form} must be a list of {PIXELS} names, row by row.")
        form, value = f"{form}.data", value["data"]
    array = tensors.array(value, f"The field {form}", body)
    tensors.check(array, f"The field {form}", max_batch, 255)
    return Items(array.reshape(-1, PIXELS), [f"{form}[{i}]" for i in range(len(array))], False)


def from_csv(body: bytes, max_batch: int) -> Items:
    """The images in CSV: each line has the 784 numbers of an image, row by row. The first line may contain names.

    Raises Problem: 400 for anything else, 413 for more than `max_batch` images.
    """
    try:
        return _from_lines(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig"), max_batch)
    except UnicodeDecodeError:
        raise Problem(400, "The CSV is not UTF-8.") from None


def _from_lines(lines: Iterable[str], max_batch: int) -> Items:
    filled = (line for line in lines if not line.isspace())
    first = next(filled, "")
    if not first:
        raise Problem(400, "The CSV is empty.")
    # counted before they are divided, because a line may have millions
    if (columns := first.count(",") + 1) != PIXELS:
        raise Problem(400, f"The CSV must have {PIXELS} columns, but its first line has {columns}.")
    if _are_names([field.strip(' \t\r\n"') for field in first.split(",")]):
        first = next(filled, "")
        if not first:
            raise Problem(400, "The CSV has column names but no image.")
    # reading one line too many is enough to notice that there are too many
    rows = islice(_checked(chain([first], filled)), max_batch + 1)
    try:
        array = np.loadtxt(rows, np.float32, comments=None, delimiter=",", quotechar='"', ndmin=2)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise Problem(400, _explained(str(error))) from None
    tensors.check(array, "The CSV", max_batch, 255)
    return Items(array, [f"image {i} of the CSV" for i in range(len(array))], False)


def _checked(rows: Iterable[str]) -> Iterator[str]:
    for i, row in enumerate(rows):
        if (columns := row.count(",") + 1) != PIXELS:
            raise Problem(400, f"Image {i} of the CSV has {columns} columns instead of {PIXELS}.")
        if len(row) > MAX_ROW:
            raise Problem(400, f"Image {i} of the CSV has more than {MAX_ROW} characters.")
        yield row


def _explained(error: str) -> str:
    """NumPy's message in terms of the request."""
    if found := NOT_A_NUMBER.search(error):
        value, row, column = found.groups()
        return f"Image {row} of the CSV has {value} in column {column}, which is not a number."
    return f"The CSV can't be read: {error.rstrip('.')}."


def _are_names(fields: list[str]) -> bool:
    """Whether a line of CSV contains column names: it has no numbers, or 784 consecutive numbers, which can't be
    pixels. By default, pandas names columns 0 to 783."""
    numbers = []
    for field in fields:
        with suppress(ValueError):
            numbers.append(float(field))
    counted = all(after - before == 1 for before, after in pairwise(numbers))
    return not numbers or (counted and len(numbers) == PIXELS)


DECODERS: dict[str, bodies.Decoder] = bodies.DECODERS | {"application/json": from_json, "text/csv": from_csv}
