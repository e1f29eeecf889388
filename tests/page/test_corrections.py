"""The page's "Wrong? Say what it is" in a real browser, with a real server that keeps answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pad import DIGITS, SAMPLES, draw, reads, says
from pictures import number
from scans import choose, opener, save
from service import Server

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


def test_corrections_of_several_scans_are_kept_at_once(page: Any, store: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    files = save(tmp_path, alone="40725", right="90")
    pages = [number(text) for text in ("12", "407", "38")]
    form = tmp_path / "form.tiff"
    pages[0].save(form, save_all=True, append_images=pages[1:])
    read: list[str] = []
    page.on("request", lambda request: read.append(request.url) if "/read" in request.url else None)
    choose(page, [*files, form], "5 of 5 pages read")
    keep = page.get_by_role("button", name="Let the service keep what I corrected")
    assert not keep.is_visible()

    def correct_first(name: str, digit: str) -> None:
        opener(page, name).click()
        page.locator(".editor .text").focus()
        page.keyboard.press("Home")
        page.keyboard.press(digit)
        page.keyboard.press("Escape")

    correct_first("alone.png", "9")
    correct_first("form.tiff, page 2", "6")
    correct_first("form.tiff, page 3", "5")
    before, asked = said(store), len(read)
    # they are not kept, so the page sends them again
    page.expected_messages.append("the server responded with a status of 404")
    keep.click()
    thanks = page.locator("#say-scans-said")
    expect(thanks).to_have_text(
        "Thank you. The service has kept your corrections of 2 files.", timeout=60_000
    )
    assert not keep.is_visible()
    assert len(read) == asked + 2
    new = [each[0] for each in said(store) if each not in before]
    (form_said,) = [each for each in new if isinstance(each, list)]
    (alone_said,) = [each for each in new if isinstance(each, dict)]
    assert (alone_said["text"], len(alone_said["boxes"])) == ("90725", 5)
    assert [(each["page"], each["text"], len(each["boxes"])) for each in form_said] == [
        (2, "607", 3),
        (3, "58", 2),
    ]

    # another correction replaces the first, and now the file is kept
    correct_first("form.tiff, page 1", "3")
    keep.click()
    expect(thanks).to_have_text("Thank you. The service has kept your corrections of 1 file.", timeout=20_000)
    assert len(read) == asked + 2
    (form_said,) = [each[0] for each in said(store) if isinstance(each[0], list)]
    assert {each["page"]: each["text"] for each in form_said} == {1: "32", 2: "607", 3: "58"}


def test_a_scan_without_a_digit_is_kept_as_such_and_a_removed_one_is_not(
    page: Any, store: Path, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    choose(page, save(tmp_path, none="4", removed="7"), "2 of 2 pages read")
    keep = page.get_by_role("button", name="Let the service keep what I corrected")
    for name in ("none.png", "removed.png"):
        opener(page, name).click()
        page.locator(".editor .text").focus()
        page.keyboard.press("Delete")
    page.get_by_role("button", name="Remove from the list").click()
    page.expected_messages.append("the server responded with a status of 404")
    before = said(store)
    keep.click()
    expect(page.locator("#say-scans-said")).to_contain_text("corrections of 1 file.", timeout=20_000)
    assert [each for each in said(store) if each not in before] == [["no digit"]]


def test_a_service_that_does_not_collect_offers_nothing(
    browser: Any, start: Callable[..., Server], tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(start().url)
    page.get_by_alt_text("Sample of a 4").click()
    says(page, "a 4")
    assert not page.get_by_text("Wrong? Say what it is").is_visible()
    choose(page, save(tmp_path, alone="40725"), "1 of 1 page read")
    opener(page, "alone.png").click()
    page.locator(".editor .text").focus()
    page.keyboard.press("9")
    assert page.locator(".editor .text").text_content() == "90725"
    assert not page.locator("#say-scans").is_visible()
    page.close()
