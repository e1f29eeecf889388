"""Health checks: `GET /health/live` says that the process answers, and `GET /health/ready` that the model does."""

from __future__ import annotations

from flask import Blueprint, Response

from digits.web.access import public
from digits.web.messages import json_response
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
    # a worker accepts connections only once its model has answered
    return json_response({"status": "ready", "model_version": service().classifier.version})
