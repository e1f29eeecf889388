"""The Prometheus metrics of the service.

Workers write to files in PROMETHEUS_MULTIPROC_DIR, one set for each slot, and a worker that replaces another
continues its files. So counters never decrease, series are never duplicated, and there are only as many files as
workers. Files named by pid, the library's default, would accumulate (prometheus/client_python#275, #568)."""

from __future__ import annotations

import os
from collections import Counter as Counted
from collections.abc import Callable
from functools import lru_cache, partial, wraps
from typing import Any

import numpy as np
from flask import Flask, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_flask_exporter import PrometheusMetrics
from werkzeug.wrappers import Response

from digits.detector import Detector
from digits.logs import Stdout
from digits.model import Classifier
from digits.version import VERSION
from digits.web import inherited

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # by default the library names files by pid; metrics use this class when they are created
    values.ValueClass = values.MultiProcessValue(lambda: inherited.slot)

# upper bounds of the buckets of durations, in seconds, and of probabilities
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PROBABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


# for the master, which has no app
reload_failures = Counter(
    "digits_model_reload_failures_total", "New models that could not be loaded", registry=CollectorRegistry()
)


class Metrics:
    """The service's metrics. Each has its own registry, so that a process can have several apps."""

    def __init__(self, app: Flask, classifier: Classifier, detector: Detector) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, doc: str, *labels: str) -> Counter:
            return Counter(name, doc, labels, registry=registry)

        def seconds(name: str, doc: str, *labels: str) -> Histogram:
            return Histogram(name, doc, labels, registry=registry, buckets=SECONDS)

        def gauge(name: str, doc: str, mode: str, *labels: str) -> Gauge:
            return Gauge(name, doc, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        by_route = ("method", "status", "url_rule")
        requests = counter("flask_http_request_total", "Answered requests", *by_route)
        duration = seconds("flask_http_request_duration_seconds", "Time to answer a request", *by_route)
        predictions = counter("digits_predictions_total", "Classified images, by predicted digit", "digit")
        self.digits = [predictions.labels(str(digit)) for digit in range(10)]
        what = "Probability of the predicted digit"
        self.probability = Histogram("digits_probability", what, registry=registry, buckets=PROBABILITIES)
        self.unsure = counter("digits_unsure_total", "Images whose answer was unsure")
        self.decode = seconds("digits_decode_seconds", "Time to turn a request's body into images")
        self.inference = seconds("digits_inference_seconds", "Time the network takes for a request's images")
        self.read_digits = counter("digits_read_digits_total", "Digits read in pictures")
        self.find = seconds("digits_read_find_seconds", "Time to find the digits of a picture to be read")
        what = "Time the network takes for a picture to be read"
        self.read_inference = seconds("digits_read_inference_seconds", what)
        self.in_progress = gauge("digits_requests_in_progress", "Requests being answered now", "livesum")
        self.shed = counter("digits_requests_shed_total", "Requests refused with 503 because of overload")
        self.dropped = counter("digits_log_lines_dropped_total", "Log lines for which there was no room")
        self._dropped_before = Stdout.dropped
        self.collected = counter("digits_collected_total", "Requests of which pictures and answers were kept")
        dropped = counter("digits_collect_dropped_total", "Requests of which nothing could be kept", "where")
        self.not_collected = {where: dropped.labels(where) for where in ("queue", "store")}
        self.corrected = counter("digits_corrected_total", "Corrections that were kept")
        gauge("digits_workers", "Running worker processes", "livesum").set(1)
        counter("digits_worker_starts_total", "Worker processes started").inc()
        self.memory = gauge("digits_process_resident_memory_bytes", "Resident memory of a worker", "liveall")
        what = "The model a worker serves"
        model = gauge("digits_model_info", what, "liveall", "version", "trained_on")
        model.labels(classifier.version, classifier.card.get("trained_on", "unknown")).set(1)
        what = "The detector a worker serves"
        gauge("digits_detector_info", what, "liveall", "version").labels(detector.version).set(1)
        what = "The version of the service"
        gauge("digits_build_info", what, "liveall", "version").labels(VERSION).set(1)
        self.beat()

        # labels() takes as long as counting, and there are few combinations of method, status and route
        @lru_cache(maxsize=1024)
        def answered(
            method: str, status: int, rule: str
        ) -> tuple[Callable[[], None], Callable[[float], None]]:
            labels = (method, str(status), rule)
            return requests.labels(*labels).inc, duration.labels(*labels).observe

        self.answered = answered
        # the exporter's default metrics lack url_rule on the total and take three times as long
        exposing = partial(_exposing, registry)
        PrometheusMetrics(app, export_defaults=False, registry=registry, metrics_decorator=exposing)

    def count_answers(self, answers: list[dict[str, Any]], unsure: int) -> None:
        """Count the answers of POST /predict by digit and probability. unsure: how many of them are."""
        if unsure:
            self.unsure.inc(unsure)
        if len(answers) == 1:
            self.digits[answers[0]["predicted_digit"]].inc()
            self.probability.observe(answers[0]["predicted_probability"])
            return
        for digit, times in Counted(answer["predicted_digit"] for answer in answers).items():
            self.digits[digit].inc(times)
        # Histogram can't observe many values at once, and one by one would take a tenth of the time of a batch of
        # 256
        histogram, probabilities = self.probability, [answer["predicted_probability"] for answer in answers]
        histogram._sum.inc(sum(probabilities))
        buckets = np.searchsorted(histogram._upper_bounds, probabilities)
        for bucket, times in Counted(buckets.tolist()).items():
            histogram._buckets[bucket].inc(times)

    def beat(self) -> None:
        """Record this process's memory and dropped log lines; the worker calls it about once a second."""
        self.dropped.inc(Stdout.dropped - self._dropped_before)
        self._dropped_before = Stdout.dropped
        try:
            with open("/proc/self/statm") as statm:
                self.memory.set(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        except OSError:
            # no /proc, as on macOS
            pass


def _exposing(registry: CollectorRegistry, view: Callable[[], Any]) -> Callable[[], Response]:
    """Replace the exporter's view of /metrics by prometheus_client's own.

    With several processes the exporter's view fails for `name[]`, because it restricts the registry before it adds
    the collector of the workers' files. It also doesn't compress the answer.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        # that collector does not say which names it has
        registry = CollectorRegistry(support_collectors_without_names=True)
        MultiProcessCollector(registry)
    exposition = make_wsgi_app(registry)

    @wraps(view)
    def exposed() -> Response:
        # prometheus_client refuses HEAD, and ignores the q values of formats and encodings
        kinds = sorted(request.accept_mimetypes, key=lambda kind: kind[1], reverse=True)
        known = ("application/openmetrics-text", "text/plain", "text/*", "*/*")
        environ = request.environ | {
            "REQUEST_METHOD": "GET",
            "HTTP_ACCEPT": next((kind for kind, q in kinds if q and kind.startswith(known)), ""),
            "HTTP_ACCEPT_ENCODING": "gzip" if request.accept_encodings["gzip"] else "",
        }
        response = Response.from_app(exposition, environ, buffered=True)
        response.vary.update(("Accept", "Accept-Encoding"))
        return response

    return exposed
