"""The window on a cluster, as a user with few rights, and while the server is away."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.retry import Retry

from consumer.errors import Unavailable
from consumer.events import Record
from consumer.kafka.leases import Lease
from consumer.local.binaries import Binaries
from consumer.local.process import Server, wait_until_ready
from consumer.moderation.campaigns import Campaigns, newest_campaigns
from consumer.pipeline.poison import PoisonGuard
from consumer.settings import CampaignsSettings, RedisSettings, Settings, WindowSettings
from consumer.verification.rerank import Verifier
from consumer.window import replicas, slice_filler
from consumer.window.connection import connect
from consumer.window.records import AppendResult
from consumer.window.store import KEY_KINDS
from consumer.window.window import RedisWindow
from tests.moderation.examples import duplicate
from tests.redis_servers import KINDS, client_of, redis_like
from tests.stack_fixtures import serving
from tests.window.examples import MODEL, NAMES, PREFIX, look_up, near, pass_s, upload
from tests.window.servers import Backend

# The rights of a user that are needed to run the window, without those that only a recovery needs.
RIGHTS = (
    *(
        "+evalsha",
        "+eval",
        "+time",
        "+exists",
        "+del",
        "+pexpire",
        "+hget",
        "+hset",
        "+hmget",
        "+hdel",
        "+hstrlen",
    ),
    *("+xadd", "+xdel", "+xrange", "+xtrim"),
    *("+zadd", "+zcard", "+zrange", "+zrem"),
)

# And beside these with slices in vector sets.
RIGHTS_IN_SLICES = (
    *("+vadd", "+vcard", "+vismember", "+vrem", "+vsim"),
    *("+hexists", "+hgetall", "+hincrby", "+hkeys", "+hsetnx", "+unlink"),
)

REFUSED = r"permission|can't run|can't access"


@pytest.fixture(params=KINDS)
def cluster(request: pytest.FixtureRequest, binaries: Binaries, tmp_path: Path) -> Iterator[RedisCluster]:
    """Two servers with half of the slots each."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    with (
        serving(redis_like(request.param, binaries, folders[0], cluster=True)) as one,
        serving(redis_like(request.param, binaries, folders[1], cluster=True)) as other,
        client_of(one) as first,
        client_of(other) as second,
    ):
        first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        second.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        second.execute_command("CLUSTER", "SET-CONFIG-EPOCH", 2)
        first.execute_command("CLUSTER", "MEET", "127.0.0.1", *other.ports)
        for client in (first, second):
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.05)
        with RedisCluster(host="127.0.0.1", port=one.ports[0]) as client:
            yield client


def test_tenants_spread_over_a_cluster_in_one_batch(cluster: RedisCluster) -> None:
    one, other = (RedisWindow(cluster, MODEL, WindowSettings(), PREFIX) for _ in range(2))
    names = [*NAMES, *(f"tenant-{n}" for n in range(20))]
    results = one.append(
        [upload("a", 1, tenant=name, patches=b"of " + name.encode(errors="replace")) for name in names]
    )
    assert all(result.near == () and result.position is not None for result in results)
    assert [near(result) for result in other.append([upload("b", 1, 1, name) for name in names])] == [["a"]] * len(
        names
    )
    assert all(look_up(one, upload("c", 1, 0, name)) for name in names)
    positions = [(name, result.position) for name, result in zip(names, results, strict=True) if result.position]
    campaigns = Campaigns(one, Verifier(one, MODEL, "balanced"), CampaignsSettings())
    joined = campaigns.join([duplicate(upload("c", 1, 0, name), AppendResult(), [at]) for name, at in positions])
    assert [each.campaign and each.campaign.id for each in joined] == ["a"] * len(positions)
    assert len(newest_campaigns(one, names)) == len(names)
    assert one.read_patches(positions) == [b"of " + name.encode(errors="replace") for name in names]
    assert [other.delete(name, "a").records for name in names] == [1] * len(names)
    assert [near(result) for result in one.append([upload("d", 1, 2, name) for name in names])] == [["b"]] * len(names)
    nodes = {cluster.get_node_from_key(one.store.key(name, "log")) for name in names}
    assert len(nodes) == 2
    for name in names:
        assert len({key_slot(one.store.key(name, kind).encode()) for kind in KEY_KINDS}) == 1


def test_a_cluster_that_is_away_is_unavailable(cluster: RedisCluster) -> None:
    """The client has an error of its own for it, which is no RedisError."""
    window = RedisWindow(cluster, MODEL, WindowSettings(), PREFIX)
    window.append([upload("a", 1)])
    poison_guard = PoisonGuard(cluster, Settings())
    nodes = [node.redis_connection for node in cluster.get_nodes()]
    settings = RedisSettings(url=SecretStr(f"redis://{cluster.get_nodes()[0].name}"), cluster=True)
    for node in nodes:
        assert node is not None
        with suppress(RedisError):
            node.shutdown(nosave=True)
    for _ in range(3):
        with pytest.raises(Unavailable):
            window.append([upload("b", 1)])
    leased = [(Record("in", 0, 0, None, b"", (), 0), Lease(0, 1))]
    assert poison_guard.first(leased) == (leased, False)
    with pytest.raises(Unavailable):
        connect(settings)


@contextmanager
def as_user(redis: Redis, pattern: str, *rights: str, backend: Backend = "replica") -> Iterator[RedisWindow]:
    redis.execute_command("ACL", "SETUSER", "seenit", "reset", "on", ">secret", f"~{pattern}", *RIGHTS, *rights)
    port = redis.connection_pool.connection_kwargs["port"]
    with Redis(port=port, username="seenit", password="secret") as user:
        yield RedisWindow(user, MODEL, WindowSettings(backend=backend), PREFIX)


def use_all(window: RedisWindow, redis: Redis) -> None:
    """Use everything of a server that the window ever uses, but for a recovery."""
    redis.script_flush()
    window.append([upload("a", 1, patches=b"p"), upload("b", 1, 1)])
    redis.delete(window.store.key("t", "log"))
    [result, _] = window.append([upload("a", 1, patches=b"p"), upload("b", 1, 1)])
    assert result.position is not None
    assert window.read_patches([("t", result.position)]) == [b"p"]
    campaigns = Campaigns(window, Verifier(window, MODEL, "balanced"), CampaignsSettings())
    [joined] = campaigns.join([duplicate(upload("b", 1, 1), result, [result.position])])
    assert joined.campaign is not None
    assert window.delete("t", "b").records == 1
    pass_s(redis, 4_000)  # more than the grace: the copy is stored
    assert look_up(window, upload("c", 1)) is not None
    pass_s(redis, 100_000)  # more than the retention and the grace: all is trimmed
    window.append([upload("d", 2)])


def test_a_user_with_few_rights_is_enough(empty_redis: Redis) -> None:
    with as_user(empty_redis, f"{PREFIX}:*") as window:
        use_all(window, empty_redis)


@pytest.mark.parametrize("right", RIGHTS)
def test_each_right_is_needed(empty_redis: Redis, right: str) -> None:
    with as_user(empty_redis, f"{PREFIX}:*", f"-{right[1:]}") as window, pytest.raises(Unavailable, match=REFUSED):
        use_all(window, empty_redis)


@pytest.fixture(scope="module")
def server_with_vectors(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(redis_like("redis-vectors", binaries, tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def redis_with_vectors(server_with_vectors: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    monkeypatch.setattr(slice_filler, "TAIL_ROWS", 0)
    monkeypatch.setattr(slice_filler, "SURPLUS_ROWS", 0)
    with client_of(server_with_vectors) as client:
        client.flushall()
        yield client


def use_all_in_slices(window: RedisWindow, redis: Redis) -> None:
    window.check()
    use_all(window, redis)


def test_a_user_with_few_rights_is_enough_for_slices(redis_with_vectors: Redis) -> None:
    with as_user(redis_with_vectors, f"{PREFIX}:*", *RIGHTS_IN_SLICES, backend="redis-vectors") as window:
        use_all_in_slices(window, redis_with_vectors)


@pytest.mark.parametrize("right", RIGHTS_IN_SLICES)
def test_each_right_is_needed_for_slices(redis_with_vectors: Redis, right: str) -> None:
    rights = (*RIGHTS_IN_SLICES, f"-{right[1:]}")
    with (
        as_user(redis_with_vectors, f"{PREFIX}:*", *rights, backend="redis-vectors") as window,
        pytest.raises(Unavailable, match=REFUSED),
    ):
        use_all_in_slices(window, redis_with_vectors)


def test_a_user_of_one_tenant_sees_no_other(empty_redis: Redis) -> None:
    with as_user(empty_redis, f"{PREFIX}:{{t}}:*") as window:
        window.append([upload("a", 1)])
        for call in (
            lambda: window.append([upload("a", 1, tenant="u")]),
            lambda: look_up(window, upload("a", 1, tenant="u")),
            lambda: window.delete("u", "a"),
        ):
            with pytest.raises(Unavailable, match=REFUSED):
                call()


def test_a_server_that_is_away_is_said_to_be_and_nothing_is_lost(
    binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "STALE_S", -1.0)
    with serving(redis_like("valkey", binaries, tmp_path)) as server, client_of(server) as admin:
        [port] = server.ports
        with Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as redis:
            window = RedisWindow(redis, MODEL, WindowSettings(), PREFIX)
            window.append([upload("a", 1)])
            # Silent for longer than the client waits, which then cannot know whether the append arrived.
            admin.execute_command("CLIENT", "PAUSE", 2000, "ALL")
            with pytest.raises(Unavailable, match="redis"):
                window.append([upload("b", 1, 1)])
            time.sleep(1.2)
            assert near(window.append([upload("b", 1, 1)])[0]) == ["a"]
            assert window.stats().rows == 2
            server.stop()
            for call in (window.refresh, lambda: look_up(window, upload("c", 1)), lambda: window.delete("t", "a")):
                with pytest.raises(Unavailable, match="redis"):
                    call()
            server.start([port])
            wait_until_ready([server])
            assert window.append([upload("b", 1, 1)])[0].near == ()
            assert window.stats().resets == 1
