"""Offsets at which processes begin again and again, remembered by a real Redis, make uploads suspect."""

import uuid

import pytest
from redis import Redis

from consumer.events import Record
from consumer.kafka.leases import Lease, Leased
from consumer.local.process import free_ports
from consumer.pipeline.poison import SUSPECT_AFTER_STARTS, PoisonGuard
from consumer.settings import KafkaSettings, PipelineSettings, RedisSettings, Settings

IN_FLIGHT = 8


@pytest.fixture
def settings() -> Settings:
    """A group of the test's own."""
    return Settings(
        kafka=KafkaSettings(group_id=uuid.uuid4().hex),
        redis=RedisSettings(key_prefix=f"poison-{uuid.uuid4().hex}"),
        pipeline=PipelineSettings(batches_in_flight=2, batch_size=4),
    )


def polled(*offsets: int, partition: int = 0, lease: int = 1) -> list[Leased]:
    """Return records at these offsets, as a consumer would poll them."""
    return [(Record("in", partition, offset, None, b"", (), 1), Lease(partition, lease)) for offset in offsets]


def begun_with(url: str, settings: Settings, *leased: Leased) -> PoisonGuard:
    """Return the guard of a process that has polled these records first."""
    guard = PoisonGuard(Redis.from_url(url), settings)
    guard.first(list(leased))
    return guard


def test_beginning_at_one_offset_again_and_again_is_suspect(redis_server: str, settings: Settings) -> None:
    for _ in range(SUSPECT_AFTER_STARTS - 1):
        records = polled(7, 8, 9)
        assert PoisonGuard(Redis.from_url(redis_server), settings).first(records) == (records, False)
    last = PoisonGuard(Redis.from_url(redis_server), settings)
    assert last.first(polled(7, 8, 9)) == (polled(7), True)
    assert last.first(polled(8, 9)) == (polled(8), True)
    end = 7 + IN_FLIGHT
    assert last.first(polled(end - 1, end, end + 1)) == (polled(end - 1), True)
    assert last.first(polled(end, end + 1)) == (polled(end, end + 1), False)


def test_progress_ends_the_suspicion(redis_server: str, settings: Settings) -> None:
    for offset in (7, 7, 8, 7, 7):
        begun_with(redis_server, settings, *polled(offset))
    assert PoisonGuard(Redis.from_url(redis_server), settings).first(polled(8)) == (polled(8), False)


def test_a_lease_counts_once_and_the_next_of_the_same_process_again(redis_server: str, settings: Settings) -> None:
    guard = begun_with(redis_server, settings, *polled(7))
    for _ in range(SUSPECT_AFTER_STARTS):
        assert guard.first(polled(7)) == (polled(7), False)
    assert guard.first(polled(7, lease=2)) == (polled(7, lease=2), False)
    assert guard.first(polled(7, lease=3)) == (polled(7, lease=3), True)


def test_other_partitions_go_on_together(redis_server: str, settings: Settings) -> None:
    for _ in range(SUSPECT_AFTER_STARTS - 1):
        begun_with(redis_server, settings, *polled(7, partition=1))
    last = PoisonGuard(Redis.from_url(redis_server), settings)
    before, suspect = polled(1, 2), polled(7, 8, partition=1)
    assert last.first([*before, *suspect, *polled(3)]) == (before, False)
    assert last.first([*suspect, *polled(3)]) == (suspect[:1], True)


def test_notes_do_not_stay_for_ever(redis_server: str, settings: Settings) -> None:
    begun_with(redis_server, settings, *polled(7))
    left_ms = Redis.from_url(redis_server).pttl(f"{settings.redis.key_prefix}:starts:{settings.kafka.group_id}")
    assert 0 < left_ms <= 24 * 3600 * 1000


def test_without_redis_nothing_is_suspect(settings: Settings) -> None:
    [port] = free_ports(1)
    for _ in range(SUSPECT_AFTER_STARTS + 1):
        away = PoisonGuard(Redis.from_url(f"redis://127.0.0.1:{port}/0"), settings)
        assert away.first(polled(7, 8)) == (polled(7, 8), False)
