"""The options of POST /predict and POST /invocations in the query. app.py and protocols/mlflow.py call this; the
options of POST /read are in reading.py."""

from __future__ import annotations

import flask

from digits.serving.errors import Problem


def is_prepared(request: flask.Request) -> bool:
    """Whether `?prepare=none` says that pictures already are 28x28 images like MNIST's. Raises Problem 422 for
    another value."""
    # most requests have no query
    return bool(request.query_string) and _choose(
        request.args.get("prepare", "mnist"), "prepare", "mnist", "none"
    )


def wants_detail(request: flask.Request) -> bool:
    """Whether `?detail=1` asks for all probabilities and the network's input. Raises Problem 422 for another
    value."""
    return bool(request.query_string) and _choose(request.args.get("detail", "0"), "detail", "0", "1")


def _choose(given: str, name: str, default: str, other: str) -> bool:
    if given not in (default, other):
        raise Problem(422, f"{name} must be {default} or {other}.", field=name, found=given[:40])
    return given == other
