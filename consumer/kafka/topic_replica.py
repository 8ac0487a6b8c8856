"""A copy of a compacted topic in this process: reads all of it, and then follows it.

A reader behind is no reader: `catch_up` returns when all has been read that stood on the topic when it was called, and
waits for transactions that were open then.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka.config import BROKER_TIMEOUT_S, CLOSE_TIMEOUT_S, FETCH_WAIT_MS, client_options
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

_MESSAGES_AT_ONCE = 500
_POLL_S = 0.2


class TopicReplica:
    """Calls `apply(key, value)` for each message of a topic, in a thread of its own, from the oldest one on."""

    def __init__(
        self, settings: KafkaSettings, topic: str, apply: Callable[[bytes | None, bytes | None], None]
    ) -> None:
        self._topic = topic
        self._apply = apply
        self._patience_s = settings.transaction_timeout_ms / 1000 + BROKER_TIMEOUT_S
        options = {
            **client_options(settings),
            "group.id": settings.group_id,  # a name is required; it is no member of the group
            "enable.auto.commit": False,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
        }
        self._reader = Consumer({**options, "isolation.level": "read_committed", "enable.partition.eof": True})
        # Only a client that reads uncommitted messages is told where a partition ends behind an open transaction.
        self._asker = Consumer({**options, "isolation.level": "read_uncommitted"})
        self._ask_lock = threading.Lock()
        self._partitions: tuple[int, ...] = ()
        self._next: dict[int, int] = {}  # offset up to which each partition is read
        self._moved = threading.Condition()
        self._failure: BaseException | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"follow {topic}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading. A client that waits for brokers which do not answer is left behind with its thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive() and self._ask_lock.acquire(timeout=CLOSE_TIMEOUT_S):
            self._asker.close()
            self._reader.close()
            self._ask_lock.release()

    def catch_up(self) -> None:
        """Wait until all is read that stands on the topic now. Raises Unavailable if it cannot be read to its end."""
        with self._ask_lock:
            ends = self._ends()
        deadline_s = time.monotonic() + self._patience_s

        def reached() -> bool:
            if self._failure is not None:
                raise self._failure
            return all(self._next.get(partition, 0) >= end for partition, end in ends.items())

        with self._moved:
            while not self._moved.wait_for(reached, _POLL_S):
                if self._closed.is_set():
                    raise Unavailable("kafka", "stopped")
                if time.monotonic() > deadline_s:
                    raise Unavailable("kafka", f"topic {self._topic!r} cannot be read to its end")

    def _ends(self) -> dict[int, int]:
        try:
            if not self._partitions:
                topic = self._asker.list_topics(self._topic, BROKER_TIMEOUT_S).topics[self._topic]
                if topic.error is not None:
                    raise KafkaException(topic.error)
                self._partitions = tuple(topic.partitions)
            return {
                partition: self._asker.get_watermark_offsets(TopicPartition(self._topic, partition), BROKER_TIMEOUT_S)[
                    1
                ]
                for partition in self._partitions
            }
        except KafkaException as error:
            raise Unavailable("kafka", f"topic {self._topic!r}: {error.args[0].str()}") from None

    def _follow(self) -> None:
        try:
            while not self._closed.is_set():
                with suppress(Unavailable):
                    with self._ask_lock:
                        partitions = self._ends()
                    self._reader.assign([TopicPartition(self._topic, partition, 0) for partition in partitions])
                    break
                self._closed.wait(_POLL_S)
            while not self._closed.is_set():
                self._read()
        except BaseException as error:  # raised again for whoever waits
            log.exception("cannot follow the topic %s", self._topic)
            self._failure = error

    def _read(self) -> None:
        for message in self._reader.consume(_MESSAGES_AT_ONCE, _POLL_S):
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is None:
                self._apply(message.key(), message.value())
            elif error.code() != KafkaError._PARTITION_EOF:
                log.debug("topic %s: %s", self._topic, error.str())
                continue
            with self._moved:
                # A transaction's marker may stand behind a partition's last message: its end is where the client says.
                self._next[partition or 0] = (offset or 0) + (error is None)
                self._moved.notify_all()
