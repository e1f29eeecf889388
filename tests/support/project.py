"""The project's folder, and the request in sample_request.json, which shows a 7."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = json.loads((ROOT / "sample_request.json").read_text())
