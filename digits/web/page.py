"""The web page at `/` with its files, and the model card. The page is plain HTML, CSS and JavaScript in
digits/web/static, and uses POST /predict and POST /read like any other client."""

from __future__ import annotations

from flask import Blueprint, Response, request

from digits.version import VERSION
from digits.web import openapi
from digits.web.access import protected, public
from digits.web.messages import json_response
from digits.web.service import service

bp = Blueprint("page", __name__, static_folder="static", static_url_path="/static")


@bp.after_request
def protect(response: Response) -> Response:
    return protected(response, "blob:")


@bp.get("/")
@public
def index() -> Response:
    """The page for browsers and a JSON summary for other clients, depending on the Accept header."""
    # clients without a preference, such as curl, get the first
    kind = request.accept_mimetypes.best_match(["application/json", "text/html"])
    if kind == "text/html":
        response = bp.send_static_file("index.html")
    else:
        classifier = service().classifier
        summary = {
            "name": "digits",
            "what": "Classifies images of handwritten digits, and reads numbers.",
            "model": {"version": classifier.version, "trained_on": classifier.card.get("trained_on")},
            "collects": service().collector is not None,
            "routes": openapi.routes(),
        }
        response = json_response(summary)
    response.headers["Vary"] = "Accept"
    return response


@bp.get("/model")
@public
def model() -> Response:
    serving = service()
    cards = serving.classifier.card | {"detector": serving.detector.card}
    return json_response(cards | {"service_version": VERSION})
