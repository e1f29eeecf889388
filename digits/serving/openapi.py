"""The API's description: OpenAPI 3.1 for machines at /openapi.json, and for people Swagger UI at /docs, with files
that the package flask-swagger-ui ships. The description itself is openapi.yaml beside this file, which is where to
change it; here it is completed with what varies between services: the model's version, how many images a request
may have, and whether predictions want an API key. app.py registers the blueprint; pages.py lists the routes from
here. Tests hold the description against the routes, the running service and every status that it answers.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import yaml
from flask import Blueprint, Response, abort, current_app, send_from_directory

from digits.serving.access import protected
from digits.serving.service import service

HERE = Path(__file__).parent
# of what Swagger UI brings, and our own to start it
ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")

bp = Blueprint("openapi", __name__)


@bp.get("/openapi.json")
def openapi() -> Response:
    """This description."""
    config = current_app.config
    described = _described(service().classifier.version, config["MAX_BATCH"], config["GUARDED"])
    return Response(described, content_type="application/json")


@bp.get("/docs")
def docs() -> Response:
    """The description as a page to read and try."""
    return _page("docs.html")


@bp.get("/docs/<name>")
def docs_file(name: str) -> Response:
    """The page's files."""
    if name == "docs.js":
        return _page(name)
    if name not in ASSETS:
        abort(404)
    dist = str(files("flask_swagger_ui") / "dist")
    return protected(send_from_directory(dist, name, max_age=86400), "data:")


def _page(name: str) -> Response:
    # its style sheet has pictures inline
    return protected(send_from_directory(HERE / "static", name), "data:")


@lru_cache(maxsize=1)
def _described(version: str, most: int, guarded: bool) -> bytes:
    return orjson.dumps(describe(version, most, guarded))


@lru_cache(maxsize=1)
def _written() -> Any:
    return yaml.load((HERE / "openapi.yaml").read_bytes(), yaml.CSafeLoader)


def routes() -> dict[str, str]:
    """Each route, as "POST /predict", with what it does in a sentence."""
    return {
        f"{method.upper()} {path}": operation["summary"]
        for path, operations in _written()["paths"].items()
        for method, operation in operations.items()
    }


def describe(version: str, most: int, guarded: bool = False) -> dict[str, Any]:
    """The description, as JSON.

    version: the model's. most: images in one request. guarded: whether predictions want an API key.
    """
    values = {"MAX_BATCH": most, "VERSION": version, "VERSION_IN_DECIMAL": int(version, 16)}
    described = _filled(_written(), values)
    del described["x-shared"]
    if not guarded:
        del described["components"]["securitySchemes"]
        for operations in described["paths"].values():
            if "post" in operations:
                del operations["post"]["security"]
                del operations["post"]["responses"]["401"]
    return described


def _filled(part: Any, values: dict[str, object]) -> Any:
    """A copy of a part of the document, with values in place of the words that stand for them."""
    if isinstance(part, dict):
        return {name: _filled(inner, values) for name, inner in part.items()}
    if isinstance(part, list):
        return [_filled(inner, values) for inner in part]
    return values.get(part, part) if isinstance(part, str) else part
