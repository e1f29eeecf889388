"""What the AWS deployment costs a month, idle and under load: `python3 terraform/cost.py` prints the table of
docs/aws.md from the prices below and the service's own measured throughput, `cost.py bulk` that of docs/bulk.md. A
test compares them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

# US dollars, us-east-1, on demand, Linux on x86: list prices, those of tasks and load balancers as public pages
# quoted them in March to May 2026 (AWS's own were not within reach when this was written). Look them up before you
# rely on them: aws.amazon.com/fargate/pricing, /elasticloadbalancing/pricing, /vpc/pricing, /cloudwatch/pricing
VCPU_HOUR, GB_HOUR = 0.04048, 0.004445
SPOT = 0.35  # of the on-demand price; "up to 70 % off", and it moves
BALANCER_HOUR, LCU_HOUR = 0.0225, 0.008
ADDRESS_HOUR = 0.005  # a public IPv4 address
LOG_GB = 0.50  # taken in; keeping it is 0.03 more
OUT_GB, OUT_FREE_GB = 0.09, 100  # to the internet, a month
HOURS = 730
GET_1000 = 0.0004  # a thousand objects read from S3, each of which is a request

# Predictions a second and vCPU to plan with, one image as JSON, metrics and logs on. docs/performance.md has
# 4,420 on two cores, which the load generator shared: 2,210 a core; times 0.6, the CPU share that scaling aims at;
# times 0.7, what a vCPU (a hyperthread) is taken to be of such a core, is 928. Planned with less, as it was
# measured at 1,190 a core before and never on Fargate. variables.tf has the same number as requests_per_vcpu; if
# `make bench` finds another, change both and docs/aws.md (tests compare them).
PER_VCPU = 500

# bytes: a request with its headers, an answer with its headers, a line of the log
REQUEST, ANSWER, LOG_LINE = 2600, 350, 330


# Pictures a second that one of bulk.py's workers, one vCPU, is planned with: what benchmarks/bulk.json has for two
# workers on two cores, halved, times 0.7 as above, and rounded down. From S3 it was never measured.
BULK_PER_VCPU = {"28x28": 350, "280x280": 140}
# until a task runs: image of 0.7 GB pulled, Python and the network loaded
BULK_START_SECONDS = 120
# of a worker, the scheduler and a run, as bulk.tf has it
BULK_CPU, BULK_MEMORY = 1, 2


@dataclass(frozen=True)
class Deployment:
    """A deployment's size, as its .tfvars gives it: cpu in vCPUs, memory in GB, spot_share from 0 to 1."""

    cpu: float
    memory: float
    min_tasks: int
    max_tasks: int
    on_demand: int
    spot_share: float


DEV = Deployment(cpu=0.25, memory=0.5, min_tasks=1, max_tasks=2, on_demand=0, spot_share=1.0)
PROD = Deployment(cpu=1, memory=2, min_tasks=2, max_tasks=20, on_demand=2, spot_share=0.8)


def tasks(deployment: Deployment, per_second: float) -> int | None:
    """Tasks that so many predictions a second need; None if that is more than max_tasks."""
    wanted = max(deployment.min_tasks, math.ceil(per_second / (PER_VCPU * deployment.cpu)))
    return wanted if wanted <= deployment.max_tasks else None


def month(deployment: Deployment, per_second: float, logged: bool = True) -> dict[str, float] | None:
    """Dollars a month by what they are for; None if the deployment can't take the load.

    logged: whether each request leaves its line in CloudWatch (log_level info).
    """
    count = tasks(deployment, per_second)
    if count is None:
        return None
    task = (deployment.cpu * VCPU_HOUR + deployment.memory * GB_HOUR) * HOURS
    above = max(0, count - deployment.on_demand)
    spot = above * deployment.spot_share
    seconds = HOURS * 3600
    # an LCU is 25 new connections a second, 3,000 open ones or 1 GB an hour, whichever is most; clients that keep
    # their connections, as a busy one should, are bound by bytes
    lcu = per_second * (REQUEST + ANSWER) * 3600 / 1e9
    out = max(0.0, per_second * ANSWER * seconds / 1e9 - OUT_FREE_GB)
    return {
        "tasks": task * (count - spot + spot * SPOT),
        "balancer": (BALANCER_HOUR + lcu * LCU_HOUR) * HOURS,
        # one for each zone of the load balancer, one for each task
        "addresses": (2 + count) * ADDRESS_HOUR * HOURS,
        "logs": per_second * LOG_LINE * seconds / 1e9 * LOG_GB if logged else 0.0,
        "data out": out * OUT_GB,
    }


def bulk(pictures: int, workers: int, per_vcpu: float, objects: int) -> dict[str, float]:
    """Minutes and dollars of a run of bulk.py on Fargate.

    per_vcpu: pictures a second and worker. objects: how many objects of S3 hold the pictures.
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
    """Print what a million pictures cost."""
    print(
        "| a million pictures | workers | minutes | tasks, $ | addresses, $ | reading from S3, $ | **$** |"
        "\n|---|---|---|---|---|---|---|"
    )
    for kind, rate in BULK_PER_VCPU.items():
        for name, objects in (("an object each", 1_000_000), ("in 1,000 tar files", 1_000)):
            for workers in (4, 32):
                found = bulk(1_000_000, workers, rate, objects)
                cells = [found["tasks"], found["addresses"], found["reading"]]
                row = " | ".join(f"{dollars:.2f}" for dollars in cells)
                print(
                    f"| {kind}, {name} | {workers} | {found['minutes']:.0f} | {row} | **{sum(cells):.2f}** |"
                )


def main() -> None:
    """Print the table."""
    if sys.argv[1:] == ["bulk"]:
        print_bulk()
        return
    print(
        "| predictions a second | deployment | tasks | tasks, $ | load balancer, $ | addresses, $ | data out, $ "
        "| request log, $ | **$ a month** |\n|---|---|---|---|---|---|---|---|---|"
    )
    for load in (0, 100, 1000):
        for name, deployment in (("dev", DEV), ("prod", PROD)):
            costs = month(deployment, load)
            if costs is None:
                print(f"| {load:,} | {name} | more than its {deployment.max_tasks} | | | | | | - |")
                continue
            cells = [costs[part] for part in ("tasks", "balancer", "addresses", "data out", "logs")]
            row = " | ".join(f"{dollars:,.0f}" for dollars in cells)
            print(f"| {load:,} | {name} | {tasks(deployment, load)} | {row} | **{sum(cells):,.0f}** |")


if __name__ == "__main__":
    main()
