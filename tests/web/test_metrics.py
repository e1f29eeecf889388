"""What is counted, and that GET /metrics selects metrics by name, compresses them, and uses the format that the
client prefers."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from project import SAMPLE
from service import Answer, Server, samples


def by_labels(server: Server, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """A metric's samples by their labels."""
    families = text_string_to_metric_families(server.ask("/metrics").body.decode())
    return {
        tuple(sorted(s.labels.items())): s.value
        for family in families
        for s in family.samples
        if s.name == name
    }


def test_metrics_count_exactly_across_workers(start: Any) -> None:
    server = start()
    for _ in range(40):
        server.ask("/predict", SAMPLE)
    for _ in range(7):
        server.ask("/predict", {"image": 1})
    server.ask("/predict", {"images": [SAMPLE["image"]] * 5})
    for path in ("/a", "/b"):
        server.ask(path)
    total = by_labels(server, "flask_http_request_total")
    assert total[("method", "POST"), ("status", "200"), ("url_rule", "/predict")] == 41
    assert total[("method", "POST"), ("status", "422"), ("url_rule", "/predict")] == 7
    # one series for all unknown paths
    assert total[("method", "GET"), ("status", "404"), ("url_rule", "none")] == 2
    count = by_labels(server, "flask_http_request_duration_seconds_count")
    assert count[("method", "POST"), ("status", "200"), ("url_rule", "/predict")] == 41
    assert by_labels(server, "digits_predictions_total")[(("digit", "7"),)] == 45
    assert by_labels(server, "digits_probability_count")[()] == 45
    assert by_labels(server, "digits_unsure_total")[()] == 0
    assert by_labels(server, "digits_inference_seconds_count")[()] == 41
    assert by_labels(server, "digits_decode_seconds_count")[()] == 41
    assert by_labels(server, "digits_workers")[()] == 2
    assert len(by_labels(server, "digits_model_info")) == 2
    assert len(by_labels(server, "digits_process_resident_memory_bytes")) == 2


def test_unsure_images_are_counted_and_logged(start: Any) -> None:
    server = start(DIGITS_SURE="1", WEB_CONCURRENCY="1")
    assert by_labels(server, "digits_unsure_total")[()] == 0
    server.ask("/predict", SAMPLE, X_Request_ID="one")
    server.ask("/predict", {"images": [SAMPLE["image"]] * 5}, X_Request_ID="five")
    floats = [value / 255 for row in SAMPLE["image"] for value in row]
    server.ask("/v1/models/mnist:predict", {"instances": [floats]}, X_Request_ID="another-protocol")
    assert by_labels(server, "digits_unsure_total")[()] == 7
    logged = {line["request_id"]: line["unsure"] for line in server.log() if "unsure" in line}
    assert logged == {"one": 1, "five": 5, "another-protocol": 1}


def test_unknown_methods_share_one_series(server: Server) -> None:
    server.ask("/", method="BREW")
    methods = {dict(labels)["method"] for labels in by_labels(server, "flask_http_request_total")}
    assert "BREW" not in methods
    assert "other" in methods


def once_all_serve(server: Server) -> Answer:
    """Wait until both workers have started, and return their number, selected by name."""
    deadline = time.monotonic() + 60
    while True:
        answer = server.ask("/metrics?name[]=digits_workers")
        assert answer.status == 200
        if samples(answer.body.decode()) == {"digits_workers": 2}:
            return answer
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.05)


def test_metrics_can_be_selected_by_name_and_are_aggregated_across_workers(server: Server) -> None:
    answer = once_all_serve(server)
    both = server.ask("/metrics?name[]=digits_worker_starts_total&name[]=digits_workers").body.decode()
    assert samples(both) == {"digits_workers": 2, "digits_worker_starts_total": 2}
    assert server.ask("/metrics?name%5B%5D=digits_workers").body == answer.body


@pytest.mark.parametrize(
    "query", ["name[]=nothing", "name[]=target_info", "name[]=%00%ff", "name[]=" + "x" * 4000]
)
def test_unknown_names_return_no_metrics(server: Server, query: str) -> None:
    answer = server.ask(f"/metrics?{query}")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("query", ["", "name[]=", "name=digits_workers", "name[", "&&=%"])
def test_without_a_name_all_metrics_are_returned(server: Server, query: str) -> None:
    answer = server.ask(f"/metrics?{query}")
    assert answer.status == 200
    assert {"digits_workers", "digits_worker_starts_total"} <= samples(answer.body.decode()).keys()


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0, *", False),
    ],
)
def test_metrics_are_compressed_for_clients_that_accept_gzip(
    server: Server, accepted: str, compressed: bool
) -> None:
    answer = server.ask("/metrics?name[]=digits_workers", Accept_Encoding=accepted)
    assert {"Accept", "Accept-Encoding"} <= set(answer.headers["vary"].split(", "))
    assert ("content-encoding" in answer.headers) == compressed
    assert int(answer.headers["content-length"]) == len(answer.body)
    text = gzip.decompress(answer.body) if compressed else answer.body
    assert samples(text.decode()).keys() == {"digits_workers"}


OPENMETRICS = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/html", "text/plain; version=0.0.4"),
        (OPENMETRICS, OPENMETRICS),
        (f"text/html, {OPENMETRICS};q=0.5", OPENMETRICS),
        (f"{OPENMETRICS};q=0, text/plain;q=0.1", "text/plain"),
        (f"{OPENMETRICS};q=0.1, text/plain", "text/plain"),
        (f"text/plain;version=0.0.4;q=0.3, {OPENMETRICS};version=1.0.0;q=0.6, */*;q=0.2", OPENMETRICS),
        (f"{OPENMETRICS};version=1.0.0;q=0.3, text/plain;version=1.0.0;q=0.4", "text/plain; version=1.0.0"),
    ],
)
def test_metrics_have_the_preferred_format(server: Server, accepted: str, kind: str) -> None:
    answer = server.ask("/metrics?name[]=digits_workers", Accept=accepted)
    assert answer.headers["content-type"].startswith(kind)
    assert answer.body.endswith(b"# EOF\n") == (kind == OPENMETRICS)


def test_head_of_the_metrics_has_the_headers_of_get(server: Server) -> None:
    answer = server.ask("/metrics?name[]=digits_workers", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_the_metrics_own_address_answers_in_the_same_way(start: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(DIGITS_METRICS_BIND=f"127.0.0.1:{port}")
    there = replace(server, url=f"http://127.0.0.1:{port}")
    plain = once_all_serve(there)
    packed = there.ask("/metrics?name[]=digits_workers", Accept_Encoding="gzip")
    assert gzip.decompress(packed.body) == plain.body
    assert server.ask("/metrics?name[]=digits_workers").status == 404


def test_an_app_without_workers_filters_its_metrics_too(client: Any) -> None:
    answer = client.get("/metrics?name[]=digits_workers")
    assert samples(answer.text) == {"digits_workers": 1}
