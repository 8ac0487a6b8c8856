"""The copy of the banks in Redis: who may write it, what follows it, and what is noticed when a part of it is lost."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from consumer.errors import Unavailable
from consumer.moderation import store as store_module
from consumer.moderation.banks import BankKey, EntryKey, encode_key
from consumer.moderation.replica import BankReplica
from consumer.moderation.store import BankRow, EntryRow, Lease, NewRow
from tests.fakes.encoder import FakeEncoder
from tests.moderation.copies import TOPIC, Copy

KEY = BankKey(None, "b")
BANK = BankRow(at=(0, 0), kind="block", enabled=True, strictness="balanced")


@pytest.fixture(scope="module")
def redis(redis_server: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_server)
    yield client
    client.close()


@pytest.fixture
def copy(redis: Redis) -> Copy:
    return Copy(redis, FakeEncoder.info)


def entry(name: str, number: int = 0) -> NewRow:
    """An entry with a picture, whose vector and digest follow from the number."""
    vector = np.eye(4, dtype="<f2")[number % 4].tobytes()
    row = EntryRow(at=(0, number), digest=f"{number:064x}", of_image=("t", name))
    return NewRow(encode_key(EntryKey(None, "b", name)), row, vector, b"features %d" % number)


def removal(name: str) -> NewRow:
    return NewRow(encode_key(EntryKey(None, "b", name)), None)


def bank(*, enabled: bool = True) -> NewRow:
    return NewRow(encode_key(KEY), BANK.model_copy(update={"enabled": enabled}))


def contents(replica: BankReplica) -> dict[str, str | None]:
    """The digests of all entries of the bank by name, which are on its shelf where they count."""
    entries = replica.of_bank(KEY)
    assert len(entries) == len(replica)
    on = KEY in replica.banks and replica.banks[KEY].enabled
    for shelf in replica.shelves_for("t"):
        assert sorted(shelf.entries) == (sorted(each.name for each in entries) if on else [])
        digests = {each.row.digest for each in entries} if on else set()
        assert len(shelf) == len(digests)
        assert all(shelf.exact(digest or "") for digest in digests)
    return {each.key.entry_id: each.row.digest for each in entries}


names = st.sampled_from("abcdef")
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), names, st.integers(0, 9)),
        st.tuples(st.just("drop"), names),
        st.tuples(st.sampled_from(("on", "off", "gone"))),
    )
)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(changes, st.booleans()), max_size=8), st.integers(1, 3), st.integers(1, 4))
def test_replicas_follow_however_often_they_read(
    redis: Redis, rounds: list[tuple[list[Any], bool]], page_rows: int, removals: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "PAGE_ROWS", page_rows)
        patch.setattr(store_module, "MAX_REMOVALS", removals)
        copy = Copy(redis, FakeEncoder.info)
        replica, expected = copy.replica(), dict[str, str]()
        for number, (round_changes, read) in enumerate(rounds):
            rows = []
            for change in round_changes:
                if change[0] == "put":
                    rows.append(entry(change[1], change[2]))
                    expected[change[1]] = f"{change[2]:064x}"
                elif change[0] == "gone":
                    rows.append(NewRow(encode_key(KEY), None))
                elif change[0] in ("on", "off"):
                    rows.append(bank(enabled=change[0] == "on"))
                else:
                    rows.append(removal(change[1]))
                    expected.pop(change[1], None)
            copy.write(*rows, offset=number + 1)
            if read:
                replica.sync()
                assert contents(replica) == expected
        for each in (replica, copy.replica()):
            each.sync()
            assert contents(each) == expected
        assert copy.redis.zcard(copy.key("gone")) <= removals
        assert copy.redis.hlen(copy.key("features")) == len(expected)


def test_only_who_has_the_lease_writes(copy: Copy) -> None:
    other = copy.store.lease()
    assert not other.hold()
    copy.redis.delete(copy.lease.key)  # as if its time were over
    assert other.hold()
    with pytest.raises(Unavailable, match="another process"):
        copy.write(entry("a"))
    with pytest.raises(Unavailable, match="another process"):
        copy.store.begin(copy.lease, TOPIC)
    copy.lease.release()  # which is no longer its own
    assert not copy.lease.hold()
    assert copy.store.begin(other, TOPIC)[0] == copy.epoch


def test_it_goes_on_where_another_process_ended(copy: Copy) -> None:
    copy.write(entry("a"), offset=7)
    copy.lease.release()
    successor = copy.store.lease()
    assert successor.hold()
    assert copy.store.begin(successor, TOPIC) == (copy.epoch, {0: 7})


@pytest.mark.parametrize("lost", ["log", "rows", "features", "meta"])
def test_a_copy_that_lost_a_part_is_no_copy(copy: Copy, lost: str) -> None:
    replica = copy.replica()
    copy.write(bank(), entry("a"), offset=3)
    replica.sync()
    copy.redis.delete(copy.key(lost))
    with pytest.raises(Unavailable, match="the banks are being read: 0 of 3"):
        replica.sync()
    epoch, offsets = copy.store.begin(copy.lease, TOPIC)
    assert epoch != copy.epoch
    assert offsets == {}
    copy.epoch = epoch
    copy.write(entry("b"), offset=2)
    with pytest.raises(Unavailable, match="2 of 3"):
        replica.sync()
    copy.write(offset=3)
    replica.sync()
    assert contents(replica) == {"b": f"{0:064x}"}
    assert dict(replica.banks) == {}


def test_a_process_waits_for_what_was_there_at_its_start(copy: Copy) -> None:
    replica = copy.replica()
    replica.require({0: 5})
    copy.write(entry("a"), offset=4)
    with pytest.raises(Unavailable, match="4 of 5"):
        replica.sync()
    copy.write(offset=5)
    replica.sync()
    assert contents(replica) == {"a": f"{0:064x}"}


def test_a_bank_is_turned_on_also_where_redis_goes_away_meanwhile(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = copy.replica()
    copy.write(bank(enabled=False), entry("a"), entry("b", 1))
    replica.sync()
    copy.write(bank())
    read, failures = copy.store.read_pictures, [Unavailable("redis", "gone")]

    def fail_once(names: Sequence[bytes]) -> list[tuple[str | None, bytes] | None]:
        if failures:
            raise failures.pop()
        return read(names)

    monkeypatch.setattr(copy.store, "read_pictures", fail_once)
    with pytest.raises(Unavailable, match="gone"):
        replica.sync()
    replica.sync()
    assert sorted(contents(replica)) == ["a", "b"]
    assert [len(shelf) for shelf in replica.shelves_for("t")] == [2]


def test_a_topic_that_was_made_anew_is_another_copy(copy: Copy) -> None:
    """Its offsets are lower than those that processes have read to."""
    replica = copy.replica()
    copy.write(bank(), entry("a"), offset=9)
    replica.sync()
    copy.epoch, offsets = copy.store.begin(copy.lease, "another topic")
    assert offsets == {}
    copy.write(bank(), entry("b"), offset=2)
    replica.sync()
    assert contents(replica) == {"b": f"{0:064x}"}
    started = copy.replica()
    started.require({0: 3})
    with pytest.raises(Unavailable, match="2 of 3"):
        started.sync()
    copy.redis.delete(copy.key("log"))
    copy.epoch, _ = copy.store.begin(copy.lease, "another topic")
    with pytest.raises(Unavailable, match="0 of 2"):
        replica.sync()


def test_entries_of_an_object_are_those_of_its_versions_too(copy: Copy) -> None:
    for name in ("s3://b/k?versionId=1", "s3://b/k?versionId=2", "s3://b/k2?versionId=1"):
        copy.write(entry(name))
    replica = copy.replica()
    replica.sync()
    found = [each.entry_id for each in replica.of_image("t", "s3://b/k")]
    assert found == ["s3://b/k?versionId=1", "s3://b/k?versionId=2"]
    assert replica.of_image("other", "s3://b/k") == []


def test_nothing_of_a_removed_entry_is_left(copy: Copy) -> None:
    """Its name stays for as long as replicas may have to be told; what it showed does not."""
    copy.write(entry("secret", 42))
    copy.store.note_searched({encode_key(EntryKey(None, "b", "secret")): (7, f"{42:064x}")}, [])
    copy.write(removal("secret"))
    copy.store.note_searched({}, [encode_key(EntryKey(None, "b", "secret"))])
    stored = b"".join(copy.redis.dump(key) or b"" for key in copy.redis.scan_iter(f"{copy.windows.key('', '')}*"))
    assert b"features 42" not in stored
    assert f"{42:064x}".encode() not in stored


def test_a_lease_is_one_at_a_time_however_many_ask(copy: Copy) -> None:
    leases = [Lease(copy.windows, copy.key("another")) for _ in range(5)]
    assert [lease.hold() for lease in leases] == [True, False, False, False, False]
    leases[0].release()
    assert [lease.hold() for lease in reversed(leases)] == [True, False, False, False, False]
