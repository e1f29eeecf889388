"""TensorFlow Serving's REST API, so that its clients work without changes. Pixels are floats in [0, 1], as for
a model in TensorFlow Serving, and errors are {"error": ...}. docs/protocols.md describes it.

https://github.com/tensorflow/serving/blob/master/tensorflow_serving/g3doc/api_rest.md
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from flask import Blueprint, Response, request

from digits.imaging.inputs import decode_base64
from digits.web.access import needs_key, public
from digits.web.bodies import SIDE, Items, check_count, offload_if_large, parse_object, to_batch
from digits.web.messages import json_response
from digits.web.problems import Problem
from digits.web.protocols import tensors
from digits.web.protocols.tensors import NAME
from digits.web.service import service

INPUT, OUTPUT, SIGNATURE = "image", "probabilities", "serving_default"

bp = Blueprint("tfserving", __name__, url_prefix="/v1/models")


def error(status: int, detail: str) -> tuple[int, dict[str, Any]]:
    """An error in TensorFlow Serving's format, in which invalid arguments are 400."""
    detail = tensors.explained(status, detail, f"/v1/models/{NAME}")
    return 400 if status in (415, 422) else status, {"error": detail}


def decimal_version() -> str:
    """The model's version as a whole number, as in TensorFlow Serving: the twelve hex digits in decimal."""
    return str(int(service().classifier.version, 16))


def _check(version: int | None) -> None:
    if version is not None and str(version) != decimal_version():
        raise Problem(404, f"Servable not found for request: Specific({NAME}, {version})")


@bp.post(f"/{NAME}:predict")
@bp.post(f"/{NAME}/versions/<int:version>:predict")
@needs_key
def predict(version: int | None = None) -> Response:
    """Probabilities for `instances` (rows) or `inputs` (columns). The Content-Type is ignored, as in TensorFlow
    Serving."""
    _check(version)
    body = request.get_data(cache=False)
    field, images = offload_if_large(body, partial(_decode, body))
    batch = to_batch(images)[0] if isinstance(images, Items) else images
    return json_response({field: service().classify(batch)[0]})


@bp.get("")
@public
def models() -> Response:
    """The names of the models, as KServe's V1 protocol lists them."""
    return json_response({"models": [NAME]})


@bp.get(f"/{NAME}")
@bp.get(f"/{NAME}/versions/<int:version>")
@public
def status(version: int | None = None) -> Response:
    _check(version)
    fine = {"error_code": "OK", "error_message": ""}
    state = {"version": decimal_version(), "state": "AVAILABLE", "status": fine}
    return json_response({"model_version_status": [state]})


@bp.get(f"/{NAME}/metadata")
@bp.get(f"/{NAME}/versions/<int:version>/metadata")
@public
def metadata(version: int | None = None) -> Response:
    _check(version)

    def tensor(name: str, *shape: int) -> dict[str, Any]:
        dims = [{"size": str(size), "name": ""} for size in shape]
        shaped = {"dim": dims, "unknown_rank": False}
        return {"dtype": "DT_FLOAT", "tensor_shape": shaped, "name": f"{SIGNATURE}_{name}:0"}

    signature = {
        "inputs": {INPUT: tensor(INPUT, -1, SIDE, SIDE, 1)},
        "outputs": {OUTPUT: tensor(OUTPUT, -1, 10)},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    spec = {"name": NAME, "signature_name": "", "version": decimal_version()}
    described = {"signature_def": {"signature_def": {SIGNATURE: signature}}}
    return json_response({"model_spec": spec, "metadata": described})


def _decode(body: bytes) -> tuple[str, np.ndarray | Items]:
    """The name of the answer's field, and a batch of images or the pictures."""
    document = parse_object(body, '{"instances": [...]}', 400)
    # null means the same as absent
    document = {name: value for name, value in document.items() if value is not None}
    signature = document.get("signature_name", SIGNATURE)
    if signature not in ("", SIGNATURE):
        raise Problem(400, f'Serving signature name: "{signature}" not found in signature def')
    if ("instances" in document) == ("inputs" in document):
        raise Problem(400, "Give either 'instances' (row format) or 'inputs' (column format).")
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise Problem(400, "'instances' must be a list.")
        if instances and all(isinstance(each, dict) and "b64" not in each for each in instances):
            instances = [_named(each, "instances") for each in instances]
        return "predictions", _images(instances, "instances", body)
    inputs = document["inputs"]
    if isinstance(inputs, dict) and "b64" not in inputs:
        inputs = _named(inputs, "inputs")
    return "outputs", _images(inputs, "inputs", body)


def _named(value: dict[str, Any], field: str) -> Any:
    """The value of the input `image`, which must be the only one."""
    if value.keys() != {INPUT}:
        raise Problem(400, f"'{field}' must name the input '{INPUT}' and no other.")
    return value[INPUT]


def _images(value: Any, field: str, body: bytes) -> np.ndarray | Items:
    """A batch from nested lists of numbers, or the pictures in objects {"b64": a picture}."""
    listed = value if isinstance(value, list) else [value]
    if not any(isinstance(each, dict) for each in listed):
        return tensors.batch(tensors.array(value, f"'{field}'", body), f"'{field}'")
    check_count(len(listed))
    pictures = []
    for each in listed:
        if not isinstance(each, dict) or each.keys() != {"b64"} or not isinstance(each["b64"], str):
            allowed = 'only numbers, or only objects {"b64": a picture in base64}'
            raise Problem(400, f"'{field}' must contain {allowed}.")
        try:
            pictures.append(decode_base64(each["b64"]))
        except ValueError:
            raise Problem(400, f"'{field}' has a value of b64 that is not valid base64.") from None
    return Items(pictures, [f"'{field}'[{i}]" for i in range(len(listed))], False)
