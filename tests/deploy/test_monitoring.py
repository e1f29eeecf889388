"""Rules, alerts, runbook and dashboard are complete, agree with each other, and only use metrics that exist."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import yaml

from dashboard import DASHBOARD, queries
from digits.web.metrics import reload_failures
from project import ROOT

MONITORING = ROOT / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"][0]["rules"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_alert_has_a_summary_a_runbook_section_and_two_cases() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    cases = [
        case["name"]
        for file in (MONITORING / "tests").iterdir()
        for case in yaml.safe_load(file.read_text())["tests"]
    ]
    for alert in ALERTS:
        name = alert["alert"]
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert f"\n## {name}\n" in runbook
        assert alert["annotations"]["runbook"].endswith(f"#{name.lower()}")
        assert f"{name} fires" in cases
        assert f"{name} stays silent" in cases


def test_every_metric_is_described_and_every_query_has_one_that_exists(client: Any) -> None:
    # a metric with labels is not at /metrics before it has a value
    registry = client.application.extensions["digits"].metrics.registry
    there = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in [*registry.collect(), *reload_failures.collect()]
    }
    described = (ROOT / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"`((?:digits|flask)_\w+)`", described)) == there, "see docs/monitoring.md"
    recorded = {rule["record"] for rule in RULES}
    for expression in [rule["expr"] for rule in RULES + ALERTS] + queries():
        for name in re.findall(r"\b(?:digits|flask)_[a-z_]+", expression):
            assert name in there or re.sub(r"_(bucket|sum|count)$", "", name) in there, name
        for name in re.findall(r"\bdigits:[a-z0-9_:]+", expression):
            assert name in recorded, name


def lost(given: Any, back: Any, path: str = "dashboard") -> list[str]:
    """The parts of `given` that are missing in `back`. Additions in `back` are ignored."""
    if isinstance(given, dict) and isinstance(back, dict):
        return [found for key in given for found in lost(given[key], back.get(key), f"{path}.{key}")]
    if isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        return [found for i in range(len(given)) for found in lost(given[i], back[i], f"{path}[{i}]")]
    return [] if given == back else [f"{path}: {given!r} became {back!r}"]


def test_grafanas_own_library_reads_the_whole_dashboard() -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    back = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert lost(DASHBOARD, back) == []
    assert lost({"panels": [{"title": "x"}]}, {"panels": [{"titel": "x"}]})


def test_panels_do_not_overlap() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_service_has_limits_restarts_health_and_ports_on_loopback_only() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {name for name, service in compose.items() if "profiles" not in service} == {
        "service",
        "prometheus",
        "alertmanager",
        "grafana",
    }
    for name, service in compose.items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        if "profiles" in service:
            continue
        assert service["mem_limit"]
        assert service["cpus"]
        assert service["pids_limit"]
        assert service["restart"] == "unless-stopped"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        # the service's health check is in the Dockerfile
        assert "healthcheck" in service or (name == "service" and "HEALTHCHECK" in DOCKERFILE)
    # each depends on the one before
    assert {name: set(compose[name].get("depends_on", ())) for name in ("prometheus", "grafana")} == {
        "prometheus": {"service", "alertmanager"},
        "grafana": {"prometheus"},
    }
    # Prometheus and Alertmanager have an option for this, and the service always does it
    assert compose["grafana"]["environment"]["GF_LOG_CONSOLE_FORMAT"] == "json"
    assert all("--log.format=json" in compose[name]["command"] for name in ("prometheus", "alertmanager"))
    # the provisioned files are mounted where Grafana looks for them
    mounts = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    provider = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/digits.yml").read_text())
    assert mounts["./monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./monitoring/grafana/dashboards"] == provider["providers"][0]["options"]["path"]


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
    # each takes seconds of CPU time
    with ThreadPoolExecutor() as pool:
        list(
            pool.map(partial(run, tool("promtool"), "test", "rules"), ("tests/alerts.yml", "tests/days.yml"))
        )


def test_amtool_accepts_the_configuration() -> None:
    run(tool("amtool"), "check-config", "alertmanager.yml")
