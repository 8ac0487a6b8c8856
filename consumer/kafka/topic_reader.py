"""Reads a topic from given offsets on, all partitions of it, without being a member of a group."""

from collections.abc import Iterable, Mapping
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import Unavailable
from consumer.events import Record
from consumer.kafka.config import BROKER_TIMEOUT_S, client_options
from consumer.kafka.messages import to_record
from consumer.settings import KafkaSettings

# Topics that are read like this change rarely, and are asked for news all the time.
FETCH_WAIT_MS = 100


class TopicReader:
    """Reads a topic, and knows how far. For one thread. Every method raises Unavailable when brokers cannot be asked.

    `next_offsets` has the offset that each partition is read up to: behind its last message, or the end if there is a
    transaction's marker.
    """

    def __init__(self, settings: KafkaSettings, topic: str, next_offsets: Mapping[int, int]) -> None:
        """Begin each partition at its offset, or at its first message if that is gone or there is none."""
        self._topic = topic
        self._consumer = Consumer(
            {
                **client_options(settings),
                "group.id": settings.group_id,  # a name is required; it is no member of the group
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": FETCH_WAIT_MS,
            }
        )
        try:
            self.next_offsets = {
                partition: next_offsets.get(partition, 0) for partition in find_partitions(self._consumer, topic)
            }
            positions = [TopicPartition(topic, *position) for position in self.next_offsets.items()]
            self._consumer.assign(positions)
        except BaseException:
            self._consumer.close()
            raise

    def end_offsets(self) -> dict[int, int]:
        """Ask where each partition ends."""
        return find_ends(self._consumer, self._topic, self.next_offsets)

    def read(self, limit: int, wait_s: float) -> list[Record]:
        """Read up to `limit` records; wait `wait_s` for the first."""
        messages = self._consumer.consume(1, wait_s)
        if messages and limit > 1:
            messages += self._consumer.consume(limit - 1, 0)
        records = []
        for message in messages:
            error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
            if error is None:
                records.append(to_record(message))
                self.next_offsets[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self.next_offsets[partition] = max(offset, self.next_offsets[partition])
            elif not error.retriable():
                raise Unavailable("kafka", f"topic {self._topic!r}: {error.str()}")
        return records

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_partitions(consumer: Consumer, topic: str) -> tuple[int, ...]:
    """Ask for the partitions of a topic. Raises Unavailable, also if there is no such topic."""
    try:
        found = consumer.list_topics(topic, BROKER_TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise Unavailable("kafka", error.args[0].str()) from None
    if found.error is not None:
        raise Unavailable("kafka", f"topic {topic!r}: {found.error.str()}")
    return tuple(found.partitions)


def find_topic_id(admin: AdminClient, topic: str) -> str:
    """Ask for the id of a topic, which another one of the same name will not have. Raises Unavailable."""
    try:
        found = admin.describe_topics(TopicCollection([topic]), request_timeout=BROKER_TIMEOUT_S)[topic].result()
    except KafkaException as error:
        raise Unavailable("kafka", f"topic {topic!r}: {error.args[0].str()}") from None
    return str(found.topic_id)


def find_ends(consumer: Consumer, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Ask where partitions end: for a client that reads what is committed, before any open transaction."""
    try:
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), BROKER_TIMEOUT_S)[1]
            for partition in partitions
        }
    except KafkaException as error:
        raise Unavailable("kafka", f"topic {topic!r}: {error.args[0].str()}") from None
