"""Grafana's dashboard, and its queries."""

from __future__ import annotations

import json

from project import ROOT

DASHBOARD = json.loads((ROOT / "monitoring" / "grafana" / "dashboards" / "digits.json").read_text())


def queries() -> list[str]:
    """Every PromQL expression in the dashboard."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
