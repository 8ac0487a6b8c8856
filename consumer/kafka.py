"""The topics: uploads in, verdicts and dead letters out, and the commit that ties the two together.

A partition is held on a *lease*: a number drawn when it is assigned and withdrawn when it is revoked or lost. Work
carries the lease it was polled under, and is published only while that lease holds, so nothing is ever committed for
a partition that has gone to another process meanwhile.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import Misconfigured, Unavailable, Unprocessable
from consumer.events import Record
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

# How long one call to the brokers may take before the batch is tried again: longer than a leader's failover.
BROKER_TIMEOUT_S = 15.0
# Brokers answer a fetch as soon as there is something; the embedded one lets new records wait for this time to end.
FETCH_WAIT_MS = 20
# A broker that stands still holds a request until then; with the client's own 60 s a whole transaction would be lost.
SOCKET_TIMEOUT_MS = 10_000
# Dead letters carry the original value: the producer's own bound must not be the narrowest on the way.
MAX_MESSAGE_BYTES = 64 << 20
# A probe has to answer before its asker gives up, usually after some seconds.
CHECK_TIMEOUT_S = 2.0
# How the client words that a static member of the same name is not given up yet: the code itself it keeps to itself.
NAME_IN_USE = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()
# A stop is not held up by a consumer that hangs in close(): the group's session time-out does the rest.
CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish; one that `may_shrink` goes without its value if its topic does not take one so large, and
    without the headers it came with if that is not enough."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    may_shrink: bool = False

    def shrunk(self) -> "Outgoing":
        """Without the value, of which a header tells how large it was; once that is gone, without foreign headers."""
        if self.value is None:
            own = tuple(header for header in self.headers if header[0].startswith("seenit-"))
            return Outgoing(self.topic, None, None, own)
        size = ("seenit-omitted-bytes", str(len(self.value)).encode())
        return Outgoing(self.topic, self.key, None, (*self.headers, size), may_shrink=True)

    @property
    def size_bytes(self) -> int:
        """About what it takes on the wire."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to commit one partition, from its assignment to its revocation."""

    partition: int
    number: int


Leased = tuple[Record, Lease]


def dead_letter(record: Record, error: Unprocessable, image_id: str, topic: str) -> Outgoing:
    """The original message unchanged, with what was wrong and where it stood as further headers.

    It is larger than the original, which may have been as large as the input topic takes.
    """
    about = {
        "seenit-reason": error.reason,
        "seenit-detail": error.detail,
        "seenit-image-id": image_id,
        "seenit-topic": record.topic,
        "seenit-partition": str(record.partition),
        "seenit-offset": str(record.offset),
    }
    added = tuple((name, text.encode("utf-8", "backslashreplace")) for name, text in about.items())
    return Outgoing(topic, record.key, record.value, (*record.headers, *added), may_shrink=True)


class UploadsConsumer:
    """The input topic, read as a member of the group.

    `poll`, `idle` and `close` belong to one thread, which also runs the rebalance callbacks; `holds` and `commit_lock`
    may be used from any. `on_revoke` is called before partitions are given up, to finish what is in
    flight; it must return within its own bound. `on_rebalance` is told each change: assigned, revoked or lost.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        on_revoke: Callable[[], None],
        on_rebalance: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.topic = settings.input_topic
        self._on_rebalance = on_rebalance
        self.commit_lock = threading.Lock()
        self._on_revoke = on_revoke
        self._numbers: dict[int, int] = {}
        self._last_number = 0
        # What the client has paused, held or not: it stays paused when it goes to another process and comes back.
        self._paused: set[int] = set()
        self._early: list[Leased] = []
        self._begun: dict[int, int] = {}  # by partition, the number of the lease whose first record was in its place
        # Asking the consumer itself would wait for its poll to return.
        self._admin = AdminClient(client_options(settings))
        self._options = {
            **client_options(settings),
            **_membership(settings),
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }
        self._join()

    def _join(self) -> None:
        self.raw = Consumer(self._options)
        self.raw.subscribe([self.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def poll(self, most: int, first_s: float, more_s: float) -> list[Leased]:
        """Up to `most` records: waits `first_s` for the first one and `more_s` for those after it.

        Raises Misconfigured when the brokers will not have this member, and Unavailable as long as the one that had its
        name before, and was killed, counts as alive.
        """
        if paused := self._paused & set(self._numbers):
            self.raw.resume([TopicPartition(self.topic, p) for p in paused])
            self._paused -= paused
        leased, self._early = self._early[:most], self._early[most:]
        if not leased:
            leased = self._consume(1, first_s)
        if leased and len(leased) < most:
            leased += self._consume(most - len(leased), more_s)
        # A rebalance in a later call has withdrawn the leases of records from an earlier one.
        return self._uncommitted([(record, lease) for record, lease in leased if self.holds(lease)])

    def put_back(self, leased: Sequence[Leased]) -> None:
        """Let records that were just polled come once more, before all others."""
        self._early[:0] = leased

    def idle(self, wait_s: float) -> None:
        """Stay in the group without taking more records, for as long as there is no room for them."""
        running = set(self._numbers) - self._paused
        if running:
            self.raw.pause([TopicPartition(self.topic, p) for p in running])
            self._paused |= running
        # A partition assigned during this very call may yield a record before it is paused: it is kept for later.
        self._early += self._consume(1, wait_s)

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions held, from any thread."""
        return tuple(self._numbers)

    def holds(self, lease: Lease) -> bool:
        """Whether work under this lease may still be committed."""
        return self._numbers.get(lease.partition) == lease.number

    def check(self) -> None:
        """Raises Unavailable unless the brokers know the input topic."""
        try:
            topic = self._admin.list_topics(self.topic, timeout=CHECK_TIMEOUT_S).topics[self.topic]
        except KafkaException as error:
            raise Unavailable("kafka", str(error.args[0])) from None
        if topic.error is not None:
            raise Unavailable("kafka", f"topic {self.topic!r}: {topic.error.str()}")

    def close(self) -> None:
        """Leave the group; bounded, since closing can hang in the client."""
        closer = threading.Thread(target=self.raw.close, daemon=True)
        closer.start()
        closer.join(CLOSE_TIMEOUT_S)
        if closer.is_alive():
            log.warning("leaving the group took more than %s s; its session will time out", CLOSE_TIMEOUT_S)

    def _consume(self, most: int, wait_s: float) -> list[Leased]:
        """Records with the lease that holds right after the call which brought them.

        Rebalances happen within that call, and the client itself drops what it had fetched before one.
        """
        leased = []
        for message in self.raw.consume(most, wait_s):
            error = message.error()
            if error is None:
                record = _record(message)
                leased.append((record, Lease(record.partition, self._numbers.get(record.partition, -1))))
            elif NAME_IN_USE in error.str():
                # KIP-848 makes an heir wait until the session has ended, and the client gives up at once.
                self.close()
                self._join()
                raise Unavailable("kafka", f"{error.str()}: {self._options['group.instance.id']!r}")
            elif error.fatal() or error.code() == KafkaError._FATAL:
                raise Misconfigured(f"the consumer cannot go on: {error.str()}")
            else:
                # The client retries by itself; leases tell whether partitions were lost.
                log.warning("kafka: %s", error.str())
        return leased

    def _uncommitted(self, leased: list[Leased]) -> list[Leased]:
        """The records, without those of partitions that began before the group's offset; these begin again there.

        A client that asks for its offsets while a transaction over them is open, as that of a process just killed, has
        to wait. Should its assignment change meanwhile, librdkafka takes the missing answer for a partition without any
        offset, and begins at the start of it (seen in 2.15). So the first record of each lease is held against the
        group's offset. While that cannot be told, nothing is handed out.
        """
        fresh = {lease.partition: lease for _, lease in leased if self._begun.get(lease.partition) != lease.number}
        if not fresh:
            return leased
        asked = [TopicPartition(self.topic, partition) for partition in fresh]
        try:
            committed = {at.partition: at for at in self.raw.committed(asked, CHECK_TIMEOUT_S)}
            if any(at.error is not None for at in committed.values()):
                raise KafkaException(KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT))
            first = {record.partition: record.offset for record, _ in reversed(leased)}
            rewound = [at for partition, at in committed.items() if at.offset > first[partition]]
            for at in rewound:
                log.warning("partition %d began at %d, it goes on at %d", at.partition, first[at.partition], at.offset)
                self.raw.seek(at)
        except KafkaException as exception:
            log.debug("cannot tell the committed offsets: %s", exception.args[0].str())
            self._early = leased + self._early
            self.idle(0.0)
            return []
        self._begun |= {partition: lease.number for partition, lease in fresh.items()}
        again = {at.partition for at in rewound}
        return [(record, lease) for record, lease in leased if lease.partition not in again]

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        with self.commit_lock:
            for partition in partitions:
                self._last_number += 1
                self._numbers[partition.partition] = self._last_number
        self._on_rebalance("assigned")
        log.info("assigned partitions %s", sorted(p.partition for p in partitions))

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_revoke()
        self._withdraw(partitions, "revoked")

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._withdraw(partitions, "lost")

    def _withdraw(self, partitions: list[TopicPartition], why: str) -> None:
        # A commit under way finishes first. Should it hang, the broker refuses it: its group generation is over.
        locked = self.commit_lock.acquire(timeout=CLOSE_TIMEOUT_S)
        try:
            for partition in partitions:
                self._numbers.pop(partition.partition, None)
        finally:
            if locked:
                self.commit_lock.release()
        self._on_rebalance(why)
        log.info("%s partitions %s", why, sorted(p.partition for p in partitions))


class _Undelivered(Exception):
    """Messages that the brokers did not take, by their number within the call."""

    def __init__(self, errors: dict[int, KafkaError]) -> None:
        super().__init__()
        self.errors = errors


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

    def publish(self, messages: Iterable[Outgoing], offsets: Sequence[TopicPartition]) -> None:
        """Publish the messages and commit the offsets; returns when both are done.

        Raises Unavailable when the brokers did not confirm it: the same call may be made again while the leases hold.
        """
        messages = list(messages)
        try:
            producer = self._ready_producer()
            if self._unsure and self._committed(offsets):
                self._unsure = False
                return
            if self._transactional:
                self._in_transaction(producer, messages, offsets)
            else:
                self._deliver(producer, messages)
                self._consumer.raw.commit(offsets=list(offsets), asynchronous=False)
        except _Undelivered as undelivered:
            # A new producer, because the client miscounts after a refusal: its next transaction would fail too.
            self._abort()
            self._producer = None
            shrunk = _shrink(messages, undelivered.errors)
            if shrunk == messages:
                number, error = min(undelivered.errors.items())
                raise Unavailable("kafka", f"topic {messages[number].topic!r}: {error.str()}") from None
            self.publish(shrunk, offsets)
        except KafkaException as exception:
            self._abort()
            error = exception.args[0]
            raise Unavailable("kafka", f"{error.name()}: {error.str()}") from None

    def close(self) -> None:
        """Give up what is not yet published."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(CLOSE_TIMEOUT_S)
            self._producer = None

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
        self, producer: Producer, messages: Sequence[Outgoing], offsets: Sequence[TopicPartition]
    ) -> None:
        producer.begin_transaction()
        self._deliver(producer, messages)
        group = self._consumer.raw.consumer_group_metadata()
        _again(lambda: producer.send_offsets_to_transaction(list(offsets), group, BROKER_TIMEOUT_S))
        # From here until the brokers answer, the transaction may stand or not: its offsets will tell.
        self._unsure = True
        _again(lambda: producer.commit_transaction(BROKER_TIMEOUT_S))
        self._unsure = False

    def _committed(self, offsets: Sequence[TopicPartition]) -> bool:
        """Whether the group's offsets already stand where a commit of unknown outcome would have put them."""
        wanted = {offset.partition: offset.offset for offset in offsets}
        found = self._consumer.raw.committed(list(offsets), BROKER_TIMEOUT_S)
        for at in found:
            if at.error is not None:
                raise KafkaException(at.error)
        return all(at.offset >= wanted[at.partition] for at in found)

    def _deliver(self, producer: Producer, messages: Sequence[Outgoing]) -> None:
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

    def _produce(self, producer: Producer, message: Outgoing, number: int) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._errors[number] = error

        while True:
            try:
                producer.produce(
                    message.topic, message.value, message.key, headers=list(message.headers), on_delivery=delivered
                )
                return
            except BufferError:
                producer.poll(0.1)

    def _abort(self) -> None:
        if self._producer is None or not self._transactional:
            return
        try:
            self._producer.abort_transaction(BROKER_TIMEOUT_S)
        except KafkaException as exception:
            # Fenced or out of step: a new producer under the same name ends whatever this one left open.
            log.warning("cannot abort a transaction, starting a new producer: %s", exception.args[0].str())
            self._producer = None


def _shrink(messages: list[Outgoing], errors: Mapping[int, KafkaError]) -> list[Outgoing]:
    """The messages, without the values that were too large.

    Messages are refused by the batch, with those that would fit alone: so the largest goes without its value, and what
    is more than half as large, lest an attacker's many large ones take as many tries.
    """
    refused = [n for n, error in errors.items() if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
    sizes = {n: messages[n].size_bytes for n in refused if messages[n].may_shrink}
    largest = max(sizes.values(), default=0)
    return [m.shrunk() if sizes.get(n, 0) > largest / 2 else m for n, m in enumerate(messages)]


def _membership(settings: KafkaSettings) -> dict[str, Any]:
    """How the consumer takes part in its group."""
    options = {"group.id": settings.group_id, "group.protocol": settings.group_protocol}
    if settings.instance_id:
        options["group.instance.id"] = settings.instance_id
    if settings.group_protocol == "consumer":
        return options  # the rest is the brokers' business
    # A cooperative rebalance has two rounds. A static member killed between them comes back to its share of the first
    # without a second one, and what it had given up is nobody's from then on.
    strategy = "range" if settings.instance_id else "cooperative-sticky"
    return {
        **options,
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": settings.session_timeout_ms // 10,
        "partition.assignment.strategy": strategy,
    }


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


def _record(message: Message) -> Record:
    return Record(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        _headers(message),
        message.timestamp()[1],
    )


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    try:
        return tuple(message.headers() or ())  # type: ignore[arg-type]
    except (SystemError, UnicodeDecodeError):  # how the client fails on a name that is not UTF-8
        return (("seenit-omitted-headers", b"a name is not UTF-8"),)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """What consumer and producer have in common; the client wants only what is set."""
    options = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security_protocol,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password.get_secret_value(),
        "ssl.ca.location": settings.ssl_ca_file,
        "socket.timeout.ms": SOCKET_TIMEOUT_MS,
        "reconnect.backoff.max.ms": 2_000,
        "logger": logging.getLogger("kafka.client"),
    }
    return {name: value for name, value in options.items() if value != ""}
