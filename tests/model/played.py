"""Kafka, played: a group and transactions as the brokers keep them, one request at a time.

Written from Kafka's protocol, not from the model. A late request is told from others by the epoch of its producer.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

TOPIC = "image-uploads"
# What the client waits before it sends a request again.
RETRY_PAUSE_S = 0.5


def refuse(code: int) -> KafkaException:
    """An error that the client does not retry."""
    return KafkaException(KafkaError(code, "played", False, False))


@dataclass
class Transaction:
    """What the coordinator knows of one transactional id; what belongs to an open transaction is not yet visible."""

    epoch: int = 0
    is_open: bool = False
    last_end: str = ""
    messages: list[Any] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)


class PlayedBroker:
    """The input topic, a group that reads it, the transactions, and requests that the network holds back."""

    def __init__(self, uploads: Sequence[Sequence[str]]) -> None:
        self.uploads = uploads
        self.generation = 0
        self.committed = [0] * len(uploads)
        self.visible: list[Any] = []
        self.transactions: dict[str, Transaction] = {}
        self.held: list[tuple[str, str, Callable[[], object]]] = []

    def begin_epoch(self, name: str) -> int:
        """Give a name its next epoch, and abort what the last one left open."""
        transaction = self.transactions.setdefault(name, Transaction())
        if transaction.is_open:
            self._end(transaction, "abort")
        transaction.epoch += 1
        transaction.last_end = ""
        return transaction.epoch

    def produce(self, name: str, epoch: int, messages: Sequence[Any]) -> None:
        transaction = self._current(name, epoch)
        transaction.is_open = True
        transaction.messages += messages

    def add_offsets(self, name: str, epoch: int, generation: int, offsets: Sequence[TopicPartition]) -> None:
        transaction = self._current(name, epoch)
        if generation != self.generation:
            raise refuse(KafkaError.ILLEGAL_GENERATION)
        transaction.is_open = True
        transaction.offsets |= {each.partition: each.offset for each in offsets}

    def add_late_offsets(self, name: str, epoch: int, generation: int, offsets: Sequence[TopicPartition]) -> None:
        """A request for offsets alone: the group has to be part of the transaction already."""
        if self._current(name, epoch).offsets:
            self.add_offsets(name, epoch, generation, offsets)

    def end(self, name: str, epoch: int, how: str) -> None:
        transaction = self._current(name, epoch)
        if transaction.is_open:
            self._end(transaction, how)
        elif transaction.last_end != how:
            raise refuse(KafkaError.INVALID_TXN_STATE)

    def deliver(self, name: str, kind: str) -> None:
        """Let one request through that was held back; nobody hears the answer."""
        request = next(each for each in self.held if each[:2] == (name, kind))
        self.held.remove(request)
        with suppress(KafkaException):
            request[2]()

    def _current(self, name: str, epoch: int) -> Transaction:
        transaction = self.transactions[name]
        if transaction.epoch != epoch:
            raise refuse(KafkaError.INVALID_PRODUCER_EPOCH)
        return transaction

    def _end(self, transaction: Transaction, how: str) -> None:
        if how == "commit":
            self.visible += transaction.messages
            for partition, offset in transaction.offsets.items():
                self.committed[partition] = offset
        transaction.is_open, transaction.last_end = False, how
        transaction.messages, transaction.offsets = [], {}


Stop = Callable[[str], str]
"""Waits until the named request may go, and returns what shall become of it: the name of the model's action."""


class PlayedProducer:
    """A transactional producer whose client sends a request again by itself when a connection dies."""

    def __init__(self, options: dict[str, Any], broker: PlayedBroker, stop: Stop) -> None:
        self._name = options["transactional.id"]
        self._broker = broker
        self._stop = stop
        self._epoch = 0
        self._fenced = False
        self._batch: list[tuple[Any, Callable[..., None]]] = []

    def init_transactions(self, _: float) -> None:
        self._stop("TakeProducer")
        self._epoch = self._broker.begin_epoch(self._name)

    def begin_transaction(self) -> None:
        pass

    def produce(self, topic: str, value: bytes, key: bytes, headers: Any, on_delivery: Callable[..., None]) -> None:
        self._batch.append(((topic, value), on_delivery))

    def poll(self, _: float) -> None:
        pass

    def purge(self) -> None:
        self._batch = []

    def flush(self, _: float) -> int:
        if not self._batch:
            return 0
        self._stop("Produce")
        error = None
        try:
            self._broker.produce(self._name, self._epoch, [message for message, _ in self._batch])
        except KafkaException as exception:
            self._fenced, error = True, exception.args[0]
        for _, on_delivery in self._batch:
            on_delivery(error, None)
        self._batch = []
        return 0

    def send_offsets_to_transaction(self, offsets: Sequence[TopicPartition], generation: int, _: float) -> None:
        action = self._stop("SendOffsets")
        arguments = (self._name, self._epoch, generation, offsets)
        self._broker.add_offsets(*arguments)
        if action == "SendOffsetsTwice":
            self._hold("offsets", lambda: self._broker.add_late_offsets(*arguments))

    def commit_transaction(self, _: float) -> None:
        action = self._stop("Commit")
        if action in ("CommitTwice", "CommitHeld"):
            self._hold("commit", self._request("commit"))
        if action != "CommitHeld":
            self._request("commit")()
        if action in ("CommitHeld", "CommitUnanswered"):
            raise refuse(KafkaError._TIMED_OUT)

    def abort_transaction(self, _: float) -> None:
        if self._fenced:  # the client knows, and asks nobody
            raise refuse(KafkaError._FENCED)
        if self._stop("Abort") == "AbortTwice":
            self._hold("abort", self._request("abort"))
        self._request("abort")()

    def _request(self, how: str) -> Callable[[], None]:
        name, epoch = self._name, self._epoch
        return lambda: self._broker.end(name, epoch, how)

    def _hold(self, kind: str, request: Callable[[], object]) -> None:
        time.sleep(RETRY_PAUSE_S)
        self._broker.held.append((self._name, kind, request))


class PlayedClient:
    """The client of a member of the group. The test says when it is assigned what, and which partition it reads."""

    def __init__(self, broker: PlayedBroker, stop: Stop) -> None:
        self._broker = broker
        self._stop = stop
        self.generation = 0
        self.positions: dict[int, int] = {}
        self.reads: int | None = None
        self._owner = threading.current_thread()

    def subscribe(self, *_: Any, **callbacks: Any) -> None:
        pass

    def consumer_group_metadata(self) -> int:
        return self.generation

    def consume(self, _: int, __: float) -> list[Any]:
        partition, self.reads = self.reads, None
        if partition is None:
            return []
        offset = self.positions[partition]
        self.positions[partition] += 1
        image_id = self._broker.uploads[partition][offset].encode()
        return [
            SimpleNamespace(
                error=lambda: None,
                topic=lambda: TOPIC,
                partition=lambda: partition,
                offset=lambda: offset,
                key=lambda: image_id,
                value=lambda: image_id,
                headers=list,
                timestamp=lambda: (1, 1),
            )
        ]

    def committed(self, partitions: Sequence[TopicPartition], _: float) -> list[TopicPartition]:
        if threading.current_thread() is not self._owner:  # the rewind guard asks on the thread that polls
            self._stop("AskOutcome")
        return [TopicPartition(TOPIC, each.partition, self._broker.committed[each.partition]) for each in partitions]


class PlayedAdmin:
    """Knows the topic, which is never made anew."""

    def describe_topics(self, _: Any, request_timeout: float) -> dict[str, Future[Any]]:
        future: Future[Any] = Future()
        future.set_result(SimpleNamespace(topic_id="1"))
        return {TOPIC: future}
