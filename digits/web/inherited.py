"""The state that gunicorn's master prepares once, and that its workers inherit when they are forked. Without
gunicorn it keeps these defaults."""

from __future__ import annotations

from digits.detector import Detector
from digits.model import Classifier

# the loaded models
classifier: Classifier | None = None
detector: Detector | None = None
# hashes of the accepted API keys, 32 bytes each
api_keys: frozenset[bytes] | None = None
# the set of metrics files that this process writes: a number for workers, "master" for the master
slot: int | str = "master"
