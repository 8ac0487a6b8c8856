"""Faults, as many as a seed brings. Each does harm, waits, and repairs it; the seed decides which, when, how long."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import redis

from tests import clocks, network
from tests.kafka_cluster.requests import Requests
from tests.network import Link
from tests.processes import until
from tests.torture import requests
from tests.torture.fleet import Fleet
from tests.torture.world import World

LINKS = ("kafka", "redis", "triton", "object store")


class NothingToHurt(Exception):
    """What a fault wanted to hurt did not come."""


@dataclass
class Harm:
    """A fault that happened, for the history and for the checker."""

    name: str
    began_s: float  # seconds since the epoch, as the messages' timestamps are
    ended_s: float | None = None
    recovered: bool = False  # what Redis loses comes back from the topic of embeddings

    @property
    def wipes(self) -> bool:
        """Whether Redis loses its data."""
        return self.name in ("redis loses its data", "redis is flushed")

    @property
    def loses_data(self) -> bool:
        """Whether the service forgets something that it has published."""
        return self.wipes and not self.recovered


class Nemesis(threading.Thread):
    """Brings fault after fault until stopped. `history` lists them; `error` is a failure of the nemesis itself."""

    def __init__(
        self, seed: int, world: World, fleet: Fleet, topics: tuple[str, ...], session_s: float, *, recovered: bool
    ) -> None:
        super().__init__(name="nemesis", daemon=True)
        self._random = random.Random(f"nemesis {seed}")
        self._world = world
        self._fleet = fleet
        self._topics = topics
        self._session_s = session_s
        self._recovered = recovered
        self._stopping = threading.Event()
        self.history: list[Harm] = []
        self.error: BaseException | None = None

    def stop(self) -> None:
        """End after the fault under way."""
        self._stopping.set()

    def run(self) -> None:
        """Bring fault after fault, now and then several at once."""
        faults = self._faults()
        names = list(faults)
        weights = [faults[name][0] for name in names]
        try:
            while not self._stopping.wait(self._random.uniform(0, 1.5)):
                together = self._random.choice((1, 1, 1, 2, 3))
                chosen = dict.fromkeys(self._random.choices(names, weights, k=together))
                threads = [
                    threading.Thread(
                        target=self._do, args=(name, faults[name][1], random.Random(self._random.random())), daemon=True
                    )
                    for name in chosen
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        except BaseException as error:  # the one who runs the seed raises it
            self.error = error

    def _do(self, name: str, fault: Callable[[random.Random], None], dice: random.Random) -> None:
        harm = Harm(name, time.time(), recovered=self._recovered)
        self.history.append(harm)
        try:
            fault(dice)
        except NothingToHurt:
            self.history.remove(harm)
        except BaseException as error:
            self.error = error
        harm.ended_s = time.time()

    def _faults(self) -> dict[str, tuple[int, Callable[[random.Random], None]]]:
        """Map the name of each fault to how often it is drawn, as a weight, and to what it does."""
        return {
            "a consumer is killed": (5, self._kill_consumer),
            "all consumers are killed": (1, self._kill_all_consumers),
            "a consumer is frozen past its session": (3, self._freeze_consumer_long),
            "a consumer is frozen for a moment": (2, self._freeze_consumer_short),
            "a consumer is stopped and started": (2, self._stop_consumer),
            "a leading broker is killed": (2, self._kill_broker),
            "a leading broker is frozen": (1, self._freeze_broker),
            "a broker is restarted": (1, self._restart_broker),
            "the model's process is killed": (2, self._kill_stub),
            "Triton is killed": (1, self._kill_triton),
            "Triton is frozen": (1, self._freeze_triton),
            "redis is killed": (2, self._kill_redis),
            "redis is frozen": (1, self._freeze_redis),
            "redis loses its data": (1, self._wipe_redis),
            "redis is flushed": (1, self._flush_redis),
            "redis cannot write to its disk": (2, self._fill_disk),
            "the object store answers errors": (1, self._broken_store),
            "the object store is away": (1, self._close_store),
            **({"a consumer's clock jumps": (2, self._jump_clock)} if clocks.COMPILER else {}),
            **{
                f"the link to {name} {fault}": (1, partial(self._hurt_link, name, harm))
                for name in LINKS
                for fault, harm in network.FAULTS.items()
            },
            **{
                f"{name} {fault}": (1, partial(self._hurt_request, name, harm))
                for name in requests.NAMES
                for fault, harm in requests.FAULTS.items()
            },
        }

    # Consumers.

    def _any_consumer(self, dice: random.Random) -> int:
        return dice.randrange(len(self._fleet.slots))

    def _kill_consumer(self, dice: random.Random) -> None:
        number = self._any_consumer(dice)
        self._fleet.kill(number)
        time.sleep(dice.choice((0, 0, 1, 4)))
        self._fleet.restart(number)

    def _kill_all_consumers(self, dice: random.Random) -> None:
        for number in range(len(self._fleet.slots)):
            self._fleet.kill(number)
        for number in range(len(self._fleet.slots)):
            self._fleet.restart(number)

    def _freeze_consumer_long(self, dice: random.Random) -> None:
        self._freeze_consumer(self._any_consumer(dice), self._session_s + dice.uniform(1, 4))

    def _freeze_consumer_short(self, dice: random.Random) -> None:
        self._freeze_consumer(self._any_consumer(dice), dice.uniform(0.5, 3))

    def _freeze_consumer(self, number: int, for_s: float) -> None:
        child = self._fleet.slots[number].child
        child.freeze()
        time.sleep(for_s)
        child.thaw()

    def _stop_consumer(self, dice: random.Random) -> None:
        number = self._any_consumer(dice)
        self._fleet.stop(number)
        time.sleep(dice.choice((0, 2)))
        self._fleet.restart(number)

    def _jump_clock(self, dice: random.Random) -> None:
        number = self._any_consumer(dice)
        ahead_hours = dice.choice((-30, -3, 3, 30)) + dice.random()
        self._set_clock(number, ahead_hours, back=ahead_hours < 0)
        time.sleep(dice.uniform(1, 8))
        self._set_clock(number, 0, back=ahead_hours > 0)

    def _set_clock(self, number: int, ahead_hours: float, *, back: bool) -> None:
        """Set a consumer's clock; librdkafka stands still when it is set back, and the liveness probe would kill it."""
        self._world.set_clock(number, ahead_hours)
        if back:
            time.sleep(0.2)
            self._fleet.kill(number)
            self._fleet.restart(number)

    # The network between consumers and servers.

    def _hurt_link(self, name: str, harm: Callable[[Link], None], dice: random.Random) -> None:
        links = self._world.links(name)
        links = dice.sample(links, dice.choice((1, len(links))))
        for _ in range(dice.choice((1, 1, 3))):
            for link in links:
                harm(link)
            time.sleep(dice.choice((dice.uniform(0, 1), dice.uniform(1, 10))))
            for link in links:
                link.heal()

    def _hurt_request(
        self, name: str, harm: Callable[[Requests, str, random.Random], bool], dice: random.Random
    ) -> None:
        if name in requests.AT_START:
            starting = threading.Thread(target=self._kill_consumer, args=(random.Random(dice.random()),))
            starting.start()
        met = harm(self._world.kafka_requests, name, dice)
        if name in requests.AT_START:
            starting.join()
        if not met:
            raise NothingToHurt

    # Brokers: one at a time, so that the others keep the quorum and every committed record.

    _one_broker = threading.Lock()

    def _leader(self, dice: random.Random) -> int:
        leader = self._world.kafka.leader(dice.choice(self._topics))
        return dice.randrange(len(self._world.kafka.brokers)) if leader is None else leader

    def _kill_broker(self, dice: random.Random) -> None:
        with self._one_broker:
            number = self._leader(dice)
            self._world.kafka.kill(number)
            time.sleep(dice.uniform(0, 6))
            self._world.kafka.start(number)
            self._wait_in_sync()

    def _freeze_broker(self, dice: random.Random) -> None:
        with self._one_broker:
            number = self._leader(dice)
            self._world.kafka.freeze(number)
            time.sleep(dice.uniform(1, 8))
            self._world.kafka.thaw(number)
            self._world.kafka.wait_ready()
            self._wait_in_sync()

    def _restart_broker(self, dice: random.Random) -> None:
        with self._one_broker:
            number = dice.randrange(len(self._world.kafka.brokers))
            self._world.kafka.stop(number)
            self._world.kafka.start(number)
            self._wait_in_sync()

    def _wait_in_sync(self) -> None:
        """Wait until the broker has caught up: the service is not expected to survive the loss of two at once."""
        until(self._world.kafka.in_sync, 60, "replicas are not in sync")

    # Triton.

    def _kill_stub(self, dice: random.Random) -> None:
        for pid in self._world.stub_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(dice.uniform(0.5, 3))
        self._world.reload_model()

    def _kill_triton(self, dice: random.Random) -> None:
        self._world.kill_triton()
        time.sleep(dice.uniform(0, 3))
        self._world.triton.start()

    def _freeze_triton(self, dice: random.Random) -> None:
        self._world.triton.freeze()
        time.sleep(dice.uniform(1, 6))
        self._world.triton.thaw()

    # Redis. It is not killed while it cannot write: what it has then in its memory alone would be lost, in part.

    _one_disk = threading.Lock()

    def _kill_redis(self, dice: random.Random) -> None:
        with self._one_disk:
            self._world.redis.kill()
            time.sleep(dice.uniform(0, 3))
            self._world.redis.start()

    def _freeze_redis(self, dice: random.Random) -> None:
        self._world.redis.freeze()
        time.sleep(dice.uniform(1, 8))
        self._world.redis.thaw()

    def _wipe_redis(self, dice: random.Random) -> None:
        with self._one_disk:
            self._world.wipe_redis()

    def _flush_redis(self, dice: random.Random) -> None:
        with contextlib.suppress(redis.RedisError), self._world.redis_client() as client:
            client.flushall()

    def _fill_disk(self, dice: random.Random) -> None:
        with self._one_disk:
            self._world.limit_disk(dice.choice((0, 1000, 100_000)))
            time.sleep(dice.uniform(0.5, 6))
            self._world.limit_disk(None)

    # The object store.

    def _broken_store(self, dice: random.Random) -> None:
        self._world.store.error = dice.choice((500, 503))
        time.sleep(dice.uniform(0.5, 4))
        self._world.store.error = None

    def _close_store(self, dice: random.Random) -> None:
        self._world.store.stop()
        time.sleep(dice.uniform(0.5, 4))
        self._world.store.start()
