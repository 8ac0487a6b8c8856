"""This process's copy of the banks: what each is, and the vectors, hashes and labels of its entries.

It is read from Redis page by page, before each batch is compared: an entry counts for every upload that is appended to
the window after it was written there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Unavailable
from consumer.moderation.banks import AnyKey, BankKey, EntryKey, encode_key, read_own_key
from consumer.moderation.store import BankRow, BankStore, ChangesPage, EntryRow, decode_row
from consumer.window.index import VectorIndex
from consumer.window.records import IndexRow, Position, to_us


class Entry(NamedTuple):
    """An entry as a process holds it; `name` is its key as it stands on the topic."""

    name: bytes
    key: EntryKey
    serial: int
    row: EntryRow

    def counts(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.row.expires_us is None or to_us(now) < self.row.expires_us


@dataclass(slots=True)
class Shelf:
    """The entries of all banks of one tenant, or of those for all tenants."""

    index: VectorIndex
    entries: dict[int, Entry] = field(default_factory=dict)  # by serial
    by_digest: dict[str, dict[int, Entry]] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)  # PDQ, by serial
    _matrix: NDArray[np.uint64] | None = None  # of the hashes, [N, 4]

    def set_hash(self, serial: int, pdq: str) -> None:
        """Add a PDQ hash."""
        self.hashes[serial], self._matrix = pdq, None

    def remove_hash(self, serial: int) -> None:
        """Remove a PDQ hash, if there is one."""
        if self.hashes.pop(serial, None) is not None:
            self._matrix = None

    def near_hashes(self, pdq: str, max_distance: int) -> Iterator[tuple[Entry, int]]:
        """Yield the entries whose PDQ hash differs in that many bits at most, and in how many."""
        if not self.hashes:
            return
        if self._matrix is None:
            self._matrix = np.frombuffer(bytes.fromhex("".join(self.hashes.values())), np.uint64).reshape(-1, 4)
        asked = np.frombuffer(bytes.fromhex(pdq), np.uint64)
        distances = np.bitwise_count(self._matrix ^ asked).sum(axis=1)
        serials = list(self.hashes)
        for number in np.flatnonzero(distances <= max_distance).tolist():
            yield self.entries[serials[number]], int(distances[number])


class BankReplica:
    """All banks and entries in this process. Not thread-safe."""

    def __init__(self, store: BankStore, new_index: Callable[[], VectorIndex]) -> None:
        self.banks: dict[BankKey, BankRow] = {}
        self.shelves: dict[str | None, Shelf] = {}
        self.offsets: Mapping[int, int] = {}  # how far the topic is read, by partition
        self._required: dict[int, int] = {}  # and how far it has to be
        self._store = store
        self._new_index = new_index
        self._forget()

    def _forget(self) -> None:
        self._epoch, self._serial, self._floor = b"", 0, 0
        self._entries: dict[bytes, Entry] = {}
        self._of_image: dict[tuple[str, str], set[EntryKey]] = {}
        self.banks.clear()
        self.shelves.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def sync(self) -> None:
        """Read what changed. Raises Unavailable when Redis cannot be asked, or has less than there was."""
        more = True
        while more:
            page = self._store.read(self._epoch, self._serial, self._floor)
            self._apply(page)
            more = bool(page.more)
        if any(self.offsets.get(partition, 0) < offset for partition, offset in self._required.items()):
            done, required = (sum(offsets.values()) for offsets in (self.offsets, self._required))
            raise Unavailable("redis", f"the banks are being read: {done} of {required} messages")
        self.require(self.offsets)

    def require(self, offsets: Mapping[int, int]) -> None:
        """Let `sync` succeed only when the topic is read up to these offsets."""
        for partition, offset in offsets.items():
            self._required[partition] = max(offset, self._required.get(partition, 0))

    def bank_of(self, entry: Entry, now: datetime) -> BankRow | None:
        """The bank of an entry that counts: it has not expired, and the bank is there and enabled."""
        bank = self.banks.get(entry.key.of_bank)
        return bank if bank is not None and bank.enabled and entry.counts(now) else None

    def entry(self, key: EntryKey) -> Entry | None:
        """The entry under a key, if there is one."""
        return self._entries.get(encode_key(key))

    def of_image(self, tenant: str, image_id: str) -> list[EntryKey]:
        """The entries that are of an upload, or of a version of it if it is an object of a store."""
        entries = set(self._of_image.get((tenant, image_id), ()))
        if image_id.startswith(("s3://", "gs://")):
            versions = f"{image_id}?versionId="
            for (of_tenant, of_image), keys in self._of_image.items():
                if of_tenant == tenant and of_image.startswith(versions):
                    entries |= keys
        return sorted(entries, key=str)

    def shelves_for(self, tenant: str) -> Iterator[Shelf]:
        """The entries that uploads of a tenant are compared with."""
        for scope in (tenant, None):
            shelf = self.shelves.get(scope)
            if shelf is not None:
                yield shelf

    def _apply(self, page: ChangesPage) -> None:
        if page.anew:
            self._forget()
            self._floor = page.floor
        new_rows: dict[str | None, list[IndexRow]] = {}
        for name, serial, data in zip(page.changes[::3], page.changes[1::3], page.changes[2::3], strict=True):
            key = read_own_key(name)
            if name in self._entries:
                self._remove_entry(name)
            if data:
                self._add(name, key, serial, data, new_rows)
            elif isinstance(key, BankKey):
                self.banks.pop(key, None)
        for scope, rows in new_rows.items():
            self.shelves[scope].index.extend(rows)
        self._epoch, self._serial, self.offsets = page.epoch, page.serial, page.offsets

    def _add(
        self, name: bytes, key: AnyKey, serial: int, data: bytes, new_rows: dict[str | None, list[IndexRow]]
    ) -> None:
        """Add a bank or an entry, whose vector, if it has one, is added to `new_rows`."""
        text, vector = decode_row(data)
        if isinstance(key, BankKey):
            self.banks[key] = BankRow.model_validate_json(text)
            return
        entry = self._entries[name] = Entry(name, key, serial, EntryRow.model_validate_json(text))
        shelf = self.shelves.get(key.tenant)
        if shelf is None:
            shelf = self.shelves[key.tenant] = Shelf(self._new_index())
        shelf.entries[serial] = entry
        if entry.row.digest is not None:
            shelf.by_digest.setdefault(entry.row.digest, {})[serial] = entry
        if entry.row.pdq is not None:
            shelf.set_hash(serial, entry.row.pdq)
        if entry.row.of_image is not None:
            self._of_image.setdefault(entry.row.of_image, set()).add(key)
        if vector:
            values = np.frombuffer(vector, "<f2")
            new_rows.setdefault(key.tenant, []).append(IndexRow(_position(serial), b"", 0, values))

    def _remove_entry(self, name: bytes) -> None:
        entry = self._entries.pop(name)
        shelf = self.shelves[entry.key.tenant]
        shelf.index.remove(_position(entry.serial))
        del shelf.entries[entry.serial]
        shelf.remove_hash(entry.serial)
        if entry.row.digest is not None:
            _discard(shelf.by_digest, entry.row.digest, entry.serial)
        if entry.row.of_image is not None:
            self._of_image[entry.row.of_image].discard(entry.key)
            if not self._of_image[entry.row.of_image]:
                del self._of_image[entry.row.of_image]


def _discard(groups: dict[str, dict[int, Entry]], group: str, serial: int) -> None:
    del groups[group][serial]
    if not groups[group]:
        del groups[group]


def _position(serial: int) -> Position:
    """The position of an entry in an index, in which no time passes."""
    return Position(0, serial)
