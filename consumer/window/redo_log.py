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
from consumer.window.loss_guard import WAITING
from consumer.window.records import Stored, split, to_datetime
from consumer.window.window import NewRow, RecentWindow, Source

# Batches that are kept while a rebuild is waited for: with 32 pictures each, some 70 MB.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Done:
    """A row that was stored, or the deletion of an image."""

    tenant: str
    image_id: str
    source: Source
    row: Stored | None

    def new_row(self) -> NewRow:
        """The row as it may be added again."""
        assert self.row is not None  # noqa: S101 (narrows the type)
        content = split(self.row.record)
        vector = np.frombuffer(content.vector, "<f2").astype(np.float32) if content.vector else None
        uploaded_at = to_datetime(content.uploaded_us)
        return NewRow(
            self.tenant, self.image_id, content.digest, vector, uploaded_at, self.row.patches or None, self.source
        )


@dataclass(slots=True)
class Account:
    """What one batch did, since when under which marker, and when that was committed."""

    done: list[Done] = field(default_factory=list)
    opened: bool = False
    marker: bytes | None = None
    committed_s: float = math.inf

    def commit(self) -> None:
        """The batch is committed, or another process's to do; from any thread."""
        self.committed_s = time.monotonic()


class Unsettled:
    """The accounts of the last moments' batches. For one thread, but for `Account.commit`."""

    def __init__(self, window: RecentWindow) -> None:
        self._window = window
        self._accounts: deque[Account] = deque()

    def open(self, account: Account) -> None:
        """To be called before a batch does something; for a window that is never rebuilt nothing is kept."""
        if self._window.guard.rebuilds and not account.opened:
            account.opened, account.marker = True, self._window.guard.seen.marker
            self._accounts.append(account)

    def settle(self) -> None:
        """Repeat what a rebuilt window may lack. Before anything later is done to it, so that the order stays.

        Raises Unavailable when the window cannot be asked, or has not been rebuilt for so long that no more is kept.
        """
        if not self._accounts:
            return
        if (seen := self._window.guard.seen).marker is None:
            if len(self._accounts) >= MOST:
                raise Unavailable("redis", WAITING)
            return
        for account in self._accounts:
            if account.marker != seen.marker:
                for done in account.done:
                    if done.row is None:
                        self._window.forget(done.tenant, done.image_id, done.source)
                    else:
                        self._window.add([done.new_row()])
                account.marker = seen.marker
        while self._accounts and self._accounts[0].committed_s < seen.asked_s:
            self._accounts.popleft()
