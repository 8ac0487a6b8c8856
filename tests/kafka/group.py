"""A group on real Apache Kafka: the topics of one test, and consumers that poll on threads of their own."""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.leases import Lease
from consumer.kafka.messages import OutgoingMessage
from consumer.settings import KafkaSettings
from tests.kafka_cluster import KafkaCluster
from tests.topics import read_topic

WAIT_S = 30.0
PARTITIONS = 2


@dataclass
class Topics:
    """The topics and the group of one test."""

    cluster: KafkaCluster
    settings: KafkaSettings

    def upload(self, *values: bytes, partition: int = 0) -> None:
        """Send messages to a partition of the input topic."""
        producer = Producer({"bootstrap.servers": self.settings.bootstrap_servers, "message.max.bytes": 64 << 20})
        for value in values:
            producer.produce(self.settings.input_topic, value, b"key", partition)
        assert producer.flush(WAIT_S) == 0

    def read(self, topic: str, isolation: str = "read_committed") -> list[bytes]:
        """Read every value of a topic at this isolation level."""
        return [message.value() or b"" for message in self.messages(topic, isolation)]

    def messages(self, topic: str, isolation: str = "read_committed") -> list[Message]:
        """Read every message of a topic at this isolation level."""
        return read_topic(self.settings.bootstrap_servers, topic, isolation)

    def await_markers(self, topic: str) -> None:
        """Wait until every transaction of a topic ends on it: brokers answer a commit before they write its marker."""
        consumers = []
        for isolation in ("read_uncommitted", "read_committed"):
            options = {"bootstrap.servers": self.settings.bootstrap_servers, "group.id": uuid.uuid4().hex}
            consumers.append(Consumer({**options, "isolation.level": isolation}))
        partitions = consumers[0].list_topics(topic, WAIT_S).topics[topic].partitions

        def is_ended(partition: int) -> bool:
            place = TopicPartition(topic, partition)
            all_of_it, committed = (each.get_watermark_offsets(place, WAIT_S)[1] for each in consumers)
            return all_of_it == committed

        wait_for(lambda: all(map(is_ended, partitions)))
        for consumer in consumers:
            consumer.close()

    def committed(self) -> dict[int, int]:
        """Read the group's committed offsets, by partition."""
        client = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, "group.id": self.settings.group_id})
        partitions = [TopicPartition(self.settings.input_topic, partition) for partition in range(PARTITIONS)]
        positions = client.committed(partitions, WAIT_S)
        client.close()
        return {position.partition: position.offset for position in positions if position.offset >= 0}

    def verdict(self, value: bytes) -> OutgoingMessage:
        """Make a message for the output topic."""
        return OutgoingMessage(self.settings.output_topic, b"key", value, ())

    def offset(self, offset: int, partition: int = 0) -> TopicPartition:
        """Make an offset to commit."""
        return TopicPartition(self.settings.input_topic, partition, offset)

    def offsets(self, offset: int) -> list[TopicPartition]:
        """Make the offsets to commit of partition 0 alone."""
        return [self.offset(offset)]


def new_topics(cluster: KafkaCluster) -> Topics:
    """Create topics that no other test uses."""
    name = uuid.uuid4().hex[:8]
    settings = KafkaSettings(
        bootstrap_servers=cluster.bootstrap_servers,
        group_id=name,
        input_topic=f"in-{name}",
        output_topic=f"out-{name}",
        dead_letter_topic=f"dlq-{name}",
        session_timeout_ms=6000,
        transaction_timeout_ms=15_000,
    )
    for topic in (settings.input_topic, settings.output_topic, settings.dead_letter_topic):
        cluster.create_topic(topic, PARTITIONS)
    return Topics(cluster, settings)


def leave_transaction_open(servers: str, name: str, offset: TopicPartition, generation: Any) -> Producer:
    """Begin a transaction under a name with an offset of a group, and end it no sooner than after three minutes.

    The producer is returned for what else the transaction shall hold.
    """
    options = {"transactional.id": name, "transaction.timeout.ms": 180_000}
    producer = Producer({"bootstrap.servers": servers, **options})
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    producer.send_offsets_to_transaction([offset], generation, WAIT_S)
    return producer


@dataclass
class Member:
    """A consumer that polls on a thread of its own, and keeps the values it received and their leases."""

    consumer: UploadsConsumer
    received: list[tuple[bytes, Lease]] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self.busy = threading.Event()  # while set, there is no room for records: it only stays in the group
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    @property
    def partitions(self) -> set[int]:
        """The partitions that it holds."""
        return set(self.consumer.partitions)

    def stop(self) -> None:
        """End the thread and leave the group."""
        self._stop.set()
        self._thread.join()
        self.consumer.close()

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                if self.busy.is_set():
                    self.consumer.idle(0.1)
                    continue
                for record, lease in self.consumer.poll(10, 0.1, 0.01):
                    self.received.append((record.value or b"", lease))
            except Unavailable as error:
                self.error = error
            except BaseException as error:
                self.error = error
                return


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition is true, for WAIT_S at most."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.05)
