"""The banks as they stand on their topic, for people to look at: what each is, and its entries without pictures."""

import json
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from consumer.events import Body
from consumer.kafka.messages import OutgoingMessage

BankKind = Literal["block", "review", "allow"]
# Entries that a process keeps; a topic may have more.
MAX_ENTRIES = 20_000
TEXT_LENGTH = 256


class BankName(NamedTuple):
    """Names a bank of a tenant, or of all tenants."""

    tenant: str | None
    bank: str


class Entry(NamedTuple):
    """An entry of a bank, as far as it is shown."""

    entry_id: str
    labels: dict[str, str]
    source: str
    note: str
    added_at: datetime


@dataclass(slots=True)
class Bank:
    """A bank, and its entries by id."""

    name: BankName
    kind: str = "review"
    enabled: bool = True
    strictness: str = "balanced"
    note: str = ""
    is_defined: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)


class BankDirectory:
    """Follows the topic of the banks. Thread-safe."""

    def __init__(self) -> None:
        self._banks: dict[BankName, Bank] = {}
        self._lock = threading.Lock()

    def apply(self, key: bytes, data: dict[str, Any] | None, time: datetime) -> None:
        """Take in a message of the topic; one that is of another form is left out."""
        try:
            named = json.loads(key)
        except ValueError:
            return
        with self._lock:
            match named:
                case ["bank", str() | None as tenant, str() as bank]:
                    self._define(BankName(tenant, bank), data)
                case ["entry", str() | None as tenant, str() as bank, str() as entry_id]:
                    self._enter(BankName(tenant, bank), entry_id, data, time)

    def visible_to(self, tenant: str) -> list[Bank]:
        """The banks that count for a tenant: its own, and those of all tenants."""
        with self._lock:
            banks = [each for each in self._banks.values() if each.is_defined and each.name.tenant in {None, tenant}]
        return sorted(banks, key=lambda each: (each.name.tenant is None, each.name.bank))

    def find(self, name: BankName) -> Bank | None:
        """Find a bank."""
        with self._lock:
            bank = self._banks.get(name)
            return bank if bank is not None and bank.is_defined else None

    def _define(self, name: BankName, data: dict[str, Any] | None) -> None:
        bank = self._banks.setdefault(name, Bank(name))
        bank.is_defined = data is not None
        if data is not None:
            bank.kind, bank.strictness = _text(data.get("kind"), "review"), _text(data.get("strictness"), "balanced")
            bank.enabled, bank.note = data.get("enabled") is not False, _text(data.get("note"))

    def _enter(self, name: BankName, entry_id: str, data: dict[str, Any] | None, time: datetime) -> None:
        bank = self._banks.setdefault(name, Bank(name))
        if data is None:
            bank.entries.pop(entry_id, None)
        elif sum(len(each.entries) for each in self._banks.values()) < MAX_ENTRIES:
            labels = data.get("labels") if isinstance(data.get("labels"), dict) else {}
            shown = {_text(name): _text(value) for name, value in list((labels or {}).items())[:32]}
            bank.entries[entry_id] = Entry(entry_id, shown, _text(data.get("source")), _text(data.get("note")), time)


def _text(value: object, default: str = "") -> str:
    return value[:TEXT_LENGTH] if isinstance(value, str) and value else default


class BankDefined(Body):
    """Data of `bank.defined`."""

    bank: str
    tenant: str | None
    kind: BankKind
    strictness: str = "balanced"
    note: str | None = None


class NewEntry(Body):
    """Data of `bank.entry`: a picture, base64."""

    bank: str
    entry_id: str
    tenant: str | None
    data_base64: str
    source: str = "page"


def removal_message(topic: str, name: BankName, entry_id: str) -> OutgoingMessage:
    """Make the message that deletes an entry."""
    return OutgoingMessage(topic, json.dumps(["entry", *name, entry_id]).encode(), None, ())
