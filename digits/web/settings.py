"""The service's settings, read from the environment at start. docs/settings.md says what each of them means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class SettingError(ValueError):
    """A setting has an invalid value. The message names the variable, the value and what is allowed."""


def _setting(env: str, default: Any, parse: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"env": env, "parse": parse})


def _number(kind: type[int] | type[float], minimum: int, maximum: int, text: str) -> float:
    with suppress(ValueError):
        # the comparison also excludes NaN
        if minimum <= (number := kind(text)) <= maximum:
            return number
    name = "a whole number" if kind is int else "a number"
    raise ValueError(f"must be {name} from {minimum} to {maximum}")


def _whole(minimum: int, maximum: int) -> Callable[[str], float]:
    return partial(_number, int, minimum, maximum)


_share = partial(_number, float, 0, 1)


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return text.lower()


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("must be an address and a port like 127.0.0.1:9100")
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"(/[^/?#\s]+)*/?", text):
        raise ValueError("must be a path like /digits")
    return text.rstrip("/")


def _store(text: str) -> str:
    protocol = text.rpartition("::")[2].partition("://")[0] if "://" in text else "file"
    # most services have no store
    from fsspec.registry import known_implementations

    if protocol not in known_implementations:
        raise ValueError(f"must be a folder or an address that fsspec knows, not {protocol}://")
    package = known_implementations[protocol]["class"].partition(".")[0]
    if find_spec(package) is None:
        raise ValueError(f"needs the package {package}, which is not installed")
    return text


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

    model: Path = _setting("DIGITS_MODEL", ROOT / "models" / "mnist.h5", Path)
    detector: Path = _setting("DIGITS_DETECTOR", ROOT / "models" / "detector.h5", Path)
    max_body_bytes: int = _setting("DIGITS_MAX_BODY_BYTES", 32 << 20, _whole(1, 1 << 30))
    max_batch: int = _setting("DIGITS_MAX_BATCH", 1024, _whole(1, 1 << 20))
    sure: float | None = _setting("DIGITS_SURE", None, _share)
    log_level: str = _setting("DIGITS_LOG_LEVEL", "info", _level)
    # brackets are allowed, as in URLs: [::1]
    host: str = _setting("HOST", "127.0.0.1", lambda text: text.strip("[]"))
    script_name: str = _setting("SCRIPT_NAME", "", _prefix)
    port: int = _setting("PORT", 5000, _whole(0, 65535))
    workers: int = _setting("WEB_CONCURRENCY", 0, _whole(0, 1024))
    api_keys: str = _setting("DIGITS_API_KEYS", "", str)
    api_keys_file: str = _setting("DIGITS_API_KEYS_FILE", "", str)
    metrics_bind: str = _setting("DIGITS_METRICS_BIND", "", _address)
    collect: str = _setting("DIGITS_COLLECT", "", _store)
    collect_share: float = _setting("DIGITS_COLLECT_SHARE", 0.01, _share)
    collect_bytes: int = _setting("DIGITS_COLLECT_BYTES", 1_000_000_000, _whole(1, 1 << 50))
    collect_days: int = _setting("DIGITS_COLLECT_DAYS", 30, _whole(1, 36500))
    cors_origins: str = _setting("DIGITS_CORS_ORIGINS", "", _origins)
    processes: int = _setting("DIGITS_PROCESSES", 2, _whole(1, 256))
    cpu_seconds: int = _setting("DIGITS_CPU_SECONDS", 10, _whole(1, 3600))
    max_unpacked_bytes: int = _setting("DIGITS_MAX_UNPACKED_BYTES", 250_000_000, _whole(1 << 20, 1 << 40))
    huge_pictures: int = _setting("DIGITS_HUGE_PICTURES", 1, _whole(1, 256))
    max_wait_ms: int = _setting("DIGITS_MAX_WAIT_MS", 500, _whole(1, 60_000))
    receive_seconds: int = _setting("DIGITS_RECEIVE_SECONDS", 60, _whole(1, 3600))
    grace_seconds: int = _setting("DIGITS_GRACE_SECONDS", 30, _whole(1, 3600))

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
            where = f"DIGITS_METRICS_BIND={settings.metrics_bind!r}"
            raise SettingError(f"{where}: its port must differ from PORT")
        return settings
