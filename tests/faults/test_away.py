"""A dependency is away, slow or failing, at start or in mid-flow: the service says so, waits, and goes on by itself.

Set SEENIT_TEST_AWAY_S=60 for absences as long as an operator would see them.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.flow import RATE, Flow, patience
from tests.processes import until
from tests.torture.seed import SESSION_S
from tests.torture.world import World

AWAY_S = float(os.environ.get("SEENIT_TEST_AWAY_S", "6"))
RESUMES_WITHIN_S = 10.0
GROWS_BY_MB = 150


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


def while_away(flow: Flow, absence: Absence) -> None:
    """Wait AWAY_S or longer, until `/readyz` names the dependency; assert that the service lives all the time."""
    began, reported = time.monotonic(), False
    while time.monotonic() < began + AWAY_S or not reported:
        assert time.monotonic() < began + AWAY_S + patience(15), f"/readyz never named {absence.name}"
        assert flow.consumer.alive, flow.consumer.output[-2000:]
        assert flow.probe("/livez")[0] == 200
        status, problems = flow.probe("/readyz")
        reported = reported or (status == 503 and absence.name in problems)
        time.sleep(0.2)


@pytest.mark.timeout(240 + 2 * AWAY_S)
@pytest.mark.parametrize(
    "absence", [*ABSENCES.values(), *STANDSTILLS.values()], ids=[*ABSENCES, *(f"{n}-stuck" for n in STANDSTILLS)]
)
def test_away_in_mid_flow(world: World, flow: Callable[..., Flow], absence: Absence) -> None:
    running = flow(uploads=int(RATE * (AWAY_S + 60)))  # more than is sent by the time the dependency is back
    running.start()
    memory_mb, decided = running.memory_mb(), running.checker.decided()
    absence.goes(world)
    while_away(running, absence)
    assert running.memory_mb() < memory_mb + GROWS_BY_MB
    if absence.name != "kafka":  # the offsets can be read only while it is there
        decided = running.checker.decided()
    absence.comes(world)
    world.heal()
    within_s = RESUMES_WITHIN_S
    if absence.name == "kafka":  # the group waits for the member that the consumer was before its session timed out
        within_s += SESSION_S
    until(lambda: running.checker.decided() > decided, patience(within_s), "it does not go on")
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
    while_away(running, absence)
    absence.comes(world)
    world.heal()
    if name == "broker":
        running.uploader.start()
    until(lambda: running.checker.decided() > 0, patience(RESUMES_WITHIN_S), "it does not begin")
    running.finish()
