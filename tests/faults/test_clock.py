"""The clock of a consumer is wrong by more than a day: it goes on, and nothing is lost or doubled."""

import os
from collections.abc import Callable

import pytest

from tests import clocks
from tests.faults.flow import RATE, Flow
from tests.torture.world import World

HOURS = 30  # for longer than the window remembers


@pytest.fixture(autouse=True)
def compiler() -> None:
    """Skip the tests, or with `CI=true` fail them, where the clock of a process cannot be set."""
    if clocks.COMPILER is None:
        missing = "The clock of a process cannot be set: there is no C compiler `cc` on the PATH."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.mark.timeout(300)
def test_a_clock_that_is_behind_and_jumps_ahead(world: World, flow: Callable[..., Flow]) -> None:
    # Static, since it is killed: the transaction of a stranger would keep its verdicts from readers until its time-out.
    running = flow(uploads=RATE * 120, static=True)
    world.set_clock(0, -HOURS)
    running.start()
    for ahead_hours in (0, HOURS):
        world.set_clock(0, ahead_hours)
        running.goes_on(f"no verdicts with a clock that is {ahead_hours} hours ahead")
    # librdkafka waits by the time of day: set back, it stands still, and the liveness probe would end the process.
    world.set_clock(0, 0)
    running.consumer.kill()
    running.consumer.start()
    running.uploader.stop()
    running.finish()
