"""Every setting of the service, read from the environment once at start; app.py, gunicorn.conf.py and the
tests call it, and docs/settings.md describes each (a test compares the two)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class SettingError(ValueError):
    """A setting's value makes no sense; the message names the variable, the value and what is wanted."""


def _setting(env: str, default: Any, parse: Any, doc: str) -> Any:
    return field(default=default, metadata={"env": env, "parse": parse, "doc": doc})


def _whole(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most} is wanted")
        return number

    return parse


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    # NaN fails it too
    if not 0 <= number <= 1:
        raise ValueError("a number from 0 to 1 is wanted")
    return number


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("debug, info, warning or error is wanted")
    return text.lower()


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("an address and a port like 127.0.0.1:9100 are wanted")
    return text


def _host(text: str) -> str:
    # [::1], as it is written in URLs
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"(/[^/?#\s]+)*/?", text):
        raise ValueError("a path like /digits is wanted")
    return text.rstrip("/")


def _origins(text: str) -> str:
    origins = [origin.strip() for origin in text.split(",")]
    if not all(origin == "*" or re.fullmatch(r"https?://[^/\s*,]+", origin) for origin in origins):
        raise ValueError("origins like https://example.org are wanted, parted by commas, or *")
    return ",".join(origins)


@dataclass(frozen=True)
class Settings:
    """The service's settings. `from_env` reads them; tests pass their own.

    Raises SettingError (from `from_env`) when a variable cannot be understood.
    """

    model: Path = _setting(
        "DIGITS_MODEL",
        ROOT / "models" / "mnist.h5",
        Path,
        "path of the trained .h5; its .tflite lies beside it",
    )
    max_body_bytes: int = _setting(
        "DIGITS_MAX_BODY_BYTES",
        32 << 20,
        _whole(1, 1 << 30),
        "largest request body in bytes; a larger one is 413",
    )
    max_batch: int = _setting(
        "DIGITS_MAX_BATCH", 1024, _whole(1, 1 << 20), "most images in one request; more are 413"
    )
    sure: float | None = _setting(
        "DIGITS_SURE",
        None,
        _share,
        "probability below which an answer is unsure; by default the model card's sure_threshold",
    )
    log_level: str = _setting("DIGITS_LOG_LEVEL", "info", _level, "debug, info, warning or error")
    host: str = _setting("HOST", "127.0.0.1", _host, "address to listen on; 0.0.0.0 for all")
    script_name: str = _setting(
        "SCRIPT_NAME",
        "",
        _prefix,
        "path below which a proxy publishes the service, if it leaves it in requests",
    )
    port: int = _setting("PORT", 5000, _whole(0, 65535), "port to listen on; 0 takes a free one")
    workers: int = _setting(
        "WEB_CONCURRENCY",
        0,
        _whole(0, 1024),
        "worker processes; 0 means one a CPU that the container may use",
    )
    api_keys: str = _setting(
        "DIGITS_API_KEYS",
        "",
        str,
        "hashes of the API keys that predictions require, separated by commas; empty lets everyone call",
    )
    api_keys_file: str = _setting("DIGITS_API_KEYS_FILE", "", str, "file with such hashes, one a line")
    metrics_bind: str = _setting(
        "DIGITS_METRICS_BIND", "", _address, "address and port on which alone /metrics is then answered"
    )
    cors_origins: str = _setting(
        "DIGITS_CORS_ORIGINS", "", _origins, "origins whose pages may call, separated by commas"
    )
    threads: int = _setting(
        "DIGITS_THREADS", 2, _whole(1, 256), "threads that decode pictures and large bodies"
    )
    max_wait_ms: int = _setting(
        "DIGITS_MAX_WAIT_MS",
        500,
        _whole(1, 60_000),
        "longest time a prediction may wait for the worker, and for a thread, in milliseconds; then it gets 503",
    )
    receive_seconds: int = _setting(
        "DIGITS_RECEIVE_SECONDS",
        60,
        _whole(1, 3600),
        "time for a request's body to arrive, in seconds; then it gets 408",
    )
    grace_seconds: int = _setting(
        "DIGITS_GRACE_SECONDS",
        30,
        _whole(1, 3600),
        "time to finish running requests after SIGTERM, in seconds",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Settings from environment variables; an empty variable counts as unset."""
        values = {}
        for setting in fields(cls):
            name = setting.metadata["env"]
            text = environ.get(name, "").strip()
            if text:
                try:
                    values[setting.name] = setting.metadata["parse"](text)
                except ValueError as error:
                    raise SettingError(f"{name}={text!r}: {error}") from None
        settings = cls(**values)
        if settings.metrics_bind.rpartition(":")[2] == str(settings.port):
            raise SettingError(
                f"DIGITS_METRICS_BIND={settings.metrics_bind!r}: another port than PORT is wanted"
            )
        return settings
