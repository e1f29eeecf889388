"""Settings from the environment, and the number of CPUs, by which the service chooses its number of workers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from digits.web.settings import SettingError, Settings, unknown
from digits.worker.master import WORKER_CLASS, check, usable_cpus
from project import ROOT


def test_without_variables_the_defaults_apply() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings().model.name == "mnist.h5"


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_env({"PORT": " "}).port == 5000


def test_variables_are_read() -> None:
    settings = Settings.from_env(
        {"PORT": "8080", "DIGITS_LOG_LEVEL": "DEBUG", "DIGITS_MODEL": "/m/own.h5", "DIGITS_SURE": "0"}
    )
    assert (settings.port, settings.log_level, settings.model) == (8080, "debug", Path("/m/own.h5"))
    assert settings.sure == 0


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("HOST", "[::1]", "host", "::1"),
        ("HOST", "::1", "host", "::1"),
        ("SCRIPT_NAME", "/digits/", "script_name", "/digits"),
        ("SCRIPT_NAME", "/a/b", "script_name", "/a/b"),
        ("SCRIPT_NAME", "/", "script_name", ""),
    ],
)
def test_a_value_is_read_in_each_of_its_spellings(name: str, text: str, field: str, value: str) -> None:
    assert getattr(Settings.from_env({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCRIPT_NAME", "digits"),
        ("SCRIPT_NAME", "/a//b"),
        ("PORT", "70000"),
        ("PORT", "http"),
        ("DIGITS_MAX_BATCH", "0"),
        ("DIGITS_LOG_LEVEL", "loud"),
        ("DIGITS_COLLECT", "nowhere://answers"),
        # its package, gcsfs, is not among the service's
        ("DIGITS_COLLECT", "gs://bucket/answers"),
        ("DIGITS_SURE", "1.01"),
        ("DIGITS_SURE", "-0.1"),
        ("DIGITS_SURE", "nan"),
        ("DIGITS_SURE", "99%"),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{name}='{value}'"):
        Settings.from_env({name: value})


def test_the_server_says_which_setting_is_wrong_without_a_traceback(start) -> None:  # type: ignore[no-untyped-def]
    server = start(wait=False, PORT="http")
    assert server.process.wait(60) == 1
    assert "PORT='http'" in server.output.read_text()
    assert "Traceback" not in server.output.read_text()


@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent"])
def test_another_worker_class_prevents_the_start(start, worker: str) -> None:  # type: ignore[no-untyped-def]
    server = start(wait=False, program=("-m", "gunicorn", "-k", worker, "app:app"))
    assert server.process.wait(60) == 1
    assert "only --worker-class digits.worker.gevent_worker.Worker" in server.output.read_text()


def test_an_unknown_setting_is_named_with_the_one_that_was_probably_meant() -> None:
    given = ["DIGITS_MAX_BATHC", "DIGITS_SPEED", "DIGITS_SURE", "DIGITS_FONTS", "PORT", "DIGITS_SERVICE_HOST"]
    given += ["DIGITS_PORT_5000_TCP_ADDR"]
    assert unknown(dict.fromkeys(given, "1")) == {"DIGITS_MAX_BATHC": "DIGITS_MAX_BATCH", "DIGITS_SPEED": ""}


def test_the_start_warns_of_an_unknown_setting(start) -> None:  # type: ignore[no-untyped-def]
    server = start(DIGITS_MAX_BATHC="3")
    assert "unknown setting DIGITS_MAX_BATHC: did you mean DIGITS_MAX_BATCH?" in server.output.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preload_app": True}, "--preload is not supported"),
        ({"bind": ["0.0.0.0:8000"]}, "--bind replaces the address of DIGITS_METRICS_BIND"),
        ({"http_protocols": ["h1", "h2"]}, "only supports HTTP/1.1"),
    ],
)
def test_gunicorn_options_that_undo_a_setting_prevent_the_start(
    changes: dict[str, Any], message: str
) -> None:
    settings = Settings(metrics_bind="127.0.0.1:9100")
    fine = {"http_protocols": ["h1"], "protocol": "http", "preload_app": False}
    fine |= {"bind": ["127.0.0.1:5000", "127.0.0.1:9100"], "worker_class_str": WORKER_CLASS}
    check(SimpleNamespace(**fine), settings)
    with pytest.raises(SettingError, match=message):
        check(SimpleNamespace(**fine | changes), settings)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "100000000 100000"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_limits_the_cpus(tmp_path: Path, files: dict[str, str], cpus: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert usable_cpus(tmp_path) == (cpus or usable_cpus(tmp_path / "nothing"))


def test_every_setting_is_described_with_its_default() -> None:
    rows = {}
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines():
        if line.startswith("| `"):
            name, default = [cell.strip().strip("`") for cell in line.split("|")[1:3]]
            rows[name] = default
    for setting in fields(Settings):
        default = "" if setting.default is None else str(setting.default)
        assert rows[setting.metadata["env"]] == default.removeprefix(f"{ROOT}/")
    assert rows.keys() == {s.metadata["env"] for s in fields(Settings)} | {"PROMETHEUS_MULTIPROC_DIR"}
