"""Health checks: `GET /health/live` says that the process answers, and `GET /health/ready` that the model does."""

from __future__ import annotations

from flask import Blueprint, Response

from digits.web.access import public
from digits.web.messages import json_response
from digits.web.problems import Problem
from digits.web.service import service

bp = Blueprint("health", __name__)


@bp.get("/health/live")
@public
def live() -> Response:
    return json_response({"status": "live"})


# MLflow's clients and SageMaker use /ping
@bp.get("/ping")
@bp.get("/health/ready")
@public
def ready() -> Response:
    """Answer 200 once the model has answered, and 503 before."""
    serving = service()
    if not serving.ready:
        raise Problem(503, "The model has not answered yet.", headers={"Retry-After": "1"})
    return json_response({"status": "ready", "model_version": serving.classifier.version})
