"""Access control: API keys for predictions, CORS for pages of other sites, and a separate address for /metrics.
app.py registers it, and features that are not configured cost a request nothing. It also has the security headers
of the service's own pages (digits/serving/pages.py, digits/serving/openapi.py).
"""

from __future__ import annotations

from flask import Flask, Response, abort, request

from digits.serving import keys
from digits.serving.errors import Problem
from digits.serving.settings import Settings

# headers that pages of other sites may send and read, in addition to those that CORS always allows
ALLOW_HEADERS = "Authorization, Content-Type, Inference-Header-Content-Length, X-API-Key, X-Request-ID"
EXPOSE_HEADERS = (
    "Inference-Header-Content-Length, Link, Retry-After, WWW-Authenticate, X-Model-Version, X-Request-ID"
)
# how long a browser may cache the answer to a preflight request, in seconds
MAX_AGE = "600"


def register(app: Flask, settings: Settings, hashes: frozenset[bytes]) -> None:
    """Add the hooks that the settings require. hashes: of the accepted API keys; if empty, no key is required."""
    app.config["GUARDED"] = bool(hashes)
    if hashes:
        _require_keys(app, hashes)
    if settings.metrics_bind:
        _separate_metrics(app, settings.metrics_bind.rpartition(":")[2])
    if settings.cors_origins:
        _allow_origins(app, frozenset(settings.cors_origins.split(",")))


def _require_keys(app: Flask, hashes: frozenset[bytes]) -> None:
    """Require a key for every POST, because these are the routes that classify or take corrections."""

    @app.before_request
    def check() -> None:
        if request.method != "POST" or request.url_rule is None:
            return
        key = request.headers.get("X-API-Key", "")
        # an Authorization header with another scheme may be for a proxy
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not key and scheme.lower() == "bearer":
            key = token.strip()
        if not key:
            raise Problem(
                401,
                "An API key is required, as X-API-Key or as Authorization: Bearer.",
                headers={"WWW-Authenticate": 'Bearer realm="digits"'},
            )
        if not keys.accepted(key, hashes):
            raise Problem(
                401,
                "This API key is not accepted.",
                headers={"WWW-Authenticate": 'Bearer realm="digits", error="invalid_token"'},
            )


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
    policy = [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        f"img-src 'self' {pictures}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    response.headers["Content-Security-Policy"] = "; ".join(policy)
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
