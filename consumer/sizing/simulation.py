"""A discrete-event simulation of the service: processes with their threads and cores, Triton's queue, and Redis.

    arrivals ─> poll ─> look up ─> encode ─> match ─> publish ─> verdicts
                        decode     Triton    Redis    Kafka

Stages hand batches on as in `consumer/pipeline/runner.py`, with the service's own settings: batches in flight and
requests to Triton are bounded. Python's lock is held for what a stage itself works; decoding, searching and the threads
of the clients go on beside it. A core does one thing after the other. Real threads take turns, at the same rate.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray
from simpy.resources.resource import Request

from consumer.settings import PipelineSettings, TritonSettings
from consumer.sizing.costs import Costs
from consumer.sizing.demand import Demand
from consumer.sizing.plan import Plan

TRITON_BATCH = 40  # pictures, as the model's configuration says
_PIPELINE, _TRITON = PipelineSettings(), TritonSettings()  # as they are unless set
WARM_UP_SHARE = 0.2  # of the batches, whose times are left out: the pipelines are not full yet

Steps = Generator[simpy.Event, Any, None]
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is simulated. `cores` are those of a process; with `shared_cores` everything works on the same ones.

    `speed` is what is left of a core beside other programs. `beside_us` is what an upload costs on shared cores outside
    the service: the broker, and whoever sends and reads.
    """

    processes: int
    cores: int
    instances: int
    redis_servers: int
    picture_bytes: float
    search_us: float = 0.0
    shared_cores: bool = False
    speed: float = 1.0
    beside_us: float = 0.0
    batch_size: int = _PIPELINE.batch_size
    batch_wait_ms: float = _PIPELINE.batch_wait_ms
    batches_in_flight: int = _PIPELINE.batches_in_flight
    requests_in_flight: int = _TRITON.max_in_flight


@dataclass(frozen=True, slots=True)
class Outcome:
    """Uploads a second from the first event to the last verdict, and the time from an event to its verdict."""

    rate: float
    p50_ms: float
    p99_ms: float


def simulate(setup: Setup, costs: Costs, arrivals_s: Sequence[Times]) -> Outcome:
    """Simulate until each upload has its verdict; each process has a list of the times at which its uploads come."""
    service = _Service(setup, costs)
    for times_s in arrivals_s:
        _Consumer(service, times_s)
    service.env.run()
    service.done.sort(key=lambda batch: batch.arrived_s[0])
    counted = service.done[int(len(service.done) * WARM_UP_SHARE) :]
    p50_s, p99_s = np.percentile(np.concatenate([batch.done_s - batch.arrived_s for batch in counted]), [50, 99])
    took_s = max(batch.done_s for batch in service.done) - float(service.done[0].arrived_s[0])
    return Outcome(sum(map(len, arrivals_s)) / took_s, float(p50_s) * 1e3, float(p99_s) * 1e3)


def setup_of(plan: Plan, costs: Costs) -> Setup:
    """What is planned, to be simulated."""
    counts, workload = plan.counts, plan.workload
    return Setup(
        processes=counts.processes,
        cores=math.ceil(counts.consumer_cores / counts.processes),
        instances=counts.encoder_instances(workload.gpu),
        redis_servers=counts.redis_servers,
        picture_bytes=workload.picture_bytes,
        search_us=Demand(workload, costs, counts.processes).search_us,
    )


def simulate_plan(plan: Plan, costs: Costs, uploads: int) -> Outcome:
    """Simulate what is planned at its rate, until so many uploads have come."""
    return simulate(
        setup_of(plan, costs), costs, independent_arrivals(plan.counts.processes, plan.workload.rate, uploads)
    )


def independent_arrivals(processes: int, rate: float, uploads: int, seed: int = 0) -> list[Times]:
    """Draw the times of uploads that come independently of each other, as many for each process."""
    random, count = np.random.default_rng(seed), max(1, uploads // processes)
    return [np.cumsum(random.exponential(processes / rate, count)) for _ in range(processes)]


class _Batch:
    """Uploads on their way through a process."""

    def __init__(self, arrived_s: Times, slot: Request) -> None:
        self.arrived_s = arrived_s
        self.uploads = len(arrived_s)
        self.slot = slot  # among the batches in flight
        self.decoded: simpy.Event = slot  # until it is being decoded, and then encoded
        self.encoded: simpy.Event = slot
        self.done_s = 0.0


class _Pictures:
    """Pictures that Triton is to encode."""

    def __init__(self, count: float, done: simpy.Event) -> None:
        self.count = count
        self.done = done


class _Service:
    """What the processes share: the encoder's instances and their queue, Redis, and cores that are shared."""

    def __init__(self, setup: Setup, costs: Costs) -> None:
        self.setup, self.costs = setup, costs
        self.env = simpy.Environment()
        self.requests = simpy.Store(self.env)
        self.done: list[_Batch] = []
        self.shared_cores = simpy.Resource(self.env, setup.cores) if setup.shared_cores else None
        self._servers = cycle([simpy.Resource(self.env) for _ in range(setup.redis_servers)])
        for _ in range(setup.instances):
            self.env.process(self._encode())

    def work(self, cores: simpy.Resource | None, us: float) -> Steps:
        """Keep one of the cores busy for a while; None are cores of a machine that is not simulated."""
        if cores is None:
            yield self.env.timeout(us / 1e6)
            return
        with cores.request() as core:
            yield core
            yield self.env.timeout(us / 1e6 / self.setup.speed)

    def append(self, uploads: int) -> Steps:
        """Append to the window on one of the servers, and read what the other processes appended meanwhile."""
        costs, others = self.costs, self.setup.processes - 1
        with next(self._servers).request() as turn:
            yield turn
            yield from self.work(self.shared_cores, uploads * (costs.append_us + others * costs.read_row_us))

    def _encode(self) -> Steps:
        """One instance: it takes the requests that fit into a batch together."""
        while True:
            batch = [(yield self.requests.get())]
            pictures = batch[0].count
            while self.requests.items and pictures + self.requests.items[0].count <= TRITON_BATCH:
                batch.append((yield self.requests.get()))
                pictures += batch[-1].count
            yield from self.work(self.shared_cores, self.costs.inference_us(pictures))
            for request in batch:
                request.done.succeed()


class _Consumer:
    """One process: a thread that polls and one for each stage, as `consumer/pipeline` has them."""

    def __init__(self, service: _Service, arrivals_s: Times) -> None:
        self._service, self._arrivals_s = service, arrivals_s
        self._setup, self._costs, self._env = service.setup, service.costs, service.env
        self._cores = service.shared_cores or simpy.Resource(self._env, self._setup.cores)
        self._lock = simpy.Resource(self._env)
        self._room = simpy.Resource(self._env, self._setup.batches_in_flight)
        self._slots = simpy.Resource(self._env, self._setup.requests_in_flight)
        queues = [simpy.Store(self._env) for _ in range(5)]
        self._env.process(self._poll(queues[0]))
        stages = (self._look_up, self._encode, self._match, self._publish)
        for stage, source, target in zip(stages, queues, queues[1:], strict=False):
            self._env.process(self._stage(stage, source, target))

    def _poll(self, out: simpy.Store) -> Steps:
        """Take batches: what has come, up to the limit, or what comes within the wait."""
        setup, arrivals_s, taken = self._setup, self._arrivals_s, 0
        while taken < len(arrivals_s):
            slot = self._room.request()
            yield slot
            yield self._env.timeout(max(0.0, arrivals_s[taken] - self._env.now))
            most = min(taken + setup.batch_size, len(arrivals_s))
            wait_s = max(0.0, arrivals_s[most - 1] - self._env.now)
            yield self._env.timeout(min(wait_s, setup.batch_wait_ms / 1e3))
            end = min(most, max(taken + 1, int(np.searchsorted(arrivals_s, self._env.now, "right"))))
            batch = _Batch(arrivals_s[taken:end], slot)
            taken = end
            yield from self._python(batch.uploads * self._costs.poll_us)
            out.put(batch)

    def _stage(self, stage: Any, source: simpy.Store, target: simpy.Store) -> Steps:
        while True:
            batch = yield source.get()
            yield from stage(batch)
            target.put(batch)

    def _python(self, us: float) -> Steps:
        """Work under the lock of the interpreter."""
        with self._lock.request() as turn:
            yield turn
            yield from self._service.work(self._cores, us)

    def _look_up(self, batch: _Batch) -> Steps:
        """Begin to decode, on as many threads as there are cores; the clients' threads work beside that."""
        setup, costs = self._setup, self._costs
        yield from self._python(batch.uploads * costs.look_up_us)
        jobs = min(setup.cores, batch.uploads)
        decoding_us = batch.uploads * costs.decoding_us(setup.picture_bytes)
        beside_us = batch.uploads * (costs.clients_us(setup.picture_bytes) + setup.beside_us)
        works = [decoding_us / jobs] * jobs + [beside_us]
        batch.decoded = self._env.all_of([self._env.process(self._service.work(self._cores, us)) for us in works])

    def _encode(self, batch: _Batch) -> Steps:
        yield batch.decoded
        yield from self._python(batch.uploads * self._costs.encode_us)
        slot = self._slots.request()
        yield slot
        batch.encoded = self._env.event()
        self._env.process(self._free(slot, batch.encoded))
        self._service.requests.put(_Pictures(batch.uploads * self._costs.views, batch.encoded))

    def _free(self, slot: Request, encoded: simpy.Event) -> Steps:
        """Let another request to Triton begin when this one ends."""
        yield encoded
        self._slots.release(slot)

    def _match(self, batch: _Batch) -> Steps:
        yield batch.encoded
        setup, costs, uploads = self._setup, self._costs, batch.uploads
        yield from self._service.append(uploads)
        yield from self._python(uploads * (costs.match_us + (setup.processes - 1) * costs.copy_row_us))
        yield from self._service.work(self._cores, uploads * setup.search_us)

    def _publish(self, batch: _Batch) -> Steps:
        yield from self._python(batch.uploads * self._costs.publish_us)
        yield self._env.timeout(self._costs.commit_ms / 1e3)
        batch.done_s = self._env.now
        self._service.done.append(batch)
        self._room.release(batch.slot)
