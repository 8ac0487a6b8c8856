"""Compare what the simulation behind `seenit sizing` predicts with what the service does, in two configurations.

    python -m tests.benchmarks.bench_sizing [--images 1000] [--rounds 3]

The same uploads go through the service as it is, and with one batch in flight at a time, in turn. Of each part the
processor time an upload is measured in the same run (as it is), and the simulation is given these costs alone, and
the share of the cores that other programs used meanwhile. Exits with 1 when a prediction is off by more than 15%, or
when other programs used so much that the comparison says nothing.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from consumer.local.binaries import find_binaries
from consumer.local.process import Server
from consumer.local.servers import TritonServer, tansu, valkey
from consumer.sizing.costs import Costs, load_costs
from consumer.sizing.simulation import Setup, simulate
from tests.benchmarks.bench_service import BATCH, CORES, cpu, pictures, service_rate
from tests.service_fixtures import new_service
from tests.stack_fixtures import serving

TOLERANCE = 0.15
MOST_BY_OTHERS = 0.25
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CONFIGURATIONS: dict[str, Mapping[str, int]] = {"as it is": {}, "one batch in flight": {"batches_in_flight": 1}}
PARTS = ("consumer", "triton", "redis", "beside")


@dataclass(frozen=True)
class Run:
    """One run of the service: uploads a second, processor time an upload in us, and the others' share of the cores."""

    rate: float
    cpu_us: dict[str, float]
    by_others: float


def family_s(pid: int) -> float:
    """Return the processor seconds so far of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S + sum(family_s(int(child)) for child in children)


def busy_s() -> float:
    """Return the processor seconds so far of all programs on the machine."""
    user, nice, system, _, _, irq, softirq, steal, *_ = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / TICKS_PER_S


class Bench:
    """The servers, and the measurement of one run of a service on them."""

    def __init__(self, stack: ExitStack) -> None:
        binaries = find_binaries()
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._broker = stack.enter_context(serving(tansu(binaries, self._folder)))
        self._redis = stack.enter_context(serving(valkey(binaries, self._folder)))
        self._triton = stack.enter_context(serving(TritonServer(binaries, self._folder)))

    def run(self, images: list[bytes], settings: Mapping[str, int]) -> Run:
        """Send the pictures through a new service with an empty window, and measure."""
        broker, redis, triton = (f"127.0.0.1:{each.ports[0]}" for each in (self._broker, self._redis, self._triton))
        more = {f"SEENIT_PIPELINE_{name.upper()}": str(value) for name, value in settings.items()}
        with new_service(broker, f"redis://{redis}/0", triton, self._folder, **more) as service:
            consumer = service.consumer()
            service_rate(service, consumer, images[:BATCH])
            before, busy_before_s = self._seconds(consumer), busy_s()
            load = service_rate(service, consumer, images[BATCH:])
            after, busy_after_s = self._seconds(consumer), busy_s()
            consumer.stop()
        count = len(images) - BATCH
        seconds = {part: after[part] - before[part] for part in PARTS}
        others_s = busy_after_s - busy_before_s - sum(seconds.values())
        parts_us = {part: spent_s * 1e6 / count for part, spent_s in seconds.items()}
        return Run(load.rate, load.cpu_us | parts_us, max(0.0, others_s) / (count / load.rate * CORES))

    def _seconds(self, consumer: Server) -> dict[str, float]:
        return {
            "consumer": cpu(consumer)["whole process"],
            "triton": family_s(self._triton.pid),
            "redis": family_s(self._redis.pid),
            "beside": family_s(self._broker.pid) + time.process_time(),
        }


def calibrated(runs: list[Run], picture_bytes: float) -> tuple[Costs, float]:
    """Return the costs that were measured in these runs, and what an upload costs beside the service, in us."""
    us = {part: statistics.median(run.cpu_us[part] for run in runs) for part in runs[0].cpu_us}
    shipped = load_costs()
    steps = {step: us.get(step, 0.0) for step in ("poll", "look_up", "decode", "encode", "match", "publish")}
    costs = shipped._replace(
        **{f"{step}_us": value for step, value in steps.items()},
        decode_us_per_kb=0.0,
        clients_us_per_kb=(us["consumer"] - sum(steps.values()))
        / ((picture_bytes + shipped.views * shipped.view_bytes) / 1e3),
        append_us=us["redis"],
        picture_us=us["triton"] / shipped.views,
    )
    return costs, us["beside"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = pictures(arguments.images)
    runs: dict[str, list[Run]] = {name: [] for name in CONFIGURATIONS}
    with ExitStack() as stack:
        bench = Bench(stack)
        for _ in range(arguments.rounds):
            for name, settings in CONFIGURATIONS.items():
                runs[name].append(bench.run(images, settings))
    picture_bytes = statistics.mean(map(len, images))
    costs, beside_us = calibrated(runs["as it is"], picture_bytes)
    setup = Setup(1, CORES, 2, 1, picture_bytes, shared_cores=True, beside_us=beside_us)
    print("| | uploads/s, median | each round | predicted | predicted over measured | used by others |")
    print("|---|---|---|---|---|---|")
    right = True
    for name, settings in CONFIGURATIONS.items():
        rates = [run.rate for run in runs[name]]
        by_others = statistics.median(run.by_others for run in runs[name])
        arrivals_s = [np.zeros(arguments.images - BATCH)]
        predicted = simulate(replace(setup, speed=1 - by_others, **settings), costs, arrivals_s).rate
        ratio = predicted / statistics.median(rates)
        right &= abs(ratio - 1) <= TOLERANCE and by_others <= MOST_BY_OTHERS
        each = ", ".join(f"{rate:.0f}" for rate in rates)
        print(f"| {name} | {statistics.median(rates):.0f} | {each} | {predicted:.0f} | {ratio:.2f} | {by_others:.2f} |")
    print("\n| processor time an upload, us | median, as it is |\n|---|---|")
    for part in runs["as it is"][0].cpu_us:
        print(f"| {part} | {statistics.median(run.cpu_us[part] for run in runs['as it is']):.0f} |")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
