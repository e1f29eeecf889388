"""Tables and a chart of what bench.py measured. bench.py calls `report`; `python benchmarks/report.py` prints the
tables again from benchmarks/results.json, as Markdown for docs/performance.md."""

from __future__ import annotations

import json
import math
import operator
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PICTURE = ROOT / "benchmarks" / "results.json", ROOT / "docs" / "images" / "bench.svg"

OURS, CEILING = "this service", "constant answer (ceiling)"
NO_LOGS, NO_METRICS, NEITHER = (
    f"{OURS}, no {what}" for what in ("request logs", "metrics", "logs, no metrics")
)
FASTAPI, FASTAPI_TF, KERAS = "FastAPI + LiteRT", "FastAPI + tf.function", "Flask + Keras predict"
FASTAPI_OBSERVED = f"{FASTAPI}, with metrics and logs"
BEFORE = f"{OURS}, before"
ENGINE = "the engine alone, two processes"
PARTS = (NO_LOGS, NO_METRICS, NEITHER)
# rows that are not another server: variants of this service, and the engine
OWN = (OURS, CEILING, ENGINE, BEFORE, *PARTS)

# for each row, the file benchmarks/peers/X.txt and the packages whose versions are shown
VERSIONS = {
    FASTAPI: ("fastapi", "fastapi uvicorn"),
    FASTAPI_OBSERVED: ("fastapi", "fastapi uvicorn"),
    FASTAPI_TF: ("tensorflow", "fastapi uvicorn tensorflow"),
    "BentoML": ("bentoml", "bentoml"),
    "LitServe": ("litserve", "litserve"),
    "MLServer": ("mlserver", "mlserver"),
    "MLflow": ("mlflow", "mlflow"),
    KERAS: ("tensorflow", "flask keras"),
}

Median = Callable[..., float]


def medians(results: dict[str, Any]) -> Median:
    """Return a function that gives a server's median for a workload, of `key` if a round has several values;
    nan if there are none."""

    def median(name: str, workload: str, key: str | None = None) -> float:
        values = results.get(name, {}).get(workload, [])
        return statistics.median(v[key] if key else v for v in values) if values else math.nan

    return median


def report(record: dict[str, Any]) -> None:
    """Print the tables, each in Markdown."""
    results, missing = record["results"], record["missing"]
    median = medians(results)
    print(
        f"{record['date']}, {record['cores']} cores ({record['machine']}), Python {record['python']}, "
        f"gunicorn {record['gunicorn']}, {record['images']}, "
        f"medians of {record['rounds']} rounds of {record['seconds']} s\n"
    )
    print(
        "| | requests/s | of the rounds | p50 ms | p99 ms | p99 ms, 64 conn. "
        "| p99/p50 at half load | start s | MB (PSS) | wrong |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in results:
        if name == ENGINE:
            continue
        at_16 = [median(name, "json1 c16", key) for key in ("rate", "p50", "p99")]
        rates = [r["rate"] for r in results[name].get("json1 c16", [])] or [math.nan]
        wrong = sum(
            len(r["wrong"]) + r["failed"]
            for many in results[name].values()
            for r in many
            if isinstance(r, dict) and "wrong" in r
        )
        print(
            f"| {name}{versions(name)} | {at_16[0]:,.0f} | {min(rates):,.0f} to {max(rates):,.0f} "
            f"| {at_16[1]:.1f} | {at_16[2]:.1f} "
            f"| {shown(median(name, 'json1 c64', 'p99'))} | {shown(median(name, 'half load', 'p99/p50'))} "
            f"| {median(name, 'start'):.1f} | {median(name, 'memory'):.0f} | {wrong} |"
        )
    for name, why in missing.items():
        print(f"\n{name} was not measured completely: {why}")
    loads = [
        ("json32 c4", 32),
        ("json256 c4", 256),
        ("raw1 c16", 1),
        ("raw32 c4", 32),
        ("raw256 c4", 256),
        ("png1 c16", 1),
    ]
    batched = [name for name in results if not math.isnan(median(name, "json256 c4", "rate"))]
    if batched:
        print(
            "\n| images/s | JSON, 32 | JSON, 256 | raw, 1 | raw, 32 | raw, 256 | PNG, 1 |"
            "\n|---|---|---|---|---|---|---|"
        )
        for name in batched:
            cells = (shown(size * median(name, load, "rate"), ",.0f") for load, size in loads)
            print(f"| {name} | {' | '.join(cells)} |")
        print(f"| {ENGINE} | | | | | {median(ENGINE, 'images/s'):,.0f} | |")
    if record.get("installed"):
        sizes = (
            f"{name} {size:,.0f}"
            for name, size in sorted(record["installed"].items(), key=operator.itemgetter(1))
        )
        print(f"\nInstalled size in MB, by environment: {', '.join(sizes)}.")
    print("\n| | target | measured | |\n|---|---|---|---|")
    for what, target, measured in targets(median, results):
        sign, bound = target.split()
        met = {"≥": operator.ge, "≤": operator.le}[sign](measured, float(bound))
        print(f"| {what} | {target} | {shown(measured, '.2f')} | {'met' if met else '**not met**'} |")


def targets(median: Median, results: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Each target: what is measured, the bound, and the measured value."""

    def rate(name: str, load: str = "json1 c16") -> float:
        return median(name, load, "rate")

    peers = [name for name in results if name not in OWN]
    batches = [x for name in peers if not math.isnan(x := rate(name, "json256 c4"))]
    return [
        *(
            (f"one image as JSON, requests/s / {name}", f"≥ {bound}", rate(OURS) / rate(name))
            for name, bound in (
                (FASTAPI_OBSERVED, 1.0),
                (FASTAPI, 0.8),
                (FASTAPI_TF, 2),
                ("BentoML", 10),
                (KERAS, 100),
                (CEILING, 0.6),
            )
        ),
        (
            "raw batch of 256, images/s / the engine alone",
            "≥ 0.85",
            256 * rate(OURS, "raw256 c4") / median(ENGINE, "images/s"),
        ),
        (
            "JSON batch of 256, images/s / the best peer",
            "≥ 2",
            rate(OURS, "json256 c4") / max(batches, default=math.nan),
        ),
        (
            "p99 / p50 at 16 connections",
            "≤ 3",
            median(OURS, "json1 c16", "p99") / median(OURS, "json1 c16", "p50"),
        ),
        *(
            (f"{what}, requests/s / before", f"≥ {bound}", rate(OURS, load) / rate(BEFORE, load))
            for what, bound, load in (("one image as JSON", 0.85, "json1 c16"), ("PNG", 1.6, "png1 c16"))
            if BEFORE in results
        ),
        ("p99 / p50 at half load", "≤ 4", median(OURS, "half load", "p99/p50")),
        *(
            (
                f"p99 at {c} connections / {FASTAPI}",
                "≤ 1.5",
                median(OURS, f"json1 c{c}", "p99") / median(FASTAPI, f"json1 c{c}", "p99"),
            )
            for c in (16, 64)
        ),
        ("start to first answer, s", "≤ 1.0", median(OURS, "start")),
        (f"start / {FASTAPI_TF}", "≤ 0.25", median(OURS, "start") / median(FASTAPI_TF, "start")),
        (f"memory / {FASTAPI_TF}", "≤ 0.15", median(OURS, "memory") / median(FASTAPI_TF, "memory")),
        ("cost of request logs, of throughput (no target)", "≤ 1", 1 - rate(OURS) / rate(NO_LOGS)),
        ("cost of metrics, of throughput (no target)", "≤ 1", 1 - rate(OURS) / rate(NO_METRICS)),
        ("cost of both, of throughput", "≤ 0.15", 1 - rate(OURS) / rate(NEITHER)),
    ]


def shown(value: float, form: str = ".1f") -> str:
    return "-" if math.isnan(value) else format(value, form)


def versions(name: str) -> str:
    """The versions of a peer's main packages, from its pins."""
    if name not in VERSIONS:
        return ""
    file, packages = VERSIONS[name]
    pins = (ROOT / "benchmarks" / "peers" / f"{file}.txt").read_text()
    found = (re.search(rf"^{package}==(\S+)", pins, re.MULTILINE) for package in packages.split())
    return f" ({', '.join(match[1] for match in found if match)})"


def draw(results: dict[str, Any]) -> None:
    """Draw docs/images/bench.svg, a bar chart of each server's requests/s for one image as JSON."""
    median = medians(results)
    rates = {name: median(name, "json1 c16", "rate") for name in results if name not in (ENGINE, *PARTS)}
    rows, widest = sorted(rates.items(), key=lambda item: -item[1]), max(rates.values())
    bars = []
    for i, (name, rate) in enumerate(rows):
        y = 30 + 26 * i
        colour = {OURS: "#2a7", CEILING: "#bbb"}.get(name, "#68a")
        width = 380 * rate / widest
        bars.append(f'<text x="190" y="{y + 14}" text-anchor="end">{name}</text>')
        bars.append(f'<rect x="200" y="{y}" width="{width:.1f}" height="20" fill="{colour}"/>')
        bars.append(f'<text x="{206 + width:.1f}" y="{y + 14}">{rate:,.0f}</text>')
    height = 40 + 26 * len(rows)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="660" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="660" height="{height}" fill="white"/>'
        f'<text x="10" y="18">one image as JSON, requests/s, 16 connections</text>{"".join(bars)}</svg>\n'
    )


if __name__ == "__main__":
    report(json.loads(RESULTS.read_text()))
