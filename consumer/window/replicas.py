"""The replicas of windows in this process, one for each tenant in use, and how they are read from Redis."""

import heapq
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from consumer.errors import Unavailable
from consumer.window.catch_up import CatchUp, Reading
from consumer.window.large_index import RowsGone
from consumer.window.loss_guard import RECOVERY_PENDING, LossGuard
from consumer.window.replica import Page, Replica, page_after
from consumer.window.store import Call, WindowGone, WindowRecovering, WindowStore

log = logging.getLogger(__name__)

# Replicas in this process; the one that is idle the longest makes room, and is read again when its tenant comes back.
MAX_TENANTS = 1000
# A replica is stale when it has not been read for this long.
STALE_S = 1.0
# Losses of several tenants within this time of one another are one, with one line in the log.
SAME_LOSS = timedelta(seconds=10)

# Runs a script for each unread tenant: takes the calls, which are asked for again after replicas were reset, and the
# unread tenants with whether their arguments are among the calls.
RunScript = Callable[[Callable[[], Sequence[Call]], Mapping[str, bool]], list[Any]]


class Replicas:
    """The replicas of one model's tenants, and how they are read from Redis.

    Not thread-safe but for `snapshot` and `reading`.
    """

    def __init__(
        self,
        store: WindowStore,
        loss_guard: LossGuard,
        new_replica: Callable[[], Replica],
        on_page: Callable[[str, int], None] | None,
    ) -> None:
        """`on_page(tenant, rows)` is called after each page but the last while a replica is read."""
        self.resets = 0
        self.lost_at: datetime | None = None
        # Called after each page, with whether anything may be written. Raises RowsGone where all has to be read anew.
        self.settle: Callable[[str, Replica, bool], None] = lambda tenant, replica, may_write: None
        self._store = store
        self._loss_guard = loss_guard
        self._new_replica = new_replica
        self._on_page = on_page
        self._catch_up = CatchUp(store, on_page)
        self._by_tenant: OrderedDict[str, Replica] = OrderedDict()  # the least recently used first
        self._leaves: dict[str, bytes] = {}  # tenants whose windows may begin, and the marker by whose leave

    def open(self, tenant: str) -> Replica:
        """The tenant's replica, begun if there is none, as the one used last."""
        if tenant not in self._by_tenant:
            self._by_tenant[tenant] = self._new_replica()
        self._by_tenant.move_to_end(tenant)
        return self._by_tenant[tenant]

    def get(self, tenant: str) -> Replica | None:
        """The tenant's replica, if there is one."""
        return self._by_tenant.get(tenant)

    def snapshot(self) -> list[tuple[str, Replica]]:
        """All tenants and replicas of this moment; from any thread."""
        return list(self._by_tenant.items())

    def stale(self, limit: int) -> dict[str, Replica]:
        """The replicas that have not been read for STALE_S, at most `limit` of them, by tenant; the oldest first."""
        before_s = time.monotonic() - STALE_S
        stale = ((tenant, replica) for tenant, replica in self._by_tenant.items() if replica.read_at_s < before_s)
        return dict(heapq.nsmallest(limit, stale, key=lambda entry: entry[1].read_at_s))

    @property
    def reading(self) -> Reading | None:
        """How far a window has been read that takes more than a moment; None while none does."""
        return self._catch_up.reading

    def evict(self) -> None:
        """Drop the replicas used least recently beyond MAX_TENANTS."""
        while len(self._by_tenant) > MAX_TENANTS:
            self._by_tenant.popitem(last=False)

    def sync(
        self, replicas: Mapping[str, Replica], appends: Mapping[str, Sequence[bytes | str]]
    ) -> dict[str, list[list[Any]]]:
        """Append records, and read each replica to the end of its log. Returns the outcomes of each tenant's appends.

        `appends` has the record, the patches and the source of each new record, one after the other.
        """

        def run(calls: Callable[[], Sequence[Call]], unread: Mapping[str, bool]) -> list[Any]:
            # A window that was never read and is not appended to need not be there.
            needed = [
                tenant
                for tenant, appending in unread.items()
                if replicas[tenant].epoch or (appending and tenant in appends)
            ]
            return self.run("sync", calls, needed)

        return self._read_logs(replicas, appends, run, may_write=True)

    def read(self, replicas: Mapping[str, Replica], lookups: Mapping[str, Sequence[bytes]]) -> dict[str, list[Any]]:
        """Read each replica to the end of its log, and write nothing. Returns the outcomes of each tenant's look-ups.

        `lookups` has the content hashes to look up. Raises Unavailable while windows are to be recovered.
        """

        def run(calls: Callable[[], Sequence[Call]], _: Mapping[str, bool]) -> list[Any]:
            if self._loss_guard.recovers and self._loss_guard.marker() is None:
                raise Unavailable("redis", RECOVERY_PENDING)
            try:
                return self._store.run("read", [(tenant, ["", *arguments]) for tenant, arguments in calls()])
            except WindowRecovering:
                raise Unavailable("redis", RECOVERY_PENDING) from None

        return self._read_logs(replicas, lookups, run, may_write=False)

    def _read_logs(
        self,
        replicas: Mapping[str, Replica],
        arguments: Mapping[str, Sequence[bytes | str]],
        run: RunScript,
        may_write: bool,
    ) -> dict[str, list[Any]]:
        """Read each replica to the end of its log by a script, which takes each tenant's `arguments` once."""
        outcomes: dict[str, list[Any]] = {}
        unread = dict.fromkeys(replicas, True)  # tenants to read, and whether their arguments are still to be given
        while unread:
            following = self._read_pages(replicas, arguments, unread, outcomes, run)
            for tenant in unread:
                try:
                    self.settle(tenant, replicas[tenant], may_write)
                except RowsGone:
                    following[tenant] = True
            unread = following
        return outcomes

    def _read_pages(
        self,
        replicas: Mapping[str, Replica],
        arguments: Mapping[str, Sequence[bytes | str]],
        unread: dict[str, bool],
        outcomes: dict[str, list[Any]],
        run: RunScript,
    ) -> dict[str, bool]:
        """Read one page of each replica. Returns what is unread after it."""

        def calls() -> list[Call]:
            return [
                (tenant, [*page_after(replicas[tenant].cursor), *(arguments.get(tenant, ()) if giving else ())])
                for tenant, giving in unread.items()
            ]

        still_unread: dict[str, bool] = {}
        for (tenant, giving), reply in zip(unread.items(), run(calls, unread), strict=True):
            replica, page = replicas[tenant], Page(*reply)
            if not replica.precedes(page):
                self._reset(tenant, replica)
                # What was appended to the lost log has to be appended to this one; what is in it stays where it is.
                still_unread[tenant] = True
                continue
            replica.apply(page)
            replica.read_at_s, replica.marker = time.monotonic(), self._loss_guard.last_reading.marker
            if giving:
                outcomes[tenant] = page.outcomes
            if page.more:
                still_unread[tenant] = False
                if self._on_page is not None:
                    self._on_page(tenant, len(replica.index))
                self._catch_up.run(tenant, replica)
        return still_unread

    def run(self, name: str, calls: Callable[[], Sequence[Call]], needed: Sequence[str]) -> list[Any]:
        """Run a script that may begin windows, and return its replies.

        Where lost windows are recovered, those of the `needed` tenants begin only by leave of the loss guard. `calls`
        are asked for again after replicas were reset. Raises Unavailable while windows are to be recovered.
        """
        while True:
            guarded = set(needed) if self._loss_guard.recovers else set()
            begun = {tenant: self._leaves[tenant] for tenant in guarded & self._leaves.keys()}
            leaves = dict.fromkeys(guarded, b"1") | begun
            guarded_calls: list[Call] = [
                (tenant, [leaves.get(tenant, b""), *arguments]) for tenant, arguments in calls()
            ]
            try:
                replies = self._store.run(name, guarded_calls)
            except WindowRecovering as half:
                self._loss_guard.handle_half_recovered(half.tenants)
            except WindowGone as gone:
                self._let_begin(gone.tenants)
            else:
                if begun:
                    self._leaves.clear()
                    self._loss_guard.check_begun(begun)
                return replies

    def _let_begin(self, tenants: Sequence[str]) -> None:
        """Let windows begin that are not in Redis. Raises Unavailable when they were lost."""
        marker = self._loss_guard.marker()
        for tenant in tenants:
            replica = self._by_tenant.get(tenant)
            if replica is not None and self._reset(tenant, replica) and marker is not None and replica.marker == marker:
                # The marker is there and the window is not: one server of a cluster came back empty.
                self._loss_guard.unmark(marker)
                marker = None
        if marker is None:
            raise Unavailable("redis", RECOVERY_PENDING)
        self._leaves |= dict.fromkeys(tenants, marker)

    def _reset(self, tenant: str, replica: Replica) -> bool:
        """Reset the replica of a window that is no more; True if Redis lost it, False if only its time was over."""
        lost = replica.is_newer_than(self._store.oldest_ms())
        if lost:
            now = datetime.now(UTC)
            level = logging.WARNING if self.lost_at is None or now - self.lost_at > SAME_LOSS else logging.DEBUG
            log.log(level, "Redis came back without what it had of tenant %r: %d rows", tenant, len(replica.index))
            self.resets += 1
            self.lost_at = now
        replica.reset()
        return lost
