"""Who may call: API keys on predictions, other sites' pages (CORS), whether /metrics has an address of its
own. app.py registers it; what is not set costs a request nothing. Also the headers that tell a browser
what a page of ours may do (digits/serving/pages.py, digits/serving/openapi.py).
"""

from __future__ import annotations

from flask import Flask, Response, abort, request

from digits.serving import keys
from digits.serving.errors import Problem
from digits.serving.settings import Settings

# what a page of another site may send and see beyond what every page may
SENT = "Authorization, Content-Type, Inference-Header-Content-Length, X-API-Key, X-Request-ID"
SEEN = "Inference-Header-Content-Length, Retry-After, WWW-Authenticate, X-Model-Version, X-Request-ID"
# a browser need not ask again for so many seconds
REMEMBER = "600"


def register(app: Flask, settings: Settings, hashes: frozenset[bytes]) -> None:
    """Add to `app` what the settings ask for. hashes: of the keys that are accepted; without any, all may call."""
    app.config["GUARDED"] = bool(hashes)
    if hashes:
        _want_keys(app, hashes)
    if settings.metrics_bind:
        _part_metrics(app, settings.metrics_bind.rpartition(":")[2])
    if settings.cors_origins:
        _admit(app, frozenset(settings.cors_origins.split(",")))


def _want_keys(app: Flask, hashes: frozenset[bytes]) -> None:
    """Every POST that there is wants a key: they are what classifies."""

    @app.before_request
    def check() -> None:
        if request.method != "POST" or request.url_rule is None:
            return
        key = request.headers.get("X-API-Key", "")
        # an Authorization of another scheme may be meant for a proxy
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not key and scheme.lower() == "bearer":
            key = token.strip()
        if not key:
            raise Problem(
                401,
                "An API key is wanted, as X-API-Key or as Authorization: Bearer.",
                headers={"WWW-Authenticate": 'Bearer realm="digits"'},
            )
        if not keys.accepted(key, hashes):
            raise Problem(
                401,
                "This API key is not accepted.",
                headers={"WWW-Authenticate": 'Bearer realm="digits", error="invalid_token"'},
            )


def _part_metrics(app: Flask, port: str) -> None:
    """On `port` there is /metrics and nothing else, on every other all but that."""

    @app.before_request
    def part() -> None:
        # the port that was connected to; no header has a say in it
        if (request.endpoint == "prometheus_metrics") != (request.environ["SERVER_PORT"] == port):
            abort(404)


def _admit(app: Flask, origins: frozenset[str]) -> None:
    """Let pages of these origins call, by the Fetch standard's CORS protocol; no cookies, so no credentials."""

    @app.after_request
    def admit(response: Response) -> Response:
        origin, headers = request.headers.get("Origin", ""), response.headers
        if "*" not in origins:
            response.vary.add("Origin")
            if origin not in origins:
                return response
        headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
        headers["Access-Control-Expose-Headers"] = SEEN
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            headers["Access-Control-Allow-Methods"] = headers.get("Allow", "")
            headers["Access-Control-Allow-Headers"] = SENT
            headers["Access-Control-Max-Age"] = REMEMBER
        return response


def protected(response: Response, pictures: str) -> Response:
    """The response with headers by which a browser loads nothing from elsewhere, runs nothing inline and shows it
    in no frame. pictures: where images may come from beside this host, as Content-Security-Policy has it."""
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
