"""Redis cannot write to its disk, full or read-only: the service pauses, and nothing is lost."""

import time
from collections.abc import Callable

import pytest

from tests.faults.flow import RATE, Flow, patience
from tests.processes import until
from tests.torture.world import World

REST_S, FULL_FOR_S = 1.0, 3.0
FULL, READ_ONLY = 3_000, 0  # bytes that still fit, so that a write is cut short in its middle; or nothing at all


def rests(running: Flow, for_s: float) -> bool:
    """Tell whether nothing is decided for a while."""
    decided = running.checker.decided()
    time.sleep(for_s)
    return running.checker.decided() == decided


@pytest.mark.timeout(300)
def test_redis_cannot_write_to_its_disk(world: World, flow: Callable[..., Flow]) -> None:
    running = flow(uploads=RATE * 120)
    running.start()
    for room_bytes in (FULL, READ_ONLY):
        world.limit_disk(room_bytes)
        until(lambda: "MISCONF" in running.probe("/readyz")[1].get("redis", ""), patience(10), "/readyz is silent")
        until(lambda: rests(running, REST_S), patience(10), "verdicts go on, on what Redis does not take")
        assert rests(running, FULL_FOR_S), "verdicts on what Redis did not take"
        assert running.probe("/livez")[0] == 200
        world.limit_disk(None)
        running.goes_on("Redis can write again: no verdicts")
    world.redis.kill()
    world.redis.start()
    running.goes_on("Redis is back with what is on its disk: no verdicts")
    running.uploader.stop()
    running.finish()
