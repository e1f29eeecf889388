"""Lock files contain exactly what their inputs require, with a hash for each file, and so does the bill of
materials (`make sbom`). These tests need no network access."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project import ROOT

AGREEING = ("serve", "train", "dev", "tools", "bulk", "bulk-dev")
# checkov requires an older boto3 than DVC, and MLflow's server an older gunicorn than the service
LOCKS = (*AGREEING, "deploy", "mlflow")


def lock_file(name: str) -> Path:
    """The lock of requirements/NAME.in. That of training is requirements.txt, where tools look for it."""
    return ROOT / "requirements.txt" if name == "train" else ROOT / "requirements" / f"{name}.txt"


def required(name: str) -> dict[str, tuple[Requirement, str]]:
    """The requirements in an input and in those it includes with `-r`: name -> (requirement, input)."""
    found = {}
    for line in (ROOT / "requirements" / f"{name}.in").read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= required(line.removeprefix("-r ").removesuffix(".in"))
        elif line:
            requirement = Requirement(line)
            found[canonicalize_name(requirement.name)] = (requirement, f"-r requirements/{name}.in")
    return found


def locked(name: str) -> list[tuple[Requirement, list[str], list[str]]]:
    """The entries of a lock: the pin, its hashes, and what requires it."""
    found = []
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock_file(name).read_text()):
        if entry.startswith("#"):
            continue
        pin, _, rest = entry.partition(" \\\n")
        via = re.findall(r"^ +#(?: via)? +(?!via$)(\S.*)$", rest, re.MULTILINE)
        found.append((Requirement(pin), re.findall(r"--hash=(\S+)", rest), via))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_what_its_input_requires_with_a_hash_for_each_file(name: str) -> None:
    requirements, there = required(name), locked(name)
    assert len(there) > len(requirements)
    names = {canonicalize_name(pin.name) for pin, _, _ in there}
    for pin, hashes, via in there:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes)
        own = canonicalize_name(pin.name)
        # a package that nothing requires is left over from an older input
        assert via, pin
        for parent in via:
            if parent.startswith("-r "):
                assert own in requirements, f"{pin} is in no input: make lock"
                assert requirements[own][1] == parent, pin
            elif not parent.startswith("-c "):
                assert canonicalize_name(parent) in names, f"{pin} is there for {parent}: make lock"
        if own in requirements:
            assert requirements[own][0].specifier.contains(specifier.version, prereleases=True), (
                f"{pin}: make lock"
            )
    assert requirements.keys() <= names, f"{requirements.keys() - names} not locked: make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_contains_no_index_and_no_path(name: str) -> None:
    text = lock_file(name).read_text()
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|@ |/\w+/", text)


def test_all_locks_that_can_agree_have_the_same_versions() -> None:
    dev = {canonicalize_name(pin.name): {str(pin.specifier)} for pin, _, _ in locked("dev")}
    for pin, _, _ in locked("dev"):
        dev[canonicalize_name(pin.name)].add(str(pin.specifier))
    for name in AGREEING:
        for pin, _, _ in locked(name):
            assert str(pin.specifier) in dev.get(canonicalize_name(pin.name), {str(pin.specifier)}), pin


def test_installed_packages_require_nothing_that_is_not_locked() -> None:
    # this environment is that of the largest lock; read the requirements of the installed packages
    pins = {canonicalize_name(pin.name): pin for pin, _, _ in locked("dev") if applies(pin)}
    extras: dict[str, set[str]] = {}
    todo = [requirement for requirement, _ in required("dev").values()]
    seen = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is needed and not locked: make lock"
        new = (set(requirement.extras) | {""}) - extras.setdefault(name, set())
        extras[name] |= new
        try:
            there = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is locked and not installed: make .venv/.installed")
        right = pins[name].specifier.contains(there.version, prereleases=True)
        assert right, f"{name} {there.version} is installed: make .venv/.installed"
        seen.add(name)
        for extra in new:
            for text in there.requires or []:
                needed = Requirement(text)
                always = needed.marker is None and extra == ""
                if always or (needed.marker and needed.marker.evaluate({"extra": extra})):
                    todo.append(needed)
    assert seen == pins.keys(), f"locked and not needed: {pins.keys() - seen}"


def applies(pin: Requirement) -> bool:
    """Whether the pin is for this platform."""
    return pin.marker is None or pin.marker.evaluate(dict(default_environment()))


@pytest.mark.e2e
def test_the_bill_of_materials_lists_the_locked_packages(tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in ROOT.glob("sbom-*.json")}
    try:
        subprocess.run(["make", "sbom"], cwd=ROOT, check=True, capture_output=True, timeout=600)
        for name in ("serve", "train"):
            bill = json.loads((ROOT / f"sbom-{name}.json").read_text())
            assert bill["bomFormat"] == "CycloneDX"
            listed = {(canonicalize_name(part["name"]), part["version"]) for part in bill["components"]}
            pinned = {
                (canonicalize_name(p.name), str(p.specifier).removeprefix("==")) for p, _, _ in locked(name)
            }
            assert listed == pinned
            shutil.copy(ROOT / f"sbom-{name}.json", tmp_path)
            flask = next(part for part in bill["components"] if part["name"] == "flask")
            assert flask["purl"].startswith("pkg:pypi/flask@")
            assert "SHA-256" in json.dumps(flask)
            # nothing from the machine that created it
            assert str(ROOT) not in json.dumps(bill)
    finally:
        for path, content in before.items():
            path.write_bytes(content)
