"""The Open Inference Protocol V2 over HTTP, for clients of KServe, Triton and MLServer, with Triton's binary
tensor extension, in which the bytes of tensors follow the JSON. docs/protocols.md describes it.

https://github.com/kserve/open-inference-protocol,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import orjson
from flask import Blueprint, Response, request

from digits.web.access import needs_key, public
from digits.web.bodies import SIDE, are_wide, offload_if_large, parse_object
from digits.web.messages import json_response
from digits.web.problems import Problem
from digits.web.protocols import tensors
from digits.web.protocols.tensors import NAME
from digits.web.service import service

INPUT = "image"
# NumPy's type for each datatype, little-endian as on the wire, and the value of full brightness
TYPES: dict[str, tuple[np.dtype[Any], int]] = {"FP32": (np.dtype("<f4"), 1), "UINT8": (np.dtype("u1"), 255)}
INPUTS = [{"name": INPUT, "datatype": "FP32", "shape": [-1, SIDE, SIDE, 1]}]
OUTPUTS: list[dict[str, Any]] = [
    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    {"name": "digit", "datatype": "INT64", "shape": [-1]},
]
# sent only if a request names it; not in the model's metadata, because clients that name no outputs get all of
# those
UNSURE: dict[str, Any] = {"name": "unsure", "datatype": "BOOL", "shape": [-1]}
DATATYPES = {output["name"]: output["datatype"] for output in (*OUTPUTS, UNSURE)}
HEADER = "Inference-Header-Content-Length"
# what to call the input and the types of JSON values in errors
TENSOR = f"The tensor {INPUT}"
NAMES = {bool: "true or false", dict: "an object", int: "a whole number", list: "a list", str: "a string"}

bp = Blueprint("kserve", __name__, url_prefix="/v2")


def error(status: int, detail: str) -> tuple[int, dict[str, Any]]:
    """An error in the protocol's format."""
    return status, {"error": tensors.explained(status, detail, f"/v2/models/{NAME}")}


@bp.get("")
@public
def server() -> Response:
    facts = {"name": "digits", "version": service().classifier.version}
    return json_response(facts | {"extensions": ["binary_tensor_data"]})


@bp.get("/health/live")
@public
def live() -> Response:
    return json_response({"live": True})


@bp.get("/health/ready")
@public
def ready() -> Response:
    return json_response({"ready": True})


@bp.get(f"/models/{NAME}")
@bp.get(f"/models/{NAME}/versions/<version>")
@public
def model(version: str | None = None) -> Response:
    facts = {"name": NAME, "versions": [_check(version)], "platform": "litert"}
    return json_response(facts | {"inputs": INPUTS, "outputs": OUTPUTS})


@bp.get(f"/models/{NAME}/ready")
@bp.get(f"/models/{NAME}/versions/<version>/ready")
@public
def model_ready(version: str | None = None) -> Response:
    _check(version)
    return json_response({"name": NAME, "ready": True})


@bp.post(f"/models/{NAME}/infer")
@bp.post(f"/models/{NAME}/versions/<version>/infer")
@needs_key
def infer(version: str | None = None) -> Response:
    version = _check(version)
    body = request.get_data(cache=False)
    decode = partial(_decode, body, request.headers.get(HEADER))
    requested, request_id, batch = offload_if_large(body, decode)
    probabilities, answers = service().classify(batch)
    arrays = {
        "probabilities": probabilities,
        "digit": probabilities.argmax(1),
        "unsure": np.array([answer["unsure"] for answer in answers]),
    }
    answer = {"model_name": NAME, "model_version": version} | ({"id": request_id} if request_id else {})
    outputs: list[dict[str, Any]] = []
    tail = []
    for name, as_bytes in requested.items():
        array = arrays[name]
        tensor = {"name": name, "datatype": DATATYPES[name], "shape": list(array.shape)}
        if as_bytes:
            tail.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            # flat, in row-major order, because tritonclient requires it
            tensor["data"] = array.reshape(-1)
        outputs.append(tensor)
    head = orjson.dumps(answer | {"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return Response(head, content_type="application/json")
    body = b"".join([head, *tail])
    return Response(body, content_type="application/octet-stream", headers={HEADER: str(len(head))})


def _check(version: str | None) -> str:
    """The version of the model. Raises Problem 404 if the request asks for another."""
    loaded = service().classifier.version
    if version not in (None, loaded):
        raise Problem(404, f"The model {NAME} has no version {version}; {loaded} is served.")
    return loaded


def _decode(body: bytes, length: str | None) -> tuple[dict[str, bool], str, np.ndarray]:
    """What `_requested` returns, the request's id, and the batch of images. length: that of the JSON."""
    binary = b""
    if length is not None:
        if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= len(body)):
            raise Problem(400, f"{HEADER} must be a number of bytes, not larger than the body.")
        body, binary = body[: int(length)], body[int(length) :]
    document = parse_object(body, '{"inputs": [...]}', 400)
    requested = _requested(document)
    name = _member(document, "id", str, "")
    if name != name.encode("utf-8", "replace").decode():
        raise Problem(400, "The field id must have valid Unicode characters.")
    return requested, name, _batch(document, body, binary)


def _member(value: dict[str, Any], name: str, json_type: type, default: Any) -> Any:
    """A member of a JSON object, or `default` if it is absent or null, which MLServer's types send."""
    member = value.get(name)
    if member is not None and type(member) is not json_type:
        raise Problem(400, f"The field {name} must be {NAMES[json_type]}.")
    return default if member is None else member


def _parameters(value: dict[str, Any]) -> dict[str, Any]:
    parameters = _member(value, "parameters", dict, {})
    for name, set_to in parameters.items():
        # parameters that would change the meaning of the answer must not be ignored
        if set_to is not None and (name == "classification" or name.startswith("shared_memory_")):
            raise Problem(400, f"The parameter {name} is not supported.")
    return parameters


def _requested(document: dict[str, Any]) -> dict[str, bool]:
    """The outputs to send, by default those in the metadata, and whether to send each as bytes."""
    default = _member(_parameters(document), "binary_data_output", bool, False)
    requested: dict[str, bool] = {}
    for i, output in enumerate(_member(document, "outputs", list, []) or OUTPUTS):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in DATATYPES:
            raise Problem(
                400, f"The field outputs[{i}] must name an output of the model: {', '.join(DATATYPES)}."
            )
        if name in requested:
            raise Problem(400, "The field outputs must not name an output twice.")
        requested[name] = _member(_parameters(output), "binary_data", bool, default)
    return requested


def _batch(document: dict[str, Any], body: bytes, binary: bytes) -> np.ndarray:
    """float32 (n, 28, 28, 1) in [0, 1] from the request's input tensor."""
    inputs = document.get("inputs")
    tensor = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else None
    if not isinstance(tensor, dict) or tensor.get("name") != INPUT:
        raise Problem(400, f"The field inputs must be a list of one tensor, whose name is {INPUT}.")
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in TYPES:
        raise Problem(400, f"The datatype of {INPUT} must be FP32 (0 to 1) or UINT8 (0 to 255).")
    dtype, top = TYPES[datatype]
    shape = tensor.get("shape")
    if not isinstance(shape, list) or any(type(size) is not int or not 0 <= size < 1 << 31 for size in shape):
        raise Problem(400, f"The shape of {INPUT} must be a list of whole numbers.")
    size, data = _member(_parameters(tensor), "binary_data_size", int, None), tensor.get("data")
    if (size is None) == (data is None):
        raise Problem(400, f"{TENSOR} must have either data or binary_data_size.")
    if (size or 0) != len(binary) or len(binary) % dtype.itemsize:
        there = f"but there are {len(binary)}"
        raise Problem(400, f"{TENSOR} must have {size or 0} bytes after the JSON, {there}.")
    array = np.frombuffer(binary, dtype) if data is None else tensors.array(data, TENSOR, body)
    if datatype == "UINT8" and array.dtype.kind == "f" and array.size:
        raise Problem(400, f"{TENSOR} is UINT8, so its values must be whole numbers.")
    try:
        array = array.reshape(shape)
    except ValueError:
        raise Problem(400, f"{TENSOR} has {array.size} values, which do not fit its shape {shape}.") from None
    try:
        return tensors.batch(array, TENSOR, top)
    except Problem:
        if datatype == "FP32" and data is None and are_wide(binary, ">f4"):
            detail = f"{TENSOR} has big-endian numbers, but its bytes must be little-endian."
            raise Problem(400, detail) from None
        raise
