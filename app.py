"""The service, which recognizes handwritten digits in images. Run it with `gunicorn app:app`, as `make serve`
and `python app.py` do, or with `gunicorn "app:create_app()"`. This module only puts the parts together; the
routes are in digits/web.

    curl -H "Content-Type: application/json" -d @sample_request.json http://localhost:5000/predict
"""

from __future__ import annotations

import os
import sys

from flask import Flask

from digits import compiling, model, registry
from digits.detector import Detector
from digits.web import access, corrections, health, inherited, openapi, page, predict, read, request_log
from digits.web.messages import Request
from digits.web.problems import answer
from digits.web.protocols import kserve, mlflow, tfserving
from digits.web.service import Service
from digits.web.settings import Settings

# the modules whose `bp` has routes
ROUTES = (predict, read, corrections, health, page, openapi, tfserving, kserve, mlflow)


def create_app(settings: Settings | None = None, classifier: model.Classifier | None = None) -> Flask:
    """Create the Flask app. Raises SettingError and ModelError.

    Args:
        settings: by default from the environment.
        classifier: by default the model that the settings name.
    """
    settings = settings or Settings.from_env(os.environ)
    app = Flask(__name__, static_folder=None)
    app.request_class = Request
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # Werkzeug's limit of 1,000 parts is lower than the default batch; twice the batch leaves room for our own
    # error
    app.config["MAX_FORM_PARTS"] = max(app.config["MAX_FORM_PARTS"], 2 * settings.max_batch)
    # other protocols' formats of errors by the first segment of their paths
    app.config["ERROR_FORMATS"] = {"v1": tfserving.error, "v2": kserve.error}
    app.register_error_handler(Exception, answer)
    classifier = (
        classifier or inherited.classifier or model.Classifier(registry.load(settings.model, compiling.load))
    )
    detector = inherited.detector or Detector(model.load(settings.detector))
    service = Service(app, settings, classifier, detector)
    request_log.register(app, service.metrics)
    # no view or hook is a coroutine, for which Flask would check at each call
    app.ensure_sync = lambda func: func  # type: ignore[method-assign]

    for module in ROUTES:
        app.register_blueprint(module.bp)
    access.register(app, settings)
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
