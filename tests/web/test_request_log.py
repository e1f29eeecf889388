"""The line that each request has in the log, its id and its trace."""

from __future__ import annotations

import re

from project import SAMPLE
from service import Server


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
