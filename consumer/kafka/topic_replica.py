"""A copy of a compacted topic in this process: reads all of it, and then follows it.

A reader behind is no reader: `catch_up` returns when all has been read that stood on the topic when it was called, and
waits for transactions that were open then.
"""

import logging
import threading
import time
from collections.abc import Callable

from confluent_kafka import Consumer

from consumer.errors import Unavailable
from consumer.events import Record
from consumer.kafka.config import BROKER_TIMEOUT_S, CLOSE_TIMEOUT_S, client_options
from consumer.kafka.topic_reader import TopicReader, find_ends, find_partitions
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

_MESSAGES_AT_ONCE = 500
_POLL_S = 0.2


class TopicReplica:
    """Calls `apply` for each message of a topic, in a thread of its own, from the oldest one on."""

    def __init__(self, settings: KafkaSettings, topic: str, apply: Callable[[Record], None]) -> None:
        self._settings = settings
        self._topic = topic
        self._apply = apply
        self._patience_s = settings.transaction_timeout_ms / 1000 + BROKER_TIMEOUT_S
        # Only a client that reads uncommitted messages is told where a partition ends behind an open transaction.
        self._asker = Consumer(
            {
                **client_options(settings),
                "group.id": settings.group_id,  # a name is required; it is no member of the group
                "enable.auto.commit": False,
                "isolation.level": "read_uncommitted",
            }
        )
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
        if self._ask_lock.acquire(timeout=CLOSE_TIMEOUT_S):
            self._asker.close()
            self._ask_lock.release()

    def catch_up(self) -> None:
        """Wait until all is read that stands on the topic now. Raises Unavailable if it cannot be read to its end."""
        with self._ask_lock:
            self._partitions = self._partitions or find_partitions(self._asker, self._topic)
            ends = find_ends(self._asker, self._topic, self._partitions)
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

    def await_read(self, partition: int, offset: int, timeout_s: float) -> bool:
        """Wait until a message is applied, for at most some time; tell whether it is."""
        with self._moved:
            return self._moved.wait_for(lambda: self._next.get(partition, 0) > offset, timeout_s)

    def _follow(self) -> None:
        reported = ""
        try:
            while not self._closed.is_set():
                try:
                    self._read()
                except Unavailable as error:
                    if reported != str(error):
                        log.warning("topic %s is not followed: %s", self._topic, error)
                    reported = str(error)
                    self._closed.wait(_POLL_S)
        except BaseException as error:  # raised again for whoever waits
            log.exception("cannot follow the topic %s", self._topic)
            self._failure = error

    def _read(self) -> None:
        with TopicReader(self._settings, self._topic, self._next) as reader:
            while not self._closed.is_set():
                for record in reader.read(_MESSAGES_AT_ONCE, _POLL_S):
                    self._apply(record)
                with self._moved:
                    self._next = dict(reader.next_offsets)
                    self._moved.notify_all()
