"""Fixtures of the tests of the page: a browser, and the page in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from browser import find_browser
from service import Server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    path = find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # in a container, root can't create the namespaces that the sandbox needs
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, server: Server) -> Iterator[Any]:
    """Opens the page in a new window. Afterwards, checks that the console is empty and that there were no
    requests to other hosts."""
    messages: list[str] = []
    requests: list[str] = []
    contexts = []
    expected: list[str] = []

    def open_page(width: int = 1100, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        # a busy machine must not fail a test
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.expected_messages = expected
        page.goto(server.url)
        page.wait_for_selector("#card dt")
        return page

    yield open_page
    for context in contexts:
        # answers that a test delays may still be pending
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert [m for m in messages if not any(e in m for e in expected)] == []
    assert [url for url in requests if not url.startswith((server.url, "blob:", "data:"))] == []


@pytest.fixture
def page(open_page: Any) -> Any:
    return open_page()
