"""The window of recent pictures: Redis holds it, and each process mirrors the vectors it compares with.

    add ─> append in Redis ─> read back all that is new ─> search the mirror for what stands before

Append first, then compare: Redis puts uploads in order, and of two copies at the same moment exactly one has the other
before it. An upload is known by image id and content together, so a repeat finds its own position again and is compared
with what stood before it then. The Lua scripts in `lua/` do what has to be atomic; `lua/window.lua` describes the keys.
"""

import heapq
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable
from consumer.settings import WindowSettings
from consumer.window.connection import AnyRedis
from consumer.window.contract import TenantStats, WindowStats
from consumer.window.index import Hit, Query, SearchParams, VectorIndex
from consumer.window.loss_guard import RECOVERY_PENDING, LossGuard
from consumer.window.records import (
    AppendResult,
    DeleteResult,
    ExactMatch,
    NearMatch,
    NewRecord,
    Position,
    Source,
    StoredRecord,
    decode_index_row,
    decode_name,
    encode_name,
    pack_record,
    to_datetime,
)
from consumer.window.store import Call, WindowGone, WindowRecovering, WindowStore

log = logging.getLogger(__name__)

# Entries read from the log at once: 500 rows are about 300 KB, which keeps Redis from others for about a millisecond.
PAGE_ENTRIES = 500
# Rows reported for an upload, beside the earliest within the threshold.
MAX_NEAREST = 32
# Tenants mirrored in this process; the one idle the longest makes room, and is read again when it comes back.
MAX_TENANTS = 1000
# Windows not read for this long are read along with others, some at a time: what is deleted has to leave every process
# within seconds, also one that is busy with other tenants.
STALE_S = 1.0
STALE_WITH_APPEND = 8
STALE_WITH_REFRESH = 64
# Within this time of one another, losses of several tenants are one, and one line in the log.
SAME_LOSS = timedelta(seconds=10)


class _Page(NamedTuple):
    """What `sync.lua` replies."""

    epoch: bytes
    newest_serial: int
    oldest: bytes
    cursor: bytes
    more: int
    outcomes: list[list[Any]]
    rows: list[bytes]
    gone: list[bytes]


class _Window:
    """One tenant's mirror, and how far it has been read in which log."""

    def __init__(self, new_mirror: Callable[[], VectorIndex]) -> None:
        self._new_mirror = new_mirror
        self.read_at_s = 0.0
        self.marker: bytes | None = None  # the guard's, when it was read
        self.reset()

    def reset(self) -> None:
        self.mirror = self._new_mirror()
        self.epoch = b""
        self.cursor = b"-"

    def newer_than(self, ms: int) -> bool:
        """Whether something that was read here still has its time, so that Redis should have it too."""
        return self.cursor != b"-" and Position.parse(self.cursor).ms > ms

    def is_of(self, page: _Page) -> bool:
        """Whether a page goes on where the last one ended; if not, Redis lost the log, or the end of it."""
        if self.cursor == b"-":
            return True
        read = Position.parse(self.cursor).serial
        first = Position.parse(page.rows[0]).serial if page.rows else page.newest_serial
        return page.epoch == self.epoch and read <= first and read <= page.newest_serial

    def take(self, page: _Page, dim: int) -> None:
        rows = [decode_index_row(*pair) for pair in zip(page.rows[::2], page.rows[1::2], strict=True)]
        self.mirror.extend([row for row in rows if len(row.vector) == dim])
        for position in page.gone:
            self.mirror.remove(Position.parse(position))
        if page.oldest:
            self.mirror.drop_before(Position.parse(page.oldest))
        else:
            self.mirror = self._new_mirror()
        self.epoch, self.cursor = page.epoch, page.cursor


class RedisWindow:
    """The windows of all tenants for one model. Thread-safe.

    Every method that asks Redis raises Unavailable("redis", ...) when it cannot be asked; calling again with the same
    arguments is then safe, and answers as the first call would have.
    """

    def __init__(
        self,
        redis: AnyRedis,
        model: ModelInfo,
        settings: WindowSettings,
        prefix: str,
        *,
        radius_l2: float | None = None,
        progress: Callable[[str, int], None] | None = None,
    ) -> None:
        """`radius_l2` is how near rows have to be for `add` to report them: the model's threshold, unless given.

        `progress(tenant, rows)` is called after each page while a tenant's window is read into its mirror.
        """
        self.store = WindowStore(redis, model, settings, prefix)
        self.loss_guard = LossGuard(self.store, settings.on_loss)
        self._dim = model.dim
        radius_l2 = model.threshold_l2 if radius_l2 is None else radius_l2
        self._reach = SearchParams(radius_l2, model.threshold_l2, max(MAX_NEAREST, settings.others + 1))
        self._progress = progress
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._beginning: set[str] = set()
        self._resets = 0
        self._lost_at: datetime | None = None
        self._lock = threading.Lock()

    def find_exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[ExactMatch | None]:
        """Find the earliest other picture of the same bytes for each (tenant, image id, digest, uploaded_at).

        One round trip. Needs no vector, so it can be asked before inference.
        """
        by_tenant = _group(upload[0] for upload in uploads)
        calls: list[Call] = [
            # A window that is not there may be lost: `add` finds that out, before anything is decided.
            (t, ["", *(pack_record(*uploads[index][1:]) for index in indexes)])
            for t, indexes in by_tenant.items()
        ]
        found: list[ExactMatch | None] = [None] * len(uploads)
        for indexes, replies in zip(by_tenant.values(), self._exact(calls), strict=True):
            for index, reply in zip(indexes, replies, strict=True):
                found[index] = _earlier(*reply) if reply else None
        return found

    def append(self, rows: Sequence[NewRecord]) -> list[AppendResult]:
        """Append uploads, as if one by one in this order, and find what stands before each.

        `near` has the earliest row within the threshold and the nearest ones within the radius, in order of arrival;
        `within` has the same for each picture within an upload. Exact copies are not searched for near ones. One round
        trip for all tenants, unless the mirror is far behind.
        """
        by_tenant = _group(row.tenant for row in rows)
        placed: list[AppendResult] = [AppendResult()] * len(rows)
        parts = [_parts(row) for row in rows]
        with self._lock:
            windows = {tenant: self._window(tenant) for tenant in by_tenant}
            windows |= self._stale(STALE_WITH_APPEND)
            records = {t: [part for index in indexes for part in parts[index]] for t, indexes in by_tenant.items()}
            outcomes = self._sync(windows, records)
            for tenant, indexes in by_tenant.items():
                queries: list[Query] = []
                asking: list[int] = []  # the row that each query is of
                for index, (own, earlier, head, kept) in zip(indexes, outcomes[tenant], strict=True):
                    position = Position.parse(own) if own else None
                    stored = StoredRecord(position, *parts[index][:2]) if position is not None and kept else None
                    placed[index] = AppendResult(position, _earlier(earlier, head) if earlier else None, (), stored)
                    row = rows[index]
                    if position is not None and not earlier and row.vector is not None:
                        name = encode_name(row.image_id)
                        for vector in (row.vector, *row.region_vectors):
                            queries.append(Query(position, name, vector.astype(np.float16), vector is row.vector))
                            asking.append(index)
                hits = windows[tenant].mirror.search(queries)
                for index, found in groupby(zip(asking, hits, strict=True), lambda pair: pair[0]):
                    near, *within = (tuple(map(_near, each)) for _, each in found)
                    placed[index] = replace(placed[index], near=near, region_matches=tuple(within))
            while len(self._windows) > MAX_TENANTS:
                self._windows.popitem(last=False)
        return placed

    def delete(self, tenant: str, image_id: str, source: Source | None = None) -> DeleteResult:
        """Delete all that was seen under an image id, everywhere.

        With the `source` of the deletion, uploads of the same partition before it are not stored any more: a process
        that was frozen in mid-flight cannot bring back what others have deleted meanwhile.
        """
        with self._lock:
            name = encode_name(image_id)
            [(count, position)] = self._run("forget", lambda: [(tenant, [name, _order(source)])], [tenant])
            if tenant in self._windows:
                self._sync({tenant: self._windows[tenant]}, {})
        return DeleteResult(count, Position.parse(position))

    def read_patches(self, rows: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        """The local features stored with each (tenant, position), in one round trip; None where there are none."""
        if not rows:
            return []
        of_tenant: dict[str, list[str]] = {}
        for tenant, position in rows:
            of_tenant.setdefault(tenant, []).append(str(position))
        pipeline = self.store.pipeline()
        for tenant, positions in of_tenant.items():
            pipeline.execute_command("HMGET", self.store.key(tenant, "patches"), *positions)
        found = dict(zip(of_tenant, map(iter, self.store.execute(pipeline)), strict=True))
        return [next(found[tenant]) for tenant, _ in rows]

    def refresh(self) -> None:
        """Follow what other processes appended and deleted. For idle moments; `add` does so for its own tenants."""
        with self._lock:
            self._sync(self._stale(STALE_WITH_REFRESH), {})

    def tenant_stats(self) -> list[TenantStats]:
        """The window of each tenant mirrored here."""
        mirrors = [(tenant, window.mirror) for tenant, window in list(self._windows.items())]
        return [TenantStats(tenant, len(each), each.nbytes, each.oldest_ms) for tenant, each in mirrors]

    def stats(self) -> WindowStats:
        mirrors = [window.mirror for window in list(self._windows.values())]
        return WindowStats(
            len(mirrors), sum(map(len, mirrors)), sum(m.nbytes for m in mirrors), self._resets, self._lost_at
        )

    def _sync(self, windows: dict[str, _Window], records: dict[str, list[bytes | str]]) -> dict[str, list[list[Any]]]:
        """Append what `_parts` made of rows, and read each window to its end. Returns the outcome of each append."""
        outcomes: dict[str, list[list[Any]]] = {}
        unread = dict.fromkeys(windows, True)  # and whether its rows are still to be placed
        while unread:

            def calls(unread: dict[str, bool] = unread) -> list[Call]:
                return [
                    (tenant, [windows[tenant].cursor, PAGE_ENTRIES, *(records.get(tenant, ()) if to_place else ())])
                    for tenant, to_place in unread.items()
                ]

            # What was never read and is not appended to may as well not be there.
            needed = [t for t, to_place in unread.items() if windows[t].epoch or (to_place and t in records)]
            still_unread: dict[str, bool] = {}
            for (tenant, placing), reply in zip(unread.items(), self._run("sync", calls, needed), strict=True):
                window, page = windows[tenant], _Page(*reply)
                if not window.is_of(page):
                    self._reset(tenant, window)
                    # Rows placed in the log that is no more have to be placed in this one; where they stand, they stay.
                    still_unread[tenant] = True
                    continue
                window.take(page, self._dim)
                window.read_at_s, window.marker = time.monotonic(), self.loss_guard.last_reading.marker
                if placing:
                    outcomes[tenant] = page.outcomes
                if page.more:
                    still_unread[tenant] = False
                    if self._progress is not None:
                        self._progress(tenant, len(window.mirror))
            unread = still_unread
        return outcomes

    def _window(self, tenant: str) -> _Window:
        if tenant not in self._windows:
            self._windows[tenant] = _Window(lambda: VectorIndex(self._dim, self._reach, self.store.retention_ms))
        self._windows.move_to_end(tenant)
        return self._windows[tenant]

    def _stale(self, most: int) -> dict[str, _Window]:
        before_s = time.monotonic() - STALE_S
        stale = ((tenant, window) for tenant, window in self._windows.items() if window.read_at_s < before_s)
        return dict(heapq.nsmallest(most, stale, key=lambda entry: entry[1].read_at_s))

    def _reset(self, tenant: str, window: _Window) -> bool:
        """Forget what was read of a window that is no more; whether it was lost, and not only past its time."""
        lost = window.newer_than(round(time.time() * 1000) - self.store.retention_ms - self.store.grace_ms)
        if lost:
            now = datetime.now(UTC)
            level = logging.WARNING if self._lost_at is None or now - self._lost_at > SAME_LOSS else logging.DEBUG
            log.log(level, "Redis came back without what it had of tenant %r: %d rows", tenant, len(window.mirror))
            self._resets += 1
            self._lost_at = now
        window.reset()
        return lost

    def _run(self, name: str, calls: Callable[[], Sequence[Call]], needed: Sequence[str]) -> list[Any]:
        """The replies of a script that may begin a window: if it is to be rebuilt, only where there was none before.

        `calls` are asked for again after windows were reset. Those `needed` are there, or have to begin.
        """
        while True:
            guarded = set(needed) if self.loss_guard.recovers else set()
            begun = sorted(guarded & self._beginning)
            guarded -= self._beginning
            marked: list[Call] = [(tenant, ["1" if tenant in guarded else "", *rest]) for tenant, rest in calls()]
            try:
                replies = self.store.run(name, marked)
            except WindowRecovering as half:
                self.loss_guard.half_rebuilt(half.tenants)
            except WindowGone as gone:
                self._find_out(gone.tenants)
            else:
                if begun:
                    self._beginning.clear()
                    self.loss_guard.check(begun)
                return replies

    def _exact(self, calls: Sequence[Call]) -> list[Any]:
        while True:
            try:
                return self.store.run("exact", calls)
            except WindowRecovering as half:
                self.loss_guard.half_rebuilt(half.tenants)

    def _find_out(self, tenants: Sequence[str]) -> None:
        """Let windows begin that are not in Redis. Raises Unavailable where they were lost."""
        marker = self.loss_guard.marker()
        for tenant in tenants:
            window = self._windows.get(tenant)
            if window is not None and self._reset(tenant, window) and marker is not None and window.marker == marker:
                # The marker is there and the window is not: one server of a cluster came back empty.
                self.loss_guard.unmark(marker)
                marker = None
        if marker is None:
            raise Unavailable("redis", RECOVERY_PENDING)
        self._beginning.update(tenants)


def _group(tenants: Iterable[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, tenant in enumerate(tenants):
        groups.setdefault(tenant, []).append(index)
    return groups


def _parts(row: NewRecord) -> tuple[bytes, bytes, str]:
    record = pack_record(row.image_id, row.digest, row.uploaded_at, row.vector)
    return record, row.patches or b"", _order(row.source)


def _order(source: Source | None) -> str:
    return "" if source is None else f"{source.partition} {source.offset}"


def _earlier(position: bytes, record: bytes, *own: bytes) -> ExactMatch:
    """Of an earlier copy's position and record, and position, record and patches of the upload's own row."""
    row = decode_index_row(position, record)
    stored = StoredRecord(Position.parse(own[0]), own[1], own[2]) if own else None
    return ExactMatch(decode_name(row.image_id), row.position, to_datetime(row.uploaded_us), own_record=stored)


def _near(hit: Hit) -> NearMatch:
    return NearMatch(decode_name(hit.image_id), hit.position, hit.l2, to_datetime(hit.uploaded_us))
