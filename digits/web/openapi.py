"""The description of the API, as OpenAPI 3.1 at /openapi.json and as Swagger UI at /docs, whose files come from
the package flask-swagger-ui. Its source is openapi.yaml in this folder. This module fills in the types of
pictures, and what depends on the settings: the versions, the maximum number of images in a request, and whether
predictions require an API key. Tests compare the description with the routes and with the running service."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Response, abort, current_app, send_from_directory

from digits.version import VERSION
from digits.web.access import protected, public
from digits.web.bodies import PICTURES
from digits.web.messages import json_response
from digits.web.service import service

HERE = Path(__file__).parent
# the files of Swagger UI that the page needs
ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")

bp = Blueprint("openapi", __name__)


@bp.get("/openapi.json")
@public
def openapi() -> Response:
    version, max_batch = service().classifier.version, service().settings.max_batch
    return json_response(describe(version, max_batch, current_app.config["GUARDED"]))


@bp.get("/docs")
@public
def docs() -> Response:
    # the style sheet contains inline images
    return protected(send_from_directory(HERE / "static", "docs.html"), "data:")


@bp.get("/docs/<name>")
@public
def docs_file(name: str) -> Response:
    if name not in ASSETS:
        abort(404)
    dist = str(files("flask_swagger_ui") / "dist")
    return protected(send_from_directory(dist, name, max_age=86400), "data:")


@lru_cache(maxsize=1)
def _written() -> Any:
    return yaml.load((HERE / "openapi.yaml").read_bytes(), yaml.CSafeLoader)


def routes() -> dict[str, str]:
    """The routes, such as "POST /predict", and the summary of each."""
    return {
        f"{method.upper()} {path}": operation["summary"]
        for path, operations in _written()["paths"].items()
        for method, operation in operations.items()
    }


@lru_cache(maxsize=1)
def describe(version: str, max_images: int, guarded: bool = False) -> dict[str, Any]:
    """The description, as JSON.

    Args:
        version: that of the model.
        max_images: the most images in a request.
        guarded: whether predictions require an API key.
    """
    values: dict[str, object] = {"MAX_BATCH": max_images, "VERSION": version}
    values |= {"API_VERSION": VERSION, "VERSION_IN_DECIMAL": int(version, 16)}
    described: dict[str, Any] = _filled(_written(), values)
    del described["x-shared"]
    if not guarded:
        del described["components"]["securitySchemes"]
        for operations in described["paths"].values():
            for operation in operations.values():
                if operation.pop("security", None):
                    del operation["responses"]["401"]
    return described


def _filled(part: Any, values: dict[str, object]) -> Any:
    """A copy of a part of the document, with placeholders replaced by their values."""
    if isinstance(part, dict):
        return {
            each: _filled(inner, values)
            for name, inner in part.items()
            for each in (PICTURES if name == "PICTURE" else [name])
        }
    if isinstance(part, list):
        return [_filled(inner, values) for inner in part]
    return values.get(part, part) if isinstance(part, str) else part
