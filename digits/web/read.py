"""`POST /read`: the bodies and options that it accepts, the reading of pictures by digits/reading in a process of
its own, its metrics and its answers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from time import process_time
from typing import Any, NoReturn

import cv2
import flask
from flask import Blueprint, Response, g, request

from digits.imaging.decode import decode_grey, open_picture, open_pictures
from digits.imaging.find import shrink
from digits.reading import Digit, Line, Reading
from digits.reading import read as read_picture
from digits.reading.columns import columns_of
from digits.web import bodies
from digits.web.access import needs_key
from digits.web.collect import sent
from digits.web.messages import flag, json_response, parameter, refused
from digits.web.problems import Problem
from digits.web.service import service

# largest values of the parameters `length`, in digits, and `alternatives`
MAX_LENGTH, MAX_ALTERNATIVES = 50, 10
# longer side, in pixels, and JPEG quality of the pages in an answer
PAGE_SIDE, PAGE_QUALITY = 1600, 60
NO_PIXELS = "must be a picture, sent as a file or in base64. For pixels use POST /predict."

bp = Blueprint("read", __name__)


@bp.post("/read")
@needs_key
def read() -> Response:
    current: flask.Request = request._get_current_object()  # type: ignore[attr-defined]
    arguments = options(current)
    g.keep = flag(current, "keep")
    if current.mimetype == "application/octet-stream":
        # a body over the limit is 413 here too
        bodies.refuse_picture(current.get_data(cache=False))
        raise Problem.of("the body", NO_PIXELS, found=current.mimetype)
    items = bodies.items_of(current, DECODERS)
    answers = read_all(items, arguments)
    return json_response(answers[0] if items.single else {"readings": answers})


def refuse_pixels(image: Any, field: str, suspicious: bool = False) -> NoReturn:
    """Raise Problem 422, because pixels show a single digit."""
    found = "pixels" if image and isinstance(image, list) else bodies.json_type(image)
    raise Problem.of(field, NO_PIXELS, found=found)


def from_json(body: bytes) -> bodies.Items:
    """Like digits.web.bodies.from_json, but without pixels."""
    return bodies.from_document(bodies.parse_object(body, bodies.FIELDS), body, refuse_pixels)


DECODERS: dict[str, bodies.Decoder] = {
    "application/json": from_json,
    **dict.fromkeys(bodies.PICTURES, bodies.from_picture),
}


def options(request: flask.Request) -> dict[str, Any]:
    """The keyword arguments of `digits.reading.read`, and which parts of the answer are wanted, from the query.
    Raises Problem 422."""
    check = parameter(request, "check")
    if check not in (None, "luhn"):
        raise refused("check", "luhn", check)
    return {
        "length": _whole(request, "length", MAX_LENGTH),
        "check": check,
        "alternatives": _whole(request, "alternatives", MAX_ALTERNATIVES) or 0,
        "columns": _whole(request, "columns", 1) is not None,
        "page_image": _whole(request, "page_image", 1) is not None,
    }


def _whole(request: flask.Request, name: str, maximum: int) -> int | None:
    given = parameter(request, name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 5 and 1 <= int(given) <= maximum):
        allowed = "1" if maximum == 1 else f"a whole number from 1 to {maximum}"
        raise refused(name, allowed, given)
    return int(given)


def read_all(items: bodies.Items, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the pictures page by page, update the metrics and return the answers. The answer to a file of several
    pages is `{"readings": [...]}`, with `page` in each. Raises PictureError, and Problem 422 if all pages of a
    file together take too long.

    Args:
        items: the pictures.
        arguments: what `options` returns.
    """
    serving = service()
    metrics, most = serving.metrics, serving.settings.cpu_seconds
    if len(items.pictures) > 1:
        serving.offload(partial(_check_all, items.pictures, items.names))
    answers: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    lines: list[Line] = []
    for data, name in zip(items.pictures, items.names, strict=True):
        pages: list[dict[str, Any]] = []
        count, spent, before = 1, 0.0, len(lines)
        while len(pages) < count:
            work = partial(_read, data, name, arguments, len(pages) + 1)
            reading, answer, seconds = serving.offload(work, "reading")
            count, spent = reading.pages, spent + seconds
            pages.append({"page": len(pages) + 1} | answer)
            lines += reading.lines
            metrics.find.observe(reading.found_in)
            metrics.read_inference.observe(reading.detected_in)
            if spent > most and len(pages) < count:
                problem = f"has {count} pages, which take more than the {most} s of CPU time of a file."
                raise Problem.of(name, problem, found=f"{len(pages)} pages read in {spent:.1f} s")
        answers.append({"readings": pages} if count > 1 else answer)
        # of a file, one page is enough, because the others can't be parted from it
        if serving.collector and serving.collector.chosen(any(line.unsure for line in lines[before:])):
            kept.append({"index": len(answers) - 1, "answer": _without_images(answers[-1])} | sent(data))
    if serving.collector:
        serving.collector.keep(serving.detector.version, len(answers), kept)
    digits = sum(len(line.digits) for line in lines)
    metrics.read_digits.inc(digits)
    unsure = sum(line.unsure for line in lines)
    found = {"images": len(answers), "lines": len(lines), "digits": digits, "unsure": unsure}
    g.found = found | {"model_version": serving.detector.version}
    return answers


def _check_all(pictures: list[bytes], names: list[str]) -> None:
    # returns nothing, because open pictures can't be pickled
    open_pictures(pictures, names)


def _read(
    data: bytes, name: str, arguments: dict[str, Any], page: int
) -> tuple[Reading, dict[str, Any], float]:
    # runs in another process, so it must not use requests or metrics
    begun = process_time()
    options = {name: arguments[name] for name in ("length", "check", "alternatives")}
    reading = read_picture(data, name, service().detector, page=page, **options)
    answer = render(reading, options["alternatives"] > 0, arguments["columns"])
    if arguments["page_image"]:
        answer["page_image"] = page_image(data, name, page)
    return reading, answer, process_time() - begun


def page_image(data: bytes, name: str, page: int) -> str:
    """A page of a file as a data: URL of a grey JPEG, for programs that can't show the file's format. Its longer
    side has at most PAGE_SIDE pixels."""
    grey = shrink(decode_grey(open_picture(data, name, PAGE_SIDE, page).picture, name), PAGE_SIDE)
    _, jpeg = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, PAGE_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def _without_images(answer: dict[str, Any]) -> dict[str, Any]:
    pages = [
        {name: page[name] for name in page if name != "page_image"}
        for page in answer.get("readings", [answer])
    ]
    return {"readings": pages} if "readings" in answer else pages[0]


def render(reading: Reading, alternatives: bool = False, columns: bool = False) -> dict[str, Any]:
    """The answer of POST /read for a picture, with probabilities rounded to six places.

    Args:
        reading: what was read.
        alternatives: whether to list the next best readings of each line.
        columns: whether to tell each word's column.
    """
    lines = []
    for line in reading.lines:
        words: list[dict[str, Any]] = [
            {"text": word.text, "box": word.box, "digits": _rounded(word.digits)} for word in line.words
        ]
        answer: dict[str, Any] = {
            "text": line.text,
            "probability": round(line.probability, 6),
            "unsure": line.unsure,
            "words": words,
            "digits": _rounded(line.digits),
        }
        if alternatives:
            answer["alternatives"] = [
                {"text": text, "probability": round(share, 6)} for text, share in line.alternatives
            ]
        lines.append(answer)
    if columns:
        found = columns_of([[word.box for word in line.words] for line in reading.lines])
        for line_answer, numbers in zip(lines, found, strict=True):
            for word_answer, column in zip(line_answer["words"], numbers, strict=True):
                word_answer["column"] = column
    return {"text": reading.text, "lines": lines, "marks": reading.marks, "size": reading.size}


def _rounded(digits: Sequence[Digit]) -> list[dict[str, Any]]:
    return [vars(each) | {"probability": round(each.probability, 6)} for each in digits]
