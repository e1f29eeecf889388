"""The parameters in the query of the routes that read images."""

from __future__ import annotations

import flask

from digits.web.problems import Problem


def parameter(request: flask.Request, name: str, default: str | None = None) -> str | None:
    """The value of a parameter, or `default` without one. Raises Problem 422 if there are several."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise refused(name, "given only once", f"{len(values)} values")
    return values[0] if values else default


def flag(request: flask.Request, name: str, on: str = "1", off: str = "0") -> bool:
    """Whether a parameter has the value `on`; without one it is off. Raises Problem 422 for any value but `on` and
    `off`."""
    # most requests have no query
    if not request.query_string:
        return False
    given = parameter(request, name, off) or ""
    if given not in (on, off):
        raise refused(name, f"{off} or {on}", given)
    return given == on


def refused(name: str, allowed: str, found: str) -> Problem:
    """The problem with the value of a parameter: it is `found`, but must be `allowed`."""
    return Problem(422, f"The parameter {name} must be {allowed}.", field=name, found=found[:40])
