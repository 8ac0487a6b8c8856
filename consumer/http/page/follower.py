"""Follows a small topic from its beginning, for as long as the process runs."""

import json
import logging
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.kafka.config import client_options
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

RETRY_S, POLL_S, BROKER_TIMEOUT_S = 2.0, 0.5, 10.0

# Takes a message's key, the data of its CloudEvent (None where there is no value), and its time.
Listener = Callable[[bytes, dict[str, Any] | None, datetime], None]


class TopicFollower:
    """Tells a listener of each message of a topic that is a CloudEvent in JSON, or deletes; others are left out."""

    def __init__(self, settings: KafkaSettings, topic: str, listener: Listener) -> None:
        self._settings = settings
        self._topic = topic
        self._listener = listener
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {topic}", daemon=True)
        if topic:
            self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            consumer = Consumer(
                {
                    **client_options(self._settings),
                    "group.id": f"seenit-look-{uuid.uuid4()}",  # required; nothing is ever committed under it
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed",
                }
            )
            try:
                self._read(consumer)
            except KafkaException as error:
                log.warning("topic %s cannot be read: %s", self._topic, error.args[0].str())
            except Exception:
                log.exception("topic %s cannot be read", self._topic)
            finally:
                consumer.close()
            self._stop.wait(RETRY_S)

    def _read(self, consumer: Consumer) -> None:
        topic = consumer.list_topics(self._topic, BROKER_TIMEOUT_S).topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        consumer.assign([TopicPartition(self._topic, partition, 0) for partition in topic.partitions])
        while not self._stop.is_set():
            for message in consumer.consume(500, POLL_S):
                if message.error() is not None:
                    continue
                value, time = message.value(), datetime.fromtimestamp(max(0, message.timestamp()[1]) / 1000, UTC)
                data = None if value is None else _data(value)
                if value is None or data is not None:
                    self._listener(message.key() or b"", data, time)


def _data(value: bytes) -> dict[str, Any] | None:
    """The data of a CloudEvent, in binary or structured mode; None for anything else."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and "specversion" in document:
        document = document.get("data")
    return document if isinstance(document, dict) else None
