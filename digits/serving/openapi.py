"""The API's description for machines, OpenAPI 3.1 at /openapi.json, and for people, Swagger UI at /docs from
files that the package flask-swagger-ui ships. app.py registers the blueprint; digits/serving/pages.py
lists the routes from `describe`. Tests hold the description against the routes, the running service and
every status that it answers.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from flask import Blueprint, Response, abort, current_app, send_from_directory

from digits.serving import inputs
from digits.serving.access import protected
from digits.serving.inputs import PIXELS, SIDE
from digits.serving.protocols import kserve, tfserving
from digits.serving.service import service

Json = dict[str, Any]

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
    return protected(send_from_directory(Path(__file__).parent / "static", name), "data:")


@lru_cache(maxsize=1)
def _described(version: str, most: int, guarded: bool) -> bytes:
    return orjson.dumps(describe(version, most, guarded))


def routes() -> dict[str, str]:
    """Each route, as "POST /predict", with what it does in a sentence."""
    paths = describe("0", 1)["paths"]
    return {
        f"{m.upper()} {path}": route["summary"] for path, all in paths.items() for m, route in all.items()
    }


# the schemas


def _list(items: Json, least: int, most: int | None = None) -> Json:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most or least}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _only(name: str, value: Json) -> Json:
    return _object({name: value}) | {"additionalProperties": False}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _image(pixel: Json) -> list[Json]:
    """The shapes an image may have: 28x28, 28x28x1, 784."""
    return [
        _list(_list(pixel, SIDE), SIDE),
        _list(_list(_list(pixel, 1), SIDE), SIDE),
        _list(pixel, PIXELS),
    ]


BYTE = {"type": "number", "minimum": 0, "maximum": 255}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
STRING = {"type": "string"}
PICTURE = STRING | {"format": "picture", "description": "a picture in base64, bare or as a data: URL"}
B64 = _only("b64", STRING | {"format": "base64-picture", "description": "a picture in base64"})
# a one, for people to try
ONE = [[255 if 13 <= x <= 15 and 4 <= y < 24 else 0 for x in range(SIDE)] for y in range(SIDE)]


def _schemas(most: int) -> Json:
    many = [_list(image, 1, most) for image in _image(SHARE)]
    named = [_only(tfserving.INPUT, image) for image in (*_image(SHARE), B64)]
    signature = {"signature_name": {"enum": [tfserving.SIGNATURE, ""]}}
    parameters = {"parameters": {"type": "object"}}
    tensor = _object(
        {"name": STRING, "datatype": STRING, "shape": {"type": "array", "items": {"type": "integer"}}}
    )
    return {
        "Pixels": {"anyOf": _image(BYTE), "description": "bright ink on black, as in MNIST"},
        "Answer": _object(
            {
                "predicted_digit": {"type": "integer", "minimum": 0, "maximum": 9},
                "predicted_probability": SHARE,
            },
            {
                "probabilities": _list(SHARE, 10) | {"description": "with detail=1: of each digit"},
                "image": _image(BYTE)[0] | {"description": "with detail=1: what the network saw"},
            },
        ),
        "Answers": _object({"predictions": {"type": "array", "items": _ref("Answer"), "minItems": 1}}),
        "Problem": _object(
            {
                "type": STRING,
                "title": STRING,
                "status": {"type": "integer"},
                "detail": STRING,
                "instance": STRING,
                "request_id": STRING,
            },
            {
                "field": STRING | {"description": "where in the request"},
                "found": {"description": "what is there"},
            },
        )
        | {"description": "problem details, RFC 9457"},
        "Error": _object({"error": STRING}),
        "TFServingRequest": {
            "oneOf": [
                _object(
                    {
                        "instances": {
                            "anyOf": [*many, _list(B64, 1, most), *(_list(one, 1, most) for one in named)]
                        }
                    },
                    signature,
                )
                | {"not": {"required": ["inputs"]}},
                _object(
                    {
                        "inputs": {
                            "anyOf": [
                                *many,
                                B64,
                                _list(B64, 1, most),
                                *(_only(tfserving.INPUT, each) for each in (*many, B64, _list(B64, 1, most))),
                            ]
                        }
                    },
                    signature,
                )
                | {"not": {"required": ["instances"]}},
            ]
        },
        "TFServingAnswer": _object(
            {"predictions": {"type": "array", "items": _list(SHARE, 10)}},
        ),
        "TFServingColumns": _object({"outputs": {"type": "array", "items": _list(SHARE, 10)}}),
        "TFServingStatus": _object(
            {
                "model_version_status": _list(
                    _object(
                        {
                            "version": STRING,
                            "state": {"const": "AVAILABLE"},
                            "status": _object({"error_code": STRING, "error_message": STRING}),
                        }
                    ),
                    1,
                )
            }
        ),
        "TFServingMetadata": _object({"model_spec": {"type": "object"}, "metadata": {"type": "object"}}),
        "V2Request": _object(
            {
                "inputs": _list(
                    _object(
                        {
                            "name": {"const": kserve.INPUT},
                            "datatype": {"enum": sorted(kserve.TYPES)},
                            "shape": _list({"type": "integer", "minimum": 1, "maximum": most}, 2, 4),
                            "data": {
                                "type": "array",
                                "description": "numbers, nested or flat, in row-major order",
                            },
                        },
                        {"parameters": {"type": "object"}},
                    ),
                    1,
                )
            },
            {
                "id": STRING,
                "outputs": {
                    "type": "array",
                    "maxItems": len(kserve.OUTPUTS),
                    "items": _object(
                        {"name": {"enum": [output["name"] for output in kserve.OUTPUTS]}}, parameters
                    ),
                },
            }
            | parameters,
        ),
        "V2Answer": _object(
            {
                "model_name": {"const": kserve.NAME},
                "model_version": STRING,
                "outputs": {"type": "array", "items": tensor, "minItems": 1},
            },
            {"id": STRING},
        ),
        "V2Model": _object(
            {
                "name": {"const": kserve.NAME},
                "versions": _list(STRING, 1),
                "platform": STRING,
                "inputs": {"type": "array", "items": tensor},
                "outputs": {"type": "array", "items": tensor},
            }
        ),
        "V2Server": _object(
            {"name": STRING, "version": STRING, "extensions": {"type": "array", "items": STRING}}
        ),
    }


# the routes

REQUEST_ID = {
    "X-Request-ID": {"required": True, "schema": STRING, "description": "the request's id, also in the log"}
}
MODEL = {"X-Model-Version": {"required": True, "schema": STRING, "description": "the model that answered"}}
RETRY = {"Retry-After": {"required": True, "schema": {"type": "integer"}, "description": "seconds to wait"}}

PROBLEMS = {
    400: "what was sent can't be read",
    401: "no API key, or one that is not accepted",
    404: "there is no such thing here",
    408: "the request did not arrive in time",
    413: "more bytes, images or pixels than are taken",
    415: "another kind of content than is taken",
    422: "it can be read, but is no image",
    500: "a fault of the service; the request id finds it in the log",
    503: "not yet, or not now; try again after what Retry-After says",
}


def _answer(what: str, headers: Json, **content: Json) -> Json:
    kinds = {
        "json": "application/json",
        "problem": "application/problem+json",
        "bytes": "application/octet-stream",
    }
    kinds |= {"html": "text/html", "text": "text/plain", "any": "*/*"}
    return {
        "description": what,
        "headers": REQUEST_ID | headers,
        "content": {kinds[kind]: {"schema": schema} for kind, schema in content.items()},
    }


def _route(what: str, good: Json, *statuses: int, problem: str = "Problem", **more: Any) -> Json:
    """An operation: what it does in a sentence, the answer if all is well, and which statuses there are else."""
    kind = "problem" if problem == "Problem" else "json"
    failed = {
        str(s): _answer(PROBLEMS[s], RETRY if s == 503 else {}, **{kind: _ref(problem)}) for s in statuses
    }
    return {"summary": what, "responses": {"200": good} | failed} | more


def _body(**content: Json) -> Json:
    kinds = {"json": "application/json", "bytes": "application/octet-stream", "form": "multipart/form-data"}
    return {"required": True, "content": {kinds[kind]: schema for kind, schema in content.items()}}


def _parameter(name: str, where: str, schema: Json, what: str) -> Json:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": what}


def _predict(most: int) -> Json:
    either = {
        "oneOf": [
            _object({"image": {"anyOf": [PICTURE, _ref("Pixels")]}}) | {"not": {"required": ["images"]}},
            _object({"images": {"anyOf": [_list(PICTURE, 1, most), _list(_ref("Pixels"), 1, most)]}})
            | {"not": {"required": ["image"]}},
        ]
    }
    body = _body(
        json={"schema": either, "example": {"image": ONE}},
        bytes={"schema": STRING | {"format": "binary", "description": "784 bytes an image, row by row"}},
        form={
            "schema": {
                "type": "object",
                "minProperties": 1,
                "properties": {"image": _list({"type": "string", "format": "binary"}, 1, most)},
            },
        },
    )
    for kind in inputs.PICTURES:
        body["content"][kind] = {"schema": STRING | {"format": "binary"}}
    return _route(
        "Classify an image, or several: JSON, pictures, a form with pictures, raw pixels",
        _answer("the digits found", MODEL, json={"anyOf": [_ref("Answer"), _ref("Answers")]}),
        *(400, 408, 413, 415, 422, 500, 503),
        requestBody=body,
        parameters=[
            _parameter(
                "detail",
                "query",
                {"enum": ["0", "1"], "default": "0"},
                "1 adds all ten probabilities and the image seen",
            ),
            _parameter(
                "prepare",
                "query",
                {"enum": ["mnist", "none"], "default": "mnist"},
                "none takes 28x28 pictures as they are",
            ),
        ],
    )


def describe(version: str, most: int, guarded: bool = False) -> Json:
    """The description: JSON as OpenAPI 3.1 wants it.

    version: the model's. most: images in one request. guarded: whether predictions want an API key.
    """
    whole = {"type": "integer", "enum": [int(version, 16)]}
    number = _parameter("version", "path", whole, "X-Model-Version in decimal")
    asked = _parameter("version", "path", {"enum": [version]}, "X-Model-Version")
    name = _parameter("name", "path", {"enum": [*ASSETS, "docs.js"]}, "of the file")
    filename = _parameter("filename", "path", STRING, "of the file") | {"example": "page.css"}
    health = _object({"status": STRING}, {"model_version": STRING})
    anything = {"type": "object"}

    def v1(what: str, good: str, *statuses: int, **more: Any) -> Json:
        return _route(what, _answer("as it says", {}, json=_ref(good)), *statuses, problem="Error", **more)

    def v2(what: str, good: Json, *statuses: int, **more: Any) -> Json:
        return _route(what, _answer("as it says", {}, json=good), *statuses, problem="Error", **more)

    tf_predict = _route(
        "TensorFlow Serving: probabilities of images",
        _answer("of each image", MODEL, json={"anyOf": [_ref("TFServingAnswer"), _ref("TFServingColumns")]}),
        *(400, 408, 413, 500, 503),
        problem="Error",
        requestBody=_body(
            json={
                "schema": _ref("TFServingRequest"),
                "example": {"instances": [[[v / 255 for v in row] for row in ONE]]},
            }
        ),
    )
    v2_infer = _route(
        "Open Inference Protocol: probabilities and digits of images",
        _answer(
            "the outputs asked for; as bytes where wanted",
            MODEL,
            json=_ref("V2Answer"),
            bytes=STRING | {"format": "binary"},
        ),
        *(400, 408, 413, 415, 500, 503),
        problem="Error",
        requestBody=_body(
            json={
                "schema": _ref("V2Request"),
                "example": {
                    "inputs": [
                        {"name": kserve.INPUT, "datatype": "UINT8", "shape": [1, SIDE, SIDE], "data": ONE}
                    ]
                },
            },
            bytes={"schema": STRING | {"format": "binary", "description": "the JSON, then tensors' bytes"}},
        ),
    )
    header = _parameter(
        kserve.HEADER,
        "header",
        {"type": "integer", "minimum": 0},
        "length of the JSON, if tensors' bytes follow",
    )
    ready = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}

    def v2_ready(what: str, *statuses: int, **more: Any) -> Json:
        told = v2(what, ready, *statuses, **more)
        told["responses"]["503"] = _answer("not yet", {}, json=ready)
        return told

    tf = f"/v1/models/{tfserving.NAME}"
    oip = f"/v2/models/{kserve.NAME}"
    version_of_v2, version_of_v1 = {"parameters": [asked]}, {"parameters": [number]}
    model = v2("Open Inference Protocol: inputs and outputs", _ref("V2Model"))
    described = {
        "openapi": "3.1.1",
        "info": {
            "title": "digits",
            "version": version,
            "summary": "Classifies images of handwritten digits.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            "/predict": {"post": _predict(most)},
            "/": {
                "get": _route(
                    "The drawing page for browsers, a summary for everyone else",
                    _answer("by the Accept header", {}, json=anything, html=STRING),
                )
            },
            "/model": {"get": _route("The model card", _answer("what the model is", {}, json=anything))},
            "/metrics": {
                "get": _route(
                    "Counts and times for Prometheus; DIGITS_METRICS_BIND keeps them elsewhere",
                    _answer("its text format", {}, text=STRING),
                    404,
                )
            },
            "/health/live": {
                "get": _route("200 while the process answers", _answer("it does", {}, json=health))
            },
            "/health/ready": {
                "get": _route(
                    "200 once the model has answered, 503 before", _answer("it has", {}, json=health), 503
                )
            },
            "/openapi.json": {"get": _route("This description", _answer("OpenAPI 3.1", {}, json=anything))},
            "/docs": {"get": _route("This description as a page", _answer("Swagger UI", {}, html=STRING))},
            "/docs/{name}": {
                "get": _route("A file of that page", _answer("the file", {}, any={}), 404, parameters=[name])
            },
            "/static/{filename}": {
                "get": _route(
                    "A file of the drawing page",
                    _answer("the file", {}, any={}),
                    404,
                    parameters=[filename],
                )
            },
            f"{tf}:predict": {"post": tf_predict},
            f"{tf}/versions/{{version}}:predict": {"post": _versioned(tf_predict, number)},
            tf: {"get": v1("TensorFlow Serving: which version is served", "TFServingStatus")},
            f"{tf}/versions/{{version}}": {
                "get": v1(
                    "TensorFlow Serving: whether a version is served", "TFServingStatus", 404, **version_of_v1
                )
            },
            f"{tf}/metadata": {"get": v1("TensorFlow Serving: inputs and outputs", "TFServingMetadata")},
            f"{tf}/versions/{{version}}/metadata": {
                "get": v1("The same, of a version", "TFServingMetadata", 404, **version_of_v1)
            },
            "/v2": {"get": v2("Open Inference Protocol: what serves", _ref("V2Server"))},
            "/v2/health/live": {
                "get": v2("200 while the process answers", _object({"live": {"type": "boolean"}}))
            },
            "/v2/health/ready": {"get": v2_ready("200 once the model has answered, 503 before")},
            oip: {"get": model},
            f"{oip}/versions/{{version}}": {"get": _versioned(model, asked)},
            f"{oip}/ready": {"get": v2_ready("200 once the model has answered, 503 before")},
            f"{oip}/versions/{{version}}/ready": {
                "get": v2_ready("The same, of a version", 404, **version_of_v2)
            },
            f"{oip}/infer": {"post": v2_infer | {"parameters": [header]}},
            f"{oip}/versions/{{version}}/infer": {
                "post": _versioned(v2_infer | {"parameters": [header]}, asked)
            },
        },
        "components": {"schemas": _schemas(most)},
    }
    return _guarded(described) if guarded else described


def _guarded(described: Json) -> Json:
    """The description of a service in which all that takes a POST wants an API key."""
    described["components"]["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    challenge = {"WWW-Authenticate": {"required": True, "schema": STRING}}
    for path, operations in described["paths"].items():
        if "post" in operations:
            kind, schema = ("json", "Error") if path.startswith("/v") else ("problem", "Problem")
            refused = _answer(PROBLEMS[401], challenge, **{kind: _ref(schema)})
            operations["post"] = operations["post"] | {
                "security": [{"key": []}, {"bearer": []}],
                "responses": operations["post"]["responses"] | {"401": refused},
            }
    return described


def _versioned(operation: Json, parameter: Json) -> Json:
    """The same operation for a version, which may be missing."""
    missing = _answer(PROBLEMS[404], {}, json=_ref("Error"))
    return operation | {
        "parameters": [parameter, *operation.get("parameters", [])],
        "responses": operation["responses"] | {"404": missing},
    }
