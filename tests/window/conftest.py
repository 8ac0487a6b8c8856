"""A server of a test module's own, of each kind that keeps the window."""

from collections.abc import Iterator

import pytest

from consumer.local.binaries import Binaries
from consumer.local.process import Server
from tests.redis_servers import KINDS, redis_like
from tests.stack_fixtures import serving


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(redis_like(request.param, binaries, tmp_path_factory.mktemp("redis"))) as server:
        yield server
