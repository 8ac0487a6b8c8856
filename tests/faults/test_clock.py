"""The clock of a consumer is wrong by more than a day: it goes on, and nothing is lost or doubled."""

from collections.abc import Callable

import pytest

from tests.faults.flow import RATE, Flow
from tests.torture.world import World

HOURS = 30  # for longer than the window remembers


@pytest.mark.timeout(300)
def test_a_clock_that_is_behind_and_jumps_ahead(world: World, flow: Callable[..., Flow]) -> None:
    running = flow(uploads=RATE * 120)
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
