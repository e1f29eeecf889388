"""The service: an image of a handwritten digit in, the digit out. Run it with `gunicorn app:app`, as `make serve`
does; tests and tools call `create_app`. Routes only: what they do lies in digits/.

    curl -H "Content-Type: application/json" -d @sample_request.json http://localhost:5000/predict
"""

from __future__ import annotations

import os

import orjson
from flask import Flask, Response, request

from digits import model
from digits.server import master as arbiter
from digits.serving import access, errors, keys, openapi
from digits.serving import inputs as images
from digits.serving import request_log as hooks
from digits.serving.pages import pages
from digits.serving.protocols import kserve, tfserving
from digits.serving.service import Service, answers
from digits.serving.settings import Settings


def create_app(settings: Settings | None = None, classifier: model.Classifier | None = None) -> Flask:
    """A Flask app that serves `classifier`, by default the model that the settings name.

    settings: from the environment if None. Raises SettingError and ModelError.
    """
    settings = settings or Settings.from_env(os.environ)
    app = Flask(__name__, static_folder=None)
    app.request_class = images.Request
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["MAX_BATCH"] = settings.max_batch
    # Werkzeug's own limit of 1,000 is below the default batch; this one leaves room to be told the batch's
    app.config["MAX_FORM_PARTS"] = max(app.config["MAX_FORM_PARTS"], 2 * settings.max_batch)
    errors.register(app)
    classifier = classifier or arbiter.classifier or model.Classifier(model.load(settings.model))
    service = Service(app, classifier)
    hooks.register(app, service.metrics, classifier.version)
    access.register(app, settings, keys.load(settings) if arbiter.api_keys is None else arbiter.api_keys)
    # every view and hook is a plain function; Flask would look whether it is a coroutine at each call
    app.ensure_sync = lambda func: func  # type: ignore[method-assign]

    @app.post("/predict")
    def predict() -> Response:
        batch, single = images.from_request(request._get_current_object(), settings)  # type: ignore[attr-defined]
        detail = bool(request.query_string) and images.wants_detail(request)
        found = answers(service.classify(batch), batch if detail else None)
        return _json(found[0] if single else {"predictions": found})

    @app.get("/health/live")
    def live() -> Response:
        return _json({"status": "live"})

    @app.get("/health/ready")
    def ready() -> Response:
        if not service.ready:
            raise errors.Problem(503, "The model has not answered yet.", headers={"Retry-After": "1"})
        return _json({"status": "ready", "model_version": classifier.version})

    app.register_blueprint(pages)
    app.register_blueprint(tfserving.bp)
    app.register_blueprint(kserve.bp)
    app.register_blueprint(openapi.bp)
    service.warm_up()
    return app


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")


app = create_app()
