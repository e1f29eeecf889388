"""Classification as all prediction routes share it: run the network on a batch, measure and count it, and keep
what the log line needs. Each app has a Service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
from flask import Flask, current_app, g

from digits.detector import Detector
from digits.imaging import prepare
from digits.model import Classifier, scale
from digits.web.collect import Collector, seen, sent
from digits.web.metrics import Metrics
from digits.web.request_log import seconds_spent
from digits.web.settings import Settings

# number of images to classify before other requests continue; these take about 20 ms
AT_A_TIME = 256
# the samples of the web page, one of each digit, most of which any trained model classifies correctly
SAMPLES = Path(__file__).parent / "static" / "samples"
MIN_SAMPLES_READ = 7

log = logging.getLogger("digits")


class Service:
    """A classifier and a detector with their metrics and settings.

    Attributes:
        sure_threshold: in [0, 1]; an answer with a lower probability is unsure.
        collector: keeps pictures and answers; None unless DIGITS_COLLECT is set.
        offload: calls a function that may take long, `offload(work, lane="shared")`, and returns its result. The
            function and the result must be picklable; digits/worker/processes.py has the lanes, and the errors.
    """

    def __init__(self, app: Flask, settings: Settings, classifier: Classifier, detector: Detector) -> None:
        self.app, self.settings, self.classifier, self.detector = app, settings, classifier, detector
        self.sure_threshold = classifier.sure_threshold if settings.sure is None else settings.sure
        self.metrics = Metrics(app, classifier, detector)
        self.collector = Collector(settings, self.metrics) if settings.collect else None
        # digits/worker/gevent_worker.py replaces it
        self.offload: Callable[..., Any] = lambda work, lane="shared": work()
        app.extensions["digits"] = self
        # so that the first request is not slow
        classifier.probabilities(np.zeros((1, 28, 28, 1), np.float32))

    def classify(
        self, images: np.ndarray, pictures: Sequence[bytes] = (), pages: Sequence[dict[str, int]] = ()
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Classify images, update the metrics, and collect what is to be kept.

        The time since the request began, including the wait for a process, counts as decoding.

        Args:
            images: float32 (n, 28, 28, 1) in [0, 1].
            pictures: the files that the images were made from, if they are known.
            pages: for each of these files, what to add to its answer.

        Returns:
            Probabilities, float32 (n, 10), and the answers of POST /predict: for each image the digit, its
            probability rounded to six places, and whether it is unsure.
        """
        metrics, state = self.metrics, g._get_current_object()
        begun = perf_counter()
        metrics.decode.observe(seconds_spent(state))
        parts = [self.classifier.probabilities(images[:AT_A_TIME])]
        for start in range(AT_A_TIME, len(images), AT_A_TIME):
            # gevent's, which lets other requests continue
            sleep(0)
            parts.append(self.classifier.probabilities(images[start : start + AT_A_TIME]))
        probabilities = parts[0] if len(parts) == 1 else np.concatenate(parts)
        metrics.inference.observe(perf_counter() - begun)
        answers: list[dict[str, Any]] = [
            {
                "predicted_digit": row.index(best := max(row)),
                "predicted_probability": round(best, 6),
                "unsure": best < self.sure_threshold,
            }
            for row in probabilities.tolist()
        ]
        for answer, page in zip(answers, pages, strict=False):
            answer.update(page)
        unsure = sum(answer["unsure"] for answer in answers)
        metrics.count_answers(answers, unsure)
        # for the log line, which has the digit and the probability of the first image only
        state.found = {
            "digit": answers[0]["predicted_digit"],
            "probability": answers[0]["predicted_probability"],
            "images": len(answers),
            "unsure": unsure,
            "model_version": self.classifier.version,
        }
        if self.collector:
            kept = [
                {"index": i, "answer": answer} | seen(images[i]) | (sent(pictures[i]) if pictures else {})
                for i, answer in enumerate(answers)
                if self.collector.chosen(answer["unsure"])
            ]
            self.collector.keep(self.classifier.version, len(answers), kept)
        return probabilities, answers


def warn_of_misreading(classifier: Classifier) -> None:
    """Log a warning if a model without test results in its card misreads the samples of the web page."""
    if "test" in classifier.card:
        return
    pictures = [(SAMPLES / f"{digit}.png").read_bytes() for digit in range(10)]
    images = scale(prepare(pictures, ["sample"] * 10))
    right = int((classifier.probabilities(images).argmax(1) == np.arange(10)).sum())
    if right < MIN_SAMPLES_READ:
        log.warning(
            "The model reads only %d of ten sample digits correctly. Its input must have values from 0 to 1 and "
            "bright ink on black, so it must not contain a Rescaling layer.",
            right,
            extra={"model_version": classifier.version},
        )


def service() -> Service:
    """The Service of the current app."""
    return current_app.extensions["digits"]
