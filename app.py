"""The service, which recognizes handwritten digits in images. Run it with `gunicorn app:app`, as `make serve` and
`python app.py` do, or with `gunicorn "app:create_app()"`; tests and tools call `create_app`. This module only
defines the routes; the code behind them is in digits/serving.

    curl -H "Content-Type: application/json" -d @sample_request.json http://localhost:5000/predict
"""

from __future__ import annotations

import os
import sys

import flask
from flask import Flask, Response, g, request

from digits import detector, model, registry
from digits.serving import (
    access,
    corrections,
    errors,
    inputs,
    keys,
    openapi,
    pages,
    query,
    reading,
    request_log,
)
from digits.serving.http import Request, json_response
from digits.serving.inherited import inherited
from digits.serving.protocols import kserve, mlflow, tfserving
from digits.serving.service import Service
from digits.serving.settings import Settings


def create_app(
    settings: Settings | None = None,
    classifier: model.Classifier | None = None,
    finder: detector.Detector | None = None,
) -> Flask:
    """Create the Flask app.

    settings: by default from the environment. classifier, finder: by default the models that the settings name.
    Raises SettingError and ModelError.
    """
    settings = settings or Settings.from_env(os.environ)
    app = Flask(__name__, static_folder=None)
    app.request_class = Request
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["MAX_BATCH"] = settings.max_batch
    app.config["MAX_UNPACKED_BYTES"] = settings.max_unpacked_bytes
    app.config["CPU_SECONDS"] = settings.cpu_seconds
    # Werkzeug's limit of 1,000 parts is lower than the default batch; twice the batch leaves room for our own
    # error
    app.config["MAX_FORM_PARTS"] = max(app.config["MAX_FORM_PARTS"], 2 * settings.max_batch)
    errors.register(app, {"v1": tfserving.error, "v2": kserve.error})
    classifier = classifier or inherited.classifier or model.Classifier(registry.load(settings.model))
    finder = (
        finder or inherited.detector or detector.Detector(model.load(settings.detector, compiled_only=True))
    )
    service = Service(app, classifier, finder, settings)
    request_log.register(app, service.metrics, classifier.version)
    access.register(app, settings, keys.load(settings) if inherited.api_keys is None else inherited.api_keys)
    # no view or hook is a coroutine, for which Flask would check at each call
    app.ensure_sync = lambda func: func  # type: ignore[method-assign]

    @app.post("/predict")
    def predict() -> Response:
        current: flask.Request = request._get_current_object()  # type: ignore[attr-defined]
        as_is, detail = query.is_prepared(current), query.wants_detail(current)
        g.keep = query.is_to_be_kept(current)
        items = inputs.items_of(current, settings.max_batch)
        batch, pages = inputs.to_pages(items, as_is)
        probabilities = service.classify(batch, items.pictures, as_is)
        predictions = service.answers(probabilities, batch if detail else None)
        for answer, page in zip(predictions, pages, strict=False):
            answer.update(page)
        response = json_response(predictions[0] if items.single else {"predictions": predictions})
        if items.pictures and any(answer["unsure"] for answer in predictions):
            # the picture may show several digits
            response.headers["Link"] = '<read>; rel="related"'
        return response

    @app.post("/read")
    def read() -> Response:
        current: flask.Request = request._get_current_object()  # type: ignore[attr-defined]
        options = reading.options(current)
        g.keep = query.is_to_be_kept(current)
        items = reading.items_of(current, settings.max_batch)
        answers = reading.read_all(items, options)
        return json_response(answers[0] if items.single else {"readings": answers})

    @app.get("/health/live")
    def live() -> Response:
        return json_response({"status": "live"})

    # MLflow's clients and SageMaker use /ping
    @app.get("/ping")
    @app.get("/health/ready")
    def ready() -> Response:
        if not service.ready:
            raise errors.Problem(503, "The model has not answered yet.", headers={"Retry-After": "1"})
        return json_response({"status": "ready", "model_version": classifier.version})

    for blueprint in (pages.pages, corrections.bp, tfserving.bp, kserve.bp, mlflow.bp, openapi.bp):
        app.register_blueprint(blueprint)
    service.warm_up()
    return app


def __getattr__(name: str) -> Flask:
    # creates the app for `app:app`, but not if only `create_app` is imported
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = create_app()
    return globals()["app"]


if __name__ == "__main__":
    # gunicorn reads gunicorn.conf.py in the current folder
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "app:app", *sys.argv[1:]])  # noqa: S606
