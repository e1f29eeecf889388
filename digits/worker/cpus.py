"""The number of CPUs that this process may use, which in a container is often lower than the machine's."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs allowed by affinity and by the cgroup's quota (v2 cpu.max, v1 cpu.cfs_*), at least 1.

    A quota is rounded up, because two workers use 1.5 CPUs better than one does.
    """
    # sched_getaffinity is missing on macOS
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(cpus, math.ceil(quota))) if quota else cpus


def _quota(cgroup: Path) -> float | None:
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            limit, period = " ".join((cgroup / name).read_text() for name in names).split()
            # "max" in v2 is not a number, and -1 in v1 means no limit either
            if int(limit) > 0:
                return int(limit) / int(period)
    return None
