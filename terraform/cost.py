"""Estimates what the AWS deployment costs per month, idle and under load: `python3 terraform/cost.py` prints the
table of docs/aws.md from the prices below and the measured throughput, `cost.py bulk` that of docs/bulk.md. Tests
compare them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Deployment:
    """A deployment's size, from its .tfvars: cpu in vCPUs, memory in GB, spot_share from 0 to 1."""

    cpu: float
    memory: float
    min_tasks: int
    max_tasks: int
    on_demand: int
    spot_share: float


DEV = Deployment(cpu=0.25, memory=0.5, min_tasks=1, max_tasks=2, on_demand=0, spot_share=1.0)
PROD = Deployment(cpu=1, memory=2, min_tasks=2, max_tasks=20, on_demand=2, spot_share=0.8)


def tasks(deployment: Deployment, per_second: float) -> int | None:
    """Tasks needed for `per_second` predictions a second; None if that is more than max_tasks."""
    count = max(deployment.min_tasks, math.ceil(per_second / (PER_VCPU * deployment.cpu)))
    return count if count <= deployment.max_tasks else None


def month(deployment: Deployment, per_second: float, logged: bool = True) -> dict[str, float] | None:
    """Dollars per month for each part of the bill; None if the deployment can't take the load.

    logged: whether CloudWatch gets a line for each request (log_level info).
    """
    count = tasks(deployment, per_second)
    if count is None:
        return None
    task = (deployment.cpu * VCPU_HOUR + deployment.memory * GB_HOUR) * HOURS
    above = max(0, count - deployment.on_demand)
    spot = above * deployment.spot_share
    seconds = HOURS * 3600
    # an LCU covers 25 new connections a second, 3,000 open ones and 1 GB an hour, and the largest of the three
    # counts: bytes, as busy clients should keep their connections open
    lcu = per_second * (REQUEST + ANSWER) * 3600 / 1e9
    out = max(0.0, per_second * ANSWER * seconds / 1e9 - OUT_FREE_GB)
    return {
        "tasks": task * (count - spot + spot * SPOT),
        "balancer": (BALANCER_HOUR + lcu * LCU_HOUR) * HOURS,
        # one for each of the load balancer's two zones and one for each task
        "addresses": (2 + count) * ADDRESS_HOUR * HOURS,
        "logs": per_second * LOG_LINE * seconds / 1e9 * LOG_GB if logged else 0.0,
        "data out": out * OUT_GB,
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
            found = bulk(1_000_000, BULK_WORKERS, rate, objects)
            total = found["tasks"] + found["addresses"] + found["reading"]
            print(f"| {kind}, {name} | {found['minutes']:.0f} | {found['reading']:.2f} | **{total:.2f}** |")


def main() -> None:
    """Print the table."""
    if sys.argv[1:] == ["bulk"]:
        print_bulk()
        return
    print(
        "| predictions per second | deployment | tasks | tasks, $ | load balancer, $ | addresses, $ | data out, $ "
        "| request log, $ | **$ per month** |\n|---|---|---|---|---|---|---|---|---|"
    )
    for load in (0, 100, 1000):
        for name, deployment in (("dev", DEV), ("prod", PROD)):
            costs = month(deployment, load)
            if costs is None:
                print(f"| {load:,} | {name} | exceeds its {deployment.max_tasks} tasks | | | | | | - |")
                continue
            cells = [costs[part] for part in ("tasks", "balancer", "addresses", "data out", "logs")]
            row = " | ".join(f"{dollars:,.0f}" for dollars in cells)
            print(f"| {load:,} | {name} | {tasks(deployment, load)} | {row} | **{sum(cells):,.0f}** |")


if __name__ == "__main__":
    main()
