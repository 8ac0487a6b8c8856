"""What of a topic counts as a difference; see tests/cli/test_preflight.py for real brokers."""

import pytest

from consumer.kafka.topics import Difference, Topic, TopicSpec, differences, required_topics
from consumer.settings import KafkaSettings

WANTS = required_topics(KafkaSettings(), partitions=6, replicas=3, retention_days=7)


def test_embeddings_are_kept_as_long_as_the_window_keeps_them() -> None:
    settings = KafkaSettings(embeddings_topic="image-embeddings")
    *others, embeddings = required_topics(settings, partitions=6, replicas=3, retention_days=7, window_s=86_400)
    assert tuple(others) == WANTS
    assert (embeddings.name, embeddings.partitions, embeddings.retention_ms) == ("image-embeddings", 6, 90_000_000)
    short = as_wanted(embeddings, retention_ms="86400000")
    there = {want.name: as_wanted(want) for want in WANTS} | {short.name: short}
    [difference] = differences(there, (*WANTS, embeddings))
    assert (difference.topic, difference.property) == ("image-embeddings", "retention.ms")


def as_wanted(want: TopicSpec, **changes: str) -> Topic:
    config = want.config() | {name.replace("_", "."): value for name, value in changes.items()}
    return Topic(want.name, want.partitions, want.replicas, config)


def found(*topics: Topic) -> list[Difference]:
    there = {want.name: as_wanted(want) for want in WANTS} | {topic.name: topic for topic in topics}
    return list(differences(there, WANTS))


def test_topics_as_wanted_do_not_differ() -> None:
    assert found() == []
    assert [want.min_insync_replicas for want in WANTS] == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"cleanup_policy": "compact"}, "cleanup.policy"),
        ({"cleanup_policy": "compact,delete"}, "cleanup.policy"),
        ({"retention_ms": "86400000"}, "retention.ms"),
        ({"min_insync_replicas": "1"}, "min.insync.replicas"),
        ({"min_insync_replicas": "3"}, "min.insync.replicas"),  # one lost broker would stop all writing
        ({"max_message_bytes": "1000"}, "max.message.bytes"),
    ],
)
def test_one_property_that_differs_is_one_difference(changes: dict[str, str], what: str) -> None:
    [difference] = found(as_wanted(WANTS[0], **changes))
    assert (difference.topic, difference.property) == (WANTS[0].name, what)
    assert f"--add-config {what}=" in difference.remedy


def test_more_than_wanted_is_no_difference() -> None:
    assert found(as_wanted(WANTS[0], retention_ms="-1"), as_wanted(WANTS[1], max_message_bytes="99999999")) == []


def test_a_configuration_that_may_not_be_read_is_not_guessed() -> None:
    assert found(*(Topic(want.name, want.partitions, 1, {}) for want in WANTS)) == [
        Difference(
            want.name,
            "replicas",
            "1",
            "3 or more",
            "kafka-reassign-partitions.sh with more replicas for each partition",
        )
        for want in WANTS
    ]


def test_dead_letters_have_room_for_the_largest_upload_and_their_headers() -> None:
    large = as_wanted(WANTS[0], max_message_bytes="20000000")
    [difference] = found(large)
    assert (difference.topic, difference.property) == (WANTS[2].name, "max.message.bytes")
    assert found(large, as_wanted(WANTS[2], max_message_bytes="20065536")) == []
