"""Links between the service and its servers fail: nothing is lost or doubled, and the service goes on by itself.

It goes on without a repair, on new connections; only while packets are dropped it has to wait. What is most likely to
go wrong is tried, and with SEENIT_TEST_EVERY_FAULT=1 everything on every link.
"""

import os
import time
from collections.abc import Callable

import pytest

from tests.faults.flow import RATE, Flow
from tests.network import FAULTS
from tests.torture.nemesis import LINKS
from tests.torture.world import World

LIKELY = (
    ("kafka", "leaves connections half-open"),
    ("kafka", "delivers after the reconnect"),
    ("redis", "leaves connections half-open"),
    ("redis", "delivers after the reconnect"),
    ("triton", "drops packets to the client"),
    ("object store", "drops packets to the client"),
)
EVERY = {name: tuple((name, fault) for fault in FAULTS) for name in LINKS}
CASES = EVERY if os.environ.get("SEENIT_TEST_EVERY_FAULT") else {"likely": LIKELY}
DROPS_FOR_S = 4.0  # longer than the time-outs of the consumer, but for Kafka's
# A Kafka client takes 10 s to give a connection up that has gone silent, and has several, used one after the other.
RESUMES_WITHIN_S = 40.0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("cases", CASES.values(), ids=CASES)
def test_links_fail_in_mid_flow(world: World, flow: Callable[..., Flow], cases: tuple[tuple[str, str], ...]) -> None:
    running = flow(uploads=RATE * 300)
    running.start()
    for name, fault in cases:
        [link] = world.links(name)
        FAULTS[fault](link)
        if fault.startswith("drops"):
            time.sleep(DROPS_FOR_S)
            assert running.probe("/livez")[0] == 200
            link.heal()
        running.goes_on(f"the link to {name} {fault}: no verdicts", RESUMES_WITHIN_S)
        link.heal()
        running.goes_on(f"the link to {name} {fault}, and is healed: no verdicts")
        assert running.probe("/livez")[0] == 200
    running.uploader.stop()
    running.finish()
