"""Estimates what the AWS deployment costs per month, idle and under load: `python3 terraform/cost.py` prints the
table of docs/aws.md from the prices below and the measured throughput, `cost.py bulk` that of docs/bulk.md. Tests
compare them."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

# List prices in US dollars for us-east-1, on demand, Linux on x86. Those of tasks and load balancers are as public
# pages quoted them in March to May 2026, because AWS's own pages could not be reached when this was written. Check
# them: aws.amazon.com/fargate/pricing, /elasticloadbalancing/pricing, /vpc/pricing, /cloudwatch/pricing
VCPU_HOUR, GB_HOUR = 0.04048, 0.004445
SPOT = 0.35  # share of the on-demand price; it varies, AWS says "up to 70 % off"
BALANCER_HOUR, LCU_HOUR = 0.0225, 0.008
ADDRESS_HOUR = 0.005  # a public IPv4 address
LOG_GB = 0.50  # ingestion; storage costs 0.03 more
OUT_GB, OUT_FREE_GB = 0.09, 100  # to the internet, per month
HOURS = 730
GET_1000 = 0.0004  # a thousand objects read from S3, each of which is a request

# Predictions per second and vCPU to plan with, for one image as JSON, with metrics and logs. A run of `make bench`
# had 4,420 on two cores shared with the load generator, or 2,210 per core. Times 0.6, the CPU usage that scaling
# aims at, and times 0.7, the assumed share of a core that a vCPU (a hyperthread) is worth, makes 928. The plan
# uses less, because an earlier measurement had 1,190 per core and none was made on Fargate. requests_per_vcpu in
# variables.tf is the same number (tests compare them).
PER_VCPU = 500

# bytes: a request with its headers, an answer with its headers, a line of the log
REQUEST, ANSWER, LOG_LINE = 2600, 350, 330

# Pictures per second and worker (one vCPU) to plan bulk.py with: 0.7, as above, of what a core does in
# `make bench-bulk` (benchmarks/bulk.json), rounded down.
BULK_PER_VCPU = {"28x28": 540, "280x280": 220}
# until a task runs; assumed, not measured
BULK_START_SECONDS = 120
# of a worker, the scheduler and a run, as bulk.tf has it
BULK_CPU, BULK_MEMORY = 1, 2
# more of them cost the same, because they finish earlier
BULK_WORKERS = 32


def month(environment: str, per_second: float) -> dict[str, float] | None:
    """The number of tasks for `per_second` predictions a second, and the dollars per month for each part of the
    bill; None if that takes more than the tasks that the environment's .tfvars allows."""
    text = Path(__file__).with_name(f"{environment}.tfvars").read_text()
    size = {name: int(number) for name, number in re.findall(r"^(\w+) += (\d+)$", text, re.MULTILINE)}
    cpu, memory = size["cpu"] / 1024, size["memory"] / 1024
    count = max(size["min_tasks"], math.ceil(per_second / (PER_VCPU * cpu)))
    if count > size["max_tasks"]:
        return None
    spot = max(0, count - size["on_demand_base"]) * size["spot_weight"] / 100
    seconds = HOURS * 3600
    # an LCU covers 25 new connections a second, 3,000 open ones and 1 GB an hour, and the largest of the three
    # counts: bytes, as busy clients should keep their connections open
    lcu = per_second * (REQUEST + ANSWER) * 3600 / 1e9
    out = max(0.0, per_second * ANSWER * seconds / 1e9 - OUT_FREE_GB)
    return {
        "tasks": count,
        "tasks, $": (cpu * VCPU_HOUR + memory * GB_HOUR) * HOURS * (count - spot + spot * SPOT),
        "load balancer, $": (BALANCER_HOUR + lcu * LCU_HOUR) * HOURS,
        # one for each of the load balancer's two zones and one for each task
        "addresses, $": (2 + count) * ADDRESS_HOUR * HOURS,
        "data out, $": out * OUT_GB,
        "request log, $": per_second * LOG_LINE * seconds / 1e9 * LOG_GB,
    }


def bulk(pictures: int, workers: int, per_vcpu: float, objects: int) -> dict[str, float]:
    """Minutes and dollars of a run of bulk.py on Fargate.

    per_vcpu: pictures per second and worker. objects: number of S3 objects that hold the pictures.
    """
    hours = (BULK_START_SECONDS + pictures / (workers * per_vcpu)) / 3600
    task = BULK_CPU * VCPU_HOUR + BULK_MEMORY * GB_HOUR
    return {
        "minutes": hours * 60,
        # the scheduler and the run are on demand
        "tasks": hours * task * (workers * SPOT + 2),
        "addresses": hours * ADDRESS_HOUR * (workers + 2),
        "reading": objects / 1000 * GET_1000,
    }


def print_bulk() -> None:
    """Print what a million pictures cost with BULK_WORKERS workers."""
    print(f"| a million pictures, {BULK_WORKERS} workers | minutes | reading from S3, $ | **in all, $** |")
    print("|---|---|---|---|")
    for kind, rate in BULK_PER_VCPU.items():
        for name, objects in (("an object each", 1_000_000), ("in 1,000 tar files", 1_000)):
            minutes, *costs = bulk(1_000_000, BULK_WORKERS, rate, objects).values()
            print(f"| {kind}, {name} | {minutes:.0f} | {costs[-1]:.2f} | **{sum(costs):.2f}** |")


def print_month() -> None:
    """Print what both environments cost with several loads."""
    columns = ["predictions per second", "deployment", *(month("dev", 0) or ()), "**$ per month**"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for load in (0, 100, 1000):
        for environment in ("dev", "prod"):
            if found := month(environment, load):
                count, *costs = found.values()
                row = " | ".join(f"{dollars:,.0f}" for dollars in costs)
                print(f"| {load:,} | {environment} | {count} | {row} | **{sum(costs):,.0f}** |")
            else:
                print(f"| {load:,} | {environment} | exceeds `max_tasks` | | | | | | - |")


if __name__ == "__main__":
    print_bulk() if sys.argv[1:] == ["bulk"] else print_month()
