"""`POST /corrections`, by which people say what a picture shows, if the service has kept it (DIGITS_COLLECT).
docs/loop.md describes what becomes of a correction."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from digits.web import bodies
from digits.web.access import needs_key
from digits.web.bodies import json_type
from digits.web.messages import json_response
from digits.web.problems import Problem
from digits.web.request_log import VALID_ID
from digits.web.service import service

# what a correction says of a picture without a digit
NO_DIGIT = "no digit"
# digits with boxes in one picture or page, and the largest coordinate
MOST_DIGITS, MOST_PIXELS = 5000, 10_000
SAID = f'a digit from 0 to 9, "{NO_DIGIT}", an object with text and boxes, a list of these by page, or null'

bp = Blueprint("corrections", __name__)

log = logging.getLogger("digits.collect")


@bp.post("/corrections")
@needs_key
def correct() -> Response:
    collector = service().collector
    if collector is None:
        raise Problem(404, "This service keeps no answers, so none can be corrected (DIGITS_COLLECT).")
    if request.mimetype != "application/json":
        detail = "Send JSON, and name its type in the Content-Type header."
        raise Problem(415, detail, found=request.mimetype or None)
    body = request.get_data(cache=False)
    asked: dict[str, Any] = bodies.offload_if_large(body, partial(parse, body))
    reply = collector.correct(**asked)
    if reply["status"] != 200:
        raise Problem(**reply)
    known = asked["request_id"]
    log.info("corrected", extra={"request_id": known, "pictures": reply["pictures"]})
    return json_response({"request_id": known, "pictures": reply["pictures"]})


def parse(body: bytes) -> dict[str, Any]:
    """The arguments of `Collector.correct` in {"request_id": ..., "digits": [...], "replace": ...}.

    Raises Problem: 400 for malformed JSON, 413 for too many digits, 422 for anything else.
    """
    document = bodies.parse_object(body, '{"request_id": ..., "digits": [...]}')
    if unknown := document.keys() - {"request_id", "digits", "replace"}:
        detail = "A correction has request_id, digits and replace only."
        raise Problem(422, detail, found=f"{len(unknown)} others")
    known, digits, replace = (document.get(name) for name in ("request_id", "digits", "replace"))
    if not isinstance(known, str) or not VALID_ID.fullmatch(known):
        raise Problem.of("request_id", "must be the X-Request-ID of an answer.", found=json_type(known))
    if replace is not None and not isinstance(replace, bool):
        raise Problem.of("replace", "must be true or false.", found=json_type(replace))
    if not isinstance(digits, list) or not digits:
        problem = "must be a list with an item for each picture of the request."
        raise Problem.of("digits", problem, found=json_type(digits))
    bodies.check_count(len(digits))
    for place, said in enumerate(digits):
        _check(said, f"digits[{place}]")
    if all(said is None for said in digits):
        raise Problem.of("digits", "corrects no picture: all items are null.")
    return {"request_id": known, "digits": digits, "replace": bool(replace)}


def _check(said: Any, field: str) -> None:
    """Raise Problem 422 unless `said` says what a picture shows."""
    if said is None or said == NO_DIGIT or (type(said) is int and 0 <= said <= 9):
        return
    if isinstance(said, dict):
        _check_lines(said, field)
    elif isinstance(said, list) and said:
        for place, page in enumerate(said):
            where = f"{field}[{place}]"
            number = page.get("page") if isinstance(page, dict) else None
            if type(number) is not int or number < 1:
                raise Problem.of(where, "must have page, a whole number from 1.")
            _check_lines({name: page[name] for name in page if name != "page"}, where)
        if len({page["page"] for page in said}) < len(said):
            raise Problem.of(field, "names a page twice.")
    else:
        raise Problem.of(field, f"must be {SAID}.", found=json_type(said))


def _check_lines(said: dict[str, Any], field: str) -> None:
    """Raise Problem 422 unless `said` has the text and the boxes of lines."""
    text, boxes = said.get("text"), said.get("boxes")
    if said.keys() != {"text", "boxes"} or not isinstance(text, str) or not isinstance(boxes, list):
        raise Problem.of(field, "must have text, a string, and boxes, a list.")
    digits = "".join(text.split())
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > MOST_DIGITS:
        problem = f"must have from 1 to {MOST_DIGITS} digits, and else only white space."
        raise Problem.of(f"{field}.text", problem)
    if len(boxes) != len(digits):
        problem = f"must have a box for each of the {len(digits)} digits."
        raise Problem.of(f"{field}.boxes", problem, found=f"{len(boxes)} boxes")
    for place, box in enumerate(boxes):
        whole = isinstance(box, list) and [type(each) for each in box] == [int] * 4
        if not whole or min(box) < 0 or max(box) > MOST_PIXELS or 0 in box[2:]:
            problem = f"must be x, y, width and height in pixels, from 0 to {MOST_PIXELS}, and not empty."
            raise Problem.of(f"{field}.boxes[{place}]", problem)
