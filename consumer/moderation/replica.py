"""This process's copy of the banks: what each is, and the entries, on shelves where they are searched.

It is read from Redis page by page, before each batch is compared: an entry counts for every upload that is appended to
the window after it was written there.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from consumer.errors import Unavailable
from consumer.moderation.banks import BankKey, EntryKey, encode_key, read_own_key
from consumer.moderation.shelf import Entry, Shelf
from consumer.moderation.store import PAGE_ROWS, BankRow, BankStore, ChangesPage, EntryRow, decode_row
from consumer.window.records import to_us


class BankReplica:
    """All banks and entries in this process. Not thread-safe."""

    def __init__(self, store: BankStore, new_shelf: Callable[[], Shelf]) -> None:
        self.banks: Mapping[BankKey, BankRow] = {}  # another one after each change
        self.offsets: Mapping[int, int] = {}  # how far the topic is read, by partition
        self._required: dict[int, int] = {}  # and how far it has to be
        self._has_read = False  # all that was required, once
        self._store = store
        self._new_shelf = new_shelf
        self._shelves: dict[str | None, Shelf] = {}
        self._forget()

    def _forget(self) -> None:
        self._epoch, self._serial, self._floor = b"", 0, 0
        self._entries: dict[bytes, Entry] = {}
        self._of_bank: dict[BankKey, dict[bytes, Entry]] = {}
        self._of_image: dict[tuple[str, str], set[EntryKey]] = {}
        self._expiring: list[tuple[int, bytes]] = []  # a heap of the times when entries expire, and their names
        self._now = datetime.min.replace(tzinfo=UTC)
        self.banks = {}
        self._shelves.clear()

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
        self._has_read = True
        self.require(self.offsets)

    def require(self, offsets: Mapping[int, int]) -> None:
        """Let `sync` succeed only when the topic is read up to these offsets."""
        for partition, offset in offsets.items():
            self._required[partition] = max(offset, self._required.get(partition, 0))

    def counting(self, key: EntryKey) -> tuple[Entry, BankRow] | None:
        """The entry under a key and its bank, if there is one that has not expired, of a bank that is enabled."""
        entry = self._entries.get(encode_key(key))
        return None if entry is None or not self._counts(entry, datetime.now(UTC)) else (entry, self.banks[key.of_bank])

    def of_bank(self, key: BankKey) -> Collection[Entry]:
        """All entries of a bank."""
        return self._of_bank.get(key, {}).values()

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
            shelf = self._shelves.get(scope)
            if shelf is not None:
                yield shelf

    def drop_expired(self, now: datetime) -> None:
        """Take what has expired off the shelves; put back what has not, where the clock was set back."""
        due: list[Entry] = []
        if now < self._now:
            due += self._entries.values()
            self._expiring = [(each.row.expires_us, each.name) for each in due if each.row.expires_us is not None]
            heapq.heapify(self._expiring)
        self._now = now
        while self._expiring and self._expiring[0][0] <= to_us(now):
            entry = self._entries.get(heapq.heappop(self._expiring)[1])
            if entry is not None:
                due.append(entry)
        self._review(due, now, {})

    def _apply(self, page: ChangesPage) -> None:
        if page.anew:
            if page.is_remade and self._has_read:
                self._required.clear()
            self._forget()
            self._floor = page.floor
        turned: set[BankKey] = set()  # on or off
        vectors: dict[bytes, bytes] = {}
        for name, serial, data in zip(page.changes[::3], page.changes[1::3], page.changes[2::3], strict=True):
            key, (text, vector) = read_own_key(name), decode_row(data) if data else (b"", b"")
            if isinstance(key, BankKey):
                if self._set_bank(key, text):
                    turned.add(key)
                continue
            self._remove(name)
            if text:
                self._add(Entry(name, key, serial, EntryRow.model_validate_json(text)))
                vectors[name] = vector
        now = datetime.now(UTC)
        self._review([self._entries[name] for name in vectors], now, vectors)
        for bank in turned:
            self._review(self.of_bank(bank), now, {})
        for shelf in self._shelves.values():
            shelf.tidy()
        self._epoch, self._serial, self.offsets = page.epoch, page.serial, page.offsets

    def _set_bank(self, key: BankKey, text: bytes) -> bool:
        """Follow a change of a bank. Returns whether it was turned on or off."""
        before = self.banks.get(key)
        others = {other: row for other, row in self.banks.items() if other != key}
        self.banks = {**others, key: BankRow.model_validate_json(text)} if text else others
        return self._is_on(key) != (before is not None and before.enabled)

    def _is_on(self, key: BankKey) -> bool:
        bank = self.banks.get(key)
        return bank is not None and bank.enabled

    def _counts(self, entry: Entry, now: datetime) -> bool:
        """Whether an entry has not expired, and its bank is there and enabled."""
        return entry.counts(now) and self._is_on(entry.key.of_bank)

    def _review(self, entries: Iterable[Entry], now: datetime, vectors: Mapping[bytes, bytes]) -> None:
        """Put entries on the shelves or take them off, by whether they count; other vectors are read from Redis."""
        by_scope: dict[str | None, list[Entry]] = {}
        for entry in entries:
            by_scope.setdefault(entry.key.tenant, []).append(entry)
        for scope, of_scope in by_scope.items():
            shelf = self._shelves.get(scope)
            if shelf is None:
                shelf = self._shelves[scope] = self._new_shelf()
            for each in of_scope:
                if not self._counts(each, now):
                    shelf.remove(each.name)
            new = [each for each in of_scope if each.name not in shelf.entries and self._counts(each, now)]
            for start in range(0, len(new), PAGE_ROWS):
                shelf.add(self._with_vectors(new[start : start + PAGE_ROWS], vectors))

    def _with_vectors(self, entries: Collection[Entry], vectors: Mapping[bytes, bytes]) -> list[tuple[Entry, bytes]]:
        unread = [each for each in entries if each.name not in vectors]
        try:
            pictures = zip(unread, self._store.read_pictures([each.name for each in unread]), strict=True)
        except Unavailable:
            self._forget()  # what is half done is done anew
            raise
        # What is another picture by now will be told of by the next page.
        read = {each.name: picture[1] for each, picture in pictures if picture and picture[0] == each.row.digest}
        return [(each, vectors.get(each.name) or read.get(each.name, b"")) for each in entries]

    def _add(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        self._of_bank.setdefault(entry.key.of_bank, {})[entry.name] = entry
        if entry.row.of_image is not None:
            self._of_image.setdefault(entry.row.of_image, set()).add(entry.key)
        if entry.row.expires_us is not None:
            heapq.heappush(self._expiring, (entry.row.expires_us, entry.name))

    def _remove(self, name: bytes) -> None:
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self._shelves[entry.key.tenant].remove(name)
        of_bank = self._of_bank[entry.key.of_bank]
        del of_bank[name]
        if not of_bank:
            del self._of_bank[entry.key.of_bank]
        if entry.row.of_image is not None:
            self._of_image[entry.row.of_image].discard(entry.key)
            if not self._of_image[entry.row.of_image]:
                del self._of_image[entry.row.of_image]
