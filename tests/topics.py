"""Reads topics as they stand."""

import time
import uuid

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

TIMEOUT_S = 60.0


def read_topic(bootstrap_servers: str, topic: str, isolation: str = "read_committed") -> list[Message]:
    """Return all that stands on a topic by now at this isolation level, in the order of each partition.

    Fetches tell where a partition ends. Tansu's answer to who asks is too low where a batch of several is the last.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,  # an end is told by a fetch that brings nothing
        }
    )
    partitions = consumer.list_topics(topic, TIMEOUT_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    unread: set[int | None] = set(partitions)
    messages: list[Message] = []
    deadline_s = time.monotonic() + TIMEOUT_S
    while unread:
        assert time.monotonic() < deadline_s, f"{topic} cannot be read to its end"
        for message in consumer.consume(1000, 0.05):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
    consumer.close()
    return messages
