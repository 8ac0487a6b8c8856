"""What was done to the window and may be missing in one that is rebuilt: it is done again there.

A rebuild reads the embeddings topic up to where it ends at that moment. A batch that was matched in the window that was
lost and commits after that moment is on the topic, but not in the rebuilt window: its pictures would be forgotten, and
what it deleted would be back. So each batch is kept until the guard's marker, asked for after the commit, is still the
one that the batch was matched under. Is it another, the batch is repeated, which is harmless where it is not needed.
"""

import math
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from consumer.errors import Unavailable
from consumer.window.loss_guard import RECOVERY_PENDING
from consumer.window.records import NewRecord, Source, StoredRecord, decode_record, to_datetime
from consumer.window.window import RedisWindow

# Batches that are kept while a rebuild is waited for: with 32 pictures each, some 70 MB.
MAX_BATCHES = 1000


@dataclass(frozen=True, slots=True)
class Write:
    """A row that was stored, or the deletion of an image."""

    tenant: str
    image_id: str
    source: Source
    row: StoredRecord | None

    def new_row(self) -> NewRecord:
        """The row as it may be added again."""
        assert self.row is not None  # noqa: S101 (narrows the type)
        content = decode_record(self.row.record)
        vector = np.frombuffer(content.vector, "<f2").astype(np.float32) if content.vector else None
        uploaded_at = to_datetime(content.uploaded_us)
        return NewRecord(
            self.tenant, self.image_id, content.digest, vector, uploaded_at, self.row.patches or None, self.source
        )


@dataclass(slots=True)
class BatchWrites:
    """What one batch did, since when under which marker, and when that was committed."""

    writes: list[Write] = field(default_factory=list)
    recorded: bool = False
    marker: bytes | None = None
    committed_s: float = math.inf

    def commit(self) -> None:
        """The batch is committed, or another process's to do; from any thread."""
        self.committed_s = time.monotonic()


class RedoLog:
    """The accounts of the last moments' batches. For one thread, but for `BatchWrites.commit`."""

    def __init__(self, window: RedisWindow) -> None:
        self._window = window
        self._accounts: deque[BatchWrites] = deque()

    def record(self, account: BatchWrites) -> None:
        """To be called before a batch does something; for a window that is never rebuilt nothing is kept."""
        if self._window.loss_guard.recovers and not account.recorded:
            account.recorded, account.marker = True, self._window.loss_guard.last_reading.marker
            self._accounts.append(account)

    def replay(self) -> None:
        """Repeat what a rebuilt window may lack. Before anything later is done to it, so that the order stays.

        Raises Unavailable when the window cannot be asked, or has not been rebuilt for so long that no more is kept.
        """
        if not self._accounts:
            return
        if (seen := self._window.loss_guard.last_reading).marker is None:
            if len(self._accounts) >= MAX_BATCHES:
                raise Unavailable("redis", RECOVERY_PENDING)
            return
        for account in self._accounts:
            if account.marker != seen.marker:
                for done in account.writes:
                    if done.row is None:
                        self._window.delete(done.tenant, done.image_id, done.source)
                    else:
                        self._window.append([done.new_row()])
                account.marker = seen.marker
        while self._accounts and self._accounts[0].committed_s < seen.read_at_s:
            self._accounts.popleft()
