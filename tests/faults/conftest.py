"""The servers that the tests of this folder hurt, and flows of uploads through them."""

import zlib
from collections.abc import Callable, Iterator

import pytest

from tests.faults.flow import Flow
from tests.torture.world import World


@pytest.fixture(scope="package")
def world(kafka_jars: None) -> Iterator[World]:
    with World(brokers=1) as world:
        yield world


@pytest.fixture
def flow(world: World, request: pytest.FixtureRequest) -> Iterator[Callable[..., Flow]]:
    flows: list[Flow] = []

    def new(uploads: int, *, static: bool = False) -> Flow:
        number = 5000 + zlib.crc32(request.node.name.encode()) % 100_000
        flows.append(Flow(world, number, uploads, static=static))
        return flows[-1]

    yield new
    world.heal()
    for flow in flows:
        flow.consumer.kill()
        flow.uploader.stop()
        if flow.uploader.ident is not None:
            flow.uploader.join()
