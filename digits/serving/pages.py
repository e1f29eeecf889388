"""The drawing page at `/` with its files, and the model card. app.py registers this blueprint. The page is plain
HTML, CSS and JavaScript in digits/serving/static, and uses POST /predict like any other client."""

from __future__ import annotations

from flask import Blueprint, Response, request

from digits.serving import openapi
from digits.serving.access import protected
from digits.serving.http import json_response
from digits.serving.service import service

pages = Blueprint("pages", __name__, static_folder="static", static_url_path="/static")


@pages.after_request
def protect(response: Response) -> Response:
    """Add security headers."""
    return protected(response, "blob:")


@pages.get("/")
def index() -> Response:
    """The page for browsers and a JSON summary for other clients, depending on the Accept header."""
    # clients without a preference, such as curl, get the first
    kind = request.accept_mimetypes.best_match(["application/json", "text/html"])
    response = pages.send_static_file("index.html") if kind == "text/html" else json_response(summary())
    response.headers["Vary"] = "Accept"
    return response


@pages.get("/model")
def model() -> Response:
    """The model card."""
    serving = service()
    return json_response(serving.classifier.card | {"detector": serving.detector.card})


def summary() -> dict[str, object]:
    """The JSON summary: name, model and routes."""
    classifier = service().classifier
    return {
        "name": "digits",
        "what": "Classifies images of handwritten digits, and reads numbers.",
        "model": {"version": classifier.version, "trained_on": classifier.card.get("trained_on")},
        "collects": service().collector is not None,
        "routes": openapi.routes(),
    }
