"""GET / for browsers and for programs, and GET /model. tests/page has the tests in a browser."""

from __future__ import annotations

import re
from typing import Any

from service import Server


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
