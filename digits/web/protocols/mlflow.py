"""The route POST /invocations of `mlflow models serve` and SageMaker's containers, so that their clients work
without changes. Pixels are from 0 to 255, as in POST /predict, and errors are problem details. docs/mlflow.md
describes the requests.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/,
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, pairwise
from typing import Any

import numpy as np
from flask import Blueprint, Response, request

from digits.web import bodies
from digits.web.access import needs_key
from digits.web.bodies import PIXELS, Items
from digits.web.messages import flag, json_response
from digits.web.problems import Problem
from digits.web.protocols import tensors
from digits.web.service import service

# a JSON document has exactly one of these; the last two are those of POST /predict
FORMS = ("inputs", "instances", "dataframe_split", "image", "images")

# longest line of an image in characters
MAX_ROW = 100_000

bp = Blueprint("mlflow", __name__)


@bp.post("/invocations")
@needs_key
def invocations() -> Response:
    current: Any = request._get_current_object()  # type: ignore[attr-defined]
    as_is = flag(current, "prepare", "none", "mnist")
    items = bodies.items_of(current, DECODERS)
    batch, pages = bodies.to_batch(items, as_is)
    probabilities, _ = service().classify(batch, items.pictures, pages)
    return json_response({"predictions": probabilities})


def from_json(body: bytes) -> Items:
    """The images in `{"inputs": ...}`, `{"instances": ...}`, `{"dataframe_split": {"data": ...}}`, or a document
    that POST /predict accepts.

    Raises Problem: 400 for malformed JSON or tensors, 413 for too many images, 422 for other objects.
    """
    document = bodies.parse_object(body, members := f"with one of {', '.join(FORMS)}")
    forms = [form for form in FORMS if form in document]
    if len(forms) != 1:
        found = " and ".join(forms) or "none of them"
        raise Problem(422, f"A JSON object {members} is required.", field="", found=found)
    form, value = forms[0], document[forms[0]]
    if form in ("image", "images"):
        return bodies.from_document(document, body)
    if form == "dataframe_split":
        if not isinstance(value, dict) or "data" not in value:
            raise Problem(400, f"The field {form} must be an object with data.")
        columns = value.get("columns", [None] * PIXELS)
        if not isinstance(columns, list) or len(columns) != PIXELS:
            raise Problem(400, f"The columns of {form} must be a list of {PIXELS} names, row by row.")
        form, value = f"{form}.data", value["data"]
    array = tensors.array(value, f"The field {form}", body)
    tensors.check(array, f"The field {form}", 255)
    return Items(array.reshape(-1, PIXELS), [f"{form}[{i}]" for i in range(len(array))], False)


def from_csv(body: bytes) -> Items:
    """The images in CSV: each line has the 784 numbers of an image, row by row. The first line may contain names.

    Raises Problem: 400 for anything else, 413 for too many images.
    """
    try:
        lines = _rows(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig"))
        # with one line too many, and one of names
        rows = list(islice(lines, service().settings.max_batch + 2))
    except UnicodeDecodeError:
        raise Problem(400, "The CSV is not UTF-8.") from None
    if rows and _are_names(rows[0]):
        del rows[0]
    if not rows:
        raise Problem(400, "The CSV has no image.")
    try:
        array = np.loadtxt(rows, np.float32, comments=None, delimiter=",", quotechar='"', ndmin=2)
    except ValueError as error:
        raise Problem(400, f"The CSV can't be read: {str(error).rstrip('.')}.") from None
    tensors.check(array, "The CSV", 255)
    return Items(array, [f"image {i} of the CSV" for i in range(len(array))], False)


def _rows(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        columns = line.count(",") + 1
        # counted before they are divided, because a line may have millions
        if not line.isspace() and (columns != PIXELS or len(line) > MAX_ROW):
            found = f"{columns} columns and {len(line)} characters"
            detail = f"Line {number} of the CSV has {found}, instead of {PIXELS} and at most {MAX_ROW}."
            raise Problem(400, detail)
        if not line.isspace():
            yield line


def _are_names(line: str) -> bool:
    """Whether a line of CSV contains column names: it has no numbers, or 784 consecutive numbers, which can't be
    pixels. By default, pandas names columns 0 to 783."""
    numbers = []
    for field in line.split(","):
        with suppress(ValueError):
            numbers.append(float(field.strip(' \t\r\n"')))
    counted = all(after - before == 1 for before, after in pairwise(numbers))
    return not numbers or (counted and len(numbers) == PIXELS)


DECODERS: dict[str, bodies.Decoder] = bodies.DECODERS | {"application/json": from_json, "text/csv": from_csv}
