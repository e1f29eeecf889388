"""What gunicorn's master does for this service, as hooks that gunicorn.conf.py names: it loads what the workers
inherit by fork (digits/serving/inherited.py) and keeps their metrics files.

The state lives in modules and not in gunicorn.conf.py, which gunicorn reads anew on SIGHUP.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from digits.model import Classifier, ModelError, NotCompiledError, load
from digits.serving import keys
from digits.serving.inherited import inherited
from digits.serving.settings import ROOT, SettingError, Settings

log = logging.getLogger("digits.master")

# as prometheus_client names them, by what digits/serving/metrics.py has; of each, several times what is used
METRICS_FILES = ("counter", "histogram", "gauge_livesum", "gauge_liveall")
METRICS_BYTES = 1 << 17

# for files, metrics, and connections that are being closed
SPARE_DESCRIPTORS = 700

# versions of models that were compiled after a SIGHUP, or could not be
compilations: set[str] = set()

_metrics_folder: str | None = None


def shared_memory() -> str | None:
    """A memory-backed folder, for files whose writer must never wait for a disk; None where there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # noqa: S108


def descriptors(wanted: int) -> int:
    """Connections that a process may hold open, at most `wanted`; raises the soft limit on descriptors for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_DESCRIPTORS
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - SPARE_DESCRIPTORS))


def slots(workers: int) -> int:
    """Workers that may live at once: while a reload goes on, old and new ones do so side by side."""
    return 2 * workers


def prepare_metrics_folder(workers: int) -> None:
    """Make the folder of the metrics files, or empty the one that PROMETHEUS_MULTIPROC_DIR names, with room for
    so many workers.

    Must come before anything imports prometheus_client, which looks at that variable. Does nothing the second
    time. Raises OSError when there is no place to write.
    """
    global _metrics_folder
    if _metrics_folder is not None:
        return
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for left in Path(folder).glob("*.db"):
            left.unlink()
    else:
        folder = tempfile.mkdtemp(prefix="digits-metrics-", dir=shared_memory())
        atexit.register(_remove, folder, os.getpid())
    for slot in ("master", *range(slots(workers))):
        _reserve(folder, slot)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _metrics_folder = folder


def _reserve(folder: str, slot: int | str) -> None:
    """Take the room for a slot's metrics files. Raises OSError when there is none.

    A mapped file without blocks behind it kills whoever writes to it on a full disk (SIGBUS).
    """
    for kind in METRICS_FILES:
        with open(Path(folder, f"{kind}_{slot}.db"), "ab") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, METRICS_BYTES)


def _remove(folder: str, master: int) -> None:
    # workers go through the same exit, and are not to take the others' folder away
    if os.getpid() == master:
        shutil.rmtree(folder, ignore_errors=True)


def on_starting(server: Any) -> None:
    """Load the model; without one there is no service, so say why and exit."""
    try:
        settings = Settings.from_env(os.environ)
        inherited.api_keys = keys.load(settings)
        inherited.classifier = Classifier(load(settings.model))
    except (ModelError, SettingError) as error:
        log.critical(str(error))
        sys.exit(1)
    # flask and the rest, once for all workers: they share the memory and start in no time
    from digits.serving.service import warn_of_misreading

    warn_of_misreading(inherited.classifier)
    gc.freeze()


def on_reload(server: Any) -> None:
    """SIGHUP: load model and API keys again; what can't be used leaves the old in place.

    An .h5 that has yet to be compiled is compiled by a process of its own, which sends the next SIGHUP: the master
    has workers to replace and signals to hear meanwhile.
    """
    from digits.serving.metrics import reload_failures
    from digits.serving.service import warn_of_misreading

    settings = Settings.from_env(os.environ)
    try:
        inherited.api_keys = keys.load(settings)
    except Exception as error:
        # whatever it is: an exception here would end the master, and the service with it
        log.error(
            "Reload failed; keeping the old API keys: %s", error, exc_info=not isinstance(error, SettingError)
        )
    try:
        inherited.classifier = Classifier(load(settings.model, compiled_only=True))
        warn_of_misreading(inherited.classifier)
        log.info("model loaded", extra={"model_version": inherited.classifier.version})
    except NotCompiledError as error:
        if error.version not in compilations:
            compilations.add(error.version)
            log.info("compiling the model; the old one serves meanwhile", extra={"path": str(settings.model)})
            subprocess.Popen([sys.executable, "-m", "digits.server.compile", str(settings.model)], cwd=ROOT)
            return
        # the next SIGHUP may try again
        compilations.discard(error.version)
        reload_failures.inc()
        log.error("Reload failed; keeping the old model: %s", error)
    except Exception as error:
        reload_failures.inc()
        log.error(
            "Reload failed; keeping the old model: %s", error, exc_info=not isinstance(error, ModelError)
        )


def pre_fork(server: Any, worker: Any) -> None:
    """Give the new worker the lowest slot for metrics files that no living worker has."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    if worker.slot >= slots(server.cfg.workers) and _metrics_folder is not None:
        # more than were to be expected (SIGTTIN); without room they run at their own risk
        with contextlib.suppress(OSError):
            _reserve(_metrics_folder, worker.slot)


def post_fork(server: Any, worker: Any) -> None:
    """In the worker: write to its own slot's files."""
    inherited.slot = worker.slot


def post_worker_init(worker: Any) -> None:
    """In the worker, with the app loaded: spare the garbage collector what lives as long as the process."""
    gc.collect()
    gc.freeze()


def child_exit(server: Any, worker: Any) -> None:
    """A worker is gone: forget its gauges; its counters stay.

    Their files are emptied (used bytes: none), not removed as mark_process_dead does: they keep their room.
    """
    if _metrics_folder is not None:
        for path in Path(_metrics_folder).glob(f"gauge_live*_{worker.slot}.db"):
            with path.open("r+b") as file:
                file.write(bytes(8))
