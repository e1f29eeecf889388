"""What importing a package loads, the form of files, and what documents refer to. `make lint` checks the imports
between packages (import-linter)."""

import ast
import re
import subprocess
import sys

import pytest

from project import ROOT

FILES = sorted((ROOT / "digits").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_importing_imaging_does_not_load_the_service():
    code = "import sys, digits.imaging; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"flask", "gunicorn", "gevent", "tensorflow", "keras"} & set(done.stdout.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_is_short_and_begins_with_one_paragraph(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(source))


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_in_documents_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_named_in_documents_exist(name):
    for path in re.findall(r"`([\w/.]+\.(?:py|yaml|yml|tf|md))`", (ROOT / name).read_text()):
        assert any((ROOT / folder / path).exists() for folder in ("", "digits", "tests")), path


def test_tests_named_in_documents_exist():
    """Documents name a test by its name or the beginning of it."""
    names = [
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    for page in PAGES:
        for beginning in re.findall(r"`(test_\w+)`", page.read_text()):
            assert any(name.startswith(beginning) for name in names), f"{page.name}: {beginning}"
