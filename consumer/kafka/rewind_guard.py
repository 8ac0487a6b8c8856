"""A guard against rewinds: librdkafka at times reads a partition again from its start, unasked.

Records of a rewound partition would be handled twice. The guard compares the first record of each lease with the
group's offset and every record with those handed out before it, drops repeated ones, and moves the client on.
"""

from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.kafka.config import CHECK_TIMEOUT_S
from consumer.kafka.leases import Lease, Leased


class RewindGuard:
    """Keeps the offset that is next under each lease, and drops records before it. Used by one thread, which polls.

    `read_committed` reads the group's offsets of partitions, within a time-out in seconds. `go_on_at` moves the client
    to an offset of each of some leases. Polled records go through `drop_committed`, and what remains of them through
    `drop_repeated`. Both raise KafkaException or TimeoutError while the brokers cannot tell; what was given to the one
    that raised has to go through both again later.
    """

    def __init__(
        self,
        topic: str,
        admin: AdminClient,
        read_committed: Callable[[Sequence[TopicPartition], float], Sequence[TopicPartition]],
        go_on_at: Callable[[Mapping[Lease, int]], None],
    ) -> None:
        self._topic = topic
        self._admin = admin
        self._read_committed = read_committed
        self._go_on_at = go_on_at
        # Each lease whose first record was compared with the group's offset, and the topic's id at that time.
        self._topic_ids: dict[Lease, str] = {}
        # The offset after the last record handed out under each lease.
        self._next_offsets: dict[Lease, int] = {}

    def drop_committed(self, leased: list[Leased]) -> list[Leased]:
        """Drop the records of partitions that began before the group's offset; these go on at that offset.

        A client that asks for its offsets while a transaction over them is open, such as that of a process just
        killed, has to wait. If its assignment changes meanwhile, librdkafka takes the missing answer for a partition
        without any offset, and begins at the start of the partition (seen in 2.15). So the first record of each lease
        is compared with the group's offset.
        """
        unchecked = {lease.partition: lease for _, lease in leased if lease not in self._topic_ids}
        if not unchecked:
            return leased
        partitions = [TopicPartition(self._topic, partition) for partition in unchecked]
        committed = self._read_committed(partitions, CHECK_TIMEOUT_S)
        topic_id = self._read_topic_id()
        first_offsets = {record.partition: record.offset for record, _ in reversed(leased)}
        rewound = {
            unchecked[position.partition]: position.offset
            for position in committed
            if position.offset > first_offsets[position.partition]
        }
        self._go_on_at(rewound)
        self._topic_ids |= dict.fromkeys(unchecked.values(), topic_id)
        return [(record, lease) for record, lease in leased if lease not in rewound]

    def drop_repeated(self, leased: list[Leased]) -> list[Leased]:
        """Drop the records that were handed out before under the same lease; the client goes on after these.

        librdkafka goes back to the start of a partition when it had no offset to begin at, has begun at the start, and
        only then is told that its question for the first offset went to a broker that no longer leads (seen in 2.15).
        A topic that was deleted and created anew also begins again, but has another id: its records are all new.
        """
        next_offsets = dict(self._next_offsets)
        in_order: list[Leased] = []
        rewound: dict[Lease, int] = {}
        for record, lease in leased:
            if lease in rewound:
                continue
            if record.offset < next_offsets.get(lease, 0) and not self._was_recreated(lease):
                rewound[lease] = next_offsets[lease]
                continue
            next_offsets[lease] = record.offset + 1
            in_order.append((record, lease))
        self._go_on_at(rewound)
        self._next_offsets = next_offsets
        return in_order

    def expect_again(self, leased: Sequence[Leased]) -> None:
        """Let records that were handed out, in their order, be handed out once more."""
        for record, lease in reversed(leased):
            self._next_offsets[lease] = record.offset

    def forget_ended(self, holds: Callable[[Lease], bool]) -> None:
        """Forget every lease that does not hold any more."""
        self._topic_ids = {lease: topic_id for lease, topic_id in self._topic_ids.items() if holds(lease)}
        self._next_offsets = {lease: offset for lease, offset in self._next_offsets.items() if holds(lease)}

    def _was_recreated(self, lease: Lease) -> bool:
        """Ask whether the topic is another than at the lease's first record; if so, expect it from its start."""
        topic_id = self._read_topic_id()
        if self._topic_ids[lease] == topic_id:
            return False
        self._topic_ids[lease], self._next_offsets[lease] = topic_id, 0
        return True

    def _read_topic_id(self) -> str:
        answers = self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=CHECK_TIMEOUT_S)
        return str(answers[self._topic].result(2 * CHECK_TIMEOUT_S).topic_id)
