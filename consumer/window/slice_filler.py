"""Moves rows from the tails of windows into slices, and fills slices again that a server lost.

    claim ─> remove what was deleted ─> add the first rows of the tail, in order ─> note how far the log is in slices

The log of a tenant is the redo log of its slices: what is behind the noted position is in the tail of each process that
uses the tenant, and whoever moves it does so again where another process died halfway. So the claim only saves work,
and a slice that was lost is filled by noting an earlier position.
"""

import logging
import uuid
from collections.abc import Sequence
from typing import Any, NoReturn

from consumer.errors import Unavailable
from consumer.window.large_index import RowsGone
from consumer.window.records import IndexRow, Position
from consumer.window.replica import Replica
from consumer.window.replicas import Replicas
from consumer.window.slices import Filled, SliceLost, Slices
from consumer.window.tail import Tail, as_tail

log = logging.getLogger(__name__)

# Rows that stay in a tail, which is searched exactly, and rows beyond these before any are moved.
TAIL_ROWS, SURPLUS_ROWS = 1024, 256
# Rows that are moved under one claim, and how long others wait for a claimant that has died.
MOVE_ROWS, CLAIM_MS = 512, 10_000
# A process holds no more of a tenant while others fill slices.
MAX_TAIL_ROWS = 65_536

FILLING = "slices of the window are being filled"


class SliceFiller:
    """Moves rows into slices. For one thread at a time."""

    def __init__(self, replicas: Replicas, slices: Slices) -> None:
        self.slices = slices
        self._replicas = replicas
        self._name = uuid.uuid4().hex

    def settle(self, tenant: str, replica: Replica, may_write: bool) -> None:
        """Shorten a tail that is long: drop what is in slices, and move rows there.

        Raises Unavailable where others fill slices and this process would hold too much meanwhile, and RowsGone where
        the tail has to be read again.
        """
        tail = as_tail(replica)
        if len(tail.index) <= TAIL_ROWS + SURPLUS_ROWS:
            return
        self.check(tail, self.slices.read_filled(tenant))
        while may_write and len(tail.index) > TAIL_ROWS and self._move(tenant, tail):
            pass
        if len(tail.index) > MAX_TAIL_ROWS:
            self.wait(tenant, tail)

    def check(self, tail: Tail, filled: Filled) -> None:
        """Drop from a tail what is in slices. Raises RowsGone where slices are filled again from before the tail on."""
        if filled.position < tail.start:
            tail.reset()
            raise RowsGone
        tail.move_start(filled.position)

    def remove_deleted(self, tenant: str, replica: Replica) -> None:
        """Remove from slices what was deleted in a tail."""
        tail = as_tail(replica)
        self.slices.remove(tenant, tail.epoch, tail.deleted)
        tail.forget_deleted()

    def reopen(self, tenant: str, tail: Tail, lost: SliceLost) -> NoReturn:
        """Let a slice that was lost be filled again. Raises Unavailable: whoever tries again fills it."""
        log.warning("tenant %r: %s, and are filled again", tenant, lost)
        self._run("reopen", tenant, [tail.epoch, self.slices.ms, *lost.numbers])
        self.wait(tenant, tail)

    def wait(self, tenant: str, tail: Tail) -> NoReturn:
        """Forget a tail, which has to be read again. Raises Unavailable: slices are filled meanwhile."""
        tail.reset()
        raise Unavailable("redis", f"tenant {tenant!r}: {FILLING}")

    def _move(self, tenant: str, tail: Tail) -> bool:
        """Move the first rows of a tail. Returns False where others do that."""
        granted, fields = self._run("claim", tenant, [self.slices.ms, self._name, CLAIM_MS])
        filled = self.slices.parse_filled(dict(zip(fields[::2], fields[1::2], strict=True)))
        self.check(tail, filled)
        if not granted:
            return False
        rows = tail.first_rows(min(MOVE_ROWS, max(len(tail.index) - TAIL_ROWS, 0)))
        if not rows:
            return False
        self.remove_deleted(tenant, tail)
        try:
            last = self.slices.add(tenant, tail.epoch, rows, filled)
        except SliceLost as lost:
            self.reopen(tenant, tail, lost)
        return self._note(tenant, tail, rows, filled, last)

    def _note(self, tenant: str, tail: Tail, rows: Sequence[IndexRow], filled: Filled, last: dict[int, int]) -> bool:
        """Note that rows are in slices, and drop slices that have left the window."""
        to = rows[-1].position
        before = "-" if filled.position == Position(0, 0) else str(filled.position)
        first = self.slices.number(tail.oldest.ms)
        changed = [number for pair in last.items() for number in pair]
        if not self._run("advance", tenant, [tail.epoch, self.slices.ms, before, str(to), first, *changed]):
            return False
        tail.move_start(to)
        expired = [number for number in filled.last if number < first]
        if expired:
            self.slices.drop(tenant, tail.epoch, expired)
        return True

    def _run(self, name: str, tenant: str, arguments: Sequence[bytes | str | int]) -> Any:
        return self._replicas.run(name, lambda: [(tenant, arguments)], [])[0]
