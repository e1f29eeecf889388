"""What every route that answers with digits does: classify a batch, time it, count it, and name it for the
request's log line. app.py makes one Service an app; app.py and the protocol adapters call it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from flask import Flask, current_app, g

from digits.imaging import prepare
from digits.model import Classifier
from digits.serving.metrics import Metrics
from digits.serving.request_log import seconds_spent

# images classified at a time: some 20 ms
BATCH_SIZE = 256
# the drawing page's, one of each digit; any trained model reads most of them
SAMPLES = Path(__file__).parent / "static" / "samples"
MIN_SAMPLES_READ = 7

log = logging.getLogger("digits")


class Service:
    """A classifier, and what is told about it.

    sure_threshold: in [0, 1]; an answer whose probability is lower is unsure. By default the classifier's.
    offload: runs work that may take long, `offload(work, alone=False)`, and returns what it returns.
    give_way: lets other requests go on.
    """

    def __init__(self, app: Flask, classifier: Classifier, sure_threshold: float | None = None) -> None:
        self.classifier = classifier
        self.sure_threshold = classifier.sure_threshold if sure_threshold is None else sure_threshold
        self.metrics = Metrics(app)
        self.ready = False
        # a server with threads to spare puts its own in the place of these two (digits/server/worker.py)
        self.offload: Callable[..., Any] = lambda work, alone=False: work()
        self.give_way: Callable[[], None] = lambda: None
        app.extensions["digits"] = self

    def warm_up(self) -> None:
        """Answer a first time, so that no client waits for it; from then on the service is ready."""
        self.classifier.probabilities(np.zeros((1, 28, 28, 1), np.float32))
        self.metrics.started(self.classifier.version, self.classifier.card.get("trained_on", "unknown"))
        self.ready = True

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Probabilities float32 (n, 10) for images float32 (n, 28, 28, 1) in [0, 1], counted and timed.

        What came before in this request counts as decoding, also waiting for a thread.
        """
        metrics, here = self.metrics, g._get_current_object()
        begun = perf_counter()
        metrics.decode.observe(seconds_spent(here))
        probabilities = self.classifier.probabilities(images[:BATCH_SIZE])
        if len(images) > BATCH_SIZE:
            # the rest in turn with other requests
            parts = [probabilities]
            for start in range(BATCH_SIZE, len(images), BATCH_SIZE):
                self.give_way()
                parts.append(self.classifier.probabilities(images[start : start + BATCH_SIZE]))
            probabilities = np.concatenate(parts)
        metrics.inference.observe(perf_counter() - begun)
        if len(probabilities) == 1:
            # NumPy takes ten times as long for a row of ten
            row = probabilities[0].tolist()
            best = max(row)
            digit = row.index(best)
            metrics.digits[digit].inc()
            metrics.probability.observe(best)
            unsure = int(best < self.sure_threshold)
        else:
            digits, bests = probabilities.argmax(1), probabilities.max(1)
            metrics.count_images(digits, bests)
            digit, best = int(digits[0]), float(bests[0])
            unsure = int(self.unsure(probabilities).sum())
        if unsure:
            metrics.unsure.inc(unsure)
        # of a batch, the log names the number of images, of unsure ones among them, and the first one's digit
        here.images, here.unsure = len(probabilities), unsure
        here.digit, here.probability = digit, round(best, 6)
        return probabilities

    def unsure(self, probabilities: np.ndarray) -> np.ndarray:
        """Whether each answer is unsure, bool (n,), by probabilities float32 (n, 10)."""
        # in float64, as a float32 would round the threshold and disagree with `answers`
        return probabilities.max(1).astype(np.float64) < self.sure_threshold

    def answers(self, probabilities: np.ndarray, images: np.ndarray | None = None) -> list[dict[str, Any]]:
        """What POST /predict says of each image: the digit, its probability, rounded to six places, and whether
        that is unsure.

        probabilities: float32 (n, 10). With images, float32 (n, 28, 28, 1) in [0, 1], also all ten probabilities
        and the image, 28x28 of 0..255.
        """
        found: list[dict[str, Any]] = []
        rows = probabilities.tolist()
        for row in rows:
            best = max(row)
            found.append(
                {
                    "predicted_digit": row.index(best),
                    "predicted_probability": round(best, 6),
                    "unsure": best < self.sure_threshold,
                }
            )
        if images is not None:
            pixels = (images[..., 0] * 255).round().astype(np.uint8).tolist()
            for answer, row, image in zip(found, rows, pixels, strict=True):
                answer["probabilities"] = [round(value, 6) for value in row]
                answer["image"] = image
        return found


def warn_of_misreading(classifier: Classifier) -> None:
    """Log a warning if a model that brings no figures of its own misreads the digits of the drawing page."""
    if "test" in classifier.card:
        return
    pictures = [(SAMPLES / f"{digit}.png").read_bytes() for digit in range(10)]
    images = prepare(pictures, ["sample"] * 10)[..., None] / np.float32(255)
    right = int((classifier.probabilities(images).argmax(1) == np.arange(10)).sum())
    if right < MIN_SAMPLES_READ:
        log.warning(
            "The model reads %d of ten plain digits right: it must take values from 0 to 1, ink bright on black, "
            "without a Rescaling layer of its own.",
            right,
            extra={"model_version": classifier.version},
        )


def service() -> Service:
    """The running app's Service."""
    return current_app.extensions["digits"]
