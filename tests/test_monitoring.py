"""Rules, alerts, runbook and dashboard: they are whole, agree with each other, and ask for metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from conftest import ROOT, SAMPLE, Server

MONITORING = ROOT / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "digits.json").read_text())


def queries() -> list[str]:
    """Every expression of the dashboard."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_alert_has_a_summary_a_runbook_section_and_two_cases() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    cases = [
        case["name"] for case in yaml.safe_load((MONITORING / "tests" / "alerts.yml").read_text())["tests"]
    ]
    for alert in ALERTS:
        name = alert["alert"]
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert f"\n## {name}\n" in runbook
        assert alert["annotations"]["runbook"].endswith(f"#{name.lower()}")
        assert alert["expr"] in runbook
        assert f"{name} fires" in cases
        assert f"{name} stays silent" in cases


def test_every_metric_asked_for_exists_and_is_described(server: Server) -> None:
    server.ask("/predict", SAMPLE)
    there = server.ask("/metrics").body.decode()
    described = (ROOT / "docs" / "monitoring.md").read_text()
    recorded = {rule["record"] for rule in RULES}
    expressions = [rule["expr"] for rule in RULES + ALERTS] + queries()
    for expression in expressions:
        for name in re.findall(r"\b(?:digits|flask)_[a-z_]+", expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert f"# TYPE {name} " in there or f"# TYPE {base} " in there or "reload_failures" in name, name
            assert base in described, name
        for name in re.findall(r"\bdigits:[a-z0-9_:]+", expression):
            assert name in recorded, name


def test_the_dashboard_uses_the_provisioned_data_source() -> None:
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == uid
        assert panel["title"]
        assert panel["targets"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def tool(name: str) -> str:
    path = shutil.which(name)
    if not path:
        pytest.skip(f"needs {name} on the path")
    return path


def run(*command: Any) -> str:
    done = subprocess.run([*map(str, command)], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules_and_every_alert_fires_and_stays_silent() -> None:
    run(tool("promtool"), "check", "rules", "rules.yml", "alerts.yml")
    run(tool("promtool"), "test", "rules", "tests/alerts.yml")


def test_amtool_accepts_the_configuration() -> None:
    run(tool("amtool"), "check-config", "alertmanager.yml")
