"""What of a topic counts as a difference; see tests/cli/test_preflight.py for real brokers."""

import pytest

from consumer.kafka.topics import Difference, Topic, TopicSpec, differences, required_topics
from consumer.settings import KafkaSettings

SPECS = required_topics(KafkaSettings(), partitions=6, replicas=3, retention_days=7)


def test_embeddings_are_kept_as_long_as_the_window_keeps_them() -> None:
    settings = KafkaSettings(embeddings_topic="image-embeddings")
    *others, embeddings = required_topics(settings, partitions=6, replicas=3, retention_days=7, window_s=86_400)
    assert tuple(others) == SPECS
    assert (embeddings.name, embeddings.partitions, embeddings.retention_ms) == ("image-embeddings", 6, 90_000_000)
    short = make_topic(embeddings, retention_ms="86400000")
    topics = {spec.name: make_topic(spec) for spec in SPECS} | {short.name: short}
    [difference] = differences(topics, (*SPECS, embeddings))
    assert (difference.topic, difference.property) == ("image-embeddings", "retention.ms")


def test_what_people_decided_is_compacted_and_their_feedback_is_not() -> None:
    settings = KafkaSettings(feedback_topic="image-feedback")
    specs = required_topics(settings, partitions=6, replicas=3, retention_days=7)
    feedback, decisions = specs[len(SPECS) :]
    assert (feedback.name, decisions.name) == ("image-feedback", "image-decisions")
    assert [(spec.partitions, spec.cleanup_policy) for spec in (feedback, decisions)] == [(1, "delete"), (1, "compact")]
    topics = {spec.name: make_topic(spec) for spec in specs}
    assert list(differences(topics, specs)) == []
    topics[decisions.name] = make_topic(decisions, cleanup_policy="delete")
    [difference] = differences(topics, specs)
    assert (difference.topic, difference.expected, difference.fatal) == ("image-decisions", "compact", True)


def test_what_was_asked_for_is_kept_for_a_year() -> None:
    settings = KafkaSettings(audit_topic="image-audit")
    *others, audit = required_topics(settings, partitions=6, replicas=3, retention_days=7)
    assert tuple(others) == SPECS
    assert (audit.name, audit.partitions, audit.retention_ms) == ("image-audit", 1, 31_536_000_000)
    assert audit.cleanup_policy == "delete"


def make_topic(spec: TopicSpec, **changes: str) -> Topic:
    config = spec.config() | {name.replace("_", "."): value for name, value in changes.items()}
    return Topic(spec.name, spec.partitions, spec.replicas, config)


def compare(*changed: Topic) -> list[Difference]:
    topics = {spec.name: make_topic(spec) for spec in SPECS} | {topic.name: topic for topic in changed}
    return list(differences(topics, SPECS))


def test_topics_as_wanted_do_not_differ() -> None:
    assert compare() == []
    assert [spec.min_insync_replicas for spec in SPECS] == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"cleanup_policy": "compact"}, "cleanup.policy"),
        ({"cleanup_policy": "compact,delete"}, "cleanup.policy"),
        ({"retention_ms": "86400000"}, "retention.ms"),
        ({"min_insync_replicas": "1"}, "min.insync.replicas"),
        ({"min_insync_replicas": "3"}, "min.insync.replicas"),  # one lost broker would stop all writing
        ({"max_message_bytes": "1000"}, "max.message.bytes"),
    ],
)
def test_one_property_that_differs_is_one_difference(changes: dict[str, str], key: str) -> None:
    [difference] = compare(make_topic(SPECS[0], **changes))
    assert (difference.topic, difference.property) == (SPECS[0].name, key)
    assert f"--add-config {key}=" in difference.remedy


def test_the_topics_that_the_service_writes_are_dated_by_the_brokers() -> None:
    assert ["message.timestamp.type" in spec.config() for spec in SPECS] == [False, True, True]
    differing = [make_topic(spec, message_timestamp_type="CreateTime") for spec in SPECS]
    assert [(each.topic, each.property, each.fatal) for each in compare(*differing)] == [
        (spec.name, "message.timestamp.type", False) for spec in SPECS[1:]
    ]


def test_more_than_wanted_is_no_difference() -> None:
    assert compare(make_topic(SPECS[0], retention_ms="-1"), make_topic(SPECS[1], max_message_bytes="99999999")) == []


def test_a_configuration_that_may_not_be_read_is_not_guessed() -> None:
    assert compare(*(Topic(spec.name, spec.partitions, 1, {}) for spec in SPECS)) == [
        Difference(
            spec.name,
            "replicas",
            "1",
            "3 or more",
            "kafka-reassign-partitions.sh with more replicas for each partition",
        )
        for spec in SPECS
    ]


def test_dead_letters_have_room_for_the_largest_upload_and_their_headers() -> None:
    large = make_topic(SPECS[0], max_message_bytes="20000000")
    [difference] = compare(large)
    assert (difference.topic, difference.property) == (SPECS[2].name, "max.message.bytes")
    assert compare(large, make_topic(SPECS[2], max_message_bytes="20065536")) == []
