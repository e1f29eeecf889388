"""GET /health/live and GET /health/ready."""

from __future__ import annotations

from typing import Any


def test_a_probe_is_answered_while_the_model_answers(client: Any) -> None:
    version = client.get("/model").json["version"]
    assert client.get("/health/ready").json == {"status": "ready", "model_version": version}
    assert client.get("/health/live").json == {"status": "live"}
