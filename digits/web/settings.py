"""The service's settings, read from the environment at start. docs/settings.md describes each, and a test
compares the two."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class SettingError(ValueError):
    """A setting has an invalid value. The message names the variable, the value and what is allowed."""


def _setting(env: str, default: Any, parse: Any, doc: str) -> Any:
    return field(default=default, metadata={"env": env, "parse": parse, "doc": doc})


def _whole(minimum: int, maximum: int) -> Any:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if not minimum <= number <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return number

    return parse


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    # this also excludes NaN
    if not 0 <= number <= 1:
        raise ValueError("must be a number from 0 to 1")
    return number


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return text.lower()


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("must be an address and a port like 127.0.0.1:9100")
    return text


def _host(text: str) -> str:
    # allow brackets, as in URLs: [::1]
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"(/[^/?#\s]+)*/?", text):
        raise ValueError("must be a path like /digits")
    return text.rstrip("/")


def _origins(text: str) -> str:
    origins = [origin.strip() for origin in text.split(",")]
    if not all(origin == "*" or re.fullmatch(r"https?://[^/\s*,]+", origin) for origin in origins):
        raise ValueError("must be origins like https://example.org, separated by commas, or *")
    return ",".join(origins)


# variables with this prefix that other programs read
OTHERS = ("DIGITS_API_KEY", "DIGITS_DETECTOR_LATEST", "DIGITS_FONTS", "DIGITS_PHOTOGRAPHS", "DIGITS_URL")
# variables that Kubernetes sets for a service, and Docker for a link, whose name begins with "digits"
LINKED = re.compile(r"DIGITS_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?")


def unknown(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that look like a setting and are none, each with the setting that was probably meant or ""."""
    known = [setting.metadata["env"] for setting in fields(Settings)]
    names = [
        name
        for name in sorted(environ)
        if name.startswith("DIGITS_") and name not in (*known, *OTHERS) and not LINKED.fullmatch(name)
    ]
    return {name: "".join(get_close_matches(name, known, 1, cutoff=0.8)) for name in names}


@dataclass(frozen=True)
class Settings:
    """The service's settings. `from_env` reads them, and raises SettingError for an invalid value."""

    model: Path = _setting(
        "DIGITS_MODEL",
        ROOT / "models" / "mnist.h5",
        Path,
        "path of the trained .h5, with its .tflite in the same folder; or models:/NAME@ALIAS in MLflow's registry",
    )
    detector: Path = _setting(
        "DIGITS_DETECTOR",
        ROOT / "models" / "detector.h5",
        Path,
        "path of the .h5 of the network that finds digits for POST /read, with its .tflite in the same folder",
    )
    max_body_bytes: int = _setting(
        "DIGITS_MAX_BODY_BYTES",
        32 << 20,
        _whole(1, 1 << 30),
        "maximum size of a request body in bytes; a larger one gets 413",
    )
    max_batch: int = _setting(
        "DIGITS_MAX_BATCH", 1024, _whole(1, 1 << 20), "maximum number of images in a request; more get 413"
    )
    sure: float | None = _setting(
        "DIGITS_SURE",
        None,
        _share,
        "probability below which an answer is unsure; by default the model card's sure_threshold",
    )
    log_level: str = _setting("DIGITS_LOG_LEVEL", "info", _level, "debug, info, warning or error")
    host: str = _setting("HOST", "127.0.0.1", _host, "address to listen on; 0.0.0.0 for all addresses")
    script_name: str = _setting(
        "SCRIPT_NAME",
        "",
        _prefix,
        "path below which a proxy publishes the service; needed if the proxy does not remove it from requests",
    )
    port: int = _setting("PORT", 5000, _whole(0, 65535), "port to listen on; 0 for any free port")
    workers: int = _setting(
        "WEB_CONCURRENCY",
        0,
        _whole(0, 1024),
        "number of worker processes; 0 for one per CPU that the container may use",
    )
    api_keys: str = _setting(
        "DIGITS_API_KEYS",
        "",
        str,
        "hashes of the API keys that predictions require, separated by commas; if empty, no key is required",
    )
    api_keys_file: str = _setting("DIGITS_API_KEYS_FILE", "", str, "file with such hashes, one per line")
    metrics_bind: str = _setting(
        "DIGITS_METRICS_BIND", "", _address, "address and port that serve /metrics and nothing else"
    )
    collect: str = _setting(
        "DIGITS_COLLECT",
        "",
        str,
        "folder, or address like s3://bucket/digits, in which to keep answers to correct",
    )
    collect_share: float = _setting(
        "DIGITS_COLLECT_SHARE", 0.01, _share, "share of the sure answers to keep; unsure ones all are"
    )
    collect_bytes: int = _setting(
        "DIGITS_COLLECT_BYTES",
        1_000_000_000,
        _whole(1, 1 << 50),
        "bytes that all that is kept may take; the oldest answers that nobody has corrected are removed",
    )
    collect_days: int = _setting(
        "DIGITS_COLLECT_DAYS",
        30,
        _whole(1, 36500),
        "days after which an answer that nobody has corrected is removed",
    )
    cors_origins: str = _setting(
        "DIGITS_CORS_ORIGINS", "", _origins, "origins whose pages may call, separated by commas"
    )
    processes: int = _setting(
        "DIGITS_PROCESSES", 2, _whole(1, 256), "processes of a worker that decode pictures and large bodies"
    )
    cpu_seconds: int = _setting(
        "DIGITS_CPU_SECONDS",
        10,
        _whole(1, 3600),
        "CPU seconds that decoding or reading a picture may take; one that takes more gets 422",
    )
    max_unpacked_bytes: int = _setting(
        "DIGITS_MAX_UNPACKED_BYTES",
        250_000_000,
        _whole(1 << 20, 1 << 40),
        "bytes of memory that a request may take with its body, pictures and values; one that needs more gets 413",
    )
    huge_pictures: int = _setting(
        "DIGITS_HUGE_PICTURES",
        1,
        _whole(1, 256),
        "requests that may take more than 40 MB of memory at the same time, in all workers together",
    )
    max_wait_ms: int = _setting(
        "DIGITS_MAX_WAIT_MS",
        500,
        _whole(1, 60_000),
        "longest time in milliseconds that a prediction may wait for the worker, and for a process, before it "
        "gets 503",
    )
    receive_seconds: int = _setting(
        "DIGITS_RECEIVE_SECONDS",
        60,
        _whole(1, 3600),
        "seconds within which a request's body must arrive; a later one gets 408",
    )
    grace_seconds: int = _setting(
        "DIGITS_GRACE_SECONDS",
        30,
        _whole(1, 3600),
        "seconds to finish running requests after SIGTERM",
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
                f"DIGITS_METRICS_BIND={settings.metrics_bind!r}: its port must differ from PORT"
            )
        return settings
