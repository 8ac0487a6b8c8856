"""Looks for uploads that came before a new entry of a bank, and answers what no entry can be made of.

The other half of a promise: an upload is compared with what Redis has of the banks once it stands in the window, and an
entry is looked for in the window once it stands in Redis. So each upload meets each entry, in its verdict or here; one
that comes at the same moment may be told of in both.

One member of a group of its own does this, whatever the encoder: the topic has one partition. What it found and how far
it has read are one transaction, so each pair of entry and upload is told once.
"""

import json
import logging
import threading
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from confluent_kafka import TopicPartition

from consumer.encoder.contract import ModelInfo
from consumer.encoder.views import PackedFeatures
from consumer.errors import Unavailable, Unprocessable
from consumer.events import Record
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.dead_letters import dead_letter
from consumer.kafka.leases import Lease, Leased
from consumer.kafka.member_loop import MemberLoop
from consumer.kafka.messages import OutgoingMessage, event_message
from consumer.kafka.publisher import Publisher
from consumer.moderation.banks import BankEntry, EntryKey, encode_key, parse_change
from consumer.moderation.earlier_uploads import LOOKS_AT_ONCE, EarlierUpload, EarlierUploads, WantedEntry
from consumer.moderation.hits import bank_hit
from consumer.moderation.matching import Banks
from consumer.moderation.store import BankStore
from consumer.settings import KafkaSettings
from consumer.telemetry.metrics import Metrics
from consumer.verdicts import ImageRematched
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "seenit:image.rematched")
POLL_MESSAGES, POLL_S = 50, 0.5
# Entries that are searched for together: a pass over the window takes hardly longer for many.
MAX_ENTRIES = 1000
# How often the group is told that this member is alive while it searches.
IDLE_EVERY_S = 1.0


class _Read(NamedTuple):
    """A message that was read, without its picture: an entry to look for, a dead letter, or neither."""

    lease: Lease
    offset: int
    entry: tuple[EntryKey, float | None] | None = None  # with how far to look back
    letter: OutgoingMessage | None = None
    removed: bytes | None = None  # the name of an entry


class Rematcher:
    """Reads the banks' topic as a member of a group, until `run` is told to stop."""

    def __init__(
        self,
        settings: KafkaSettings,
        model: ModelInfo,
        window: RedisWindow,
        store: BankStore,
        banks: Banks,
        metrics: Metrics,
    ) -> None:
        self._settings = settings.model_copy(
            update={"input_topic": settings.banks_topic, "group_id": f"{settings.group_id}-rematches"}
        )
        self._model = model
        self._store = store
        self._banks = banks
        self._metrics = metrics
        self._uploads = EarlierUploads(settings, model, window, self._rest)
        self._stop = threading.Event()
        self._idle_at_s = 0.0
        self._consumer: UploadsConsumer | None = None
        self._leased: list[Leased] = []  # polled, and not looked at yet
        self._read: list[_Read] = []
        self._is_unconfirmed = False  # whether what was read may be committed, though the brokers did not confirm it

    def run(self, stop: threading.Event) -> None:
        """Answer messages, and wait for what is away. Raises Misconfigured when the brokers refuse this member."""
        self._stop = stop
        with ExitStack() as stack:
            # Nothing is in flight while the client is polled, which is when partitions are taken away.
            self._consumer = consumer = UploadsConsumer(self._settings, lambda: None)
            stack.callback(consumer.close)
            publisher = Publisher(self._settings, consumer)
            stack.callback(publisher.close)

            def step() -> None:
                publisher.prepare()
                if not self._is_unconfirmed:  # else the same has to be published again: the offsets tell what is
                    self._read_more(consumer)
                if self._read:
                    self._answer(consumer, publisher)

            MemberLoop("earlier uploads are not looked for yet").run(step, consumer, stop)

    def _read_more(self, consumer: UploadsConsumer) -> None:
        """Read what there is, once the loader has it, up to as many entries as are looked for together."""
        while len(self._read) < MAX_ENTRIES:
            self._leased = self._leased or consumer.poll(POLL_MESSAGES, 0.0 if self._read else POLL_S, 0.0)
            if not self._leased:
                return
            self._banks.sync()
            if not self._banks.is_read({record.partition: record.offset + 1 for record, _ in self._leased}):
                raise Unavailable("redis", "the newest entries are still being encoded")
            self._read += [self._judge(record, lease) for record, lease in self._leased]
            self._leased = []

    def _judge(self, record: Record, lease: Lease) -> _Read:
        """Tell what has to be done about a message."""
        read = _Read(lease, record.offset)
        try:
            change = parse_change(record)
            if not isinstance(change.body, BankEntry):
                return read._replace(removed=encode_key(change.key))
            failure = self._store.read_failure((record.partition, record.offset))
            if failure is not None:
                raise failure
            if self._banks.bank(change.body.key.of_bank) is None:
                raise self._banks.unknown_bank(change.body.key)
        except Unprocessable as error:
            log.warning("no entry of a bank: %s", error, extra={"offset": record.offset, "reason": error.reason})
            self._metrics.refused_entries.labels(error.reason).inc()
            name = "" if record.key is None else record.key.decode("utf-8", "backslashreplace")
            return read._replace(letter=dead_letter(record, error, name, self._settings.dead_letter_topic))
        return read._replace(entry=(change.body.key, change.body.lookback))

    def _answer(self, consumer: UploadsConsumer, publisher: Publisher) -> None:
        """Search for the entries that were read, publish what was found, and commit."""
        self._metrics.rematches_under_way.set(sum(each.entry is not None for each in self._read))
        messages = [each.letter for each in self._read if each.letter is not None]
        wanted = self._wanted() if self._settings.rematches_topic else []
        found = self._unsilenced(self._uploads.find(wanted))
        messages += [_message(self._settings.rematches_topic, each) for each in found]
        # Before anything is told: whatever ends this process meanwhile, who sends an entry again is not told again.
        offsets = self._offsets()
        self._store.note_searched(
            {each.entry.name: (offsets[each.entry.key], each.entry.row.content) for each in wanted},
            [each.removed for each in self._read if each.removed is not None],
        )
        with consumer.commit_lock:
            held = [each for each in self._read if consumer.holds(each.lease)]
            if len(held) < len(self._read):
                # Another process has the others, or this one under another lease: what is held is answered by itself.
                self._read, self._is_unconfirmed = held, False
                raise Unavailable("kafka", "messages were handed over while earlier uploads were looked for")
            ends = {each.lease.partition: each.offset + 1 for each in held}
            topic = self._settings.input_topic
            self._is_unconfirmed = True
            publisher.publish(messages, [TopicPartition(topic, *position) for position in ends.items()])
        self._read, self._is_unconfirmed = [], False  # told, even if Redis is away for what follows
        self._metrics.rematches.inc(len(found))
        self._metrics.rematches_under_way.set(0)
        self._store.forget_failures([(each.lease.partition, each.offset) for each in held if each.letter])

    def _unsilenced(self, found: list[EarlierUpload]) -> list[EarlierUpload]:
        """Leave out what allowed entries silence. Raises Unavailable."""
        self._banks.sync()
        told = []
        for start in range(0, len(found), LOOKS_AT_ONCE):
            part = found[start : start + LOOKS_AT_ONCE]
            for each, allowed in zip(part, self._banks.silenced(self._uploads.requests(part)), strict=True):
                if not any(hit.silences(each.wanted.entry.key) for hit in allowed):
                    told.append(each)
        return told

    def _wanted(self) -> list[WantedEntry]:
        """The entries to search for: those that still count, of banks that report hits.

        One that was sent again as it was is not searched for again, unless it asks to look back. A message that is read
        again itself is: nothing was committed of it.
        """
        lookbacks = dict(each.entry for each in self._read if each.entry is not None)
        offsets = self._offsets()
        counting = [found for key in lookbacks if (found := self._banks.entry(key)) is not None]
        counting = [(entry, bank) for entry, bank in counting if bank.kind != "allow"]
        searched = self._store.read_searched([entry.name for entry, _ in counting])
        counting = [
            found
            for found, note in zip(counting, searched, strict=True)
            if note is None
            or note[1] != found[0].row.content
            or note[0] >= offsets[found[0].key]
            or lookbacks[found[0].key] is not None
        ]
        names = [entry.name for entry, _ in counting]
        wanted = []
        stored = zip(self._store.read_pictures(names), self._store.read_features(names), strict=True)
        for (entry, bank), (picture, features) in zip(counting, stored, strict=True):
            vector = b"" if picture is None else picture[1]
            values = np.frombuffer(vector, "<f2").astype(np.float32) if vector else None
            shape = self._model.patches
            packed = None if shape is None or features is None else PackedFeatures.of(features, shape)
            wanted.append(WantedEntry(entry, bank, values, packed, lookbacks[entry.key]))
        return wanted

    def _offsets(self) -> dict[EntryKey, int]:
        """Of the messages that were read, where the first one about each entry stands."""
        return {each.entry[0]: each.offset for each in reversed(self._read) if each.entry is not None}

    def _rest(self, seconds: float) -> None:
        """Do nothing for a while, but stay in the group. Raises Unavailable when the process stops."""
        end_s = time.monotonic() + seconds
        if time.monotonic() - self._idle_at_s > IDLE_EVERY_S and self._consumer is not None:
            self._consumer.idle(0.0)
            self._idle_at_s = time.monotonic()
        while (left_s := end_s - time.monotonic()) > 0 and not self._stop.wait(min(left_s, IDLE_EVERY_S)):
            if self._consumer is not None:
                self._consumer.idle(0.0)
        if self._stop.is_set():
            raise Unavailable("kafka", "this process stops")


def _message(topic: str, found: EarlierUpload) -> OutgoingMessage:
    """Write the event of an upload that shows an entry; its id is always that of this pair."""
    entry, bank = found.wanted.entry, found.wanted.bank
    pair = [*entry.key, entry.row.content, found.upload.tenant, found.image_id, found.digest.hex()]
    event = ImageRematched(
        **bank_hit(
            entry, bank, found.upload.l2, found.evidence, exact=found.digest.hex() == entry.row.digest
        ).model_dump(),
        image_id=found.image_id,
        tenant=found.upload.tenant,
        uploaded_at=found.uploaded_at,
    )
    event_id = str(uuid.uuid5(_NAMESPACE, json.dumps(pair)))
    return event_message(topic, "image.rematched", event_id, found.image_id, datetime.now(UTC), event)
