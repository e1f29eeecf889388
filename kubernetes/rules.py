"""Makes components/monitoring/rules.yaml, the Prometheus operator's PrometheusRule, from monitoring/rules.yml and
monitoring/alerts.yml, which compose mounts: `make kubernetes` runs it, and tests/test_kubernetes.py calls it to
see whether the file is up to date."""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
MONITORING = HERE.parent / "monitoring"
TARGET = HERE / "components" / "monitoring" / "rules.yaml"


def made() -> str:
    """The file's content."""
    groups = [
        group
        for name in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((MONITORING / name).read_text())["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "digits"},
        "spec": {"groups": groups},
    }
    head = "# Made by `make kubernetes` from monitoring/rules.yml and monitoring/alerts.yml: change those.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=10_000)


if __name__ == "__main__":
    TARGET.write_text(made())
