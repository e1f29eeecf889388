"""Checks that any input is answered as described: `schemathesis` sends a running service what its description
allows and forbids, and `unless_refused` calls a decoder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from digits.imaging.errors import PictureError
from digits.web.problems import Problem
from project import ROOT


def schemathesis(url: str, *options: str) -> str:
    """Run all checks of schemathesis against the service at `url`, and return its output. Any failure fails the
    test."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("run", url + "/openapi.json", "--checks", "all", "--no-color", *options),
        ],
        cwd=ROOT / "tests" / "web" / "schemathesis",
        env={k: v for k, v in os.environ.items() if not k.startswith("SCHEMATHESIS")},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


def unless_refused(decode: Callable[..., Any], *args: Any) -> Any:
    """The result of `decode`, or None if it refuses its arguments: a PictureError or a Problem with a 4xx status.
    Anything else fails the test."""
    try:
        return decode(*args)
    except PictureError:
        return None
    except Problem as problem:
        if not 400 <= problem.status < 500:
            raise
        return None
