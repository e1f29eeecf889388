"""The service: an image of a handwritten digit in, the digit out. Run it with `gunicorn app:app`, as `make serve`
and `python app.py` do, or `gunicorn "app:create_app()"`; tests and tools call `create_app`. Routes only: what they
do lies in digits/serving.

    curl -H "Content-Type: application/json" -d @sample_request.json http://localhost:5000/predict
"""

from __future__ import annotations

import os
import sys

import orjson
from flask import Flask, Response, request

from digits import model
from digits.serving import access, errors, inputs, keys, openapi, pages, request_log
from digits.serving.incoming import Request
from digits.serving.inherited import inherited
from digits.serving.protocols import kserve, tfserving
from digits.serving.service import Service
from digits.serving.settings import Settings


def create_app(settings: Settings | None = None, classifier: model.Classifier | None = None) -> Flask:
    """A Flask app that serves `classifier`, by default the model that the settings name.

    settings: from the environment if None. Raises SettingError and ModelError.
    """
    settings = settings or Settings.from_env(os.environ)
    app = Flask(__name__, static_folder=None)
    app.request_class = Request
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["MAX_BATCH"] = settings.max_batch
    # Werkzeug's own limit of 1,000 is below the default batch; this one leaves room to be told the batch's
    app.config["MAX_FORM_PARTS"] = max(app.config["MAX_FORM_PARTS"], 2 * settings.max_batch)
    errors.register(app, {"v1": tfserving.error, "v2": kserve.error})
    classifier = classifier or inherited.classifier or model.Classifier(model.load(settings.model))
    service = Service(app, classifier, settings.sure)
    request_log.register(app, service.metrics, classifier.version)
    access.register(app, settings, keys.load(settings) if inherited.api_keys is None else inherited.api_keys)
    # every view and hook is a plain function; Flask would look whether it is a coroutine at each call
    app.ensure_sync = lambda func: func  # type: ignore[method-assign]

    @app.post("/predict")
    def predict() -> Response:
        batch, single = inputs.from_request(request._get_current_object(), settings)  # type: ignore[attr-defined]
        detail = bool(request.query_string) and inputs.wants_detail(request)
        predictions = service.answers(service.classify(batch), batch if detail else None)
        return _json(predictions[0] if single else {"predictions": predictions})

    @app.get("/health/live")
    def live() -> Response:
        return _json({"status": "live"})

    @app.get("/health/ready")
    def ready() -> Response:
        if not service.ready:
            raise errors.Problem(503, "The model has not answered yet.", headers={"Retry-After": "1"})
        return _json({"status": "ready", "model_version": classifier.version})

    for blueprint in (pages.pages, tfserving.bp, kserve.bp, openapi.bp):
        app.register_blueprint(blueprint)
    service.warm_up()
    return app


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")


def __getattr__(name: str) -> Flask:
    # `app:app` builds the app when gunicorn asks for it; importing `create_app` builds none
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = create_app()
    return globals()["app"]


if __name__ == "__main__":
    # gunicorn reads gunicorn.conf.py in its folder
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "app:app", *sys.argv[1:]])  # noqa: S606
