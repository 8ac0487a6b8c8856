"""The publisher: sends verdicts and dead letters, and commits the offsets of the uploads that they answer."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka.config import (
    BROKER_TIMEOUT_S,
    CLOSE_TIMEOUT_S,
    MARKERS_S,
    MAX_MESSAGE_BYTES,
    RETRY_PAUSE_MS,
    SENT_ONCE_S,
    client_options,
)
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.messages import OutgoingMessage, produce
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

# Longer than a call that keeps to its time-out may take.
HANG_TIMEOUT_S = BROKER_TIMEOUT_S + 5


class _Undelivered(Exception):
    """The brokers did not take these messages; `errors` is keyed by their index within the call."""

    def __init__(self, errors: dict[int, KafkaError]) -> None:
        super().__init__()
        self.errors = errors


class _ClientHangs(Exception):
    """A call to the client does not return."""


class Publisher:
    """Publishes messages and then commits the offsets that they answer, in one of two ways of delivery.

    `exactly-once`: one transaction holds messages and offsets. `at-least-once`: the messages first, then the offsets,
    so that after a crash in between the same verdicts, with the same ids, are published again.

    A request that the network holds back while the client repeats it may arrive when the next transaction has begun.
    Brokers take a late EndTxn for that one's end, and a late TxnOffsetCommit for its offsets, as long as they come from
    a producer of the same epoch (KIP-890; librdkafka 2.15 does not speak the newer protocol). So no producer goes on
    after an abort, nor after requests that may have been sent twice: a new one of the same name begins a new epoch.
    """

    def __init__(self, settings: KafkaSettings, consumer: UploadsConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._transactional = settings.delivery == "exactly-once"
        # Without an instance id the name is random: the generations of the group still fence its zombies.
        self._transactional_id = f"{settings.group_id}-{settings.instance_id or uuid.uuid4()}"
        self._producer: Producer | None = None
        self._commit_unconfirmed = False
        self._delivery_errors: dict[int, KafkaError] = {}

    def prepare(self) -> None:
        """Have a producer, which gives up the transaction that an earlier one of its name left open.

        Until that ends, brokers keep its offsets back, and with them all records of the group's members that begin: so
        nothing would come whose publication could end it. Raises Unavailable.
        """
        if not self._transactional:
            return
        try:
            self._ready_producer()
        except KafkaException as exception:
            raise _unavailable(exception) from None

    def publish(
        self,
        messages: Iterable[OutgoingMessage],
        offsets: Sequence[TopicPartition],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Publish the messages and commit the offsets; returns when both are done.

        To be called while the leases are known to hold. `check` is called when the brokers have the messages, and
        nothing is committed if it raises Unavailable. Raises Unavailable also when the brokers did not confirm it; the
        same call may be repeated while the leases hold.
        """
        # The generation of now, not of when the offsets are sent: a partition may go to another process meanwhile.
        self._publish(list(messages), offsets, check, self._consumer.generation)

    def _publish(
        self,
        messages: list[OutgoingMessage],
        offsets: Sequence[TopicPartition],
        check: Callable[[], None],
        generation: Any,
    ) -> None:
        try:
            producer = self._ready_producer()
            if self._commit_unconfirmed and self._are_committed(offsets):
                self._commit_unconfirmed = False
                return
            if self._transactional:
                self._publish_in_transaction(producer, messages, offsets, check, generation)
            else:
                self._deliver(producer, messages)
                check()
                self._consumer.commit(offsets)
        except _Undelivered as undelivered:
            # The client miscounts after a refusal, so that what it sends next would fail too: make a new producer.
            self._abort()
            self._producer = None
            smaller = _shrink_largest(messages, undelivered.errors)
            if smaller == messages:
                index, error = min(undelivered.errors.items())
                raise Unavailable("kafka", f"topic {messages[index].topic!r}: {error.str()}") from None
            self._publish(smaller, offsets, check, generation)
        except _ClientHangs:
            self._producer = None  # a new one under the same name aborts the transaction that this one has begun
            raise Unavailable("kafka", "the client does not come back from the group's coordinator") from None
        except SystemError:
            # So the client (confluent-kafka 2.15) shows a fatal error that it hears of in flush().
            self._producer = None
            raise Unavailable("kafka", "the client gave up while it sent messages; its log has the reason") from None
        except KafkaException as exception:
            self._abort()
            raise _unavailable(exception) from None

    def close(self) -> None:
        """Give up what is not yet published. May be called from any thread."""
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
                    # Batches come whole; to wait for more messages would only add latency.
                    "linger.ms": 0,
                    "compression.type": "lz4",
                    "message.timeout.ms": int(BROKER_TIMEOUT_S * 1000),
                    **(
                        {
                            "transactional.id": self._transactional_id,
                            "retry.backoff.ms": RETRY_PAUSE_MS,
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

    def _publish_in_transaction(
        self,
        producer: Producer,
        messages: Sequence[OutgoingMessage],
        offsets: Sequence[TopicPartition],
        check: Callable[[], None],
        generation: Any,
    ) -> None:
        if not messages:
            time.sleep(MARKERS_S)
        producer.begin_transaction()
        self._deliver(producer, messages)  # brokers recognize a message that was sent twice
        try:
            check()
        except Unavailable:
            self._abort()
            raise
        began_s = time.monotonic()
        _retry_unless_hung(lambda: producer.send_offsets_to_transaction(list(offsets), generation, BROKER_TIMEOUT_S))
        # From here until the brokers answer, the transaction may be committed or not: the group's offsets show which.
        self._commit_unconfirmed = True
        _retry(lambda: producer.commit_transaction(BROKER_TIMEOUT_S))
        self._commit_unconfirmed = False
        if (took_s := time.monotonic() - began_s) >= SENT_ONCE_S:
            log.info("a commit took %.1f s and may have been sent twice: starting a new producer", took_s)
            self._producer = None

    def _are_committed(self, offsets: Sequence[TopicPartition]) -> bool:
        """Tell whether a commit of unknown outcome succeeded: the group's offsets are then at these or beyond."""
        expected = {position.partition: position.offset for position in offsets}
        committed = self._consumer.committed(offsets, BROKER_TIMEOUT_S)
        return all(position.offset >= expected[position.partition] for position in committed)

    def _deliver(self, producer: Producer, messages: Sequence[OutgoingMessage]) -> None:
        self._delivery_errors.clear()
        for index, message in enumerate(messages):
            try:
                self._produce(producer, message, index)
            except KafkaException as exception:
                self._delivery_errors[index] = exception.args[0]
            producer.poll(0)
        if producer.flush(BROKER_TIMEOUT_S):
            producer.purge()
            producer.flush(CLOSE_TIMEOUT_S)
        if self._delivery_errors:
            raise _Undelivered(dict(self._delivery_errors))

    def _produce(self, producer: Producer, message: OutgoingMessage, index: int) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._delivery_errors[index] = error

        produce(producer, message.topic, message.value, message.key, message.headers, delivered)

    def _abort(self) -> None:
        if self._producer is None or not self._transactional:
            return
        producer, self._producer = self._producer, None
        try:
            producer.abort_transaction(BROKER_TIMEOUT_S)
        except KafkaException as exception:
            # Fenced or out of step: a new producer under the same name aborts whatever this one left open.
            log.warning("cannot abort a transaction: %s", exception.args[0].str())


def _unavailable(exception: KafkaException) -> Unavailable:
    error = exception.args[0]
    return Unavailable("kafka", f"{error.name()}: {error.str()}")


def _shrink_largest(messages: list[OutgoingMessage], errors: Mapping[int, KafkaError]) -> list[OutgoingMessage]:
    """Shrink the largest of the messages that were refused as too large, and those more than half its size.

    A whole batch is refused, together with messages that would fit alone: so the smaller ones are left as they are. The
    share of a half is because an attacker's many large messages would otherwise take as many tries.
    """
    refused = [n for n, error in errors.items() if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
    sizes_bytes = {n: messages[n].size_bytes for n in refused if messages[n].may_shrink}
    largest_bytes = max(sizes_bytes.values(), default=0)
    return [m.shrink() if sizes_bytes.get(n, 0) > largest_bytes / 2 else m for n, m in enumerate(messages)]


def _retry_unless_hung(call: Callable[[], Any]) -> None:
    """Run `_retry(call)` in a thread of its own. Raises _ClientHangs when it does not return in time.

    librdkafka waits for a coordinator that is gone without regard to its time-out (seen in 2.15, a broker killed). The
    call is then left behind with its thread.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            _retry(call)
            outcome.set_result(None)
        except BaseException as error:  # raised again for whoever waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="kafka call", daemon=True).start()
    try:
        outcome.result(HANG_TIMEOUT_S)
    except TimeoutError:
        raise _ClientHangs from None


def _retry(call: Callable[[], Any]) -> None:
    """Repeat a transactional call while its error is retriable, within BROKER_TIMEOUT_S. Raises KafkaException."""
    deadline_s = time.monotonic() + BROKER_TIMEOUT_S
    while True:
        try:
            call()
            return
        except KafkaException as exception:
            if not exception.args[0].retriable() or time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
