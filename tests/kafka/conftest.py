"""Fixtures of the Kafka wing: topics of one test, and consumers that join its group."""

from collections.abc import Callable, Iterator

import pytest

from consumer.kafka.consumer import UploadsConsumer
from tests.kafka.group import Member, Topics, new_topics
from tests.kafka_cluster import KafkaCluster
from tests.kafka_cluster.requests import Requests, requests_of


@pytest.fixture(scope="package")
def requests(kafka_cluster: KafkaCluster) -> Iterator[Requests]:
    """The requests of clients of `proxied_servers`."""
    with requests_of(kafka_cluster) as requests:
        yield requests


@pytest.fixture
def topics(kafka_cluster: KafkaCluster) -> Topics:
    return new_topics(kafka_cluster)


@pytest.fixture
def join(topics: Topics) -> Iterator[Callable[..., Member]]:
    """Make consumers that join the group; they leave it after the test."""
    members: list[Member] = []

    def new(on_revoke: Callable[[], None] = lambda: None, **changes: object) -> Member:
        members.append(Member(UploadsConsumer(topics.settings.model_copy(update=changes), on_revoke)))
        return members[-1]

    yield new
    for member in members:
        member.stop()
