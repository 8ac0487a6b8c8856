"""Uploads come in: the input topic, read as a member of the group.

A partition is held on a *lease*: a number drawn when it is assigned and withdrawn when it is revoked or lost. Work
carries the lease it was polled under, and is published only while that lease holds, so nothing is ever committed for
a partition that has gone to another process meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import Misconfigured, Unavailable
from consumer.events import Record
from consumer.kafka.config import CLOSE_TIMEOUT_S, FETCH_WAIT_MS, client_options, membership_options
from consumer.kafka.messages import to_record
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

# A probe has to answer before its asker gives up, usually after some seconds.
CHECK_TIMEOUT_S = 2.0
# How the client words that a static member of the same name is not given up yet: the code itself it keeps to itself.
NAME_IN_USE = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()
# A coordinator that stood still may afterwards take what a member asked before and after its time-out for two members,
# and fence it. One that is fenced again this soon has a real twin, which is left to go on alone.
FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
TWIN_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to commit one partition, from its assignment to its revocation."""

    partition: int
    number: int


Leased = tuple[Record, Lease]


class UploadsConsumer:
    """The input topic, read as a member of the group.

    `poll`, `idle` and `close` belong to one thread, which also runs the rebalance callbacks; `holds` and `commit_lock`
    may be used from any. `on_revoke` is called before partitions are given up, to finish what is in flight, where that
    can still be committed then; it must return within its own bound. `on_rebalance` is told each change: assigned,
    revoked or lost.
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
        self._fenced_at_s = -TWIN_WITHIN_S
        self._generation: Any = None
        # Of each lease whose first record was in its place: the topic's id then, and the offset after its last record.
        self._logs: dict[Lease, str] = {}
        self._ends: dict[Lease, int] = {}
        # Asking the consumer itself would wait for its poll to return.
        self._admin = AdminClient(client_options(settings))
        membership = membership_options(settings)
        self._classic = settings.group_protocol == "classic"
        # A cooperative group has its next generation by the time that partitions are to be given up.
        self._finishes = membership.get("partition.assignment.strategy") != "cooperative-sticky"
        self._options = {
            **client_options(settings),
            **membership,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }
        self._join()

    def _join(self) -> None:
        self._client = Consumer(self._options)
        self._paused.clear()
        self._client.subscribe([self.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def poll(self, most: int, first_s: float, more_s: float) -> list[Leased]:
        """Up to `most` records: waits `first_s` for the first one and `more_s` for those after it.

        Raises Misconfigured when the brokers will not have this member, and Unavailable when it has to join once more:
        as long as the one that had its name before, and was killed, counts as alive, and after it was fenced.
        """
        if paused := self._paused & set(self._numbers):
            self._client.resume([TopicPartition(self.topic, p) for p in paused])
            self._paused -= paused
        leased, self._early = self._early[:most], self._early[most:]
        if not leased:
            leased = self._consume(1, first_s)
        if leased and len(leased) < most:
            leased += self._consume(most - len(leased), more_s)
        # A rebalance in a later call has withdrawn the leases of records from an earlier one.
        leased = [(record, lease) for record, lease in leased if self.holds(lease)]
        try:
            leased = self._uncommitted(leased)
            return self._onward(leased)
        except (KafkaException, TimeoutError) as error:
            log.debug("cannot tell whether records are in their place: %s", error)
            self._early[:0] = leased
            self.idle(0.0)
            return []

    def put_back(self, leased: Sequence[Leased]) -> None:
        """Let records that were just polled come once more, before all others."""
        self._early[:0] = leased
        for record, lease in reversed(leased):
            self._ends[lease] = record.offset

    def idle(self, wait_s: float) -> None:
        """Stay in the group without taking more records, for as long as there is no room for them; raises as `poll`."""
        running = set(self._numbers) - self._paused
        if running:
            self._client.pause([TopicPartition(self.topic, p) for p in running])
            self._paused |= running
        # A partition assigned during this very call may yield a record before it is paused: it is kept for later.
        self._early += self._consume(1, wait_s)

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions held, from any thread."""
        return tuple(self._numbers)

    @property
    def generation(self) -> Any:
        """What offsets are to be committed under, with the leases that hold now.

        In a classic group that is the generation which the partitions were last assigned in. The client is further at
        times: in a cooperative group it enters the next one before it has given up what goes to others there. Brokers
        take offsets from any member of the latest generation, and that nobody else has got these partitions yet is
        only in the hands of the member that shares them out (seen with librdkafka 2.15: two owners at once, and two
        verdicts for each upload).
        """
        return self._generation if self._classic else self._client.consumer_group_metadata()

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

    def committed(self, partitions: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        """The group's committed offsets of these partitions. Raises KafkaException when they cannot be told."""
        committed = self._client.committed(list(partitions), timeout_s)
        for position in committed:
            if position.error is not None:
                raise KafkaException(position.error)
        return committed

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Commit offsets outside of any transaction, and wait for it. Raises KafkaException."""
        self._client.commit(offsets=list(offsets), asynchronous=False)

    def close(self) -> None:
        """Leave the group; bounded, since closing can hang in the client."""
        closer = threading.Thread(target=self._close, args=(self._client,), daemon=True)
        closer.start()
        closer.join(CLOSE_TIMEOUT_S)
        if closer.is_alive():
            log.warning("leaving the group took more than %s s; its session will time out", CLOSE_TIMEOUT_S)

    def _close(self, client: Consumer) -> None:
        # A publish under way may be asking this very client, which is freed by closing it.
        with self.commit_lock:
            pass
        client.close()

    def _consume(self, most: int, wait_s: float) -> list[Leased]:
        """Records with the lease that holds right after the call which brought them.

        Rebalances happen within that call, and the client itself drops what it had fetched before one.
        """
        leased = []
        for message in self._client.consume(most, wait_s):
            error = message.error()
            if error is None:
                record = to_record(message)
                leased.append((record, Lease(record.partition, self._numbers.get(record.partition, -1))))
            elif NAME_IN_USE in error.str() or (FENCED in error.str() and not self._has_twin()):
                # KIP-848 makes an heir wait until the session has ended. The client gives up at once, on both.
                self._withdraw([TopicPartition(self.topic, partition) for partition in self._numbers], "lost")
                self.close()
                self._join()
                raise Unavailable("kafka", f"{error.str()}: {self._options['group.instance.id']!r}")
            elif error.fatal() or error.code() == KafkaError._FATAL:
                raise Misconfigured(f"the consumer cannot go on: {error.str()}")
            else:
                # The client retries by itself; leases tell whether partitions were lost.
                log.warning("kafka: %s", error.str())
        return leased

    def _has_twin(self) -> bool:
        before_s, self._fenced_at_s = self._fenced_at_s, time.monotonic()
        return self._fenced_at_s - before_s < TWIN_WITHIN_S

    def _uncommitted(self, leased: list[Leased]) -> list[Leased]:
        """The records, without those of partitions that began before the group's offset; these begin again there.

        A client that asks for its offsets while a transaction over them is open, as that of a process just killed, has
        to wait. Should its assignment change meanwhile, librdkafka takes the missing answer for a partition without any
        offset, and begins at the start of it (seen in 2.15). So the first record of each lease is held against the
        group's offset. Raises KafkaException or TimeoutError while that cannot be told.
        """
        fresh = {lease.partition: lease for _, lease in leased if lease not in self._logs}
        if not fresh:
            return leased
        asked = [TopicPartition(self.topic, partition) for partition in fresh]
        committed = self.committed(asked, CHECK_TIMEOUT_S)
        topic_id = self._topic_id()
        first = {record.partition: record.offset for record, _ in reversed(leased)}
        rewound = {fresh[at.partition]: at.offset for at in committed if at.offset > first[at.partition]}
        self._go_on(rewound)
        self._logs |= dict.fromkeys(fresh.values(), topic_id)
        return [(record, lease) for record, lease in leased if lease not in rewound]

    def _onward(self, leased: list[Leased]) -> list[Leased]:
        """The records without those handed out under their very lease before; there the client goes on after these.

        librdkafka goes back to the start of a partition when it had no offset to begin at, has begun there, and only
        then is told that its question for the first offset came to a broker that leads no more (seen in 2.15). A topic
        that was deleted and made anew begins again as well, and is another by its id. Raises as `_uncommitted`.
        """
        ends = dict(self._ends)
        kept: list[Leased] = []
        back: dict[Lease, int] = {}
        for record, lease in leased:
            if lease in back:
                continue
            if record.offset < ends.get(lease, 0) and not self._made_anew(lease):
                back[lease] = ends[lease]
                continue
            ends[lease] = record.offset + 1
            kept.append((record, lease))
        self._go_on(back)
        self._ends = ends
        return kept

    def _go_on(self, offsets: dict[Lease, int]) -> None:
        for lease, offset in offsets.items():
            log.warning("partition %d began again, it goes on at %d", lease.partition, offset)
            self._client.seek(TopicPartition(self.topic, lease.partition, offset))
        # What waits of them would be handed out as if it came after the offset.
        self._early = [(record, lease) for record, lease in self._early if lease not in offsets]

    def _made_anew(self, lease: Lease) -> bool:
        topic_id = self._topic_id()
        if self._logs[lease] == topic_id:
            return False
        self._logs[lease], self._ends[lease] = topic_id, 0
        return True

    def _topic_id(self) -> str:
        found = self._admin.describe_topics(TopicCollection([self.topic]), request_timeout=CHECK_TIMEOUT_S)
        return str(found[self.topic].result(2 * CHECK_TIMEOUT_S).topic_id)

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        with self.commit_lock:
            for partition in partitions:
                self._last_number += 1
                self._numbers[partition.partition] = self._last_number
            self._generation = self._client.consumer_group_metadata()
        self._on_rebalance("assigned")
        log.info("assigned partitions %s", sorted(p.partition for p in partitions))

    def _revoked(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if client is self._client:  # and not one left behind, which hangs in close()
            if self._finishes:
                self._on_revoke()
            self._withdraw(partitions, "revoked")

    def _lost(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if client is self._client:
            self._withdraw(partitions, "lost")

    def _withdraw(self, partitions: list[TopicPartition], why: str) -> None:
        # A commit under way finishes first. Should it hang, the broker refuses it: its group generation is over.
        locked = self.commit_lock.acquire(timeout=CLOSE_TIMEOUT_S)
        try:
            for partition in partitions:
                self._numbers.pop(partition.partition, None)
            self._logs = {lease: topic_id for lease, topic_id in self._logs.items() if self.holds(lease)}
            self._ends = {lease: end for lease, end in self._ends.items() if self.holds(lease)}
        finally:
            if locked:
                self.commit_lock.release()
        self._on_rebalance(why)
        log.info("%s partitions %s", why, sorted(p.partition for p in partitions))
