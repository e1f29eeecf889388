"""`POST /predict`: the digits in a request's images, each with its probability."""

from __future__ import annotations

import flask
import numpy as np
from flask import Blueprint, Response, g, request

from digits.web import bodies
from digits.web.access import needs_key
from digits.web.messages import flag, json_response
from digits.web.service import service

bp = Blueprint("predict", __name__)


@bp.post("/predict")
@needs_key
def predict() -> Response:
    current: flask.Request = request._get_current_object()  # type: ignore[attr-defined]
    as_is, detail = flag(current, "prepare", "none", "mnist"), flag(current, "detail")
    g.keep = flag(current, "keep")
    items = bodies.items_of(current)
    batch, pages = bodies.to_batch(items, as_is)
    probabilities, answers = service().classify(batch, items.pictures, pages)
    if detail:
        pixels = (batch[..., 0] * 255).round().astype(np.uint8).tolist()
        for answer, row, image in zip(answers, probabilities.tolist(), pixels, strict=True):
            answer["probabilities"] = [round(value, 6) for value in row]
            answer["image"] = image
    response = json_response(answers[0] if items.single else {"predictions": answers})
    if items.pictures and any(answer["unsure"] for answer in answers):
        # the picture may show several digits
        response.headers["Link"] = '<read>; rel="related"'
    return response
