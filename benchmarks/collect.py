"""Compares the throughput with and without collecting answers (DIGITS_COLLECT): services with two workers each,
which get the same requests in turns. docs/loop.md has the figures.

    python benchmarks/collect.py [--seconds 0.7] [--rounds 30]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import psutil  # noqa: E402

from load import Load  # noqa: E402
from service import Server, samples, until  # noqa: E402

# the share of the answers that each service keeps; None keeps none
SHARES = (None, 0.01, 0.1, 1.0)
CONNECTIONS = 16
COUNTERS = ("digits_collected_total", "digits_collect_dropped_total")


def start(share: float | None, folder: Path) -> Server:
    """Start a service."""
    # nothing is refused, however busy the machine is
    env = os.environ | {"PORT": "0", "WEB_CONCURRENCY": "2", "DIGITS_MAX_WAIT_MS": "60000"}
    if share is not None:
        env |= {"DIGITS_COLLECT": str(folder / str(share)), "DIGITS_COLLECT_SHARE": str(share)}
    output = folder / f"{share}.log"
    command = [sys.executable, "-m", "gunicorn", "app:app"]
    with output.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out)
    found = until(lambda: re.search(r"Listening at: (http://127.0.0.1:\d+)", output.read_text()))
    return Server(found[1], process, output)


def measure(server: Server, seconds: float) -> tuple[float, float]:
    """Send single images as JSON. Returns the answers a second, all of which must be 200, and the service's CPU
    time for one in seconds, with that of the processes that have the store."""
    before = cpu_seconds(server.process.pid)
    fates = Load(server.port, CONNECTIONS, seconds).run()
    assert set(fates["status"].tolist()) == {200}, set(fates["status"].tolist())
    return len(fates) / seconds, (cpu_seconds(server.process.pid) - before) / len(fates)


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process and its descendants."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def main() -> None:
    """Print the figures for each share, and the medians of the ratios to those without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        services = {share: start(share, Path(name)) for share in SHARES}
        try:
            figures: dict[float | None, list[tuple[float, float]]] = {share: [] for share in SHARES}
            for share in SHARES:
                # to warm up
                measure(services[share], 1)
            # short turns in random order: a service that follows itself is faster, and so is one that always
            # follows the same other
            order, rng = list(SHARES), random.Random(1)
            for _ in range(args.rounds):
                rng.shuffle(order)
                for share in order:
                    figures[share].append(measure(services[share], args.seconds))
            print("| share kept | requests/s | ratio | CPU µs a request | ratio | kept | dropped |")
            print("|---|---|---|---|---|---|---|")
            for share, server in services.items():
                columns = []
                for column in range(2):
                    own, without = ([each[column] for each in figures[key]] for key in (share, None))
                    ratio = statistics.median(one / other for one, other in zip(own, without, strict=True))
                    value = statistics.median(own) * (1e6 if column else 1)
                    columns += [f"{value:.0f}", f"{ratio:.3f}"]
                counts = samples(server.ask("/metrics").body.decode()).items()
                kept, dropped = (sum(n for name, n in counts if name.startswith(each)) for each in COUNTERS)
                shown = "none" if share is None else f"{share:.0%}"
                print(f"| {shown} | {' | '.join(columns)} | {kept:.0f} | {dropped:.0f} |")
        finally:
            for server in services.values():
                server.stop()


if __name__ == "__main__":
    main()
