"""POST /predict as JSON, errors, health checks, logs and metrics, with a real gunicorn and two workers."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from project import SAMPLE
from service import Server

IMAGE = SAMPLE["image"]
BLANK = [[0] * 28 for _ in range(28)]
OTHER = IMAGE[::-1]


def with_pixel(value: Any) -> list[list[Any]]:
    image = [list(row) for row in BLANK]
    image[3][5] = value
    return image


def samples(server: Server, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """A metric's samples by their labels."""
    families = text_string_to_metric_families(server.ask("/metrics").body.decode())
    return {
        tuple(sorted(s.labels.items())): s.value
        for family in families
        for s in family.samples
        if s.name == name
    }


def test_the_sample_request_is_a_seven(server: Server) -> None:
    answer = server.ask("/predict", SAMPLE)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"predicted_digit", "predicted_probability", "unsure"}
    assert answer.json["predicted_digit"] == 7
    assert 0.9 < answer.json["predicted_probability"] <= 1
    assert answer.json["unsure"] is False


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
        ([], 422, "", "a list"),
        ({}, 422, "image", "nothing"),
        ({"image": IMAGE, "images": [IMAGE]}, 422, "images", "both"),
        ({"image": []}, 422, "image", "an empty list"),
        ({"image": None}, 422, "image", "null"),
        ({"image": IMAGE[:27]}, 422, "image", "27 rows"),
        ({"image": [*IMAGE[:27], IMAGE[27][:5]]}, 422, "image[27]", "5 numbers"),
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


def test_readiness_waits_for_the_first_answer(client: Any) -> None:
    assert client.get("/health/ready").status_code == 200
    client.application.extensions["digits"].ready = False
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert client.get("/health/live").status_code == 200


def test_a_valid_request_id_is_kept_and_an_invalid_one_replaced(server: Server) -> None:
    assert server.ask("/", X_Request_ID="order-66.a:b_c").headers["x-request-id"] == "order-66.a:b_c"
    for bad in ("with space", "x" * 129, 'quote"'):
        given = server.ask("/", X_Request_ID=bad).headers["x-request-id"]
        assert given != bad
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_a_trace_that_the_caller_began_is_in_the_log(server: Server) -> None:
    trace, zeros = "4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32
    for name, given in {
        "traced-1": f"00-{trace}-00f067aa0ba902b7-01",
        "traced-2": f"00-{zeros}-00f067aa0ba902b7-01",
        "traced-3": f"00-{trace.upper()}-00f067aa0ba902b7-01",
    }.items():
        server.ask("/", X_Request_ID=name, traceparent=given)
    lines = {line["request_id"]: line for line in server.log() if "request_id" in line}
    assert lines["traced-1"]["trace_id"] == trace
    assert "trace_id" not in lines["traced-2"].keys() | lines["traced-3"].keys()


def test_each_request_is_one_line_in_the_log(server: Server) -> None:
    server.ask("/predict", SAMPLE, X_Request_ID="logged-1")
    server.ask("/nope", X_Request_ID="logged-2")
    server.ask("/health/live", X_Request_ID="quiet-1")
    server.ask("/metrics", X_Request_ID="quiet-2")
    lines = {line["request_id"]: line for line in server.log() if "request_id" in line}
    line = lines["logged-1"]
    assert {k: v for k, v in line.items() if k not in ("timestamp", "duration_ms", "probability")} == {
        "level": "INFO",
        "logger": "digits.request",
        "message": "request",
        "request_id": "logged-1",
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "digit": 7,
        "images": 1,
        "unsure": 0,
        "model_version": server.ask("/health/ready").json["model_version"],
    }
    assert line["duration_ms"] > 0
    assert lines["logged-2"]["route"] is None
    assert "quiet-1" not in lines
    assert "quiet-2" not in lines


def test_metrics_count_exactly_across_workers(start: Any) -> None:
    server = start()
    for _ in range(40):
        server.ask("/predict", SAMPLE)
    for _ in range(7):
        server.ask("/predict", {"image": 1})
    server.ask("/predict", {"images": [IMAGE] * 5})
    for path in ("/a", "/b"):
        server.ask(path)
    total = samples(server, "flask_http_request_total")
    assert total[("method", "POST"), ("status", "200"), ("url_rule", "/predict")] == 41
    assert total[("method", "POST"), ("status", "422"), ("url_rule", "/predict")] == 7
    # one series for all unknown paths
    assert total[("method", "GET"), ("status", "404"), ("url_rule", "none")] == 2
    count = samples(server, "flask_http_request_duration_seconds_count")
    assert count[("method", "POST"), ("status", "200"), ("url_rule", "/predict")] == 41
    assert samples(server, "digits_predictions_total")[(("digit", "7"),)] == 45
    assert samples(server, "digits_probability_count")[()] == 45
    assert samples(server, "digits_unsure_total")[()] == 0
    assert samples(server, "digits_inference_seconds_count")[()] == 41
    assert samples(server, "digits_decode_seconds_count")[()] == 41
    assert samples(server, "digits_workers")[()] == 2
    assert len(samples(server, "digits_model_info")) == 2
    assert len(samples(server, "digits_process_resident_memory_bytes")) == 2


def test_unsure_images_are_counted_and_logged(start: Any) -> None:
    server = start(DIGITS_SURE="1", WEB_CONCURRENCY="1")
    assert samples(server, "digits_unsure_total")[()] == 0
    server.ask("/predict", SAMPLE, X_Request_ID="one")
    server.ask("/predict", {"images": [IMAGE] * 5}, X_Request_ID="five")
    floats = [value / 255 for row in IMAGE for value in row]
    server.ask("/v1/models/mnist:predict", {"instances": [floats]}, X_Request_ID="another-protocol")
    assert samples(server, "digits_unsure_total")[()] == 7
    logged = {line["request_id"]: line["unsure"] for line in server.log() if "unsure" in line}
    assert logged == {"one": 1, "five": 5, "another-protocol": 1}


def test_unknown_methods_share_one_series(server: Server) -> None:
    server.ask("/", method="BREW")
    methods = {dict(labels)["method"] for labels in samples(server, "flask_http_request_total")}
    assert "BREW" not in methods
    assert "other" in methods


def test_the_index_lists_every_route(server: Server, client: Any) -> None:
    listed = {route.split()[1] for route in server.ask("/").json["routes"]}
    rules = (rule.rule for rule in client.application.url_map.iter_rules())
    assert listed == {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule) for rule in rules}


def test_browsers_get_the_page_and_other_clients_json(server: Server) -> None:
    page = server.ask("/", Accept="text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    assert page.headers["content-type"].startswith("text/html")
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]
    assert b"<canvas" in page.body
    for accept in ("*/*", "application/json"):
        assert server.ask("/", Accept=accept).json["name"] == "digits"


def test_the_model_card_is_served(server: Server) -> None:
    card = server.ask("/model").json
    assert card["version"] == server.ask("/").json["model"]["version"]
    assert card["detector"]["name"] == "detector"
    assert card["detector"]["version"] != card["version"]


def test_the_sample_is_one_of_mnists_test_images(mnist: Any) -> None:
    assert json.dumps(IMAGE) == json.dumps(mnist["x_test"][0].tolist())
    assert mnist["y_test"][0] == 7
