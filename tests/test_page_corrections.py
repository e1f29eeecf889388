"""The page's "Wrong? Say what it is" in a real browser, with a real server that keeps answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from test_page import DIGITS, SAMPLES, draw, reads, says

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def server(start: Callable[..., Server], store: Path) -> Server:
    """A service that keeps what it is asked to keep."""
    return start(DIGITS_COLLECT=str(store), DIGITS_COLLECT_SHARE="0", DIGITS_SURE="0")


def said(store: Path) -> list[Any]:
    """What the corrections in the store say."""
    return [json.loads(path.read_bytes())["digits"] for path in store.glob("corrected/*/*.json")]


def thanks(page: Any) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#say-said")).to_contain_text("The service has kept it", timeout=20_000)


def test_a_wrong_digit_is_corrected_with_a_button(page: Any, store: Path) -> None:
    draw(page, DIGITS[1])
    says(page, "a 1")
    page.get_by_text("Wrong? Say what it is").click()
    page.get_by_role("group", name="What it shows").get_by_role("button", name="7").click()
    thanks(page)
    assert [7] in said(store)
    page.get_by_role("button", name="Clear").click()
    assert not page.get_by_text("Wrong? Say what it is").is_visible()


def test_a_number_that_was_corrected_is_kept_with_its_boxes(page: Any, store: Path) -> None:
    page.get_by_label("A number").check()
    page.set_input_files("#file", SAMPLES / "number.png")
    reads(page, "40725")
    kept = page.get_by_role("button", name="Let the service keep what I corrected")
    assert not kept.is_visible()
    page.get_by_role("option").first.click()
    page.keyboard.press("9")
    reads(page, "90725")
    kept.click()
    thanks(page)
    (correction,) = [digits[0] for digits in said(store) if isinstance(digits[0], dict)]
    assert correction["text"] == "90725"
    assert len(correction["boxes"]) == 5


def test_a_service_that_does_not_collect_offers_nothing(browser: Any, start: Callable[..., Server]) -> None:
    page = browser.new_page()
    page.goto(start().url)
    page.get_by_alt_text("Sample of a 4").click()
    says(page, "a 4")
    assert not page.get_by_text("Wrong? Say what it is").is_visible()
    page.close()
