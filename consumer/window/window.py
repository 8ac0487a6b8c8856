"""The window of recent pictures in Redis, and how an upload is compared with it.

    append in Redis ─> read all that is new into the replica ─> search the replica for what stands before the upload

Append first, then compare: Redis puts uploads in order, and of two copies at the same moment exactly one has the other
before it. An upload is known by image id and content together, so a repeat gets its own position again and is compared
with what stood before it then. The Lua scripts in `lua/` do what has to be atomic; `lua/window.lua` describes the keys.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable
from consumer.settings import WindowSettings
from consumer.window.backends import open_backend
from consumer.window.connection import AnyRedis
from consumer.window.contract import TenantStats, Window, WindowStats
from consumer.window.index import Query
from consumer.window.large_index import RowsGone
from consumer.window.loss_guard import RECOVERY_PENDING, LossGuard
from consumer.window.records import (
    AppendResult,
    DeleteResult,
    ExactMatch,
    Lookup,
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
from consumer.window.store import Call, WindowRecovering, WindowStore

# Stale replicas that are read along with an append or a refresh: a deleted picture has to leave every process within
# seconds, also one that is busy with other tenants.
STALE_WITH_APPEND = 8
STALE_WITH_REFRESH = 64
# Of a position behind all rows there will be.
LAST_SERIAL = 2**63 - 1


class RedisWindow(Window):
    """The windows of all tenants for one model, in Redis, with a replica of each in this process. Thread-safe."""

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
        """Near matches are reported up to `radius_l2`: as far as a match of the model may be, unless given.

        `progress(tenant, rows)` is called after each page but the last while a tenant's window is read.
        """
        self.store = WindowStore(redis, model, settings, prefix)
        self.loss_guard = LossGuard(self.store, settings.on_loss)
        backend = open_backend(self.store, self.loss_guard, model, settings, radius_l2, progress)
        self._replicas, self._searcher, self._filler = backend
        self._lock = threading.Lock()

    def check(self) -> None:
        """Check that Redis has what the back end needs. Raises Misconfigured if not."""
        if self._filler is not None:
            self._filler.slices.check()

    def find_exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[ExactMatch | None]:
        """Find the earliest other picture of the same bytes for each (tenant, image id, digest, uploaded_at).

        One round trip. Needs no vector, so it can be asked before inference.
        """
        by_tenant = _group(upload[0] for upload in uploads)
        calls: list[Call] = [
            # A window that is not there may be lost: `append` finds that out, before anything is decided.
            (tenant, ["", *(pack_record(*uploads[index][1:]) for index in indexes)])
            for tenant, indexes in by_tenant.items()
        ]
        matches: list[ExactMatch | None] = [None] * len(uploads)
        for indexes, replies in zip(by_tenant.values(), self._run_exact(calls), strict=True):
            for index, reply in zip(indexes, replies, strict=True):
                matches[index] = _exact_match(*reply) if reply else None
        return matches

    def _run_exact(self, calls: Sequence[Call]) -> list[Any]:
        while True:
            try:
                return self.store.run("exact", calls)
            except WindowRecovering as half:
                self.loss_guard.handle_half_recovered(half.tenants)

    def append(self, records: Sequence[NewRecord]) -> list[AppendResult]:
        """Append uploads, as if one by one in this order, and find the exact and near matches before each.

        `near` has the earliest picture within the threshold and the nearest ones within the radius, in order of
        arrival; `region_matches` has the same for each region. An exact copy is not searched for near matches. One
        round trip for all tenants, unless a replica is far behind.
        """
        while True:
            with suppress(RowsGone):  # of a window that was lost meanwhile
                return self._append(records)

    def _append(self, records: Sequence[NewRecord]) -> list[AppendResult]:
        by_tenant = _group(record.tenant for record in records)
        results: list[AppendResult] = [AppendResult()] * len(records)
        arguments = [_append_arguments(record) for record in records]
        with self._lock:
            replicas = {tenant: self._replicas.open(tenant) for tenant in by_tenant}
            stale = self._replicas.stale(STALE_WITH_APPEND)
            appends = {
                tenant: [argument for index in indexes for argument in arguments[index]]
                for tenant, indexes in by_tenant.items()
            }
            outcomes = self._replicas.sync(replicas | stale, appends)
            for tenant, indexes in by_tenant.items():
                searches: dict[int, list[Query]] = {}
                for index, outcome in zip(indexes, outcomes[tenant], strict=True):
                    results[index] = _append_result(outcome, *arguments[index][:2])
                    position = results[index].position
                    if position is not None and results[index].exact is None:
                        searches[index] = _queries(records[index], position)
                for index, (near, *regions) in self._searcher.search(tenant, replicas[tenant], searches):
                    results[index] = replace(results[index], near=near, region_matches=tuple(regions))
            self._replicas.evict()
        return results

    def look_up(self, lookups: Sequence[Lookup]) -> list[AppendResult]:
        """Find the exact and near matches of pictures among all that stand in the window; write nothing.

        As of `append`, but that an exact copy is searched for near matches too. One round trip for all tenants, unless
        a replica is far behind.
        """
        while True:
            with suppress(RowsGone):  # of a window that was lost meanwhile
                return self._look_up(lookups)

    def _look_up(self, lookups: Sequence[Lookup]) -> list[AppendResult]:
        by_tenant = _group(lookup.tenant for lookup in lookups)
        results: list[AppendResult] = [AppendResult()] * len(lookups)
        with self._lock:
            replicas = {tenant: self._replicas.open(tenant) for tenant in by_tenant}
            digests = {tenant: [lookups[index].digest for index in indexes] for tenant, indexes in by_tenant.items()}
            outcomes = self._replicas.read(replicas, digests)
            for tenant, indexes in by_tenant.items():
                searches: dict[int, list[Query]] = {}
                for index, (now_ms, match, record) in zip(indexes, outcomes[tenant], strict=True):
                    results[index] = AppendResult(exact=_exact_match(match, record) if match else None)
                    end = Position(now_ms, LAST_SERIAL)
                    vectors = lookups[index].vectors
                    searches[index] = [Query(end, b"", vector.astype(np.float16), False) for vector in vectors]
                for index, (near, *regions) in self._searcher.search(tenant, replicas[tenant], searches):
                    results[index] = replace(results[index], near=near, region_matches=tuple(regions))
            self._replicas.evict()
        return results

    def delete(self, tenant: str, image_id: str, source: Source | None = None) -> DeleteResult:
        """Delete all records of an image id, everywhere, and of the versions of an object.

        With the `source` of the deletion, uploads from before it in the same partition are not stored any more: a
        process that was frozen with an upload in its hands cannot bring back what others have deleted meanwhile. If it
        tells its time, pictures that were uploaded later stay, and older ones that come late are not stored.
        """
        with self._lock:
            name = encode_name(image_id)
            calls: list[Call] = [(tenant, [name, _format_source(source)])]
            [(count, position)] = self._replicas.run("forget", lambda: calls, [tenant])
            replica = self._replicas.get(tenant) if self._filler is None else self._replicas.open(tenant)
            if replica is not None:
                self._replicas.sync({tenant: replica}, {})
                if self._filler is not None:
                    self._filler.remove_deleted(tenant, replica)
        return DeleteResult(count, Position.parse(position))

    def read_patches(self, positions: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        """Read the patches stored at each (tenant, position), in one round trip; None where there are none."""
        return self._read("patches", positions)

    def read_records(self, positions: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        """Read the record stored at each (tenant, position), in one round trip; None where there is none."""
        return self._read("rows", positions)

    def _read(self, kind: str, positions: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        if not positions:
            return []
        by_tenant: dict[str, list[str]] = {}
        for tenant, position in positions:
            by_tenant.setdefault(tenant, []).append(str(position))
        pipeline = self.store.pipeline()
        for tenant, fields in by_tenant.items():
            pipeline.execute_command("HMGET", self.store.key(tenant, kind), *fields)
        values = dict(zip(by_tenant, map(iter, self.store.execute(pipeline)), strict=True))
        return [next(values[tenant]) for tenant, _ in positions]

    def find_record(self, tenant: str, image_id: str) -> StoredRecord | None:
        """Read the newest record under an image id; None if there is none, as of an exact copy that is not stored.

        Raises Unavailable where it may be in a window that is to be recovered.
        """
        is_lost = self.loss_guard.recovers and self.loss_guard.marker() is None
        positions = self.store.command("HGET", self.store.key(tenant, "ids"), encode_name(image_id))
        if not positions:
            if is_lost:
                raise Unavailable("redis", RECOVERY_PENDING)
            return None
        newest = positions.split()[-1]
        pipeline = self.store.pipeline()
        for kind in ("rows", "patches"):
            pipeline.execute_command("HGET", self.store.key(tenant, kind), newest)
        record, patches = self.store.execute(pipeline)
        return None if record is None else StoredRecord(Position.parse(newest), record, patches or b"")

    def refresh(self) -> None:
        """Read what other processes appended and deleted. For idle moments: `append` does so for its own tenants."""
        with self._lock:
            self._replicas.sync(self._replicas.stale(STALE_WITH_REFRESH), {})

    @property
    def problems(self) -> dict[str, str]:
        """What keeps it from answering at once: a window that is being read. Never waits."""
        reading = self._replicas.reading
        return {} if reading is None else {"window": str(reading)}

    def unread_rows(self) -> int:
        """How many rows are still to be read of a window that is being read. Never waits."""
        reading = self._replicas.reading
        return 0 if reading is None else reading.rows_left

    def tenant_stats(self) -> list[TenantStats]:
        """Count what this process holds, by tenant."""
        indexes = [(tenant, replica.index) for tenant, replica in self._replicas.snapshot()]
        return [TenantStats(tenant, len(index), index.nbytes, index.oldest_ms) for tenant, index in indexes]

    def stats(self) -> WindowStats:
        """Count what this process holds."""
        indexes = [replica.index for _, replica in self._replicas.snapshot()]
        nbytes = sum(index.nbytes for index in indexes)
        return WindowStats(len(indexes), sum(map(len, indexes)), nbytes, self._replicas.resets, self._replicas.lost_at)


def _group(tenants: Iterable[str]) -> dict[str, list[int]]:
    """Group the indexes of a sequence of tenants by tenant."""
    groups: dict[str, list[int]] = {}
    for index, tenant in enumerate(tenants):
        groups.setdefault(tenant, []).append(index)
    return groups


def _append_arguments(new: NewRecord) -> tuple[bytes, bytes, str]:
    """The record, the patches and the source of an upload, as `lua/sync.lua` takes them."""
    record = pack_record(new.image_id, new.digest, new.uploaded_at, new.vector)
    return record, new.patches or b"", _format_source(new.source)


def _format_source(source: Source | None) -> str:
    return "" if source is None else str(source)


def _append_result(outcome: Sequence[Any], record: bytes, patches: bytes) -> AppendResult:
    """The result of an append as far as `lua/sync.lua` knows it: without near matches."""
    own, match, match_record, is_stored = outcome
    position = Position.parse(own) if own else None
    stored = StoredRecord(position, record, patches) if position is not None and is_stored else None
    return AppendResult(position, _exact_match(match, match_record) if match else None, (), stored)


def _queries(record: NewRecord, position: Position) -> list[Query]:
    """The searches for near matches of an upload: of its own vector, then of each region's."""
    if record.vector is None:
        return []
    name = encode_name(record.image_id)
    return [
        Query(position, name, vector.astype(np.float16), vector is record.vector)
        for vector in (record.vector, *record.region_vectors)
    ]


def _exact_match(position: bytes, record: bytes, *own: bytes) -> ExactMatch:
    """Decode an earlier copy; `own` are position, record and patches of the upload's own record, if it is stored."""
    row = decode_index_row(position, record)
    stored = StoredRecord(Position.parse(own[0]), own[1], own[2]) if own else None
    return ExactMatch(decode_name(row.image_id), row.position, to_datetime(row.uploaded_us), own_record=stored)
