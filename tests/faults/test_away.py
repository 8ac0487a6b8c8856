"""A dependency is away, slow or failing, at start or in mid-flow: the service says so, waits, and goes on by itself.

Set SEENIT_TEST_AWAY_S=60 for absences as long as an operator would see them.
"""

import json
import os
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import Child, free_ports, until
from tests.torture.checker import Checker, Topics
from tests.torture.seed import PARTITIONS, environment
from tests.torture.workload import Uploader, plan
from tests.torture.world import World

AWAY_S = float(os.environ.get("SEENIT_TEST_AWAY_S", "6"))
RESUMES_WITHIN_S = 10.0
GROWS_BY_MB = 150
RATE = 25


def patience(seconds: float) -> float:
    """Stretch a time for an idle machine to what the present load of this one makes of it."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass(frozen=True)
class Absence:
    """A dependency, by its name in `/readyz`, and functions that take it away and bring it back."""

    name: str
    goes: Callable[[World], object]
    comes: Callable[[World], object]


def _set_store(**values: float) -> Callable[[World], None]:
    def change(world: World) -> None:
        for name, value in values.items():
            setattr(world.store, name, value)

    return change


ABSENCES = {
    "broker": Absence("kafka", lambda w: w.kafka.kill(0), lambda w: w.kafka.start(0)),
    "redis": Absence("redis", lambda w: w.redis.kill(), lambda w: w.redis.start()),
    "triton": Absence("triton", lambda w: w.kill_triton(), lambda w: w.triton.start()),
    "store": Absence("object-store", lambda w: w.store.stop(), lambda w: w.store.start()),
}
STANDSTILLS = {
    "broker": Absence("kafka", lambda w: w.kafka.freeze(0), lambda w: w.kafka.thaw(0)),
    "redis": Absence("redis", lambda w: w.redis.freeze(), lambda w: w.redis.thaw()),
    "triton": Absence("triton", lambda w: w.triton.freeze(), lambda w: w.triton.thaw()),
    "store": Absence("object-store", _set_store(error=503), _set_store(error=None)),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def world(kafka_jars: None) -> Iterator[World]:
    with World(brokers=1) as world:
        yield world


class Flow:
    """A consumer with topics of its own, under a steady stream of uploads."""

    def __init__(self, world: World, number: int, uploads: int) -> None:
        self.world = world
        topics = Topics(f"away-{number}", f"away-{number}-out", f"away-{number}-letters")
        for topic in topics:
            world.kafka.create_topic(topic, PARTITIONS)
        self.workload = plan(number, uploads, PARTITIONS, world.store)
        [self.port] = free_ports(1)
        settings = environment(topics, number, 0, static=False)
        self.consumer: Child = world.consumer(0, {**settings, "SEENIT_HTTP_PORT": str(self.port)})
        self.checker = Checker(world.kafka.bootstrap_servers, topics, topics.uploads, self.workload, [])
        self.uploader = Uploader(self.workload, world.kafka.bootstrap_servers, topics.uploads, RATE)
        self.prefix = settings["SEENIT_REDIS_KEY_PREFIX"]

    def probe(self, path: str) -> tuple[int, dict[str, str]]:
        """Ask the service's HTTP server; return the status, 0 if there is no answer, and the problems it names."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=8) as reply:
                return reply.status, json.load(reply)["problems"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["problems"]
        except (urllib.error.URLError, OSError):
            return 0, {}

    def memory_mb(self) -> float:
        """Return the resident memory of the consumer, in MiB."""
        status = Path(f"/proc/{self.consumer.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def until_ready(self) -> None:
        until(lambda: self.probe("/readyz")[0] == 200, patience(20), "the service is not ready")

    def while_away(self, absence: Absence) -> None:
        """Wait AWAY_S or longer, until `/readyz` names the dependency; assert that the service lives all the time."""
        began, reported = time.monotonic(), False
        while time.monotonic() < began + AWAY_S or not reported:
            assert time.monotonic() < began + AWAY_S + patience(15), f"/readyz never named {absence.name}"
            assert self.consumer.alive, self.consumer.output[-2000:]
            assert self.probe("/livez")[0] == 200
            status, problems = self.probe("/readyz")
            reported = reported or (status == 503 and absence.name in problems)
            time.sleep(0.2)

    def finish(self) -> None:
        """Assert that every upload is decided, once, and that the consumer stops when it is asked to."""
        self.uploader.join()
        until(lambda: self.checker.lag() == 0, patience(30), "uploads wait for their verdicts")
        self.until_ready()
        assert self.consumer.stop() == 0
        with self.world.redis_client() as window:
            report = self.checker.check(window, self.prefix)
        assert report.violations == []


@pytest.fixture
def flow(world: World, request: pytest.FixtureRequest) -> Iterator[Callable[..., Flow]]:
    flows: list[Flow] = []

    def new(uploads: int) -> Flow:
        flows.append(Flow(world, 5000 + zlib.crc32(request.node.name.encode()) % 100_000, uploads))
        return flows[-1]

    yield new
    world.heal()
    for flow in flows:
        flow.consumer.kill()
        flow.uploader.stop()
        flow.uploader.join()


@pytest.mark.timeout(240 + 2 * AWAY_S)
@pytest.mark.parametrize(
    "absence", [*ABSENCES.values(), *STANDSTILLS.values()], ids=[*ABSENCES, *(f"{n}-stuck" for n in STANDSTILLS)]
)
def test_away_in_mid_flow(world: World, flow: Callable[..., Flow], absence: Absence) -> None:
    running = flow(uploads=int(RATE * (AWAY_S + 60)))  # more than is sent by the time the dependency is back
    running.consumer.start()
    running.until_ready()
    running.uploader.start()
    until(lambda: running.uploader.sent > RATE and running.checker.lag() < 2 * RATE, patience(15), "it does not flow")
    memory_mb, decided = running.memory_mb(), running.checker.decided()
    absence.goes(world)
    running.while_away(absence)
    assert running.memory_mb() < memory_mb + GROWS_BY_MB
    if absence.name != "kafka":  # the offsets can be read only while it is there
        decided = running.checker.decided()
    absence.comes(world)
    world.heal()
    until(lambda: running.checker.decided() > decided, patience(RESUMES_WITHIN_S), "it does not go on")
    running.uploader.stop()
    running.finish()


@pytest.mark.timeout(240 + 2 * AWAY_S)
@pytest.mark.parametrize("name", ABSENCES)
def test_away_at_start(world: World, flow: Callable[..., Flow], name: str) -> None:
    absence = ABSENCES[name]
    running = flow(uploads=100)
    if name != "broker":
        running.uploader.start()
        running.uploader.join()
    absence.goes(world)
    running.consumer.start()
    until(lambda: running.probe("/livez")[0] == 200, patience(20), "the service does not answer")
    running.while_away(absence)
    absence.comes(world)
    world.heal()
    if name == "broker":
        running.uploader.start()
    until(lambda: running.checker.decided() > 0, patience(RESUMES_WITHIN_S), "it does not begin")
    running.finish()
