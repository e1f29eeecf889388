"""Common mistakes in requests, and other ways to write them than in the examples. Each is either read as
intended, or the answer says what to change. These tests use Flask's test client."""

from __future__ import annotations

import base64
import io
import itertools
import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from app import create_app
from digits.imaging.formats import FORMATS
from digits.training.synthetic import draw
from digits.web.settings import Settings
from project import ROOT, SAMPLE

SEVEN = np.array(SAMPLE["image"], np.uint8)
PNG = (ROOT / "digits" / "web" / "static" / "samples" / "7.png").read_bytes()
V1, V2 = "/v1/models/mnist:predict", "/v2/models/mnist/infer"
EMPTY = (io.BytesIO(), "", "application/octet-stream")


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(Settings()).test_client()


def tensor(values: Any, datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": datatype, "shape": [1, 784], "data": values, **more}


def ask(client: FlaskClient, kind: str, pixels: np.ndarray) -> tuple[int, str]:
    """The status and detail of the answer to pixels, uint8 or float (28, 28), sent in this way."""
    flat = pixels.reshape(-1).tolist()
    sent: dict[str, tuple[str, Any]] = {
        "image": ("/predict", {"image": pixels.tolist()}),
        "784 numbers": ("/predict", {"image": flat}),
        "28x28x1": ("/predict", {"image": pixels[..., None].tolist()}),
        "images": ("/predict", {"images": [SEVEN.tolist(), pixels.tolist()]}),
        "invocations": ("/invocations", {"inputs": [pixels.tolist()]}),
        "v1": (V1, {"instances": [pixels.tolist()]}),
        "v1 columns": (V1, {"inputs": {"image": [flat]}}),
        "v2 FP32": (V2, {"inputs": [tensor(flat, "FP32")]}),
        "v2 UINT8": (V2, {"inputs": [tensor(flat)]}),
    }
    if kind == "raw":
        body = pixels.astype(np.uint8).tobytes()
        answer = client.post("/predict", data=body, content_type="application/octet-stream")
    else:
        path, document = sent[kind]
        answer = client.post(path, json=document)
    return answer.status_code, (answer.json or {}).get("detail") or (answer.json or {}).get("error", "")


# ways for values from 0 to 255, and from 0 to 1; the last two of the former are for bytes
TO_255 = ("image", "784 numbers", "28x28x1", "images", "invocations", "raw", "v2 UINT8")
WAYS = (*TO_255, "v1", "v1 columns", "v2 FP32")


@pytest.mark.parametrize(
    ("value", "kind"), [*itertools.product((0, 1), WAYS), *itertools.product((200,), TO_255)]
)
def test_a_blank_image_is_refused(client: FlaskClient, kind: str, value: int) -> None:
    status, detail = ask(client, kind, np.full((28, 28), value, np.uint8))
    assert status == (400 if kind.startswith("v") else 422)
    assert "is blank: its pixels hardly differ." in detail


@pytest.mark.parametrize(
    ("mask", "kind"), [*itertools.product((True,), TO_255), *itertools.product((False,), TO_255[:5])]
)
def test_pixels_from_0_to_1_get_a_hint_to_multiply_them(client: FlaskClient, kind: str, mask: bool) -> None:
    pixels = (SEVEN > 99).astype(np.uint8) if mask else SEVEN / 255
    status, detail = ask(client, kind, pixels)
    assert status == (400 if kind.startswith("v") else 422)
    assert "has values from 0 to 1: multiply them by 255." in detail


def test_the_range_of_pixels_from_0_to_1_is_given(client: FlaskClient) -> None:
    answer = client.post("/predict", json={"image": (SEVEN / SEVEN.max()).tolist()})
    assert answer.json["found"] == "values from 0 to 1"


def test_a_blank_image_in_a_batch_is_named(client: FlaskClient) -> None:
    raw = np.stack([SEVEN, SEVEN, 0 * SEVEN])
    answer = client.post("/predict", data=raw.tobytes(), content_type="application/octet-stream")
    assert answer.json["field"] == "image 2 of the body"
    answer = client.post("/predict", json={"images": raw.tolist()})
    assert answer.json["field"] == "images[2]"
    answer = client.post(V1, json={"instances": (raw / 255).tolist()})
    assert answer.json["error"].startswith("'instances'[2] is blank")


TEXT = base64.b64encode(PNG).decode()
BASE64 = {
    "line breaks of 76": base64.encodebytes(PNG).decode(),
    "line breaks of Windows": base64.encodebytes(PNG).decode().replace("\n", "\r\n"),
    "URL-safe": base64.urlsafe_b64encode(PNG).decode(),
    "unpadded": TEXT.rstrip("="),
    "URL-safe, unpadded": base64.urlsafe_b64encode(PNG).decode().rstrip("="),
}


@pytest.mark.parametrize("way", BASE64)
def test_base64_is_read_however_it_was_written(client: FlaskClient, way: str) -> None:
    text = BASE64[way]
    assert client.post("/predict", json={"image": text}).json["predicted_digit"] == 7
    for head in ("data:image/png;base64,", "DATA:image/png;BASE64,"):
        assert client.post("/predict", json={"image": head + text}).json["predicted_digit"] == 7
    probabilities = client.post(V1, json={"instances": [{"b64": text}]}).json["predictions"][0]
    assert int(np.argmax(probabilities)) == 7


def test_a_data_url_may_be_percent_encoded(client: FlaskClient) -> None:
    text = TEXT.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert client.post("/predict", json={"image": f"data:image/png;base64,{text}"}).status_code == 200


@pytest.mark.parametrize("text", ["a", "!!!!", "a=b=", "é", "abcde"])
def test_invalid_base64_is_reported(client: FlaskClient, text: str) -> None:
    answer = client.post("/predict", json={"image": text})
    assert answer.status_code == 422
    assert answer.json["detail"] == "The field image is not valid base64."


def test_an_empty_file_input_is_skipped(client: FlaskClient) -> None:
    def answer(*files: tuple[io.BytesIO, str, str]) -> Any:
        return client.post("/predict", data={"a": list(files)}, content_type="multipart/form-data")

    picture = (io.BytesIO(PNG), "7.png", "image/png")
    assert answer(picture, EMPTY).json["predicted_digit"] == 7
    alone = answer((io.BytesIO(), "", "application/octet-stream"))
    assert (alone.status_code, alone.json["detail"]) == (422, "The form has no file.")
    # a file that was chosen and is empty is a mistake
    chosen = answer((io.BytesIO(), "x.png", "image/png"))
    assert (chosen.status_code, chosen.json["detail"]) == (422, "The field a is empty.")


def test_a_form_without_a_boundary_is_400(client: FlaskClient) -> None:
    answer = client.post("/predict", data=b"--b\r\n", content_type="multipart/form-data")
    assert answer.status_code == 400
    assert "has no boundary" in answer.json["detail"]


WRITTEN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


@pytest.mark.parametrize(("name", "kind"), [(f.name, f.types[0]) for f in FORMATS if f.name in WRITTEN])
def test_a_picture_sent_as_raw_pixels_is_refused_with_its_content_type(
    client: FlaskClient, name: str, kind: str
) -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(PNG)).convert("RGB").save(file, name)
    whole = file.getvalue()
    # the second body has the length of raw pixels
    for body in (whole, whole + bytes(-len(whole) % 784)):
        answer = client.post("/predict", data=body, content_type="application/octet-stream")
        assert answer.status_code == 415
        assert answer.json["detail"].endswith(f"Send it with Content-Type: {kind}.")


SIGNATURES = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0",
    "WEBP": b"RIFF\x10\0\0\0WEBP",
    "BMP": b"BM\x10\0\0\0\0\0\0\0",
    "GIF": b"GIF89a",
    "TIFF": b"II*\0",
}


@pytest.mark.parametrize("kind", SIGNATURES)
@pytest.mark.parametrize("path", ["/predict", "/read"])
def test_a_picture_that_ends_after_its_signature_is_damaged(
    client: FlaskClient, path: str, kind: str
) -> None:
    answer = client.post(path, data=SIGNATURES[kind], content_type="image/png")
    assert (answer.status_code, answer.json["found"]) == (422, kind)
    assert answer.json["detail"].startswith("The body is a damaged picture")
    assert client.post(path, data=SIGNATURES[kind][:2], content_type="image/png").status_code == 415


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/predict", "prepare", "none"),
        ("/predict", "detail", "1"),
        ("/invocations", "prepare", "none"),
        ("/read", "length", "3"),
        ("/read", "check", "luhn"),
        ("/read", "alternatives", "2"),
    ],
)
def test_a_parameter_that_is_given_twice_is_refused(
    client: FlaskClient, path: str, name: str, value: str
) -> None:
    for other in (value, "4"):
        query = f"{name}={value}&{name}={other}"
        answer = client.post(f"{path}?{query}", data=PNG, content_type="image/png")
        assert (answer.status_code, answer.json["field"]) == (422, name)
        assert answer.json["detail"] == f"The parameter {name} must be given only once."


@pytest.mark.parametrize("path", ["/predict", "/docs", "/health/ready", "/v1/models", V1, V2])
def test_a_slash_at_the_end_of_a_path_is_named(client: FlaskClient, path: str) -> None:
    answer = client.post(f"{path}/", json=SAMPLE)
    assert answer.status_code == 404
    detail = answer.json.get("detail") or answer.json["error"]
    assert detail == f"The path must not end with a slash: use {path}."


def test_a_path_that_does_not_exist_gets_no_such_hint(client: FlaskClient) -> None:
    answer = client.post("/nothing/", json=SAMPLE)
    assert answer.status_code == 404
    assert "slash" not in answer.json["detail"]


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("kind", ["<f4", "<f8", "<i4", "<i8", ">f4", ">f8", ">i4", ">i8"])
def test_raw_numbers_of_several_bytes_are_not_read_as_bytes(
    client: FlaskClient, kind: str, scale: int
) -> None:
    pixels = SEVEN if "i" in kind else SEVEN / 255 * scale
    body = pixels.astype(kind).tobytes()
    answer = client.post("/predict", data=body, content_type="application/octet-stream")
    assert answer.status_code == 422
    assert "one for each pixel" in answer.json["detail"]
    assert answer.json["found"] == f"{np.dtype(kind).name} numbers"


def test_raw_bytes_are_not_mistaken_for_wider_numbers(client: FlaskClient) -> None:
    images = draw(0, 200, 1)["x_test"]
    # 4 and 8 images have the lengths of one image of float32 and int32, and of float64 and int64
    for count in (4, 8, 200):
        body = images[:count].tobytes()
        answer = client.post("/predict", data=body, content_type="application/octet-stream")
        assert len(answer.json["predictions"]) == count


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"parameters": None},
        {"outputs": None},
        {"parameters": {"binary_data_output": None, "classification": None}},
        {"outputs": [{"name": "digit", "parameters": None}]},
        {"outputs": [{"name": "digit", "parameters": {"binary_data": None}}]},
        {"inputs": [tensor(SEVEN.reshape(-1).tolist(), parameters=None)]},
        {"inputs": [tensor(SEVEN.reshape(-1).tolist(), parameters={"binary_data_size": None})]},
    ],
    ids=json.dumps,
)
def test_null_means_absent_in_the_open_inference_protocol(
    client: FlaskClient, change: dict[str, Any]
) -> None:
    document = {"inputs": [tensor(SEVEN.reshape(-1).tolist())]} | change
    answer = client.post(V2, json=document)
    assert answer.status_code == 200, answer.json
    digit = next(output for output in answer.json["outputs"] if output["name"] == "digit")
    assert digit["data"] == [7]


def test_null_means_absent_in_tensorflow_servings_protocol(client: FlaskClient) -> None:
    document = {"instances": [(SEVEN / 255).tolist()], "inputs": None, "signature_name": None}
    assert client.post(V1, json=document).status_code == 200


@pytest.mark.parametrize("path", ["/predict", V1, V2])
@pytest.mark.parametrize("coding", ["identity", "Identity", "gzip", "br"])
def test_a_compressed_body_is_refused_but_identity_is_accepted(
    client: FlaskClient, path: str, coding: str
) -> None:
    document = {
        "/predict": SAMPLE,
        V1: {"instances": [(SEVEN / 255).tolist()]},
        V2: {"inputs": [tensor(SEVEN.reshape(-1).tolist())]},
    }[path]
    answer = client.post(path, json=document, headers={"Content-Encoding": coding})
    if coding.lower() == "identity":
        assert answer.status_code == 200
    else:
        assert answer.status_code == (400 if path == V1 else 415)
        assert b"Compressed bodies" in answer.data


@pytest.mark.parametrize("path", ["/v1/models/digits:predict", "/v2/models/digits/infer", "/v2/models/x"])
def test_an_unknown_model_name_gets_the_right_one(client: FlaskClient, path: str) -> None:
    answer = client.post(path, json={})
    assert answer.status_code == 404
    assert "The name of the model is mnist" in answer.json["error"]


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (float("nan"), "has values outside 0 to 1: NaN."),
        (1.0000001, "has values outside 0 to 1."),
        (-0.5, "has values outside 0 to 1."),
        (255, "has values outside 0 to 1. Divide 0..255 by 255."),
    ],
)
@pytest.mark.parametrize("path", [V1, V2])
def test_values_out_of_range_get_a_helpful_hint(
    client: FlaskClient, path: str, value: float, detail: str
) -> None:
    pixels = (SEVEN / 255).reshape(-1).tolist()
    pixels[0] = value
    document = {"instances": [pixels]} if path == V1 else {"inputs": [tensor(pixels, "FP32")]}
    answer = client.post(path, data=json.dumps(document), content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["error"].endswith(detail)


def test_the_error_for_a_busy_picture_does_not_call_it_blank(client: FlaskClient) -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((300, 300), 60).save(file, "PNG")
    answer = client.post("/predict", data=file.getvalue(), content_type="image/png")
    assert answer.status_code == 422
    assert answer.json["detail"] == "The body shows no digit: nothing stands out from the background."
