"""TensorFlow Serving's REST protocol with the real service."""

from __future__ import annotations

import base64
import io
import urllib.request
from typing import Any

import pytest
from PIL import Image

from project import SAMPLE
from service import Server

FLOATS = [[value / 255 for value in row] for row in SAMPLE["image"]]
DEEP = [[[value] for value in row] for row in FLOATS]
MODEL = "/v1/models/mnist"


def b64() -> dict[str, str]:
    out = io.BytesIO()
    image = Image.new("L", (28, 28))
    image.putdata([value for row in SAMPLE["image"] for value in row])
    image.resize((140, 140)).save(out, "PNG")
    return {"b64": base64.b64encode(out.getvalue()).decode()}


def digits(probabilities: list[list[float]]) -> list[int]:
    for row in probabilities:
        assert len(row) == 10
        assert sum(row) == pytest.approx(1, abs=1e-4)
    return [row.index(max(row)) for row in probabilities]


@pytest.mark.parametrize(
    "instances",
    [
        [FLOATS, FLOATS],
        [DEEP, DEEP],
        [[value for row in FLOATS for value in row]] * 2,
        [{"image": DEEP}, {"image": DEEP}],
        [b64(), b64()],
        [{"image": b64()}, {"image": b64()}],
    ],
    ids=["28x28", "28x28x1", "784", "named", "b64", "named b64"],
)
def test_rows_and_columns_get_the_same_probabilities(server: Server, instances: Any) -> None:
    named = "image" in instances[0]
    columns = {"image": [each["image"] for each in instances]} if named else instances
    rows = server.ask(f"{MODEL}:predict", {"instances": instances})
    assert rows.status == 200
    assert digits(rows.json["predictions"]) == [7, 7]
    assert server.ask(f"{MODEL}:predict", {"inputs": columns}).json == {"outputs": rows.json["predictions"]}
    assert rows.headers["x-model-version"]


def test_the_answer_equals_that_of_post_predict(server: Server) -> None:
    found = server.ask(f"{MODEL}:predict", {"instances": [FLOATS]}).json["predictions"][0]
    assert max(found) == pytest.approx(server.ask("/predict", SAMPLE).json["predicted_probability"], abs=2e-6)


def test_one_picture_as_a_column(server: Server) -> None:
    assert digits(server.ask(f"{MODEL}:predict", {"inputs": b64()}).json["outputs"]) == [7]


def test_the_content_type_does_not_matter(server: Server) -> None:
    # curl -d, which TensorFlow Serving's documentation uses, sends the type of a form
    answer = server.ask(
        f"{MODEL}:predict",
        {"signature_name": "serving_default", "instances": [FLOATS]},
        Content_Type="application/x-www-form-urlencoded",
    )
    assert digits(answer.json["predictions"]) == [7]


def test_a_version_is_served_by_its_number_only(server: Server) -> None:
    versions = server.ask(MODEL).json["model_version_status"]
    assert versions[0]["state"] == "AVAILABLE"
    assert versions[0]["status"] == {"error_code": "OK", "error_message": ""}
    version = versions[0]["version"]
    assert int(version) == int(server.ask("/").json["model"]["version"], 16)
    for path in ("", "/metadata"):
        assert server.ask(f"{MODEL}/versions/{version}{path}").json == server.ask(f"{MODEL}{path}").json
        missing = server.ask(f"{MODEL}/versions/3{path}")
        assert missing.status == 404
        assert missing.json == {"error": "Servable not found for request: Specific(mnist, 3)"}
    body = {"instances": [FLOATS]}
    assert server.ask(f"{MODEL}/versions/{version}:predict", body).json == (
        server.ask(f"{MODEL}:predict", body).json
    )
    assert server.ask(f"{MODEL}/versions/3:predict", body).status == 404


def test_metadata_describes_inputs_and_outputs(server: Server) -> None:
    metadata = server.ask(f"{MODEL}/metadata").json
    assert metadata["model_spec"]["name"] == "mnist"
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    sizes = {
        name: [dim["size"] for dim in tensor["tensor_shape"]["dim"]]
        for side in ("inputs", "outputs")
        for name, tensor in signature[side].items()
    }
    assert sizes == {"image": ["-1", "28", "28", "1"], "probabilities": ["-1", "10"]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "JSON"),
        (b"", "JSON"),
        ([], "object"),
        ({}, "'instances'"),
        ({"instances": [FLOATS], "inputs": [FLOATS]}, "either"),
        ({"instances": FLOATS[0]}, "shape [28]"),
        ({"instances": []}, "is empty"),
        ({"instances": 5}, "list"),
        ({"instances": [FLOATS[:27]]}, "shape [1, 27, 28]"),
        ({"instances": [[*FLOATS[:27], [0]]]}, "unequal"),
        ({"instances": [[["1"] * 28] * 28]}, "numbers"),
        ({"instances": [[[None] * 28] * 28]}, "numbers"),
        ({"instances": [[[True] * 28] * 28]}, "numbers"),
        ({"instances": [[[0.5] * 27 + [True]] * 28]}, "numbers"),
        ({"instances": [FLOATS, DEEP]}, "unequal"),
        ({"instances": [[[10**25] * 28] * 28]}, "outside 0 to 1"),
        ({"instances": [SAMPLE["image"]]}, "Divide 0..255 by 255"),
        ({"instances": [[[-0.1] * 28] * 28]}, "outside 0 to 1"),
        ({"instances": [[[1e300] * 28] * 28]}, "outside 0 to 1"),
        ({"instances": [{"pixels": DEEP}]}, "'image'"),
        ({"instances": [{"b64": "%"}]}, "base64"),
        ({"instances": [{"b64": "AAAA"}]}, "picture"),
        ({"instances": [b64(), DEEP]}, "only"),
        ({"inputs": {"x": DEEP}}, "'image'"),
        ({"instances": [FLOATS], "signature_name": "other"}, '"other" not found'),
        ({"instances": [FLOATS], "signature_name": "\ud800"}, "not found"),
        ({"instances": [[[float("nan")] * 28] * 28]}, "outside 0 to 1"),
    ],
)
def test_a_bad_request_is_400_in_tf_servings_format(server: Server, body: Any, says: str) -> None:
    answer = server.ask(f"{MODEL}:predict", body)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json.keys() == {"error"}
    assert says in answer.json["error"]


def test_other_errors_have_that_format_too(server: Server) -> None:
    for path, body, status in [
        ("/v1/models/other:predict", {"instances": []}, 404),
        ("/v1/nothing", None, 404),
        (f"{MODEL}:predict", None, 405),
        (f"{MODEL}:predict", b" " * (33 << 20), 413),
        (f"{MODEL}:predict", {"instances": [[0] * 784] * 1025}, 413),
        (f"{MODEL}:predict", {"instances": [{"b64": ""}] * 1025}, 413),
    ]:
        answer = server.ask(path, body)
        assert (answer.status, list(answer.json)) == (status, ["error"])


def test_the_example_in_the_documentation_of_tf_serving_works_with_plain_urllib(server: Server) -> None:
    data = b'{"instances": [' + str(FLOATS).encode() + b"]}"
    with urllib.request.urlopen(server.url + f"{MODEL}:predict", data, timeout=10) as response:
        assert response.status == 200


def test_the_models_are_listed_for_kserves_v1_client(server: Server) -> None:
    answer = server.ask("/v1/models")
    assert (answer.status, answer.json) == (200, {"models": ["mnist"]})
