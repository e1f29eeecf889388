"""What POST /read does around digits/reading: which bodies and options it takes, in which thread a picture is
read, what is counted, and how a reading is told. app.py has the route."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

import flask
from flask import g

from digits.imaging import HugePictures
from digits.imaging.decode import open_pictures
from digits.reading import Reading, read
from digits.serving import inputs
from digits.serving.errors import Problem
from digits.serving.service import Service, service

MOST_LENGTH, MOST_ALTERNATIVES = 50, 10
NO_PIXELS = "{} is to be a picture, sent as such or in base64; POST /predict takes pixels."


def items_of(request: flask.Request, max_batch: int) -> inputs.Items:
    """The request's pictures, taken as by POST /predict. Raises Problem as there, and 422 for pixels."""
    if request.mimetype == "application/octet-stream":
        raise Problem(422, NO_PIXELS.format("the body"), field="the body", found=request.mimetype)
    return inputs.items_of(request, max_batch, DECODERS)[0]


def refuse_pixels(image: Any, field: str, suspicious: bool = False) -> NoReturn:
    """Raise Problem 422: pixels are one digit already."""
    found = "pixels" if isinstance(image, list) else inputs.kind_of(image)
    raise Problem(422, NO_PIXELS.format(field), field=field, found=found)


def from_json(body: bytes, max_batch: int) -> inputs.Items:
    """As digits.serving.inputs has it, without pixels."""
    return inputs.from_document(inputs.parse(body), body, max_batch, refuse_pixels)


DECODERS: dict[str, inputs.Decoder] = {
    "application/json": from_json,
    **dict.fromkeys(inputs.PICTURES, inputs.from_picture),
}


def options(request: flask.Request) -> dict[str, Any]:
    """The keyword arguments of `digits.reading.read` that the query asks for. Raises Problem 422."""
    check = request.args.get("check")
    if check not in (None, "luhn"):
        raise Problem(422, "check is to be luhn.", field="check", found=check[:40])
    return {
        "length": _whole("length", request.args.get("length"), MOST_LENGTH),
        "check": check,
        "alternatives": _whole("alternatives", request.args.get("alternatives"), MOST_ALTERNATIVES) or 0,
    }


def _whole(name: str, given: str | None, most: int) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 5 and 1 <= int(given) <= most):
        detail = f"{name} is to be a whole number from 1 to {most}."
        raise Problem(422, detail, field=name, found=given[:40])
    return int(given)


def read_all(items: inputs.Items, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Each picture's reading as it is answered, one after the other, counted and timed. Raises PictureError.

    asked: what `options` returns.
    """
    serving = service()
    if len(items.pictures) > 1:
        serving.offload(partial(open_pictures, items.pictures, items.names))
    answers, unsure, lines, digits = [], 0, 0, 0
    for data, name in zip(items.pictures, items.names, strict=True):
        work = partial(_read, serving, data, name, asked)
        try:
            reading, answer = serving.offload(partial(work, max_pixels=inputs.MAX_SHARED_PIXELS), "reading")
        except HugePictures:
            reading, answer = serving.offload(work, "alone")
        answers.append(answer)
        serving.metrics.find.observe(reading.found_in)
        serving.metrics.read_inference.observe(reading.classified_in)
        lines += len(reading.lines)
        digits += sum(len(line.digits) for line in reading.lines)
        unsure += sum(line.unsure for line in reading.lines)
    serving.metrics.read_digits.inc(digits)
    g.found = {"images": len(answers), "lines": lines, "digits": digits, "unsure": unsure}
    return answers


def _read(
    serving: Service, data: bytes, name: str, asked: dict[str, Any], max_pixels: int | None = None
) -> tuple[Reading, dict[str, Any]]:
    # in a thread: nothing of Flask, no metrics
    with serving.lent_classifier() as classifier:
        threshold = serving.sure_threshold
        reading = read(data, name, classifier.probabilities, threshold, max_pixels=max_pixels, **asked)
    return reading, told(reading, asked["alternatives"] > 0)


def told(reading: Reading, alternatives: bool = False) -> dict[str, Any]:
    """What POST /read says of a picture; probabilities are rounded to six places.

    alternatives: whether each line lists its runners-up.
    """
    lines = []
    for line in reading.lines:
        digits = [
            {
                "digit": digit.digit,
                "probability": round(digit.probability, 6),
                "unsure": digit.unsure,
                "box": digit.box,
            }
            for digit in line.digits
        ]
        answer: dict[str, Any] = {
            "text": line.text,
            "probability": round(line.probability, 6),
            "unsure": line.unsure,
            "digits": digits,
        }
        if alternatives:
            answer["alternatives"] = [
                {"text": text, "probability": round(probability, 6)}
                for text, probability in line.alternatives
            ]
        lines.append(answer)
    return {"text": reading.text, "lines": lines, "marks": reading.marks}
