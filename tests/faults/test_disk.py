"""Redis cannot write to its disk, full or read-only: the service pauses, and nothing is lost."""

import time
from collections.abc import Callable

import pytest

from tests.faults.flow import RATE, Flow, patience
from tests.processes import until
from tests.torture.world import World

FULL_FOR_S = 3.0
FULL, READ_ONLY = 3_000, 0  # bytes that still fit, so that a write is cut short in its middle; or nothing at all


@pytest.mark.timeout(300)
def test_redis_cannot_write_to_its_disk(world: World, flow: Callable[..., Flow]) -> None:
    running = flow(uploads=RATE * 120)
    running.start()
    for room_bytes in (FULL, READ_ONLY):
        world.limit_disk(room_bytes)
        until(lambda: "MISCONF" in running.probe("/readyz")[1].get("redis", ""), patience(10), "/readyz is silent")
        decided = running.checker.decided()
        time.sleep(FULL_FOR_S)
        assert running.checker.decided() <= decided + RATE, "verdicts on what Redis did not take"
        assert running.probe("/livez")[0] == 200
        world.limit_disk(None)
        running.goes_on("Redis can write again: no verdicts")
    world.redis.kill()
    world.redis.start()
    running.goes_on("Redis is back with what is on its disk: no verdicts")
    running.uploader.stop()
    running.finish()
