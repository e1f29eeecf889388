"""The hooks of gunicorn's master. They load what the workers inherit when they are forked, and create their
metrics files. State is in modules and not in gunicorn.conf.py, because gunicorn reads that file again on
SIGHUP."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import logging
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digits import compiling, model, registry
from digits.detector import Detector
from digits.model import Classifier, ModelError, NotCompiledError
from digits.version import VERSION
from digits.web import inherited, keys
from digits.web.settings import ROOT, SettingError, Settings, unknown

log = logging.getLogger("digits.master")

# the only worker class that keeps the limits
WORKER_CLASS = "digits.worker.gevent_worker.Worker"

# the files that prometheus_client creates for the metrics in digits/web/metrics.py, and a size for each that
# is several times what they need
METRICS_FILES = ("counter", "histogram", "gauge_livesum", "gauge_liveall")
METRICS_BYTES = 1 << 17
# the beginning of the folder's name, and the age in seconds from which it has a lock if its service runs
PREFIX, NEW_SECONDS = "digits-metrics-", 5.0

# seconds between the end of the grace time and that of the worker
CUT_OFF_SECONDS = 3

# file descriptors for files, metrics, and connections that are being closed
SPARE_DESCRIPTORS = 700

# hashes of models for which a compilation was started after SIGHUP
compilations: set[str] = set()

# whether prepare_metrics_folder has been called
_prepared = False


def shared_memory() -> str | None:
    """A folder in memory, for files whose writer must not wait for a disk; None if there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # noqa: S108


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs allowed by affinity and by the cgroup's quota (v2 cpu.max, v1 cpu.cfs_*), at least 1.

    A quota is rounded up, because two workers use 1.5 CPUs better than one does.
    """
    # sched_getaffinity is missing on macOS
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            limit, period = (int(n) for name in names for n in (cgroup / name).read_text().split())
            # "max" in v2 is not a number, and -1 in v1 means no limit either
            if limit > 0:
                cpus = min(cpus, math.ceil(limit / period))
    return cpus


def max_connections(limit: int) -> int:
    """Connections that a process can keep open, at most `limit`. Raises the soft limit on descriptors if
    needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limit + SPARE_DESCRIPTORS
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return limit if soft == resource.RLIM_INFINITY else max(1, min(limit, soft - SPARE_DESCRIPTORS))


def prepare_metrics_folder(workers: int) -> None:
    """Create the folder for the metrics files, or empty the one that PROMETHEUS_MULTIPROC_DIR names, and reserve
    space for `workers` workers.

    Must be called before digits.web.metrics is imported, because that reads the variable. Further calls do
    nothing. Raises OSError if the folder can't be written.
    """
    global _prepared
    if _prepared:
        return
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for left in Path(folder).glob("*.db"):
            left.unlink()
    else:
        _remove_leftovers(Path(shared_memory() or tempfile.gettempdir()))
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=shared_memory())
        # released when the last process of the service has ended
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
        atexit.register(_remove, folder, os.getpid())
    # during a reload, old and new workers overlap
    for slot in ("master", *range(2 * workers)):
        _reserve(folder, slot)
    os.environ["PROMETHEUS_MULTIPROC_DIR"], _prepared = folder, True


def _reserve(folder: str, slot: int | str) -> None:
    """Reserve space for a slot's metrics files. Raises OSError if there is not enough.

    On a full disk, writing to a mapped file whose blocks are not allocated would kill the process (SIGBUS).
    """
    for kind in METRICS_FILES:
        with open(Path(folder, f"{kind}_{slot}.db"), "ab") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, METRICS_BYTES)


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of services that were killed. A new one may not have its lock yet."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - folder.stat().st_mtime > NEW_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)


def _remove(folder: str, master: int) -> None:
    # workers run the same exit handlers, but must not remove the folder
    if os.getpid() == master:
        shutil.rmtree(folder, ignore_errors=True)


def load_keys(settings: Settings) -> None:
    inherited.api_keys = keys.load(settings)


def load_detector(settings: Settings) -> None:
    inherited.detector = Detector(model.load(settings.detector))
    log.info("detector loaded", extra={"detector_version": inherited.detector.version})


def load_classifier(settings: Settings, load_file: Callable[[Path], model.Model] = model.load) -> None:
    """Load the classifier, and log which it is and where it came from."""
    # imports Flask and the rest once, so that workers share the memory and start quickly
    from digits.web.service import warn_of_misreading

    classifier = inherited.classifier = Classifier(registry.load(settings.model, load_file))
    facts = {
        "version": VERSION,
        "model": str(settings.model),
        "model_version": classifier.version,
        "sure_threshold": classifier.sure_threshold if settings.sure is None else settings.sure,
        # a model of one's own has no card
        "trained_on": classifier.card.get("trained_on", "unknown"),
    }
    log.info("model loaded", extra=facts)
    warn_of_misreading(classifier)


def check(cfg: Any, settings: Settings) -> None:
    """Raise SettingError if gunicorn's configuration would break a promise of this service."""
    metrics = settings.metrics_bind.rpartition(":")[2]
    if cfg.worker_class_str != WORKER_CLASS:
        raise SettingError(f"only --worker-class {WORKER_CLASS} keeps the service's limits")
    if "h2" in cfg.http_protocols or cfg.protocol != "http":
        raise SettingError("this service only supports HTTP/1.1")
    if cfg.preload_app:
        # workers would keep the first model and the first API keys, whatever SIGHUP loads
        raise SettingError("--preload is not supported, and not needed: workers share the master's model")
    if metrics and not any(str(bind).rpartition(":")[2] == metrics for bind in cfg.bind):
        others = "pass that address as another --bind, or set HOST and PORT instead"
        raise SettingError(f"--bind replaces the address of DIGITS_METRICS_BIND: {others}")


def on_starting(server: Any) -> None:
    """Load the models and the API keys. If that fails, or if `check` does, log why and exit."""
    try:
        settings = Settings.from_env(os.environ)
        check(server.cfg, settings)
        load_keys(settings)
        load_detector(settings)
        load_classifier(settings, compiling.load)
        for name, known in unknown(os.environ).items():
            log.warning("unknown setting %s%s", name, f": did you mean {known}?" if known else "")
    except (ModelError, SettingError) as error:
        log.critical(str(error))
        sys.exit(1)
    gc.freeze()


def on_reload(server: Any) -> None:
    """On SIGHUP, load the models and the API keys again; keep the old ones if that fails.

    An .h5 that is not compiled yet is compiled in a separate process, which then sends another SIGHUP. Meanwhile
    the master can still replace workers and receive signals.
    """
    from digits.web.metrics import reload_failures

    settings = Settings.from_env(os.environ)
    for name, load in (("API keys", load_keys), ("detector", load_detector), ("model", load_classifier)):
        try:
            load(settings)
        except Exception as error:
            # any exception: if it got out of here, it would end the master and with it the service
            if name == "model" and isinstance(error, NotCompiledError) and error.sha256 not in compilations:
                compilations.add(error.sha256)
                path = str(settings.model)
                log.info("compiling the model; the old one serves meanwhile", extra={"path": path})
                subprocess.Popen([sys.executable, "-m", "digits.compiling", path], cwd=ROOT)
                continue
            # the next SIGHUP may try again
            compilations.discard(getattr(error, "sha256", ""))
            reload_failures.inc(name != "API keys")
            expected = isinstance(error, ModelError | SettingError)
            log.error("Reload failed; keeping the old %s: %s", name, error, exc_info=not expected)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the new worker the lowest slot for metrics files that no running worker has."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    # if there are more workers than expected (SIGTTIN), they run even if no space can be reserved
    with contextlib.suppress(OSError):
        _reserve(os.environ["PROMETHEUS_MULTIPROC_DIR"], worker.slot)


def child_exit(server: Any, worker: Any) -> None:
    """After a worker has exited, clear its gauges but keep its counters.

    The files are marked as empty. mark_process_dead would remove them, and their reserved space would be lost.
    """
    for path in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{worker.slot}.db"):
        with path.open("r+b") as file:
            file.write(bytes(8))
