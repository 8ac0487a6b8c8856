"""What is told of earlier uploads, and when, if Redis or the process fails at the wrong moment.

No server fails between two given commands, so Kafka, the copy of the banks and the window are played.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition

from consumer.errors import Unavailable
from consumer.events import Record
from consumer.kafka import member_loop
from consumer.kafka.leases import Lease, Leased
from consumer.moderation import rematch
from consumer.moderation.banks import BankEntry, change_message, encode_key
from consumer.moderation.earlier_uploads import WantedEntry
from consumer.moderation.rematch import Rematcher
from consumer.moderation.shelf import Entry
from consumer.moderation.store import BankRow, EntryRow
from consumer.settings import KafkaSettings
from consumer.telemetry.metrics import Metrics

TOPIC = "banks"
ENTRY = BankEntry(bank="b", entry_id="e", data_base64=b"a picture")
ROW = EntryRow(at=(0, 0), digest=f"{1:064x}")
BANK = BankRow(at=(0, 0), kind="block", enabled=True, strictness="balanced")


@dataclass
class Brokers:
    """The banks' topic with its committed offset, and what was told."""

    committed: int = 0
    told: list[Any] = field(default_factory=list)
    commits: bool = True


class PlayedConsumer:
    """Reads from the committed offset on, one message at a time; says when there is nothing more."""

    def __init__(self, brokers: Brokers, messages: int, stop: threading.Event) -> None:
        self._brokers, self._messages, self._stop = brokers, messages, stop
        self._next = brokers.committed
        self.commit_lock = threading.Lock()

    def poll(self, *_: object) -> list[Leased]:
        if self._next == self._messages:
            if self._brokers.committed == self._messages:
                self._stop.set()
            return []
        sent = change_message(TOPIC, ENTRY)
        record = Record(TOPIC, 0, self._next, sent.key, sent.value, tuple(sent.headers), 1)
        self._next += 1
        return [(record, Lease(0, 1))]

    def holds(self, _: Lease) -> bool:
        return True

    def idle(self, _: float) -> None: ...

    def close(self) -> None: ...


class PlayedPublisher:
    """Tells and commits in one, or ends the process before that."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers

    def prepare(self) -> None: ...

    def publish(self, messages: Sequence[object], offsets: Sequence[TopicPartition]) -> None:
        if not self._brokers.commits:
            raise SystemExit
        self._brokers.told += messages
        self._brokers.committed = offsets[0].offset

    def close(self) -> None: ...


@dataclass
class PlayedStore:
    """What is noted in Redis, which is away for the calls that `away` counts by name."""

    searched: dict[bytes, tuple[int, str]] = field(default_factory=dict)
    away: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def _command(self, name: str) -> None:
        if self.away[name]:
            self.away[name] -= 1
            raise Unavailable("redis", "away")

    def read_failure(self, _: tuple[int, int]) -> None: ...

    def read_pictures(self, names: Sequence[bytes]) -> list[None]:
        return [None for _ in names]

    read_features = read_pictures

    def read_searched(self, names: Sequence[bytes]) -> list[tuple[int, str] | None]:
        return [self.searched.get(name) for name in names]

    def note_searched(self, contents: Mapping[bytes, tuple[int, str]], _: Sequence[bytes]) -> None:
        self._command("note_searched")
        self.searched |= contents

    def forget_failures(self, _: Sequence[tuple[int, int]]) -> None:
        self._command("forget_failures")


class PlayedBanks:
    """One bank with one entry."""

    def sync(self) -> None: ...

    def is_read(self, _: Mapping[int, int]) -> bool:
        return True

    def bank(self, _: object) -> BankRow:
        return BANK

    def entry(self, _: object) -> tuple[Entry, BankRow]:
        return Entry(encode_key(ENTRY.key), ENTRY.key, 1, ROW), BANK

    def silenced(self, requests: Sequence[object]) -> list[list[object]]:
        return [[] for _ in requests]


class PlayedUploads:
    """One earlier upload that shows each entry."""

    def __init__(self, *_: object) -> None: ...

    def find(self, wanted: Sequence[WantedEntry]) -> list[WantedEntry]:
        return list(wanted)

    def requests(self, found: Sequence[object]) -> Sequence[object]:
        return found


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rematch, "EarlierUploads", PlayedUploads)
    monkeypatch.setattr(member_loop, "PAUSE_S", 0.0)
    monkeypatch.setattr(rematch, "_message", lambda _, found: found.entry.name)


def run(brokers: Brokers, store: PlayedStore, messages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read up to so many messages of the entry, in a process of its own."""
    stop = threading.Event()
    monkeypatch.setattr(rematch, "UploadsConsumer", lambda *_: PlayedConsumer(brokers, messages, stop))
    monkeypatch.setattr(rematch, "Publisher", lambda *_: PlayedPublisher(brokers))
    settings = KafkaSettings(banks_topic=TOPIC, rematches_topic="rematches")
    no_model, no_window = cast("Any", type("Model", (), {"patches": None})), cast("Any", None)
    banks = cast("Any", PlayedBanks())
    Rematcher(settings, no_model, no_window, cast("Any", store), banks, METRICS).run(stop)


METRICS = Metrics()


@pytest.mark.parametrize("command", ["note_searched", "forget_failures"])
def test_what_was_told_is_not_told_again_after_redis_was_away(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    brokers, store = Brokers(), PlayedStore()
    store.away[command] = 1
    run(brokers, store, 1, monkeypatch)
    assert (len(brokers.told), brokers.committed) == (1, 1)


def test_an_entry_sent_again_as_it_was_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    brokers, store = Brokers(), PlayedStore()
    for messages in (1, 3):
        run(brokers, store, messages, monkeypatch)
    assert (len(brokers.told), brokers.committed) == (1, 3)


@pytest.mark.parametrize("messages", [1, 2])
def test_a_process_that_dies_before_it_tells_leaves_it_to_the_next(
    messages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers, store = Brokers(commits=False), PlayedStore()
    with pytest.raises(SystemExit):
        run(brokers, store, 1, monkeypatch)
    brokers.commits = True
    run(brokers, store, messages, monkeypatch)
    assert (len(brokers.told), brokers.committed) == (1, messages)
