"""What gunicorn's master prepares once and its workers inherit by fork. digits/server/master.py fills
`inherited` in; app.py and digits/serving/metrics.py read it. In a process that gunicorn did not start it
stays as it is here."""

from __future__ import annotations

from dataclasses import dataclass

from digits.model import Classifier


@dataclass
class Inherited:
    """classifier: the loaded model. api_keys: hashes of the accepted API keys, 32 bytes each.

    slot: which set of metrics files this process writes; a worker's is a number, the master's "master".
    """

    classifier: Classifier | None = None
    api_keys: frozenset[bytes] | None = None
    slot: int | str = "master"


inherited = Inherited()
