"""What happens around every request: it gets an id and a clock, and once it is answered it is counted and gets
its line in the log. app.py registers it once an app.

A server may say in the WSGI environment how long a request has waited ("digits.waited", in seconds) and what is to
be answered instead ("digits.problem", a Problem), so that its refusals are answered like everything else.
"""

from __future__ import annotations

import logging
import os
import re
from time import perf_counter
from typing import Any

from flask import Flask, Response, g, request

from digits.serving.errors import Overloaded, render_problem
from digits.serving.metrics import Metrics

log = logging.getLogger("digits.request")

# a client's id is taken over only in this form: nothing that could forge a log line or fill a disk
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

# asked every few seconds by machines; at info they would bury what people ask
QUIET = frozenset(
    {"live", "ready", "prometheus_metrics", "kserve.live", "kserve.ready", "kserve.model_ready"}
)


def seconds_spent(here: Any) -> float:
    """Since the request of this `flask.g` was taken up, without the time its body took to arrive, the client's."""
    return perf_counter() - here.started - getattr(here.body, "seconds_received", 0.0)


def register(app: Flask, metrics: Metrics, version: str) -> None:
    """Add the hooks to `app`. `version` is the model's; answers that came from it name it in a header."""

    # request and g look for the current context at every use, so each is asked for its object once;
    # one hook a side rather than one a purpose for the same reason: together 60 µs of a request's 300
    @app.before_request
    def begin() -> None:
        here: Any = g._get_current_object()
        environ = request.environ
        here.started = perf_counter()
        here.body = environ["wsgi.input"]
        here.waited = environ.get("digits.waited", 0.0)
        given = request.headers.get("X-Request-ID")
        here.request_id = given if given and SANE_ID.fullmatch(given) else os.urandom(16).hex()
        metrics.in_progress.inc()
        if (problem := environ.get("digits.problem")) is not None:
            raise problem

    @app.errorhandler(Overloaded)
    def shed(error: Overloaded) -> Response:
        metrics.shed.inc()
        return render_problem(error.status, error.detail, error.headers)

    @app.after_request
    def end(response: Response) -> Response:
        here: Any = g._get_current_object()
        asked: Any = request._get_current_object()  # type: ignore[attr-defined]
        route = asked.url_rule.rule if asked.url_rule else None
        status = response.status_code
        headers = response.headers
        headers["X-Request-ID"] = here.request_id
        classified = hasattr(here, "digit")
        if classified:
            headers["X-Model-Version"] = version
        seconds = here.waited + seconds_spent(here)
        metrics.in_progress.dec()
        metrics.count_request(asked.method, status, route or "none", seconds)
        level = logging.DEBUG if asked.endpoint in QUIET else logging.INFO
        if log.isEnabledFor(level):
            line = {
                "request_id": here.request_id,
                "method": asked.method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
            }
            if classified:
                line |= {"digit": here.digit, "probability": here.probability}
                line |= {"images": here.images, "unsure": here.unsure}
            log.log(level, "request", extra=line)
        return response
