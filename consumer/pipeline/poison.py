"""Which partitions may hold an upload that brings down whoever works on it.

Nobody survives to tell of such an upload. So each process notes in Redis at which offset it begins to read a partition,
before anything is done with what it read. Several starts at the same offset are a suspicion and no proof: somebody may
have stopped those processes. A suspicion only makes the next process careful: the records from there on go alone, their
pictures decoded in the sandbox, until past all that can have been in flight.
"""

import logging
from typing import Any

from consumer.kafka.leases import Lease, Leased
from consumer.settings import Settings
from consumer.window.connection import REDIS_FAILURES, AnyRedis

log = logging.getLogger(__name__)

# Starts at one offset, with no progress between them, that make a partition suspect.
SUSPECT_AFTER_STARTS = 3
# Longer than any supervisor waits before it starts a process again.
REMEMBER_MS = 24 * 60 * 60 * 1000


class PoisonGuard:
    """Says how many records may go on together. For the thread that polls; asks Redis once in a lease's life."""

    def __init__(self, redis: AnyRedis, settings: Settings) -> None:
        self._redis: Any = redis
        self._key = f"{settings.redis.key_prefix}:starts:{settings.kafka.group_id}"
        self._in_flight = settings.pipeline.batches_in_flight * settings.pipeline.batch_size
        self._leases: dict[int, Lease] = {}
        self._suspect_until: dict[int, int] = {}  # offsets, by partition

    def first(self, leased: list[Leased]) -> tuple[list[Leased], bool]:
        """All the records, or those before the first suspect one, or that one alone; and whether it is suspect."""
        self._note_starts(leased)
        if self._suspect_until:
            for index, (record, _) in enumerate(leased):
                if record.offset < self._suspect_until.get(record.partition, 0):
                    return leased[: index or 1], index == 0
        return leased, False

    def _note_starts(self, leased: list[Leased]) -> None:
        """Count the start of each new lease, and suspect what several began with."""
        starts: dict[int, int] = {}
        for record, lease in leased:
            if self._leases.get(record.partition) != lease:
                self._leases[record.partition] = lease
                self._suspect_until.pop(record.partition, None)
                starts[record.partition] = record.offset
        if not starts:
            return
        try:
            counts = self._count_starts(leased[0][0].topic, starts)
        except REDIS_FAILURES as error:
            # Nothing will be decided while Redis is away, and the next process notes it again.
            log.warning("cannot note where partitions begin: %s", error)
            return
        for (partition, offset), count in zip(starts.items(), counts, strict=True):
            if count >= SUSPECT_AFTER_STARTS:
                self._suspect_until[partition] = offset + self._in_flight
                log.warning(
                    "partition %d begins at offset %d again, %d times by now: what follows goes alone, its pictures "
                    "decoded in another process",
                    partition,
                    offset,
                    count,
                )

    def _count_starts(self, topic: str, starts: dict[int, int]) -> list[int]:
        """How often each partition began at its offset, this time included; remembered in Redis."""
        stored = self._redis.hmget(self._key, [f"{topic}/{partition}" for partition in starts])
        counts = [_count(value, offset) + 1 for value, offset in zip(stored, starts.values(), strict=True)]
        notes = {
            f"{topic}/{partition}": f"{offset} {count}"
            for (partition, offset), count in zip(starts.items(), counts, strict=True)
        }
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hset(self._key, mapping=notes)
        pipeline.pexpire(self._key, REMEMBER_MS)
        pipeline.execute()
        return counts


def _count(stored: bytes | None, offset: int) -> int:
    """How often the offset was noted, if it is the one noted last."""
    last, _, count = (stored or b"").partition(b" ")
    return int(count) if last == str(offset).encode() else 0
