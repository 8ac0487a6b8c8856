"""A window that Redis has lost is filled again from the embeddings topic.

    read the topic ─> lay each row by in Redis ─> sort what is known of them ─> put them in order, in Redis

The topic's partitions are only roughly in order, and hold repeats. So rows first go to Redis as they come, under names
of their own, while this process keeps some 40 bytes of each. Then the scripts put them into the window in the order of
their first positions, with their first milliseconds, so that they expire when they would have; deletions are carried
out in between. Until then nobody else can use the window. A rebuild that was interrupted is begun anew.
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
from consumer.window import changelog as embeddings
from consumer.window.changelog import ChangelogReader, Tombstone, Upsert
from consumer.window.loss_guard import LOCK_MS, LossGuard
from consumer.window.store import ROW_OVERHEAD_BYTES, Call, WindowGone, WindowRecovering, WindowStore

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Messages read at once, and rows laid by in one round trip.
CHUNK_MESSAGES = 500
# Rows that a script puts in order: some milliseconds, in which Redis does nothing else.
RESTORE_ROWS = 200
# Tenants named in a summary.
MAX_NAMED_TENANTS = 5
# Tenants in one round trip.
TENANTS_AT_ONCE = 50
# Clocks of the brokers' clients and of Redis differ by less.
CLOCK_SKEW_MS = 5 * 60_000
# Between the serials of a window that was lost and those of its heir: more than was ever on its way to the topic. So no
# position of the one is ever a position of the other.
SERIAL_GAP = 1_000_000
# Rows laid by may take this much more than the window may, before the oldest go.
STAGING_ROOM = 1.25


@dataclass
class RecoveryProgress:
    """How far a rebuild is: messages of the topic read, then rows put in order."""

    messages: int = 0
    total_messages: int = 0
    rows: int = 0
    total_rows: int = 0
    tenants: int = 0
    added: int = 0  # rows that were neither repeats nor deleted later
    foreign: int = 0  # messages of other models, or too old
    broken: int = 0  # messages that this program did not write
    in_use: list[str] = field(default_factory=list)  # tenants that have a window, which is left alone

    @property
    def summary(self) -> str:
        """What came of it, in one line."""
        more = f", {self.foreign} messages too old or of other models" if self.foreign else ""
        more += f", {self.broken} messages that cannot be read" if self.broken else ""
        names = ", ".join(repr(name) for name in self.in_use[:MAX_NAMED_TENANTS])
        names += ", ..." if len(self.in_use) > MAX_NAMED_TENANTS else ""
        more += f"; left alone the windows of {len(self.in_use)} tenants that are not empty: {names}" if names else ""
        return f"{self.added} pictures of {self.tenants} tenants from {self.messages} messages{more}"


class _Mark(NamedTuple):
    """A deletion, and the place of its message."""

    ms: int
    serial: int
    partition: int
    offset: int
    image_id: bytes
    source: str


class _Tenant:
    """What is known of the rows laid by for a tenant."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = False
        self.in_use = False
        self.marks: list[_Mark] = []
        self.bytes = 0
        self.highest_serial = 0
        # Of each row ms, serial, partition, offset, and its size in Redis.
        self.rows = array("q")

    def table(self) -> NDArray[np.int64]:
        """int64 [rows, 5]."""
        return np.frombuffer(self.rows, np.int64).reshape(-1, 5) if self.rows else np.empty((0, 5), np.int64)

    def order(self) -> Iterator[tuple[int, str, bytes, str]]:
        """(ms, name, image id, source) of rows and deletions, in the order of their positions."""
        marks = np.array([[*mark[:4], 0] for mark in self.marks], np.int64).reshape(-1, 5)
        table = np.concatenate([self.table(), marks])
        deletes = np.arange(len(table)) >= len(table) - len(marks)
        ms, serial, partition, offset, _ = table.T
        # A deletion stands behind the row of its position. Of repeats the first published goes first.
        for index in np.lexsort((offset, partition, deletes, serial, ms)).tolist():
            if deletes[index]:
                mark = self.marks[index - len(table)]
                yield mark.ms, "", mark.image_id, mark.source
            else:
                yield int(ms[index]), _name(int(partition[index]), int(offset[index])), b"", ""


def recover_window(
    kafka: KafkaSettings,
    model: ModelInfo,
    scripts: WindowStore,
    guard: LossGuard,
    tell: Callable[[RecoveryProgress], None] = lambda progress: None,
) -> RecoveryProgress:
    """Fill the windows that Redis lacks, of all tenants of the model, and say so with the guard's marker.

    Windows that are there are left alone. `tell` is told of the progress; what it raises ends the rebuild.
    Raises Unavailable, also while another process rebuilds. After any error the same call begins anew.
    """
    if not guard.lock():
        raise Unavailable("redis", "another process is rebuilding the window")
    try:
        return _Rebuild(model, scripts, guard, tell).run(kafka)
    except (WindowGone, WindowRecovering):
        raise Unavailable("redis", "it was emptied, or rebuilt by another process, in the midst of this") from None
    finally:
        guard.unlock()


class _Rebuild:
    """One rebuild, under the lock."""

    def __init__(
        self, model: ModelInfo, scripts: WindowStore, guard: LossGuard, tell: Callable[[RecoveryProgress], None]
    ) -> None:
        self._model = model
        self._scripts = scripts
        self._guard = guard
        self._tell = tell
        self._epoch = uuid.uuid4().hex
        self._renewed_s = time.monotonic()
        self._tenants: dict[str, _Tenant] = {}
        self._progress = RecoveryProgress()
        self._oldest_ms = round(time.time() * 1000) - scripts.retention_ms - scripts.grace_ms

    def run(self, kafka: KafkaSettings) -> RecoveryProgress:
        topic = ChangelogReader(kafka, self._oldest_ms - CLOCK_SKEW_MS, CHUNK_MESSAGES)
        try:
            self._progress.total_messages = topic.messages
            for messages in topic.read():
                self._lay_by(messages)
        finally:
            topic.close()
        living = [tenant for tenant in self._tenants.values() if tenant.begun]
        self._progress.tenants = len(living)
        self._progress.total_rows = sum(len(tenant.table()) for tenant in living)
        for tenants in _parts(living, TENANTS_AT_ONCE):
            self._put_in_order(tenants)
        self._guard.mark()
        return self._progress

    def _lay_by(self, messages: Sequence[Message]) -> None:
        arguments: dict[str, list[bytes | str]] = {}
        for message in messages:
            self._progress.messages += 1
            said = self._parse(message)
            if said is None:
                continue
            tenant = self._tenants.setdefault(said.tenant, _Tenant(said.tenant))
            place = message.partition() or 0, message.offset() or 0
            position = said.position if isinstance(said, Tombstone) else said.row.position
            tenant.highest_serial = max(tenant.highest_serial, position.serial)
            if isinstance(said, Tombstone):
                tenant.marks.append(_Mark(*position, *place, said.image_id, said.source))
            elif not tenant.in_use:
                size = len(said.row.record) + len(said.row.patches) + ROW_OVERHEAD_BYTES
                tenant.rows.extend((*position, *place, size))
                tenant.bytes += size
                arguments.setdefault(said.tenant, []).extend((_name(*place), said.row.record, said.row.patches))
        self._stage(arguments)
        for name in arguments:
            self._make_room(self._tenants[name])
        self._tell(self._progress)

    def _parse(self, message: Message) -> Upsert | Tombstone | None:
        try:
            said = embeddings.parse_change(self._model, message)
        except ValueError as error:
            self._progress.broken += 1
            log.debug("%s/%s/%s: %s", message.topic(), message.partition(), message.offset(), error)
            return None
        if said is not None:
            position = said.position if isinstance(said, Tombstone) else said.row.position
            if position.ms >= self._oldest_ms:
                return said
        self._progress.foreign += 1
        return None

    def _stage(self, arguments: Mapping[str, Sequence[bytes | str]]) -> None:
        self._keep_lock()
        while True:
            calls: list[Call] = [
                (name, ["1" if self._tenants[name].begun else "", *rows])
                for name, rows in arguments.items()
                if not self._tenants[name].in_use
            ]
            try:
                replies = self._scripts.run("stage", calls, self._epoch)
                break
            except WindowRecovering as left:
                if any(self._tenants[name].begun for name in left.tenants):
                    raise
                # What a rebuild left that came to no end; its lock is ours.
                self._scripts.delete_windows(left.tenants)
        for (name, _), staged in zip(calls, replies, strict=True):
            tenant = self._tenants[name]
            tenant.begun = bool(staged)
            if not staged:
                tenant.in_use, tenant.rows, tenant.marks = True, array("q"), []
                self._progress.in_use.append(name)

    def _make_room(self, tenant: _Tenant) -> None:
        """Let the oldest rows go that the window has no room for: the topic may hold many times as much."""
        if tenant.bytes <= STAGING_ROOM * self._scripts.max_bytes or tenant.in_use:
            return
        table = tenant.table()
        table = table[np.lexsort((table[:, 1], table[:, 0]))[::-1]]
        most = int(np.searchsorted(np.cumsum(table[:, 4]), self._scripts.max_bytes, "right"))
        for gone in _parts(table[most:].tolist(), CHUNK_MESSAGES):
            names = [_name(partition, offset) for _, _, partition, offset, _ in gone]
            pipeline = self._scripts.pipeline()
            for kind in ("rows", "patches"):
                pipeline.execute_command("HDEL", self._scripts.key(tenant.name, kind), *names)
            self._scripts.execute(pipeline)
        tenant.rows = array("q", table[:most].tobytes())
        tenant.bytes = int(table[:most, 4].sum())

    def _put_in_order(self, tenants: Sequence[_Tenant]) -> None:
        """Each tenant's rows in order, a part of several tenants in each round trip."""
        parts = {tenant.name: _parts(tenant.order(), RESTORE_ROWS) for tenant in tenants}
        following = {name: next(part) for name, part in parts.items()}
        done = dict.fromkeys(parts, 0)
        while following:
            calls: list[Call] = []
            after = {name: part for name in following if (part := next(parts[name], None)) is not None}
            for name, entries in following.items():
                base = self._tenants[name].highest_serial + SERIAL_GAP
                flat = [part for entry in entries for part in entry]
                calls.append((name, ["1", done[name], base, "" if name in after else "1", *flat]))
                done[name] += len(entries)
                self._progress.rows += sum(entry[1] != "" for entry in entries)
            self._keep_lock()
            self._progress.added += sum(self._scripts.run("restore", calls, self._epoch))
            self._tell(self._progress)
            following = after

    def _keep_lock(self) -> None:
        if time.monotonic() - self._renewed_s > LOCK_MS / 3000:
            self._guard.renew()
            self._renewed_s = time.monotonic()


def _parts(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    remaining = iter(items)
    while part := tuple(islice(remaining, size)):
        yield part


def _name(partition: int, offset: int) -> str:
    return f"{partition}:{offset}"
