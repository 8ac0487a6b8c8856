"""Recover the windows that Redis has lost from the changelog.

    read the changelog ─> stage each record in Redis ─> sort what is known of them ─> restore them in order, in Redis

The changelog's partitions are only roughly in order, and hold repeats. So records first go to Redis as they come, under
names of their own, while this process keeps some 40 bytes of each. Then the scripts put them into the window in the
order of their first positions, with their first milliseconds, so that they expire when they would have; deletions are
carried out in between. Until then no other process can use the window. A recovery that was interrupted is begun anew.
"""

import logging
import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable
from consumer.settings import KafkaSettings
from consumer.window.changelog import ChangelogReader, Tombstone, Upsert, parse_change
from consumer.window.loss_guard import LOCK_MS, LossGuard
from consumer.window.store import ROW_OVERHEAD_BYTES, Call, WindowGone, WindowRecovering, WindowStore

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Messages read at once, and records staged in one round trip.
CHUNK_MESSAGES = 500
# Entries that a script restores: some milliseconds, in which Redis does nothing else.
RESTORE_ENTRIES = 200
# Tenants named in a summary.
MAX_NAMED_TENANTS = 5
# Tenants in one round trip.
TENANTS_AT_ONCE = 50
# Clocks of the brokers' clients and of Redis differ by less.
CLOCK_SKEW_MS = 5 * 60_000
# Between the serials of a lost window and those of the recovered one: more than were ever on their way to the
# changelog. So no position of the one is ever a position of the other.
SERIAL_GAP = 1_000_000
# Staged records may take this many times the window's bound on memory, before the oldest are dropped.
STAGING_ROOM = 1.25


@dataclass
class RecoveryProgress:
    """How far a recovery is: messages of the changelog read, then records restored (`rows`)."""

    messages: int = 0
    total_messages: int = 0
    rows: int = 0
    total_rows: int = 0
    tenants: int = 0
    added: int = 0  # records that were neither repeats nor deleted later
    foreign: int = 0  # messages of other models, or too old
    broken: int = 0  # messages that this program did not write
    in_use: list[str] = field(default_factory=list)  # tenants that have a window, which is left alone

    @property
    def summary(self) -> str:
        """The outcome, in one line for an operator."""
        details = f", {self.foreign} messages too old or of other models" if self.foreign else ""
        details += f", {self.broken} messages that cannot be read" if self.broken else ""
        names = ", ".join(repr(name) for name in self.in_use[:MAX_NAMED_TENANTS])
        names += ", ..." if len(self.in_use) > MAX_NAMED_TENANTS else ""
        if names:
            details += f"; left alone the windows of {len(self.in_use)} tenants that are not empty: {names}"
        return f"{self.added} pictures of {self.tenants} tenants from {self.messages} messages{details}"


class _Deletion(NamedTuple):
    """A tombstone's position, where its message stands, and what it deletes."""

    ms: int
    serial: int
    partition: int
    offset: int
    image_id: bytes
    source: str


class _StagedTenant:
    """What this process knows of the records that it has staged for a tenant, and of the tenant's deletions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = False
        self.in_use = False
        self.deletions: list[_Deletion] = []
        self.bytes = 0
        self.highest_serial = 0
        self.records = array("q")  # ms, serial, partition, offset and size in Redis of each record, one after the other

    def table(self) -> NDArray[np.int64]:
        """The records as int64 [N, 5]."""
        return np.frombuffer(self.records, np.int64).reshape(-1, 5) if self.records else np.empty((0, 5), np.int64)

    def entries(self) -> Iterator[tuple[int, str, bytes, str]]:
        """Records and deletions in the order of their positions, as `lua/restore.lua` takes them.

        Each is (ms, name, b"", "") or (ms, "", image id, source).
        """
        deletions = np.array([[*deletion[:4], 0] for deletion in self.deletions], np.int64).reshape(-1, 5)
        table = np.concatenate([self.table(), deletions])
        is_deletion = np.arange(len(table)) >= len(table) - len(deletions)
        ms, serial, partition, offset, _ = table.T
        # A deletion stands behind the record of its position. Of repeats the first published goes first.
        for index in np.lexsort((offset, partition, is_deletion, serial, ms)).tolist():
            if is_deletion[index]:
                deletion = self.deletions[index - len(table)]
                yield deletion.ms, "", deletion.image_id, deletion.source
            else:
                yield int(ms[index]), _staged_name(int(partition[index]), int(offset[index])), b"", ""


def recover_window(
    kafka: KafkaSettings,
    model: ModelInfo,
    store: WindowStore,
    guard: LossGuard,
    on_progress: Callable[[RecoveryProgress], None] = lambda progress: None,
) -> RecoveryProgress:
    """Fill the windows that Redis lacks, of all tenants of the model, then set the loss guard's marker.

    Windows that are there are left alone. `on_progress` is called after each round trip; what it raises ends the
    recovery. Raises Unavailable, also while another process recovers. After any error the same call begins anew.
    """
    if not guard.lock():
        raise Unavailable("redis", "another process is rebuilding the window")
    try:
        return _Recovery(model, store, guard, on_progress).run(kafka)
    except (WindowGone, WindowRecovering):
        raise Unavailable("redis", "it was emptied, or rebuilt by another process, in the midst of this") from None
    finally:
        guard.unlock()


class _Recovery:
    """One recovery, under the lock."""

    def __init__(
        self,
        model: ModelInfo,
        store: WindowStore,
        guard: LossGuard,
        on_progress: Callable[[RecoveryProgress], None],
    ) -> None:
        self._model = model
        self._store = store
        self._guard = guard
        self._on_progress = on_progress
        self._epoch = uuid.uuid4().hex
        self._renewed_s = time.monotonic()
        self._tenants: dict[str, _StagedTenant] = {}
        self._progress = RecoveryProgress()
        self._oldest_ms = store.oldest_ms()

    def run(self, kafka: KafkaSettings) -> RecoveryProgress:
        changelog = ChangelogReader(kafka, self._oldest_ms - CLOCK_SKEW_MS, CHUNK_MESSAGES)
        try:
            self._progress.total_messages = changelog.messages
            for messages in changelog.read():
                self._take(messages)
        finally:
            changelog.close()
        staged = [tenant for tenant in self._tenants.values() if tenant.begun]
        self._progress.tenants = len(staged)
        self._progress.total_rows = sum(len(tenant.table()) for tenant in staged)
        for tenants in _chunks(staged, TENANTS_AT_ONCE):
            self._restore(tenants)
        self._guard.mark()
        return self._progress

    def _take(self, messages: Sequence[Message]) -> None:
        """Stage the records of some messages, and note their deletions."""
        records: dict[str, list[bytes | str]] = {}
        for message in messages:
            self._progress.messages += 1
            change = self._parse(message)
            if change is None:
                continue
            tenant = self._tenants.setdefault(change.tenant, _StagedTenant(change.tenant))
            partition, offset = message.partition() or 0, message.offset() or 0
            tenant.highest_serial = max(tenant.highest_serial, change.position.serial)
            if isinstance(change, Tombstone):
                tenant.deletions.append(_Deletion(*change.position, partition, offset, change.image_id, change.source))
            elif not tenant.in_use:
                _, record, patches = change.stored
                size = len(record) + len(patches) + ROW_OVERHEAD_BYTES
                tenant.records.extend((*change.position, partition, offset, size))
                tenant.bytes += size
                records.setdefault(change.tenant, []).extend((_staged_name(partition, offset), record, patches))
        self._stage(records)
        for name in records:
            self._drop_oldest(self._tenants[name])
        self._on_progress(self._progress)

    def _parse(self, message: Message) -> Upsert | Tombstone | None:
        """Parse a message; None for one that the recovery leaves out, which is counted."""
        try:
            change = parse_change(self._model, message)
        except ValueError as error:
            self._progress.broken += 1
            log.debug("%s/%s/%s: %s", message.topic(), message.partition(), message.offset(), error)
            return None
        if change is not None and change.position.ms >= self._oldest_ms:
            return change
        self._progress.foreign += 1
        return None

    def _stage(self, records: Mapping[str, Sequence[bytes | str]]) -> None:
        """Send records to Redis, by tenant: name, record and patches of each, one after the other."""
        self._keep_lock()
        while True:
            calls: list[Call] = [
                (name, ["1" if self._tenants[name].begun else "", *arguments])
                for name, arguments in records.items()
                if not self._tenants[name].in_use
            ]
            try:
                replies = self._store.run("stage", calls, self._epoch)
                break
            except WindowRecovering as half:
                if any(self._tenants[name].begun for name in half.tenants):
                    raise
                # A recovery left them that came to no end: the lock is this one's.
                self._store.delete_windows(half.tenants)
        for (name, _), staged in zip(calls, replies, strict=True):
            tenant = self._tenants[name]
            tenant.begun = bool(staged)
            if not staged:
                tenant.in_use, tenant.records, tenant.deletions = True, array("q"), []
                self._progress.in_use.append(name)

    def _drop_oldest(self, tenant: _StagedTenant) -> None:
        """Drop the oldest records that the window has no room for: the changelog may hold many times as much."""
        if tenant.bytes <= STAGING_ROOM * self._store.max_bytes or tenant.in_use:
            return
        table = tenant.table()
        table = table[np.lexsort((table[:, 1], table[:, 0]))[::-1]]
        fitting = int(np.searchsorted(np.cumsum(table[:, 4]), self._store.max_bytes, "right"))
        for dropped in _chunks(table[fitting:].tolist(), CHUNK_MESSAGES):
            names = [_staged_name(partition, offset) for _, _, partition, offset, _ in dropped]
            pipeline = self._store.pipeline()
            for kind in ("rows", "patches"):
                pipeline.execute_command("HDEL", self._store.key(tenant.name, kind), *names)
            self._store.execute(pipeline)
        tenant.records = array("q", table[:fitting].tobytes())
        tenant.bytes = int(table[:fitting, 4].sum())

    def _restore(self, tenants: Sequence[_StagedTenant]) -> None:
        """Put the staged records of these tenants in order, a chunk of each in every round trip."""
        chunks = {tenant.name: _chunks(tenant.entries(), RESTORE_ENTRIES) for tenant in tenants}
        current = {name: next(chunk) for name, chunk in chunks.items()}
        restored = dict.fromkeys(chunks, 0)
        while current:
            calls: list[Call] = []
            following = {name: chunk for name in current if (chunk := next(chunks[name], None)) is not None}
            for name, entries in current.items():
                base_serial = self._tenants[name].highest_serial + SERIAL_GAP
                arguments = [argument for entry in entries for argument in entry]
                calls.append((name, ["1", restored[name], base_serial, "" if name in following else "1", *arguments]))
                restored[name] += len(entries)
                self._progress.rows += sum(entry[1] != "" for entry in entries)
            self._keep_lock()
            self._progress.added += sum(self._store.run("restore", calls, self._epoch))
            self._on_progress(self._progress)
            current = following

    def _keep_lock(self) -> None:
        if time.monotonic() - self._renewed_s > LOCK_MS / 3000:
            self._guard.renew()
            self._renewed_s = time.monotonic()


def _chunks(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    remaining = iter(items)
    while chunk := tuple(islice(remaining, size)):
        yield chunk


def _staged_name(partition: int, offset: int) -> str:
    """The name under which a record is staged: where its message stands."""
    return f"{partition}:{offset}"
