"""What a load needs, by arithmetic, and which part of it will be too small first.

Each part is planned for 70% of what it can do, so that it catches up after a pause. `simulation.py` tries the plan.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from consumer.settings import PipelineSettings
from consumer.sizing.costs import Costs
from consumer.sizing.demand import WAITING, Demand, Workload

PLANNED_LOAD = 0.7
# However much of a process goes into following what the others append, so much is planned for its own uploads.
LEAST_OWN_SHARE = 0.1
INSTANCES = (
    2  # of a Triton server, as the model's configuration says: on processors each has a core, or they share a GPU
)
LEAST_RATE, MOST_RATE = 1e-3, 1e12  # what any part carries is between these


@dataclass(frozen=True, slots=True)
class Limits:
    """What the largest machine has: bytes of memory, and bytes a second that its network takes in each direction."""

    memory_bytes: float = 64e9
    network_bytes_per_s: float = 10e9 / 8


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of each there are. `consumer_cores` are those of all processes together."""

    processes: int
    consumer_cores: float
    triton_servers: int
    redis_servers: int

    def encoder_instances(self, gpu: str | None) -> int:
        """The instances that work at once: a GPU does one batch after the other."""
        return self.triton_servers * (1 if gpu else INSTANCES)


@dataclass(frozen=True, slots=True)
class Part:
    """Something that may be too small: how much of it is used (1 is all), and up to which rate it goes."""

    name: str
    load: float
    carries: float
    remedy: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a workload needs. Bytes a second are those of all processes together."""

    workload: Workload
    counts: Counts
    process_bytes: float
    redis_bytes: float
    pictures_bytes_per_s: float
    encoder_bytes_per_s: float
    redis_bytes_per_s: float
    parts: tuple[Part, ...]

    @property
    def bottleneck(self) -> Part:
        """The part that is too small first, when the rate grows."""
        return min(self.parts, key=lambda part: part.carries)

    @property
    def suffices(self) -> bool:
        """Whether every part takes the load."""
        return all(part.load <= 1 for part in self.parts)


def make_plan(workload: Workload, costs: Costs, limits: Limits, counts: Counts | None = None) -> Plan:
    """Plan a workload: as many of each part as it needs, or as many as there are."""
    counts = counts or _count(workload, costs, limits)
    demand = Demand(workload, costs, counts.processes)
    return Plan(
        workload=workload,
        counts=counts,
        process_bytes=demand.process_bytes,
        redis_bytes=demand.redis_bytes,
        pictures_bytes_per_s=workload.rate * workload.picture_bytes,
        encoder_bytes_per_s=demand.encoder_bytes_per_s,
        redis_bytes_per_s=demand.redis_bytes_per_s,
        parts=tuple(_parts(workload, costs, limits, counts)),
    )


def divide(workload: Workload, costs: Costs, limits: Limits) -> tuple[int, Plan]:
    """Divide the tenants into as few groups as it takes for each to get what it needs, and plan one of them.

    A group has a topic, a Deployment and a Redis of its own. One group, where no number of them would do.
    """

    def group(count: int) -> Workload:
        return replace(workload, rate=workload.rate / count, tenants=math.ceil(workload.tenants / count))

    def groups_with(most: float) -> int | None:
        """The least number with which no part is used for more; None where all together would not do."""

        def suffices(count: int) -> bool:
            part = group(count)
            return max(_loads(part, costs, limits, _count(part, costs, limits)).values()) <= most + 1e-9

        return next(filter(suffices, range(1, workload.tenants + 1)), None) if suffices(workload.tenants) else None

    groups = groups_with(PLANNED_LOAD) or groups_with(1) or 1
    return groups, make_plan(group(groups), costs, limits)


def _count(workload: Workload, costs: Costs, limits: Limits) -> Counts:
    """Count what is needed: no part that can be multiplied is used for more than PLANNED_LOAD."""
    alone = Demand(workload, costs, 1)
    link = PLANNED_LOAD * limits.network_bytes_per_s

    def processes(own: float, of_others: float, capacity: float) -> int:
        """Enough for `own`, which they share, beside `of_others`, which each of them has."""
        return math.ceil(own / (capacity - min(of_others, (1 - LEAST_OWN_SHARE) * capacity)))

    copying_us, read_bytes_per_s = costs.copy_row_us, workload.rate * costs.read_row_bytes
    following_us = copying_us + costs.read_row_us
    in_flight_us = following_us * WAITING / PipelineSettings().batches_in_flight
    count = max(
        processes(alone.python, workload.rate * copying_us / 1e6, PLANNED_LOAD),
        processes(alone.matching, workload.rate * following_us / 1e6, PLANNED_LOAD),
        processes(alone.in_flight, workload.rate * in_flight_us / 1e6, PLANNED_LOAD),
        processes(alone.process_bytes_per_s - read_bytes_per_s, read_bytes_per_s, link),
    )
    demand = Demand(workload, costs, count)
    servers = 1 if workload.gpu else INSTANCES
    redis_servers = max(
        demand.redis_cores / PLANNED_LOAD,
        demand.redis_bytes / (PLANNED_LOAD * limits.memory_bytes),
        demand.redis_bytes_per_s / link,
    )
    return Counts(
        processes=count,
        consumer_cores=math.ceil(demand.consumer_cores / PLANNED_LOAD),
        triton_servers=math.ceil(
            max(demand.encoder_instances / servers / PLANNED_LOAD, demand.encoder_bytes_per_s / link)
        ),
        redis_servers=min(workload.tenants, math.ceil(redis_servers)),  # a tenant is one slot, on one server
    )


def _loads(workload: Workload, costs: Costs, limits: Limits, counts: Counts) -> dict[str, float]:
    """How much of each part is used."""
    demand = Demand(workload, costs, counts.processes)
    return {
        "cores of consumers": demand.consumer_cores / counts.consumer_cores,
        "Python in a consumer": demand.python,
        "matching in a consumer": demand.matching,
        "batches in flight of a consumer": demand.in_flight,
        "memory of a consumer": demand.process_bytes / limits.memory_bytes,
        "network of a consumer": demand.process_bytes_per_s / limits.network_bytes_per_s,
        "encoder": demand.encoder_instances / counts.encoder_instances(workload.gpu),
        "network of the encoder": demand.encoder_bytes_per_s / counts.triton_servers / limits.network_bytes_per_s,
        "processor of Redis": demand.redis_cores / counts.redis_servers,
        "memory of Redis": demand.redis_bytes / counts.redis_servers / limits.memory_bytes,
        "network of Redis": demand.redis_bytes_per_s / counts.redis_servers / limits.network_bytes_per_s,
    }


def _parts(workload: Workload, costs: Costs, limits: Limits, counts: Counts) -> Iterator[Part]:
    remedies = _remedies(workload, counts)
    for name, load in _loads(workload, costs, limits, counts).items():
        low, high = LEAST_RATE, MOST_RATE
        for _ in range(32):  # every load grows with the rate
            rate = math.sqrt(low * high)
            fits = _loads(replace(workload, rate=rate), costs, limits, counts)[name] <= 1
            low, high = (rate, high) if fits else (low, rate)
        yield Part(name, load, low, remedies[name])


def _remedies(workload: Workload, counts: Counts) -> dict[str, str]:
    """What helps when a part is too small."""
    apart = "give groups of tenants a topic and a Deployment of their own"
    if workload.tenants == 1:
        apart = "spread the uploads over several tenants, each with a topic and a Deployment of its own"
    shorter = f"shorten SEENIT_WINDOW_RETENTION_S, use machines with more memory (--memory), or {apart}"
    redis = "add servers of Redis" if counts.redis_servers < workload.tenants else apart
    return {
        "cores of consumers": "give the consumers more cores",
        "Python in a consumer": f"add consumers; where that does not help, {apart}",
        "matching in a consumer": f"add consumers, shorten SEENIT_WINDOW_RETENTION_S, or {apart}",
        "batches in flight of a consumer": "add consumers, or raise SEENIT_PIPELINE_BATCHES_IN_FLIGHT",
        "memory of a consumer": shorter,
        "network of a consumer": "add consumers, or use machines with a faster network (--network)",
        "encoder": "add Triton servers",
        "network of the encoder": "add Triton servers, or use machines with a faster network (--network)",
        "processor of Redis": redis,
        "memory of Redis": redis if counts.redis_servers < workload.tenants else shorter,
        "network of Redis": redis,
    }
