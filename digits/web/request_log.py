"""The hooks around every request: it gets an id, its time is measured, and once it is answered it is counted
and logged.

A server may set two variables in the WSGI environment: "digits.waited", for how many seconds a request has waited,
and "digits.problem", a Problem to answer with, so that the server's refusals go through the app."""

from __future__ import annotations

import logging
import os
import re
from time import perf_counter
from typing import Any

from flask import Flask, Response, g, request

from digits.web.metrics import Metrics
from digits.web.problems import Overloaded, answer, make_relative

log = logging.getLogger("digits.request")

# a client's id is used only in this form, so that it can't forge log lines or fill a disk
VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# version, trace-id, parent-id and flags (https://www.w3.org/TR/trace-context/#traceparent-header); later versions
# may append fields, and no id is all zeros
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

# clients can send any method, and a label for each would use up memory
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

# requested every few seconds by machines, and therefore only logged at debug
DEBUG_ONLY = frozenset(
    {"health.live", "health.ready", "prometheus_metrics", "kserve.live", "kserve.ready", "kserve.model_ready"}
)


def seconds_spent(state: Any) -> float:
    """Seconds since the app got the request, except those spent waiting for its body. state: the request's `g`."""
    return perf_counter() - state.started - getattr(state.body, "seconds_received", 0.0)


def register(app: Flask, metrics: Metrics) -> None:
    # the proxies request and g look up the context on each use, so they are resolved once, and there is only one
    # hook before and one after a request: both together save 60 of the 300 µs that a request takes
    @app.before_request
    def begin() -> None:
        state: Any = g._get_current_object()
        environ = request.environ
        state.started = perf_counter()
        state.body = environ["wsgi.input"]
        state.waited = environ.get("digits.waited", 0.0)
        given = request.headers.get("X-Request-ID")
        state.request_id = given if given and VALID_ID.fullmatch(given) else os.urandom(16).hex()
        metrics.in_progress.inc()
        if (problem := environ.get("digits.problem")) is not None:
            raise problem

    @app.errorhandler(Overloaded)
    def shed(error: Overloaded) -> Response:
        metrics.shed.inc()
        return answer(error)

    @app.after_request
    def end(response: Response) -> Response:
        state: Any = g._get_current_object()
        current: Any = request._get_current_object()  # type: ignore[attr-defined]
        route = current.url_rule.rule if current.url_rule else None
        status = response.status_code
        headers = response.headers
        headers["X-Request-ID"] = state.request_id
        if status == 308:
            make_relative(response)
        found = state.get("found")
        if found:
            headers["X-Model-Version"] = found["model_version"]
        seconds = state.waited + seconds_spent(state)
        metrics.in_progress.dec()
        method = current.method if current.method in METHODS else "other"
        count, observe = metrics.answered(method, status, route or "none")
        count()
        observe(seconds)
        level = logging.DEBUG if current.endpoint in DEBUG_ONLY else logging.INFO
        if log.isEnabledFor(level):
            line = {
                "request_id": state.request_id,
                "method": current.method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
            }
            if (parent := current.headers.get("traceparent")) and (valid := TRACEPARENT.fullmatch(parent)):
                line["trace_id"] = valid[1]
            if found:
                line |= found
            log.log(level, "request", extra=line)
        return response
