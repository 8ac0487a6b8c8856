"""A redo log of the last batches' writes to the window, which a window that was recovered meanwhile may lack.

A recovery reads the changelog up to where it ends at that moment, and waits for transactions that are open then. A
batch that was matched in the lost window must not commit later: others cannot know its pictures by then. So between its
messages and their commit the loss guard's marker is read. Where it is another one than the batch was matched under, the
batch is matched again. Where it is the same, a recovery of what is lost from now on will find the messages.

The writes of each batch are logged until the marker, read after the commit, is still the one that they were made under.
When it is another one, they are made again, which is harmless where they were not lost.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from consumer.errors import Unavailable
from consumer.window.loss_guard import RECOVERY_PENDING, LossGuard
from consumer.window.records import NewRecord, Source, StoredRecord, decode_record, to_datetime
from consumer.window.window import RedisWindow

# Batches logged while a recovery is waited for: with 32 pictures each, some 70 MB.
MAX_BATCHES = 1000


@dataclass(frozen=True, slots=True)
class Write:
    """A record that was stored, or the deletion of an image where `stored` is None."""

    tenant: str
    image_id: str
    source: Source
    stored: StoredRecord | None

    def new_record(self) -> NewRecord:
        """The stored record, to be appended again."""
        assert self.stored is not None  # noqa: S101 (narrows the type)
        content = decode_record(self.stored.record)
        vector = np.frombuffer(content.vector, "<f2").astype(np.float32) if content.vector else None
        uploaded_at = to_datetime(content.uploaded_us)
        patches = self.stored.patches or None
        return NewRecord(self.tenant, self.image_id, content.digest, vector, uploaded_at, patches, self.source)


@dataclass(slots=True)
class BatchWrites:
    """The writes of one batch, the marker that they were made under, and when the batch was committed.

    Whoever publishes the batch holds the lock meanwhile: then it is not matched again.
    """

    writes: list[Write] = field(default_factory=list)
    guard: LossGuard | None = None
    match_again: Callable[[], None] | None = None
    marker: bytes | None = None
    committed_s: float = math.inf
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Check that the batch's window is not lost. Raises Unavailable if it is, until the batch is matched again."""
        if self.guard is not None:
            marker = self.guard.marker()
            if marker is None or marker != self.marker:
                raise Unavailable("redis", RECOVERY_PENDING)

    def commit(self) -> None:
        """Note that the batch is committed, or left to another process."""
        self.committed_s = time.monotonic()


class RedoLog:
    """The writes of the last batches. For one thread; of a batch, `check` and `commit` may be called from any."""

    def __init__(self, window: RedisWindow) -> None:
        self.batches: deque[BatchWrites] = deque()
        self._window = window

    def record(self, batch: BatchWrites, match_again: Callable[[], None]) -> None:
        """Log a batch, before its first write. Nothing is logged for a window that is never recovered.

        `match_again` matches it in a window that was recovered since.
        """
        guard = self._window.loss_guard
        if guard.recovers and batch.guard is None:
            batch.guard, batch.match_again, batch.marker = guard, match_again, guard.last_reading.marker
            self.batches.append(batch)

    def replay(self) -> None:
        """Repeat batches that a recovered window may lack, and drop those that are safe.

        To be called before anything later is written, so that the order stays. Raises Unavailable when the window
        cannot be asked, or when a recovery has been waited for so long that no more batches are logged.
        """
        if not self.batches:
            return
        reading = self._window.loss_guard.last_reading
        if reading.marker is None:
            if len(self.batches) >= MAX_BATCHES:
                raise Unavailable("redis", RECOVERY_PENDING)
            return
        for batch in self.batches:
            if batch.marker != reading.marker:
                with batch.lock:
                    self._repeat(batch, reading.marker)
        while self.batches and self.batches[0].committed_s < reading.read_at_s:
            self.batches.popleft()

    def _repeat(self, batch: BatchWrites, marker: bytes) -> None:
        """Match a batch again, or only make its writes again if it is committed."""
        if batch.committed_s == math.inf and batch.match_again is not None:
            batch.match_again()
        else:
            for write in batch.writes:
                if write.stored is None:
                    self._window.delete(write.tenant, write.image_id, write.source)
                else:
                    self._window.append([write.new_record()])
        batch.marker = marker
