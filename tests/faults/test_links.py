"""A link between the service and a server fails: nothing is lost or doubled, and the service goes on by itself.

It goes on without a repair, on new connections; only while packets are dropped it has to wait. Each link suffers what
is most likely to go wrong there; with SEENIT_TEST_EVERY_FAULT=1, everything.
"""

import os
import time
from collections.abc import Callable

import pytest

from tests.faults.flow import RATE, Flow
from tests.network import FAULTS
from tests.torture.world import World

LIKELY = {
    "kafka": ("leaves connections half-open", "delivers after the reconnect"),
    "redis": ("leaves connections half-open", "delivers after the reconnect"),
    "triton": ("drops packets to the client",),
    "object store": ("drops packets to the client",),
}
CASES = {name: tuple(FAULTS) if os.environ.get("SEENIT_TEST_EVERY_FAULT") else LIKELY[name] for name in LIKELY}
DROPS_FOR_S = 4.0  # longer than the time-outs of the consumer, but for Kafka's
RESUMES_WITHIN_S = 20.0  # a Kafka client takes 10 s to give a connection up that has gone silent


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", CASES)
def test_a_link_fails_in_mid_flow(world: World, flow: Callable[..., Flow], name: str) -> None:
    running = flow(uploads=RATE * 200)
    running.start()
    for fault in CASES[name]:
        [link] = world.links(name)
        FAULTS[fault](link)
        if fault.startswith("drops"):
            time.sleep(DROPS_FOR_S)
            assert running.consumer.alive
            link.heal()
        running.goes_on(f"the link to {name} {fault}: no verdicts", RESUMES_WITHIN_S)
        link.heal()
        running.goes_on(f"the link to {name} {fault}, and is healed: no verdicts")
        assert running.probe("/livez")[0] == 200
    running.uploader.stop()
    running.finish()
