"""POST /predict as JSON, and its errors, with a real gunicorn and two workers."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import Any

import pytest

from project import ROOT, SAMPLE
from service import Server

IMAGE = SAMPLE["image"]
BLANK = [[0] * 28 for _ in range(28)]
OTHER = IMAGE[::-1]


def with_pixel(value: Any) -> list[list[Any]]:
    image = [list(row) for row in BLANK]
    image[3][5] = value
    return image


def test_the_sample_request_is_a_seven(server: Server) -> None:
    answer = server.ask("/predict", SAMPLE)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"predicted_digit", "predicted_probability", "unsure"}
    assert answer.json["predicted_digit"] == 7
    assert 0.9 < answer.json["predicted_probability"] <= 1
    assert answer.json["unsure"] is False


@pytest.mark.shipped_model
@pytest.mark.parametrize("page", ["README.md", "docs/security.md"])
def test_documents_give_the_shipped_models_answer_to_the_sample(server: Server, page: str) -> None:
    (example,) = re.findall(r'^\{"predicted_digit".*\}$', (ROOT / page).read_text(), re.MULTILINE)
    answer = server.ask("/predict", SAMPLE).json
    probability = pytest.approx(answer["predicted_probability"], abs=1e-5)
    assert json.loads(example) == answer | {"predicted_probability": probability}


@pytest.mark.parametrize(
    "image",
    [
        [[[v] for v in row] for row in IMAGE],
        [v for row in IMAGE for v in row],
        [[float(v) for v in row] for row in IMAGE],
    ],
    ids=["28x28x1", "784", "floats"],
)
def test_every_shape_of_an_image_gets_the_same_answer(server: Server, image: Any) -> None:
    assert server.ask("/predict", {"image": image}).json == server.ask("/predict", SAMPLE).json


def predict(body: Any, sure: float | None = None, card: dict[str, Any] | None = None) -> Any:
    """The answer of an app with the setting DIGITS_SURE=`sure` and a model with this card."""
    from app import create_app
    from digits.model import Classifier, load
    from digits.web.settings import Settings

    settings = replace(Settings.from_env(os.environ), sure=sure)
    shipped = load(settings.model)
    classifier = Classifier(shipped if card is None else replace(shipped, card=card))
    answer = create_app(settings, classifier).test_client().post("/predict", json=body)
    assert answer.status_code == 200
    return answer.json


def test_an_answer_below_the_threshold_is_unsure() -> None:
    found = predict(SAMPLE, sure=0)
    assert found.pop("unsure") is False
    probability = found["predicted_probability"]
    for sure, unsure in ((probability - 1e-5, False), (probability + 1e-5, True), (1, True)):
        assert predict(SAMPLE, sure) == found | {"unsure": unsure}


@pytest.mark.parametrize(
    ("card", "sure", "unsure"),
    [({}, None, False), ({"sure_threshold": 1}, None, True), ({"sure_threshold": 1}, 0.5, False)],
)
def test_the_model_card_has_the_threshold_and_the_setting_overrides_it(
    card: dict[str, Any], sure: float | None, unsure: bool
) -> None:
    assert predict(SAMPLE, sure, card)["unsure"] is unsure


def test_each_answer_of_a_batch_says_whether_it_is_unsure() -> None:
    batch = {"images": [OTHER, IMAGE, OTHER]}
    other, seven, _ = (a["predicted_probability"] for a in predict(batch)["predictions"])
    found = predict(batch, (other + seven) / 2)["predictions"]
    assert [a["unsure"] for a in found] == [other < seven, seven < other, other < seven]


def test_a_batch_is_answered_in_order(server: Server) -> None:
    answer = server.ask("/predict", {"images": [OTHER, IMAGE, OTHER] * 30})
    other = server.ask("/predict", {"image": OTHER}).json
    seven = server.ask("/predict", SAMPLE).json
    found = answer.json["predictions"]
    assert [a["predicted_digit"] for a in found] == [
        other["predicted_digit"],
        seven["predicted_digit"],
        other["predicted_digit"],
    ] * 30
    assert found[1]["predicted_probability"] == pytest.approx(seven["predicted_probability"], abs=1e-5)


def test_answers_name_the_model_version(server: Server) -> None:
    version = server.ask("/").json["model"]["version"]
    assert re.fullmatch("[0-9a-f]{12}", version)
    assert server.ask("/predict", SAMPLE).headers["x-model-version"] == version
    assert server.ask("/health/ready").json["model_version"] == version


@pytest.mark.parametrize(
    ("body", "status", "field", "found"),
    [
        (b"{", 400, None, None),
        (b"\xff\xfe", 400, None, None),
        ([], 422, "", "an empty list"),
        ({}, 422, "image", "nothing"),
        ({"image": IMAGE, "images": [IMAGE]}, 422, "images", "both"),
        ({"image": []}, 422, "image", "an empty list"),
        ({"image": None}, 422, "image", "null"),
        ({"image": IMAGE[:27]}, 422, "image", "a list of 27"),
        ({"image": [*IMAGE[:27], IMAGE[27][:5]]}, 422, "image[27]", "a list of 5"),
        ({"image": [0] * 783}, 422, "image", "a list of 783"),
        ({"image": with_pixel("7")}, 422, "image[3][5]", "a string"),
        ({"image": with_pixel(True)}, 422, "image[3][5]", "a boolean"),
        ({"image": with_pixel(-1)}, 422, "image[3][5]", "-1"),
        ({"image": with_pixel(255.5)}, 422, "image[3][5]", "255.5"),
        ({"image": with_pixel(10**40)}, 422, "image[3][5]", None),
        ({"image": with_pixel(float("nan"))}, 422, "image[3][5]", "NaN"),
        ({"image": with_pixel(float("-inf"))}, 422, "image[3][5]", "-Infinity"),
        ({"image": with_pixel([1, 2])}, 422, "image[3][5]", "a list of 2"),
        ({"images": []}, 422, "images", "an empty list"),
        ({"images": IMAGE[0]}, 422, "images[0]", "a number"),
        ({"images": [IMAGE, with_pixel(300)]}, 422, "images[1][3][5]", "300"),
        ({"images": [[0] * 784] * 1025}, 413, "images", "1025 images"),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(
    server: Server, body: Any, status: int, field: str | None, found: str | None
) -> None:
    answer = server.ask("/predict", body, Content_Type="application/json")
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]
    assert problem.get("field") == field
    if found is not None:
        assert problem["found"] == found


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/predict", {}, 405),
        ("DELETE", "/metrics", {}, 405),
        ("GET", "/nope", {}, 404),
        ("POST", "/predict", {"Content-Type": "text/plain"}, 415),
    ],
)
def test_http_errors_are_problem_details(
    server: Server, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = server.ask(path, b"x" if method == "POST" else None, method, **headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance", "request_id"} <= answer.json.keys()
    if status == 405:
        assert answer.headers["allow"]


def test_a_body_over_the_limit_is_413(server: Server) -> None:
    answer = server.ask("/predict", b" " * ((32 << 20) + 1), Content_Type="application/json")
    assert answer.status == 413
    assert "33554432" in answer.json["detail"]


def test_an_unexpected_error_is_500_and_reveals_nothing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(images: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(client.application.extensions["digits"].classifier, "probabilities", broken)
    answer = client.post("/predict", json=SAMPLE)
    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    assert b"secret" not in answer.data


def test_the_sample_is_one_of_mnists_test_images(mnist: Any) -> None:
    assert json.dumps(IMAGE) == json.dumps(mnist["x_test"][0].tolist())
    assert mnist["y_test"][0] == 7
