"""Ends of floods stand on the topic once, also when whoever tells them is stopped in the middle."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis import Redis

from consumer.errors import Unavailable
from consumer.moderation import flood_ends
from consumer.moderation.flood_ends import FloodEnds
from consumer.settings import CampaignsSettings, KafkaSettings, WindowSettings
from consumer.window.window import RedisWindow
from tests.kafka_cluster import KafkaCluster
from tests.moderation.examples import BOUND, Process, pass_hours
from tests.window.examples import MODEL


@pytest.fixture
def redis(redis_server: str) -> Iterator[Redis]:
    with Redis.from_url(redis_server) as client:
        client.flushall()
        yield client


@pytest.fixture
def kafka(kafka_cluster: KafkaCluster) -> KafkaSettings:
    name = uuid.uuid4().hex[:8]
    servers, topic = kafka_cluster.bootstrap_servers, f"rematches-{name}"
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()
    return KafkaSettings(bootstrap_servers=servers, group_id=name, rematches_topic=topic, transaction_timeout_ms=15_000)


def new_ends(kafka: KafkaSettings, redis: Redis, counted: list[None]) -> FloodEnds:
    window = RedisWindow(redis, MODEL, WindowSettings(), "seenit")
    settings = CampaignsSettings(flood_uploads_per_hour=BOUND)
    return FloodEnds(kafka, settings, window, MODEL, lambda: counted.append(None))


def flood(redis: Redis) -> Process:
    """A flood that is over."""
    process = Process(redis, WindowSettings(), BOUND)
    process.original("a", 1)
    for n in range(5):
        process.copy(f"c{n}", 1)
    pass_hours(redis, process, 2)
    return process


def events(kafka: KafkaSettings) -> list[dict[str, Any]]:
    """All that is committed on the topic, which is one event at least."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": uuid.uuid4().hex})
    consumer.assign([TopicPartition(kafka.rematches_topic, partition, 0) for partition in range(2)])
    messages, quiet_s = [], time.monotonic()
    while time.monotonic() - quiet_s < (5 if messages else 30):
        got = [each for each in consumer.consume(100, 0.5) if each.error() is None]
        messages += got
        if got:
            quiet_s = time.monotonic()
    consumer.close()
    return [json.loads(each.value() or b"") for each in messages]


def test_an_end_is_told_without_any_further_upload(kafka: KafkaSettings, redis: Redis) -> None:
    flood(redis)
    counted: list[None] = []
    ends = new_ends(kafka, redis, counted)
    ends.tell()
    ends.tell()
    [told] = events(kafka)
    assert told == {"campaign": "a", "tenant": "t", "uploads_per_hour": 0, "bound": BOUND, "state": "ended"}
    assert len(counted) == 1


def test_an_end_that_was_told_by_a_process_which_was_killed_then_is_not_told_again(
    kafka: KafkaSettings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood(redis)
    call = flood_ends.call

    def call_and_be_killed(window: RedisWindow, name: str, calls: Any) -> Any:
        if len(calls[0][1]) > 2:  # to say what was told
            raise Unavailable("redis", "killed")
        return call(window, name, calls)

    counted: list[None] = []
    with monkeypatch.context() as patch:
        patch.setattr(flood_ends, "call", call_and_be_killed)
        for _ in range(2):
            with pytest.raises(Unavailable, match="killed"):
                new_ends(kafka, redis, counted).tell()
    new_ends(kafka, redis, counted).tell()
    assert [each["state"] for each in events(kafka)] == ["ended"]
    assert len(counted) == 1


def test_a_process_that_was_frozen_before_its_commit_tells_nothing(
    kafka: KafkaSettings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it stands still another one takes over, and tells it."""
    flood(redis)
    counted: list[None] = []
    frozen, other = new_ends(kafka, redis, counted), new_ends(kafka, redis, counted)
    produce, is_first = flood_ends.produce, iter([True])

    def produce_and_freeze(*arguments: Any) -> None:
        produce(*arguments)
        if next(is_first, False):
            other.tell()

    monkeypatch.setattr(flood_ends, "produce", produce_and_freeze)
    with pytest.raises(Unavailable):
        frozen.tell()
    assert [each["state"] for each in events(kafka)] == ["ended"]
    frozen.tell()
    assert len(counted) == 1
