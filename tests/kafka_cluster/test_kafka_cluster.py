"""The Apache Kafka that other tests rely on: it keeps the guarantees they need, and breaks on demand."""

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from tests.kafka_cluster import KafkaCluster, KafkaMissing, jars
from tests.kafka_fixtures import USERS

WAIT_S = 20.0


def make_topic(cluster: KafkaCluster, partitions: int = 1) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(name, partitions)
    return name


def make_producer(cluster: KafkaCluster, transactional_id: str) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "transactional.id": transactional_id,
            "socket.timeout.ms": 5000,  # a frozen broker holds a request for as long
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
        }
    )
    producer.init_transactions(WAIT_S)
    return producer


def read(cluster: KafkaCluster, topic: str, isolation: str = "read_committed") -> list[bytes]:
    """Read every value of partition 0 up to its end, at this isolation level."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": f"reader-{uuid.uuid4().hex[:8]}",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    deadline = time.monotonic() + WAIT_S
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            error = message.error()
            if error is None:
                values.append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                return values
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    raise TimeoutError(f"{topic} has no end after {WAIT_S} s")


def test_only_committed_work_is_read(kafka_cluster: KafkaCluster) -> None:
    topic = make_topic(kafka_cluster)
    producer = make_producer(kafka_cluster, topic)
    for value, commit in ((b"kept", True), (b"dropped", False), (b"kept too", True)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(WAIT_S)
        if commit:
            producer.commit_transaction(WAIT_S)
        else:
            producer.abort_transaction(WAIT_S)
    assert read(kafka_cluster, topic) == [b"kept", b"kept too"]
    assert read(kafka_cluster, topic, "read_uncommitted") == [b"kept", b"dropped", b"kept too"]


def test_offsets_commit_with_the_transaction_or_not_at_all(kafka_cluster: KafkaCluster) -> None:
    topic = make_topic(kafka_cluster)
    plain = Producer({"bootstrap.servers": kafka_cluster.bootstrap_servers})
    for n in range(4):
        plain.produce(topic, str(n))
    plain.flush(WAIT_S)
    consumer = Consumer(
        {"bootstrap.servers": kafka_cluster.bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        assert len(consumer.consume(4, WAIT_S)) == 4
        producer = make_producer(kafka_cluster, f"{topic}-offsets")
        for offset, commit, expected in ((2, True, 2), (4, False, 2), (3, True, 3)):
            producer.begin_transaction()
            producer.send_offsets_to_transaction(
                [TopicPartition(topic, 0, offset)], consumer.consumer_group_metadata(), WAIT_S
            )
            if commit:
                producer.commit_transaction(WAIT_S)
            else:
                producer.abort_transaction(WAIT_S)
            assert consumer.committed([TopicPartition(topic, 0)], WAIT_S)[0].offset == expected
    finally:
        consumer.close()


def test_a_zombie_is_fenced(kafka_cluster: KafkaCluster) -> None:
    topic = make_topic(kafka_cluster)
    zombie = make_producer(kafka_cluster, topic)
    zombie.begin_transaction()
    zombie.produce(topic, b"from the zombie")
    zombie.flush(WAIT_S)
    successor = make_producer(kafka_cluster, topic)
    successor.begin_transaction()
    successor.produce(topic, b"from the heir")
    successor.commit_transaction(WAIT_S)
    with pytest.raises(KafkaException) as fenced:
        zombie.commit_transaction(WAIT_S)
    assert fenced.value.args[0].fatal()
    assert read(kafka_cluster, topic) == [b"from the heir"]


def test_a_killed_broker_comes_back_with_its_data(kafka_broker: KafkaCluster) -> None:
    topic = make_topic(kafka_broker)
    producer = make_producer(kafka_broker, topic)
    for value in (b"before", b"after"):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.commit_transaction(WAIT_S)
        if value == b"before":
            kafka_broker.kill(0)
            kafka_broker.start(0)
    assert read(kafka_broker, topic) == [b"before", b"after"]


@pytest.mark.parametrize("harm", ["kill", "freeze", "stop"])
def test_another_broker_leads_when_the_leader_is_lost(kafka_trio: KafkaCluster, harm: str) -> None:
    topic = make_topic(kafka_trio)
    producer = make_producer(kafka_trio, topic)
    producer.begin_transaction()
    producer.produce(topic, b"before")
    producer.commit_transaction(WAIT_S)
    leader = kafka_trio.leader(topic)
    assert leader is not None
    getattr(kafka_trio, harm)(leader)
    deadline = time.monotonic() + 2 * WAIT_S
    while kafka_trio.leader(topic) in (leader, None):
        assert time.monotonic() < deadline, "nobody took the lead"
        time.sleep(0.2)
    producer.begin_transaction()
    producer.produce(topic, b"after")
    producer.commit_transaction(2 * WAIT_S)
    kafka_trio.heal()
    assert read(kafka_trio, topic) == [b"before", b"after"]


def make_secured_producer(cluster: KafkaCluster, **changes: str) -> Producer:
    settings: dict[str, Any] = {
        "bootstrap.servers": cluster.secured_servers,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(cluster.ca_file),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "seenit",
        "sasl.password": USERS["seenit"],
        "message.timeout.ms": 15_000,
        "log_level": 0,
        **{name.replace("_", "."): value for name, value in changes.items()},
    }
    return Producer(settings)


def send(producer: Producer, topic: str) -> KafkaError | None:
    outcome: list[KafkaError | None] = []
    producer.produce(topic, b"x", on_delivery=lambda error, _message: outcome.append(error))
    producer.flush(WAIT_S)
    return outcome[0]


def test_the_secured_listener_lets_in_who_was_granted(kafka_secured: KafkaCluster) -> None:
    topic = make_topic(kafka_secured)
    refused = send(make_secured_producer(kafka_secured), topic)
    assert refused is not None
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    grant = AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:seenit", "*",
        AclOperation.WRITE, AclPermissionType.ALLOW,
    )  # fmt: skip
    kafka_secured.apply_rules([grant])
    assert send(make_secured_producer(kafka_secured), topic) is None
    stranger = send(
        make_secured_producer(kafka_secured, sasl_username="stranger", sasl_password=USERS["stranger"]), topic
    )
    assert stranger is not None
    assert stranger.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert read(kafka_secured, topic) == [b"x"]


def test_the_secured_listener_refuses_a_wrong_password(kafka_secured: KafkaCluster) -> None:
    errors: list[KafkaError] = []
    producer = Producer(
        {
            "bootstrap.servers": kafka_secured.secured_servers,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(kafka_secured.ca_file),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "seenit",
            "sasl.password": "wrong",
            "error_cb": errors.append,
            "log_level": 0,
        }
    )
    deadline = time.monotonic() + WAIT_S
    while not any(error.code() == KafkaError._AUTHENTICATION for error in errors):
        assert time.monotonic() < deadline, f"no refusal, but {errors}"
        producer.poll(0.2)


def test_where_java_is_missing_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    jars.fetch.cache_clear()
    with pytest.raises(KafkaMissing, match=r"there is no `java` on the PATH\.$"):
        jars.fetch()
