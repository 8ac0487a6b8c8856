"""Fixtures with real Apache Kafka; `tests/conftest.py` names this module as a plugin.

Where Apache Kafka cannot be run, the tests that ask for it are skipped with the sentence that says why; with `CI=true`
that is a failure.
"""

import os
from collections.abc import Iterator

import pytest

from tests.kafka_cluster import KafkaCluster, KafkaMissing, Security, jars

USERS = {
    "seenit": "correct horse",
    "seenit-http": "paper clip",
    "stranger": "battery staple",
    "uploader": "up and away",
    "reader": "between lines",
}


@pytest.fixture(scope="session")
def kafka_jars() -> None:
    """Skip the test, or with `CI=true` fail it, where Apache Kafka cannot be run."""
    try:
        jars.fetch()
    except KafkaMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def kafka_cluster(kafka_jars: None) -> Iterator[KafkaCluster]:
    """One broker that all tests share: each test names topics and groups of its own, and leaves the broker running."""
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def kafka_broker(kafka_cluster: KafkaCluster) -> Iterator[KafkaCluster]:
    """The same broker for a test that hurts it; it is healed afterwards."""
    yield kafka_cluster
    kafka_cluster.heal()


@pytest.fixture(scope="session")
def _three_brokers(kafka_jars: None) -> Iterator[KafkaCluster]:
    with KafkaCluster(3) as cluster:
        yield cluster


@pytest.fixture
def kafka_trio(_three_brokers: KafkaCluster) -> Iterator[KafkaCluster]:
    """Three brokers for a test that hurts them; they are healed afterwards."""
    yield _three_brokers
    _three_brokers.heal()


@pytest.fixture(scope="session")
def kafka_secured(kafka_jars: None) -> Iterator[KafkaCluster]:
    """One broker with TLS, the SCRAM users of USERS, and access lists that grant them nothing yet."""
    with KafkaCluster(security=Security(USERS)) as cluster:
        yield cluster
