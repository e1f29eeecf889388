"""Choosing files as scans on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pictures import number


def save(folder: Path, **texts: str) -> list[Path]:
    """Pictures of numbers, by the names of the files without their suffix."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        number(*text.split("\n")).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in texts]


def choose(page: Any, files: list[Path], done: str) -> None:
    """Choose files as scans, and wait until the progress begins with `done`."""
    from playwright.sync_api import expect

    page.get_by_label("Scans").check()
    page.set_input_files("#scan-files", files)
    expect(page.locator("#scans-count")).to_contain_text(done, timeout=240_000)


def opener(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=re.compile(f"^{re.escape(name)}"))
