"""Verdicts and dead letters go out, and the commit ties them to the uploads that they answer."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka.config import BROKER_TIMEOUT_S, CLOSE_TIMEOUT_S, MAX_MESSAGE_BYTES, client_options
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.messages import OutgoingMessage, produce
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

# Longer than a call that looks at the clock may take.
HANG_TIMEOUT_S = BROKER_TIMEOUT_S + 5


class _Undelivered(Exception):
    """Messages that the brokers did not take, by their number within the call."""

    def __init__(self, errors: dict[int, KafkaError]) -> None:
        super().__init__()
        self.errors = errors


class _Hanging(Exception):
    """The client does not return."""


class Publisher:
    """Verdicts and dead letters, then the offsets they answer, in the two ways of delivery.

    `exactly-once`: one transaction holds messages and offsets. `at-least-once`: the messages first, then the offsets,
    so that after a crash in between the same verdicts, with the same ids, are published again.
    """

    def __init__(self, settings: KafkaSettings, consumer: UploadsConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._transactional = settings.delivery == "exactly-once"
        # Without an instance id a name is made up: generations of the group fence its zombies all the same.
        self._transactional_id = f"{settings.group_id}-{settings.instance_id or uuid.uuid4()}"
        self._producer: Producer | None = None
        self._unsure = False
        self._errors: dict[int, KafkaError] = {}

    def publish(self, messages: Iterable[OutgoingMessage], offsets: Sequence[TopicPartition]) -> None:
        """Publish the messages and commit the offsets; returns when both are done.

        To be called while the leases are known to hold. Raises Unavailable when the brokers did not confirm it: the
        same call may be made again while the leases hold.
        """
        # Now, not when the offsets are sent: a partition may go to another process meanwhile.
        self._publish(list(messages), offsets, self._consumer.generation)

    def _publish(self, messages: list[OutgoingMessage], offsets: Sequence[TopicPartition], group: Any) -> None:
        try:
            producer = self._ready_producer()
            if self._unsure and self._committed(offsets):
                self._unsure = False
                return
            if self._transactional:
                self._in_transaction(producer, messages, offsets, group)
            else:
                self._deliver(producer, messages)
                self._consumer.commit(offsets)
        except _Undelivered as undelivered:
            # A new producer, because the client miscounts after a refusal: its next transaction would fail too.
            self._abort()
            self._producer = None
            shrunk = _shrink(messages, undelivered.errors)
            if shrunk == messages:
                number, error = min(undelivered.errors.items())
                raise Unavailable("kafka", f"topic {messages[number].topic!r}: {error.str()}") from None
            self._publish(shrunk, offsets, group)
        except _Hanging:
            self._producer = None  # a new one under the same name ends what this one has begun
            raise Unavailable("kafka", "the client does not come back from the group's coordinator") from None
        except KafkaException as exception:
            self._abort()
            error = exception.args[0]
            raise Unavailable("kafka", f"{error.name()}: {error.str()}") from None

    def close(self) -> None:
        """Give up what is not yet published; from any thread."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(CLOSE_TIMEOUT_S)

    def _ready_producer(self) -> Producer:
        if self._producer is None:
            producer = Producer(
                {
                    **client_options(self._settings),
                    "enable.idempotence": True,
                    "message.max.bytes": MAX_MESSAGE_BYTES,
                    # Batches come whole; waiting for more of them would only add to the latency.
                    "linger.ms": 0,
                    "compression.type": "lz4",
                    "message.timeout.ms": int(BROKER_TIMEOUT_S * 1000),
                    **(
                        {
                            "transactional.id": self._transactional_id,
                            "transaction.timeout.ms": self._settings.transaction_timeout_ms,
                        }
                        if self._transactional
                        else {}
                    ),
                }
            )
            if self._transactional:
                producer.init_transactions(BROKER_TIMEOUT_S)
            self._producer = producer
        return self._producer

    def _in_transaction(
        self, producer: Producer, messages: Sequence[OutgoingMessage], offsets: Sequence[TopicPartition], group: Any
    ) -> None:
        producer.begin_transaction()
        self._deliver(producer, messages)
        _returning(lambda: producer.send_offsets_to_transaction(list(offsets), group, BROKER_TIMEOUT_S))
        # From here until the brokers answer, the transaction may stand or not: its offsets will tell.
        self._unsure = True
        _again(lambda: producer.commit_transaction(BROKER_TIMEOUT_S))
        self._unsure = False

    def _committed(self, offsets: Sequence[TopicPartition]) -> bool:
        """Whether the group's offsets already stand where a commit of unknown outcome would have put them."""
        wanted = {offset.partition: offset.offset for offset in offsets}
        committed = self._consumer.committed(offsets, BROKER_TIMEOUT_S)
        return all(position.offset >= wanted[position.partition] for position in committed)

    def _deliver(self, producer: Producer, messages: Sequence[OutgoingMessage]) -> None:
        self._errors.clear()
        for number, message in enumerate(messages):
            try:
                self._produce(producer, message, number)
            except KafkaException as exception:
                self._errors[number] = exception.args[0]
            producer.poll(0)
        if producer.flush(BROKER_TIMEOUT_S):
            producer.purge()
            producer.flush(CLOSE_TIMEOUT_S)
        if self._errors:
            raise _Undelivered(dict(self._errors))

    def _produce(self, producer: Producer, message: OutgoingMessage, number: int) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._errors[number] = error

        produce(producer, message.topic, message.value, message.key, message.headers, delivered)

    def _abort(self) -> None:
        if self._producer is None or not self._transactional:
            return
        try:
            self._producer.abort_transaction(BROKER_TIMEOUT_S)
        except KafkaException as exception:
            # Fenced or out of step: a new producer under the same name ends whatever this one left open.
            log.warning("cannot abort a transaction, starting a new producer: %s", exception.args[0].str())
            self._producer = None


def _shrink(messages: list[OutgoingMessage], errors: Mapping[int, KafkaError]) -> list[OutgoingMessage]:
    """The messages, without the values that were too large.

    Messages are refused by the batch, with those that would fit alone: so the largest goes without its value, and what
    is more than half as large, lest an attacker's many large ones take as many tries.
    """
    refused = [n for n, error in errors.items() if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
    sizes = {n: messages[n].size_bytes for n in refused if messages[n].may_shrink}
    largest = max(sizes.values(), default=0)
    return [m.shrunk() if sizes.get(n, 0) > largest / 2 else m for n, m in enumerate(messages)]


def _returning(call: Callable[[], Any]) -> None:
    """`_again`, for a call that may not come back in the time it is given. Raises _Hanging when it does not.

    librdkafka waits for a coordinator that is gone without looking at the clock (seen in 2.15, a broker killed). The
    call is then left behind with its thread.
    """
    outcome: Future[None] = Future()

    def make() -> None:
        try:
            _again(call)
            outcome.set_result(None)
        except BaseException as error:  # goes to whoever waits
            outcome.set_exception(error)

    threading.Thread(target=make, name="kafka call", daemon=True).start()
    try:
        outcome.result(HANG_TIMEOUT_S)
    except TimeoutError:
        raise _Hanging from None


def _again(call: Callable[[], Any]) -> None:
    """Repeat a transactional call for as long as the client says that this mends it, within BROKER_TIMEOUT_S."""
    deadline_s = time.monotonic() + BROKER_TIMEOUT_S
    while True:
        try:
            call()
            return
        except KafkaException as exception:
            if not exception.args[0].retriable() or time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
