"""The parameters in the query of the routes that read images."""

from __future__ import annotations

import flask

from digits.web.problems import Problem


def as_is(request: flask.Request) -> bool:
    """Whether `?prepare=none` says that pictures already are 28x28 images like MNIST's. Raises Problem 422 for
    another value."""
    # most requests have no query
    return bool(request.query_string) and _choose(request, "prepare", "mnist", "none")


def wants_detail(request: flask.Request) -> bool:
    """Whether `?detail=1` asks for all probabilities and the network's input. Raises Problem 422 for another
    value."""
    return bool(request.query_string) and _choose(request, "detail", "0", "1")


def is_to_be_kept(request: flask.Request) -> bool:
    """Whether `?keep=1` asks a service that collects to keep this answer, so that it can be corrected. Raises
    Problem 422 for another value."""
    return bool(request.query_string) and _choose(request, "keep", "0", "1")


def parameter(request: flask.Request, name: str, default: str | None = None) -> str | None:
    """The value of a parameter, or `default` without one. Raises Problem 422 if there are several."""
    values = request.args.getlist(name)
    if len(values) > 1:
        found = f"{len(values)} values"
        raise Problem(422, f"The parameter {name} must be given only once.", field=name, found=found)
    return values[0] if values else default


def _choose(request: flask.Request, name: str, default: str, other: str) -> bool:
    given = parameter(request, name, default) or ""
    if given not in (default, other):
        raise Problem(
            422, f"The parameter {name} must be {default} or {other}.", field=name, found=given[:40]
        )
    return given == other
