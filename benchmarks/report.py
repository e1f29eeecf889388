"""Tables and a chart of what bench.py measured. bench.py calls `report`; `python benchmarks/report.py` prints the
tables again from benchmarks/results.json, as Markdown. docs/performance.md has most of their rows."""

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
        "| | requests/s | slowest to fastest round | p50 ms | p99 ms | p99 ms, 64 conn. "
        "| p99/p50 at half load | start s | MB (PSS) | wrong |\n|---|---|---|---|---|---|---|---|---|---|"
    )
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
            f"| {at_16[1]:.1f} | {at_16[2]:.1f} | {shown(median(name, 'json1 c64', 'p99'))} "
            f"| {shown(median(name, 'half load', 'p99/p50'))} "
            f"| {median(name, 'start'):.1f} | {median(name, 'memory'):.0f} | {wrong} |"
        )
    for name, why in missing.items():
        print(f"\n{name} was not measured completely. {why}")
    loads = {
        "json32 c4": 32,
        "json256 c4": 256,
        "raw1 c16": 1,
        "raw32 c4": 32,
        "raw256 c4": 256,
        "png1 c16": 1,
    }
    batched = [name for name in results if not math.isnan(median(name, "json256 c4", "rate"))]
    if batched:
        print(
            "\n| images/s | JSON, 32 | JSON, 256 | raw, 1 | raw, 32 | raw, 256 | PNG, 1 |"
            "\n|---|---|---|---|---|---|---|"
        )
        for name in batched:
            cells = (shown(size * median(name, load, "rate"), ",.0f") for load, size in loads.items())
            print(f"| {name} | {' | '.join(cells)} |")
        print(f"| {ENGINE} | | | | | {median(ENGINE, 'images/s'):,.0f} | |")
    if record.get("installed"):
        sizes = (
            f"{name} {size:,.0f}"
            for name, size in sorted(record["installed"].items(), key=operator.itemgetter(1))
        )
        print(f"\nInstalled size in MB, by environment: {', '.join(sizes)}.")
    print("\n| | target | measured | |\n|---|---|---|---|")
    for what, target, measured in targets(results):
        verdict = ""
        if target:
            sign, bound = target.split()
            met = {"≥": operator.ge, "≤": operator.le}[sign](measured, float(bound))
            verdict = "met" if met else "**not met**"
        print(f"| {what} | {target} | {measured:.2f} | {verdict} |")


def targets(results: dict[str, Any]) -> list[tuple[str, str, float]]:
    """What is measured, its target if there is one, and the measured value.

    A ratio is the median of the ratios of each round, because the machine's speed changes from round to round.
    """

    def values(name: str, load: str, key: str | None = "rate") -> list[float]:
        return [each[key] if key else each for each in results.get(name, {}).get(load, [])]

    def ratio(above: list[float], below: list[float]) -> float:
        return (
            statistics.median(a / b for a, b in zip(above, below, strict=False))
            if above and below
            else math.nan
        )

    def against(other: str, load: str = "json1 c16", key: str | None = "rate") -> float:
        return ratio(values(OURS, load, key), values(other, load, key))

    batches = [values(name, "json256 c4") for name in results if name not in OWN]
    best = [max(each) for each in zip(*filter(None, batches), strict=False)]
    raw = [256 * rate for rate in values(OURS, "raw256 c4")]
    one = values(OURS, "json1 c16", "p99"), values(OURS, "json1 c16", "p50")
    found = [
        (f"one image as JSON, requests/s / {FASTAPI_OBSERVED}", "≥ 1.0", against(FASTAPI_OBSERVED)),
        (f"one image as JSON, requests/s / {FASTAPI}", "≥ 0.8", against(FASTAPI)),
        (f"one image as JSON, requests/s / {FASTAPI_TF}", "≥ 2", against(FASTAPI_TF)),
        ("one image as JSON, requests/s / before", "≥ 0.85", against(BEFORE)),
        ("PNG, requests/s / before", "≥ 1.6", against(BEFORE, "png1 c16")),
        ("JSON batch of 256, images/s / the best peer", "≥ 2", ratio(values(OURS, "json256 c4"), best)),
        ("p99 / p50 at 16 connections", "≤ 3", ratio(*one)),
        (f"p99 at 16 connections / {FASTAPI}", "≤ 1.5", against(FASTAPI, key="p99")),
        (f"p99 at 64 connections / {FASTAPI}", "≤ 1.5", against(FASTAPI, "json1 c64", "p99")),
        ("start to first answer, s", "≤ 1.0", statistics.median(values(OURS, "start", None) or [math.nan])),
        (f"start / {FASTAPI_TF}", "≤ 0.25", against(FASTAPI_TF, "start", None)),
        (f"memory / {FASTAPI_TF}", "≤ 0.15", against(FASTAPI_TF, "memory", None)),
        ("raw batch of 256, images/s / the engine alone", "", ratio(raw, values(ENGINE, "images/s", None))),
        (f"PNG, requests/s / {FASTAPI}, which only decodes it", "", against(FASTAPI, "png1 c16")),
        ("cost of request logs, of throughput", "", 1 - against(NO_LOGS)),
        ("cost of metrics, of throughput", "", 1 - against(NO_METRICS)),
        ("cost of both, of throughput", "", 1 - against(NEITHER)),
    ]
    return [each for each in found if not math.isnan(each[2])]


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
