"""What the stages of the pipeline have in common: they read their section of params.yaml, replace their outputs
only when all of them are complete, and report in one line what is wrong."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"

Section = TypeVar("Section")


class StageError(Exception):
    """A stage can't do its work. The message says why and what to do."""


def read_params(name: str, section: type[Section], path: Path = PARAMS) -> Section:
    """The section `name` of params.yaml. section: a dataclass whose fields are the section's keys.

    Raises StageError for keys that are missing or unknown, and for values of another type.
    """
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise StageError(f"{path} can't be read: {reason}") from None
    if not isinstance(given, dict) or name not in given:
        raise StageError(f"{path.name} has no section {name}.")
    return typing.cast(Section, _fill(section, given[name], name, path.name))


def _fill(kind: Any, given: Any, name: str, file: str) -> Any:
    """The value `given` as a `kind`: a dataclass, list[...], dict[str, ...], int, float or str."""
    arguments = typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(given, dict):
        fields = typing.get_type_hints(kind)
        for wrong, problem in ((given.keys() - fields, "has unknown"), (fields.keys() - given, "lacks")):
            if wrong:
                keys = ", ".join(sorted(f"{name}.{key}" for key in wrong))
                known = ", ".join(fields)
                raise StageError(f"{file} {problem} keys: {keys}. The keys of {name} are: {known}.")
        return kind(**{key: _fill(fields[key], value, f"{name}.{key}", file) for key, value in given.items()})  # type: ignore[operator]
    if typing.get_origin(kind) is list and isinstance(given, list):
        return [_fill(arguments[0], value, name, file) for value in given]
    if typing.get_origin(kind) is dict and isinstance(given, dict):
        return {key: _fill(arguments[1], value, f"{name}.{key}", file) for key, value in given.items()}
    if type(given) is kind or (kind is float and type(given) is int):
        return given
    expected = "several values" if dataclasses.is_dataclass(kind) or arguments else kind.__name__
    raise StageError(f"{file}: {name} is {given!r}, but must be {expected}.")


@contextmanager
def outputs(out: Path, *names: str) -> Iterator[Path]:
    """A temporary folder, in which to write the files and folders `names`.

    When the block ends, they replace those in `out` one after the other. If it ends with an exception, those in
    `out` stay as they are. Both folders are on one file system.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=out) as temporary:
        new = Path(temporary)
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
        yield new
        for name in names:
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            (new / name).replace(target)


def run(main: Callable[[], None]) -> None:
    """Call `main`, and exit with one line on standard error if it can't do its work."""
    try:
        main()
    except StageError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Stopped. The old files have not been changed.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        # h5py's own messages have several lines
        reason = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        sys.exit(f"{where}{reason}. Solve this and run it again; the old files have not been changed.")
