"""Fills the copy of the banks in Redis from `image-banks`: one process at a time, the one that has the lease.

It also keeps on the topic what it made of uploads: see `kept`.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from confluent_kafka.admin import AdminClient

from consumer.errors import Unavailable, Unprocessable
from consumer.events import Record
from consumer.kafka.config import client_options
from consumer.kafka.topic_reader import TopicReader, find_topic_id
from consumer.moderation.banks import BankDefined, BankEntry, PictureKey, encode_key, parse_change
from consumer.moderation.entries import EntryEncoder, NewEntry
from consumer.moderation.kept import KeptPicture
from consumer.moderation.store import BankRow, BankStore, EntryRow, NewRow
from consumer.moderation.upload_entries import Batch, UploadEntries
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

# Messages that are worked on at once, and how long to wait for the first.
BATCH_MESSAGES, WAIT_S = 32, 0.5
# How often a process without the lease tries to get it.
TRY_LEASE_EVERY_S = 1.0
# Without a message for so many reads, the children that decode entries are ended.
IDLE_READS = 20
# At every so many of these reads it is asked whether there is another topic of the same name.
CHECK_READS = 4


class BankLoader:
    """Keeps the copy in Redis up to date, in a thread of its own."""

    def __init__(
        self, settings: KafkaSettings, store: BankStore, encoder: EntryEncoder, uploads: UploadEntries
    ) -> None:
        self._settings = settings
        self._store = store
        self._encoder = encoder
        self._uploads = uploads
        self.lease = store.lease()
        self._admin = AdminClient(client_options(settings))

    def run(self, stop: threading.Event) -> None:
        """Load while this process has the lease, until stopped; wait for what is away."""
        reported = ""
        while not stop.is_set():
            try:
                if self.lease.hold():
                    self._load(stop)
                reported = ""
            except Unavailable as error:
                if reported != str(error):
                    log.warning("banks are not read: %s", error)
                reported = str(error)
            except Exception:
                log.exception("banks are not read")
            stop.wait(TRY_LEASE_EVERY_S)
        try:
            self.lease.release()
        except Unavailable as error:
            log.debug("the lease is left to run out: %s", error)

    def _load(self, stop: threading.Event) -> None:
        """Read the topic from where the copy ends on, and write what it says, for as long as the lease holds."""
        topic_id = self._topic_id()
        epoch, next_offsets = self._store.begin(self.lease, topic_id)
        idle_reads = 0
        with TopicReader(self._settings, self._settings.banks_topic, next_offsets) as reader:
            # Also while nothing comes: a copy that Redis lost, or whose topic is gone, is begun under another epoch.
            while self.lease.hold() and self._store.begin(self.lease, topic_id)[0] == epoch and not stop.is_set():
                records = reader.read(BATCH_MESSAGES, WAIT_S)
                if records or reader.next_offsets != next_offsets:
                    self.take_in(records, epoch, reader.next_offsets)
                    next_offsets = dict(reader.next_offsets)
                    idle_reads = 0
                idle_reads += 1
                if idle_reads == IDLE_READS:
                    self._encoder.rest()
                if idle_reads % CHECK_READS == 0:
                    topic_id = self._topic_id()

    def take_in(self, records: Sequence[Record], epoch: str, next_offsets: Mapping[int, int]) -> None:
        """Write what some messages say, and up to where the topic is read with them. Raises Unavailable."""
        batch = self._make_batch(records)
        rows = self._uploads.write(batch, lambda some: self._store.write(self.lease, epoch, some, {}))
        self._store.write(self.lease, epoch, rows, next_offsets)

    def _topic_id(self) -> str:
        return find_topic_id(self._admin, self._settings.banks_topic)

    def _make_batch(self, records: Sequence[Record]) -> Batch:
        """Make the rows of some messages: of several about one key the last counts."""
        batch = Batch()
        for record in records:
            try:
                change = parse_change(record)
            except Unprocessable:  # the rematcher answers it
                continue
            name, at = encode_key(change.key), (record.partition, record.offset)
            if isinstance(change.key, PictureKey):
                batch.pictures[change.key] = change.body if isinstance(change.body, KeptPicture) else None
                continue
            batch.entries.pop(name, None)
            batch.rows[name] = NewRow(name, None)
            if isinstance(change.body, BankEntry) and not change.body.is_expired(datetime.now(UTC)):
                batch.entries[name] = NewEntry(name, at, change.body)
            elif isinstance(change.body, BankDefined):
                batch.rows[name] = NewRow(name, _bank_row(change.body, at))
        made_rows = self._encoder.encode(list(batch.entries.values()), self._keep_lease)
        batch.made = dict(zip(batch.entries, made_rows, strict=True))
        self._uploads.complete(batch)
        for name, made in batch.made.items():
            if isinstance(made, NewRow):
                batch.rows[name] = made
            else:  # an entry that was there before is replaced by none: so it stands on the topic
                self._store.note_failure(batch.entries[name].at, made)
                log.warning("no entry %s: %s", name.decode(), made)
        # One that failed in an attempt that was not written may have been made now, and so may one that was kept.
        self._store.forget_failures([row.row.at for row in batch.rows.values() if isinstance(row.row, EntryRow)])
        return batch

    def _keep_lease(self) -> None:
        if not self.lease.hold():
            raise Unavailable("redis", "another process fills the banks by now")


def _bank_row(bank: BankDefined, at: tuple[int, int]) -> BankRow:
    return BankRow(
        at=at,
        kind=bank.kind,
        enabled=bank.enabled,
        strictness=bank.strictness,
        action=bank.action,
        silences=bank.silences,
    )
