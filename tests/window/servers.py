"""A server of a test module's own, of each kind that keeps the window, and clients of it: fixtures to import."""

from collections.abc import Iterator
from typing import Literal

import pytest
from redis import Redis

from consumer.local.binaries import Binaries
from consumer.local.process import Server
from consumer.window import slice_filler
from tests.redis_servers import KINDS, client_of, redis_like
from tests.stack_fixtures import serving
from tests.window.examples import assert_coherent

Backend = Literal["replica", "redis-vectors"]


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(redis_like(request.param, binaries, tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture(scope="module", params=[*KINDS, "redis-vectors"])
def server_of_backend(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server for each back end of the window: to be imported as `server`."""
    with serving(redis_like(request.param, binaries, tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def backend(server: Server, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The back end to be tested on the server: a replica, or slices, to which every row is moved at once."""
    if server.name != "redis-vectors":
        return "replica"
    monkeypatch.setattr(slice_filler, "TAIL_ROWS", 0)
    monkeypatch.setattr(slice_filler, "SURPLUS_ROWS", 0)
    return "redis-vectors"


@pytest.fixture
def empty_redis(server: Server) -> Iterator[Redis]:
    """A client of the server, which is emptied before."""
    with client_of(server) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis(empty_redis: Redis) -> Iterator[Redis]:
    """A client of the server, which is emptied before, and checked for loose ends afterwards."""
    yield empty_redis
    assert_coherent(empty_redis)
