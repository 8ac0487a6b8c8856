"""Reads a topic from given offsets on, all partitions of it, without being a member of a group."""

from collections.abc import Mapping
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.errors import Unavailable
from consumer.events import Record
from consumer.kafka.config import client_options
from consumer.kafka.messages import to_record
from consumer.settings import KafkaSettings

# Limit of one request to the brokers.
REQUEST_TIMEOUT_S = 10.0


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
                "group.id": settings.group_id,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            self.next_offsets = {partition: next_offsets.get(partition, 0) for partition in self._partitions()}
            positions = [TopicPartition(topic, *position) for position in self.next_offsets.items()]
            self._consumer.assign(positions)
        except BaseException:
            self._consumer.close()
            raise

    def end_offsets(self) -> dict[int, int]:
        """Ask where each partition ends."""
        try:
            return {
                partition: self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), REQUEST_TIMEOUT_S
                )[1]
                for partition in self.next_offsets
            }
        except KafkaException as error:
            raise Unavailable("kafka", f"topic {self._topic!r}: {error.args[0].str()}") from None

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

    def _partitions(self) -> list[int]:
        try:
            topic = self._consumer.list_topics(self._topic, REQUEST_TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise Unavailable("kafka", error.args[0].str()) from None
        if topic.error is not None:
            raise Unavailable("kafka", f"topic {self._topic!r}: {topic.error.str()}")
        return list(topic.partitions)
