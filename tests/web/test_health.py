"""GET /health/live and GET /health/ready."""

from __future__ import annotations

from typing import Any


def test_readiness_waits_for_the_first_answer(client: Any) -> None:
    assert client.get("/health/ready").status_code == 200
    client.application.extensions["digits"].ready = False
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert client.get("/health/live").status_code == 200
