"""The pipeline's stages in dvc.yaml depend on exactly the files that they read, and dvc.lock is what DVC wrote."""

from __future__ import annotations

import ast
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from project import ROOT

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OUTPUTS = ("outs", "metrics", "plots")
# the module that draws pages, and the hashes of what it draws. A stage that depends on the hashes does not depend
# on the code, so that the detector is only trained again if its pages have changed
DRAWING, DRAWN = Path("digits/training/detector/pages.py"), "metrics/detector/pages.json"


def paths(stage: dict[str, Any], *kinds: str) -> set[str]:
    """The paths in a stage of dvc.yaml, each of which may have options."""
    entries = [entry for kind in kinds for entry in stage.get(kind, [])]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def program(command: str) -> Path:
    """The file that a stage's command runs with Python: `python FILE ...` or `python -m MODULE ...`, perhaps after
    environment variables."""
    words = shlex.split(command)
    first, *rest = words[words.index("python") + 1 :]
    if first != "-m":
        return Path(first)
    module = Path(*rest[0].split("."))
    return module / "__main__.py" if (ROOT / module).is_dir() else module.with_suffix(".py")


def read_by(file: Path) -> set[Path]:
    """The files of the project that a module imports, anywhere in it, and the files beside it that it names."""
    tree = ast.parse((ROOT / file).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = set()
    for name in names:
        parts = name.split(".")
        # importing a.b.c also runs a/__init__.py and a/b/__init__.py
        packages = [Path(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
        found |= {path for path in (Path(*parts).with_suffix(".py"), *packages) if (ROOT / path).is_file()}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    beside = [path.relative_to(ROOT) for path in (ROOT / file).parent.glob("*.*") if path.suffix != ".py"]
    return found | {path for path in beside if path.name in texts and file.parent != Path()}


def closure(file: Path, without: tuple[Path, ...] = ()) -> set[str]:
    """All files of the project that running a file reads, directly or through what it imports, except the files
    `without` and what only these import."""
    found: set[Path] = set()
    # python -m a.b.c also imports the packages a and a.b
    todo = [file, *(parent / "__init__.py" for parent in file.parents[:-1])]
    while todo:
        path = todo.pop()
        if path not in found and path not in without:
            found.add(path)
            todo += read_by(path)
    return {path.as_posix() for path in found}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_files_that_it_imports_and_on_no_other_code(name: str) -> None:
    outputs = {path for stage in STAGES.values() for path in paths(stage, *OUTPUTS)}
    needed = paths(STAGES[name], "deps")
    code = needed - outputs
    imported = closure(program(STAGES[name]["cmd"]), (DRAWING,) if DRAWN in needed else ())
    assert imported - code == set(), "imported, but not in dvc.yaml"
    assert code - imported == set(), "in dvc.yaml, but not imported"


def test_the_closure_follows_imports_through_packages_and_to_files_beside_a_module() -> None:
    assert closure(Path("digits/training/synthetic.py")) == {
        "digits/__init__.py",
        "digits/training/__init__.py",
        "digits/training/strokes.json",
        "digits/training/synthetic.py",
    }
    assert "digits/imaging/find.py" in closure(Path("digits/training/images.py"))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_own_section_of_params_yaml_only(name: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert name not in params or STAGES[name]["params"] == [name]
    # the whole file
    assert "params.yaml" not in paths(STAGES[name], "deps")


def test_training_for_single_digits_needs_no_fonts() -> None:
    stages, todo = set(), ["evaluate"]
    while todo:
        name = todo.pop()
        needed = paths(STAGES[name], "deps")
        new = {other for other, stage in STAGES.items() if paths(stage, *OUTPUTS) & needed} - stages
        stages |= new
        todo += new
    assert {"data", "glyphs", "images", "train"} <= stages
    assert "downloads" not in stages


def test_every_section_of_params_yaml_belongs_to_a_stage() -> None:
    used = {key.split(".")[0] for stage in STAGES.values() for key in stage.get("params", [])}
    assert set(yaml.safe_load((ROOT / "params.yaml").read_text())) == used


@pytest.mark.parametrize("name", STAGES)
def test_outputs_in_git_stay_until_a_stage_replaces_them(name: str) -> None:
    for kind in OUTPUTS:
        for entry in STAGES[name].get(kind, []):
            options = next(iter(entry.values())) if isinstance(entry, dict) else {}
            # without persist, DVC deletes an output before it runs the stage
            assert options.get("cache", True) or options.get("persist"), entry


@pytest.mark.shipped_model
def test_dvc_lock_is_up_to_date_in_a_clone_without_data(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in STAGES:
        assert f"Stage '{name}' didn't change, skipping" in done.stdout, "run `dvc repro` and commit dvc.lock"
