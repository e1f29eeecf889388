"""GET /ping and POST /invocations, the routes of MLflow and SageMaker, with Flask's test client.
tests/e2e/test_mlflow_server.py uses MLflow's own server and clients."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from digits.web.problems import Problem
from digits.web.protocols import mlflow
from project import SAMPLE

ROWS = SAMPLE["image"]
FLAT = [value for row in ROWS for value in row]
LINE = ",".join(map(str, FLAT))
NAMES = ",".join(f"pixel{i}" for i in range(784))
COUNTED = ",".join(map(str, range(784)))


@pytest.fixture(scope="module")
def client() -> Any:
    from app import create_app
    from digits.web.settings import Settings

    return create_app(Settings(max_batch=3)).test_client()


def picture() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.array(ROWS, np.uint8)).save(out, "PNG")
    return out.getvalue()


B64 = base64.b64encode(picture()).decode()


def test_ping_answers_like_the_readiness_probe(client: Any) -> None:
    assert client.get("/ping").json == client.get("/health/ready").json


@pytest.mark.parametrize(
    ("body", "kind", "images"),
    [
        ({"inputs": [ROWS]}, "application/json", 1),
        (
            {"inputs": [[[[value] for value in row] for row in ROWS]] * 2},
            "application/json; charset=utf-8",
            2,
        ),
        ({"instances": [FLAT, FLAT], "params": {"unused": 1}}, "application/json", 2),
        ({"dataframe_split": {"data": [FLAT]}}, "application/json", 1),
        (
            {"dataframe_split": {"index": [7], "columns": list(range(784)), "data": [FLAT]}},
            "application/json",
            1,
        ),
        ({"image": ROWS}, "application/json", 1),
        ({"images": [ROWS, FLAT]}, "application/json", 2),
        (f"{LINE}", "text/csv", 1),
        (f"{LINE}\r\n{LINE}\r\n", "text/csv; charset=utf-8", 2),
        (f"{NAMES}\n{LINE}\n\n{LINE}\n", "text/csv", 2),
        (f"\ufeff{COUNTED}\n{LINE}", "text/csv", 1),
        (f'"{LINE.replace(",", chr(34) + "," + chr(34))}"\n', "text/csv", 1),
        (", ".join(f"{value}.0" for value in FLAT), "text/csv", 1),
        (bytes(FLAT) * 3, "application/octet-stream", 3),
    ],
)
def test_every_format_gets_the_same_probabilities_as_predict(
    client: Any, body: Any, kind: str, images: int
) -> None:
    data = json.dumps(body) if isinstance(body, dict) else body
    answer = client.post("/invocations", data=data, content_type=kind)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json"
    assert answer.json.keys() == {"predictions"}
    expected = client.post("/predict?detail=1", json=SAMPLE).json["probabilities"]
    for found in answer.json["predictions"]:
        assert found == pytest.approx(expected, abs=2e-6)
    assert len(answer.json["predictions"]) == images
    assert answer.headers["X-Model-Version"]


@pytest.mark.parametrize("query", ["", "?prepare=none"])
def test_pictures_are_prepared_as_in_predict(client: Any, query: str) -> None:
    form = {"file": (io.BytesIO(picture()), "x.png")}
    expected = client.post(f"/predict{query or '?'}&detail=1", json={"image": B64}).json["probabilities"]
    for answer in (
        client.post(f"/invocations{query}", json={"image": B64}),
        client.post(f"/invocations{query}", json={"images": [B64]}),
        client.post(f"/invocations{query}", data=picture(), content_type="image/png"),
        client.post(f"/invocations{query}", data=form),
    ):
        assert answer.status_code == 200, answer.text
        (found,) = answer.json["predictions"]
        assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        ("{", "application/json", 400, "not valid JSON"),
        ("[]", "application/json", 422, "one of inputs"),
        ("", "application/json", 400, "The body is empty"),
        ("{}", "application/json", 422, "one of inputs"),
        ({"inputs": [ROWS], "image": ROWS}, "application/json", 422, "one of inputs"),
        ({"dataframe_records": [{"0": 1}]}, "application/json", 422, "one of inputs"),
        ({"inputs": ROWS}, "application/json", 400, "shape [28, 28]"),
        ({"inputs": []}, "application/json", 400, "inputs is empty."),
        ({"inputs": {"image": [ROWS]}}, "application/json", 400, "must contain only numbers"),
        ({"inputs": [[True] * 784]}, "application/json", 400, "must contain only numbers"),
        ({"inputs": ["AAAA"]}, "application/json", 400, "must contain only numbers"),
        ({"inputs": [FLAT, ROWS]}, "application/json", 400, "unequal"),
        ({"inputs": [[256] * 784]}, "application/json", 400, "outside 0 to 255"),
        ({"inputs": [[float("nan")] * 784]}, "application/json", 400, "NaN"),
        ({"inputs": [FLAT, [0] * 784]}, "application/json", 422, "inputs[1] is blank"),
        ({"inputs": [[value / 255 for value in FLAT]]}, "application/json", 422, "multiply them by 255"),
        ({"instances": [[-1] * 784]}, "application/json", 400, "outside 0 to 255"),
        ({"instances": [FLAT] * 4}, "application/json", 413, "At most 3"),
        ({"dataframe_split": []}, "application/json", 400, "object with data"),
        ({"dataframe_split": {"columns": []}}, "application/json", 400, "object with data"),
        ({"dataframe_split": {"columns": ["a"], "data": [FLAT]}}, "application/json", 400, "columns"),
        ({"dataframe_split": {"columns": None, "data": [FLAT]}}, "application/json", 400, "columns"),
        ({"dataframe_split": {"data": [FLAT[1:]]}}, "application/json", 400, "shape [1, 783]"),
        ({"image": "AAAA"}, "application/json", 415, "picture"),
        ("", "text/csv", 400, "The CSV has no image."),
        ("\n \n", "text/csv", 400, "The CSV has no image."),
        (f"0,{LINE}", "text/csv", 400, "has 785"),
        (NAMES, "text/csv", 400, "no image"),
        (f"{LINE}\n1,2", "text/csv", 400, "Line 2 of the CSV has 2 columns"),
        (f"{NAMES}\n{LINE}\n{LINE},", "text/csv", 400, "Line 3 of the CSV has 785 columns"),
        (f"{LINE}\n{NAMES}", "text/csv", 400, "'pixel0' to float32 at row 1, column 1"),
        (LINE.replace("0", "x", 1), "text/csv", 400, "'x'"),
        (LINE.replace("0", "nan", 1), "text/csv", 400, "NaN"),
        (f"{LINE}\n{','.join(['7'] * 784)}", "text/csv", 422, "Image 1 of the CSV is blank"),
        (LINE.replace("0", "1e3", 1), "text/csv", 400, "outside 0 to 255"),
        (f"#{LINE}", "text/csv", 400, "'#"),
        (b"\xff\xfe", "text/csv", 400, "UTF-8"),
        (f"{LINE}\n" * 4, "text/csv", 413, "At most 3"),
        (b"\0" * 783, "application/octet-stream", 422, "784 bytes"),
        (LINE, "text/plain", 415, "Content-Type"),
        (LINE, "", 415, "Content-Type"),
    ],
)
def test_bad_input_gets_problem_details(client: Any, body: Any, kind: str, status: int, says: str) -> None:
    data = json.dumps(body) if isinstance(body, dict) else body
    answer = client.post("/invocations", data=data, content_type=kind)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    assert says in answer.json["detail"]


def test_another_content_type_gets_a_list_of_accepted_ones(client: Any) -> None:
    answer = client.post("/invocations", data="x", content_type="text/plain")
    assert {"text/csv", "application/json", "image/png", "multipart/form-data"} <= set(
        answer.json["accepted"]
    )
    assert "text/csv" in answer.headers["Accept-Post"]


@pytest.mark.parametrize("path", ["/predict", "/read", "/invocations"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("PNG", "image/x-png"),
        ("JPEG", "image/jpg"),
        ("JPEG", "IMAGE/PJPEG"),
        ("BMP", "image/x-ms-bmp"),
        ("TIFF", "image/tif"),
        ("JSON", "text/json; charset=utf-8"),
        ("JSON", "application/vnd.api+json"),
    ],
)
def test_other_names_of_a_type_are_accepted(client: Any, path: str, kind: str, name: str) -> None:
    file = io.BytesIO()
    if kind == "JSON":
        file.write(json.dumps({"image": B64}).encode())
    else:
        Image.open(io.BytesIO(picture())).save(file, kind)
    answer = client.post(path, data=file.getvalue(), content_type=name)
    assert answer.status_code == 200, answer.text


@settings(deadline=None)
@given(
    st.binary(max_size=60) | st.text('0159.,-+eEnai"\n\r\t #', max_size=60).map(str.encode), st.integers(0, 5)
)
def test_any_csv_gets_images_or_a_problem(client: Any, made: bytes, place: int) -> None:
    for body in (made, (LINE.encode() + b"\n") * place + made, made + LINE.encode(), NAMES.encode() + made):
        try:
            with client.application.app_context():
                images = np.stack(mlflow.from_csv(body).values)  # type: ignore[arg-type]
        except Problem as problem:
            status = problem.status
        else:
            status = 200 if 1 <= len(images) <= 3 and images.shape[1:] == (784,) else 0
        assert status in (200, 400, 413)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(mlflow.FORMS), value=JSON | st.fixed_dictionaries({"data": JSON, "columns": JSON})
)
def test_any_json_gets_images_or_a_problem(client: Any, form: str, value: Any) -> None:
    answer = client.post("/invocations", json={form: value})
    assert answer.status_code in (400, 413, 415, 422)
    assert answer.content_type == "application/problem+json"


@settings(deadline=None)
@given(st.lists(st.binary(min_size=784, max_size=784), min_size=1, max_size=3), st.booleans())
def test_pixels_are_unchanged_in_every_format(client: Any, images: list[bytes], named: bool) -> None:
    rows = [list(image) for image in images]
    csv = (f"{COUNTED}\n" if named else "") + "\n".join(",".join(map(str, row)) for row in rows)
    with client.application.app_context():
        made = [
            mlflow.from_csv(csv.encode()),
            mlflow.from_json(json.dumps({"inputs": rows}).encode()),
            mlflow.from_json(json.dumps({"dataframe_split": {"data": rows}}).encode()),
        ]
    for items in made:
        assert np.stack(items.values).tolist() == rows  # type: ignore[arg-type]
