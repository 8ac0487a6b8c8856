"""The consumer of the input topic: polls uploads as a member of the group, each record under its partition's lease."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import Misconfigured, Unavailable
from consumer.kafka.config import CHECK_TIMEOUT_S, CLOSE_TIMEOUT_S, client_options, consumer_options
from consumer.kafka.leases import Lease, Leased
from consumer.kafka.membership import Membership
from consumer.kafka.messages import to_record
from consumer.kafka.rewind_guard import RewindGuard
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)


class UploadsConsumer:
    """A member of the group that reads the input topic.

    One thread calls `poll`, `put_back`, `idle` and `close`, and the rebalance callbacks run on it; `holds` and
    `commit_lock` may be used from any thread. `on_revoke` is called before partitions are given up, to finish what is
    in flight, unless it can no longer be committed; it must return within its own bound. `on_rebalance` is called on
    each change with "assigned", "revoked" or "lost".
    """

    def __init__(
        self,
        settings: KafkaSettings,
        on_revoke: Callable[[], None],
        on_rebalance: Callable[[str], None] = lambda change: None,
    ) -> None:
        self.topic = settings.input_topic
        self._on_rebalance = on_rebalance
        self.commit_lock = threading.Lock()
        self._on_revoke = on_revoke
        self._lease_numbers: dict[int, int] = {}  # of the partitions that are held
        self._last_lease_number = 0
        # What the client has paused, held or not: a partition that goes away and comes back is still paused.
        self._paused: set[int] = set()
        self._buffered: list[Leased] = []  # to be handed out before all others
        self._membership = Membership()
        self._generation: Any = None  # of the last assignment
        # A request through the consumer itself would wait for its poll to return.
        self._admin = AdminClient(client_options(settings))
        self._rewind_guard = RewindGuard(self.topic, self._admin, self.committed, self._go_on_at)
        self._options = consumer_options(settings)
        # When a cooperative group takes partitions away, its next generation has begun: nothing can be committed then.
        self._can_commit_on_revoke = self._options.get("partition.assignment.strategy") != "cooperative-sticky"
        self._join()

    def _join(self) -> None:
        self._membership.begin()
        self._client = Consumer({**self._options, "stats_cb": self._membership.read})
        self._paused.clear()
        self._client.subscribe([self.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def poll(self, limit: int, first_s: float, more_s: float) -> list[Leased]:
        """Take up to `limit` records: wait `first_s` for the first one and `more_s` for more.

        Raises Misconfigured when the brokers refuse this member for good, and Unavailable when it joins again: after it
        was fenced or may not know its partitions, and while a killed member of the same name still counts as alive.
        """
        if paused := self._paused & set(self._lease_numbers):
            self._client.resume([TopicPartition(self.topic, p) for p in paused])
            self._paused -= paused
        leased, self._buffered = self._buffered[:limit], self._buffered[limit:]
        if not leased:
            leased = self._consume(1, first_s)
        if leased and len(leased) < limit:
            leased += self._consume(limit - len(leased), more_s)
        # A rebalance in a later call has withdrawn the leases of records from an earlier one.
        leased = [(record, lease) for record, lease in leased if self.holds(lease)]
        try:
            leased = self._rewind_guard.drop_committed(leased)
            return self._rewind_guard.drop_repeated(leased)
        except (KafkaException, TimeoutError) as error:
            log.debug("cannot tell whether records are in their place: %s", error)
            self._buffered[:0] = leased
            self.idle(0.0)
            return []

    def put_back(self, leased: Sequence[Leased]) -> None:
        """Return records that were just polled; the next poll hands them out again, before all others."""
        self._buffered[:0] = leased
        self._rewind_guard.expect_again(leased)

    def idle(self, wait_s: float) -> None:
        """Stay in the group for `wait_s` while there is no room for records. Raises what `poll` raises."""
        if running := set(self._lease_numbers) - self._paused:
            self._client.pause([TopicPartition(self.topic, p) for p in running])
            self._paused |= running
        # A partition assigned during this very call may yield a record before it is paused: the next poll returns it.
        self._buffered += self._consume(1, wait_s)

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions held; may be read from any thread."""
        return tuple(self._lease_numbers)

    @property
    def generation(self) -> Any:
        """The group metadata to commit offsets under, with the leases that hold now.

        In a classic group that is the generation in which partitions were last assigned. The client may be ahead of it:
        in a cooperative group it enters the next one before it has given up what goes to others there. Brokers take
        offsets from any member of the latest generation, and only the member that distributes the partitions decides
        whether another has these already (seen with librdkafka 2.15: two owners at once, two verdicts per upload).
        """
        is_classic = self._options["group.protocol"] == "classic"
        return self._generation if is_classic else self._client.consumer_group_metadata()

    def holds(self, lease: Lease) -> bool:
        """Tell whether work under this lease may still be committed."""
        return self._lease_numbers.get(lease.partition) == lease.number

    def check(self) -> None:
        """Raise Unavailable unless the brokers know the input topic."""
        try:
            topic = self._admin.list_topics(self.topic, timeout=CHECK_TIMEOUT_S).topics[self.topic]
        except KafkaException as error:
            raise Unavailable("kafka", str(error.args[0])) from None
        if topic.error is not None:
            raise Unavailable("kafka", f"topic {self.topic!r}: {topic.error.str()}")

    def committed(self, partitions: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        """Read the group's committed offsets of these partitions. Raises KafkaException when one cannot be read."""
        committed = self._client.committed(list(partitions), timeout_s)
        for position in committed:
            if position.error is not None:
                raise KafkaException(position.error)
        return committed

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """Commit offsets outside of any transaction, and wait for the answer. Raises KafkaException."""
        self._client.commit(offsets=list(offsets), asynchronous=False)

    def close(self) -> None:
        """Leave the group, within CLOSE_TIMEOUT_S, since closing can hang in the client."""
        closer = threading.Thread(target=self._close, args=(self._client,), daemon=True)
        closer.start()
        closer.join(CLOSE_TIMEOUT_S)
        if closer.is_alive():
            log.warning("leaving the group took more than %s s; its session will time out", CLOSE_TIMEOUT_S)

    def _close(self, client: Consumer) -> None:
        # A publish under way may be using this very client, and closing frees it.
        with self.commit_lock:
            pass
        client.close()

    def _consume(self, limit: int, wait_s: float) -> list[Leased]:
        """Take records from the client, each under the lease that holds right after the client's call.

        Rebalances happen within that call, and the client itself drops what it had fetched before one.
        """
        if self._membership.may_lack_partitions:
            self._join_again("an answer of the coordinator is lost, which may have said whose the partitions are")
        leased = []
        for message in self._client.consume(limit, wait_s):
            error = message.error()
            if error is None:
                record = to_record(message)
                leased.append((record, Lease(record.partition, self._lease_numbers.get(record.partition, -1))))
            elif self._membership.ends_with(error):
                self._join_again(f"{error.str()}: {self._options['group.instance.id']!r}")
            elif error.fatal() or error.code() == KafkaError._FATAL:
                raise Misconfigured(f"the consumer cannot go on: {error.str()}")
            else:
                # The client retries by itself; the leases show whether partitions were lost.
                log.warning("kafka: %s", error.str())
        return leased

    def _join_again(self, why: str) -> NoReturn:
        self._withdraw([TopicPartition(self.topic, partition) for partition in self._lease_numbers], "lost")
        self.close()
        self._join()
        raise Unavailable("kafka", f"{why}; joining the group again")

    def _go_on_at(self, offsets: Mapping[Lease, int]) -> None:
        for lease, offset in offsets.items():
            log.warning("partition %d began again, it goes on at %d", lease.partition, offset)
            self._client.seek(TopicPartition(self.topic, lease.partition, offset))
        # Buffered records of these partitions would be handed out as if they came after the offset.
        self._buffered = [(record, lease) for record, lease in self._buffered if lease not in offsets]

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        with self.commit_lock:
            self._generation = self._client.consumer_group_metadata()
            for partition in partitions:
                self._last_lease_number += 1
                self._lease_numbers[partition.partition] = self._last_lease_number
        self._on_rebalance("assigned")
        log.info("assigned partitions %s", sorted(p.partition for p in partitions))

    def _revoked(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if client is self._client:  # not an earlier client that still hangs in close()
            if self._can_commit_on_revoke:
                self._on_revoke()
            self._withdraw(partitions, "revoked")

    def _lost(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if client is self._client:
            self._withdraw(partitions, "lost")

    def _withdraw(self, partitions: list[TopicPartition], change: str) -> None:
        # A commit under way finishes first. If it hangs, the broker refuses it: its group generation is over.
        locked = self.commit_lock.acquire(timeout=CLOSE_TIMEOUT_S)
        try:
            for partition in partitions:
                self._lease_numbers.pop(partition.partition, None)
            self._rewind_guard.forget_ended(self.holds)
        finally:
            if locked:
                self.commit_lock.release()
        self._on_rebalance(change)
        log.info("%s partitions %s", change, sorted(p.partition for p in partitions))
