"""The banks as they stand on their topic, for people to look at: what each is, and its entries without pictures."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from consumer.errors import Unprocessable
from consumer.events import Record
from consumer.moderation.banks import BankDefined, BankEntry, BankKey, EntryKey, parse_change

# Entries that a process keeps; a topic may have more.
MAX_ENTRIES = 20_000


class Entry(NamedTuple):
    """An entry of a bank, as far as it is shown; `image_id` is the upload that it was made of, "" for others."""

    entry_id: str
    image_id: str
    labels: dict[str, str]
    source: str
    note: str
    added_at: datetime


@dataclass(slots=True)
class Bank:
    """A bank, and its entries by id; `body` is None where only entries are known."""

    key: BankKey
    body: BankDefined | None = None
    entries: dict[str, Entry] = field(default_factory=dict)


class BankDirectory:
    """Follows the topic of the banks. Thread-safe."""

    def __init__(self) -> None:
        self._banks: dict[BankKey, Bank] = {}
        self._lock = threading.Lock()

    def apply(self, record: Record) -> None:
        """Take in a message of the topic; one that is of another form is left out."""
        try:
            change = parse_change(record)
        except Unprocessable:
            return
        with self._lock:
            if isinstance(change.key, EntryKey):
                bank = self._banks.setdefault(change.key.of_bank, Bank(change.key.of_bank))
                if isinstance(change.body, BankEntry):
                    self._enter(bank, change.body, record.time)
                else:
                    bank.entries.pop(change.key.entry_id, None)
            elif isinstance(change.key, BankKey):
                bank = self._banks.setdefault(change.key, Bank(change.key))
                bank.body = change.body if isinstance(change.body, BankDefined) else None

    def visible_to(self, tenant: str) -> list[Bank]:
        """The banks that count for a tenant: its own, and those of all tenants."""
        with self._lock:
            banks = [each for each in self._banks.values() if each.body and each.key.tenant in {None, tenant}]
        return sorted(banks, key=lambda each: (each.key.tenant is None, each.key.bank))

    def find(self, key: BankKey) -> Bank | None:
        """Find a bank."""
        with self._lock:
            bank = self._banks.get(key)
            return bank if bank is not None and bank.body is not None else None

    def _enter(self, bank: Bank, body: BankEntry, time: datetime) -> None:
        if sum(len(each.entries) for each in self._banks.values()) < MAX_ENTRIES:
            entry = Entry(body.entry_id, body.image_id or "", body.labels, body.source or "", body.note or "", time)
            bank.entries[body.entry_id] = entry
