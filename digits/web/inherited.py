"""The state that gunicorn's master prepares once, and that its workers inherit when they are forked. Without
gunicorn the fields keep their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from digits.detector import Detector
from digits.model import Classifier


@dataclass
class Inherited:
    """What a worker inherits.

    Attributes:
        classifier, detector: the loaded models.
        api_keys: hashes of the accepted API keys, 32 bytes each.
        slot: the set of metrics files that this process writes; a number for workers, "master" for the master.
    """

    classifier: Classifier | None = None
    detector: Detector | None = None
    api_keys: frozenset[bytes] | None = None
    slot: int | str = "master"


inherited = Inherited()
