"""Access control: API keys for predictions, CORS for pages of other sites, and a separate address for /metrics.
Features that are not configured cost a request nothing. It also has the security headers of the service's own
pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, Response, abort, request

from digits.web import inherited, keys
from digits.web.problems import Problem
from digits.web.settings import Settings

# headers that pages of other sites may send and read, in addition to those that CORS always allows
ALLOW_HEADERS = "Authorization, Content-Type, Inference-Header-Content-Length, X-API-Key, X-Request-ID"
EXPOSE_HEADERS = (
    "Inference-Header-Content-Length, Link, Retry-After, WWW-Authenticate, X-Model-Version, X-Request-ID"
)
# how long a browser may cache the answer to a preflight request, in seconds
MAX_AGE = "600"
# endpoints of libraries, which declare no access
PUBLIC_ENDPOINTS = frozenset({"page.static", "prometheus_metrics"})

View = TypeVar("View", bound=Callable[..., Any])


def public(view: View) -> View:
    """Declare that a view needs no API key."""
    view.needs_key = False  # type: ignore[attr-defined]
    return view


def needs_key(view: View) -> View:
    """Declare that a view needs an API key, if the service has any."""
    view.needs_key = True  # type: ignore[attr-defined]
    return view


def register(app: Flask, settings: Settings) -> None:
    """Add the hooks that the settings require. All routes must be registered before. Raises RuntimeError if a view
    is neither `public` nor `needs_key`, and SettingError for invalid API keys."""
    for endpoint, view in app.view_functions.items():
        if not hasattr(view, "needs_key") and endpoint not in PUBLIC_ENDPOINTS:
            raise RuntimeError(f"The view {endpoint} must be declared with @public or @needs_key.")
    hashes = keys.load(settings) if inherited.api_keys is None else inherited.api_keys
    app.config["GUARDED"] = bool(hashes)
    if hashes:
        _require_keys(app, hashes)
    if settings.metrics_bind:
        _separate_metrics(app, settings.metrics_bind.rpartition(":")[2])
    if settings.cors_origins:
        _allow_origins(app, frozenset(settings.cors_origins.split(",")))


def _require_keys(app: Flask, hashes: frozenset[bytes]) -> None:
    """Require a key for views with `needs_key`, but not for the OPTIONS requests with which browsers ask first."""

    @app.before_request
    def check() -> None:
        view = app.view_functions.get(request.endpoint or "")
        if not getattr(view, "needs_key", False) or request.method == "OPTIONS":
            return
        key = request.headers.get("X-API-Key", "")
        # an Authorization header with another scheme may be for a proxy
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not key and scheme.lower() == "bearer":
            key = token.strip()
        challenge = 'Bearer realm="digits"'
        if not key:
            detail = "An API key is required, as X-API-Key or as Authorization: Bearer."
            raise Problem(401, detail, headers={"WWW-Authenticate": challenge})
        if not keys.accepted(key, hashes):
            challenge += ', error="invalid_token"'
            raise Problem(401, "This API key is not accepted.", headers={"WWW-Authenticate": challenge})


def _separate_metrics(app: Flask, port: str) -> None:
    """Serve only /metrics on `port`, and everything else on other ports."""

    @app.before_request
    def part() -> None:
        # gunicorn sets it to the port that the client connected to; headers can't change it
        if (request.endpoint == "prometheus_metrics") != (request.environ["SERVER_PORT"] == port):
            abort(404)


def _allow_origins(app: Flask, origins: frozenset[str]) -> None:
    """Allow calls from pages of these origins (CORS). No cookies are used, so credentials are not allowed."""

    @app.after_request
    def admit(response: Response) -> Response:
        origin, headers = request.headers.get("Origin", ""), response.headers
        if "*" not in origins:
            response.vary.add("Origin")
            if origin not in origins:
                return response
        headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
        headers["Access-Control-Expose-Headers"] = EXPOSE_HEADERS
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            headers["Access-Control-Allow-Methods"] = headers.get("Allow", "")
            headers["Access-Control-Allow-Headers"] = ALLOW_HEADERS
            headers["Access-Control-Max-Age"] = MAX_AGE
        return response


def protected(response: Response, pictures: str) -> Response:
    """Add headers that forbid a page to load resources from other hosts, to use inline scripts and styles, and to
    be framed. pictures: additional sources of images, in the syntax of Content-Security-Policy."""
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {pictures}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
