"""Entries that are uploads: made from the window, and again from what the topic keeps of them (`kept`).

In this order: the rows stand in Redis, where whoever deletes the upload finds them; the upload is still in the window;
what is kept stands on the topic; the rest of the batch and its offsets stand in Redis. So nothing is left of an upload
that is deleted meanwhile, and a copy that has read an entry never is the only one to know its picture.
"""

from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, field
from datetime import UTC, datetime

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable, Unprocessable
from consumer.kafka.messages import OutgoingMessage
from consumer.kafka.sender import SEND_TIMEOUT_MS, Sender
from consumer.moderation.banks import EntryKey, PictureKey, encode_key, picture_message, read_own_key, removal_message
from consumer.moderation.entries import NewEntry, entry_row, upload_of
from consumer.moderation.kept import KeptPicture
from consumer.moderation.store import BankStore, EntryRow, NewRow
from consumer.window.records import to_us
from consumer.window.window import RedisWindow


@dataclass
class Batch:
    """What some messages of the topic say, by the names of banks and entries, which are their keys as they stand there.

    `made` is what was made of the entries; `of_window` names those that are uploads which the window had.
    """

    rows: dict[bytes, NewRow] = field(default_factory=dict)
    entries: dict[bytes, NewEntry] = field(default_factory=dict)
    pictures: dict[PictureKey, KeptPicture | None] = field(default_factory=dict)
    made: dict[bytes, NewRow | Unprocessable] = field(default_factory=dict)
    of_window: list[bytes] = field(default_factory=list)
    to_send: list[OutgoingMessage] = field(default_factory=list)


class UploadEntries:
    """Completes what the topic says of entries that are uploads, and keeps on it what they show. For one thread."""

    def __init__(self, topic: str, store: BankStore, window: RedisWindow, model: ModelInfo, sender: Sender) -> None:
        """`topic` has the banks."""
        self._topic = topic
        self._store = store
        self._window = window
        self._model = model
        self._sender = sender

    def complete(self, batch: Batch) -> None:
        """Make what can be made without the window, and find out what is not to be kept any more.

        Raises Unavailable("redis", ...).
        """
        before = self._rows_before(batch)
        for name, new in batch.entries.items():
            upload = upload_of(new.entry)
            if upload is not None and isinstance(batch.made[name], NewRow):
                batch.of_window.append(name)
            elif upload is not None:
                self._make_again(batch, new, upload, before.get(name))
        for name, (row, _) in before.items():
            new_at = batch.entries[name].at if name in batch.entries else None
            if name in batch.rows and row.of_image is not None and row.at != new_at:
                batch.to_send.append(self._removal(name, row))
        for key, kept in batch.pictures.items():
            name = encode_key(key.of_entry)
            if name not in batch.rows:
                self._apply(batch, key, kept, before.get(name))
            elif kept is not None and (name not in batch.entries or kept.row.at != batch.entries[name].at):
                batch.to_send.append(removal_message(self._topic, key))

    def write(self, batch: Batch, write: Callable[[list[NewRow]], None]) -> list[NewRow]:
        """Write and keep what is of the window; return the rows that are still to be written, with the offsets.

        `write` writes rows by leave of the lease. Raises Unavailable.
        """
        if batch.of_window:
            write([batch.rows[name] for name in batch.of_window])
        for name in batch.of_window:
            new = batch.rows.pop(name)
            row = new.row
            assert isinstance(row, EntryRow)  # noqa: S101 (narrows the type)
            assert row.of_image is not None  # noqa: S101
            if self._window.find_record(*row.of_image) is None:
                # Whoever deleted it removes its entries, and may have looked for them before they were there.
                self._store.note_failure(row.at, Unprocessable("not-found", "the upload was deleted"))
                batch.rows[name] = NewRow(name, None)
                batch.to_send.append(self._removal(name, row))
            else:
                batch.to_send.append(self._picture(new, row))
        if batch.to_send:
            write([])  # only by leave of the lease
            sent = [self._sender.send(message) for message in batch.to_send]
            if wait(sent, 2 * SEND_TIMEOUT_MS / 1000).not_done:
                raise Unavailable("kafka", f"topic {self._topic!r} does not take what is kept of entries")
            for each in sent:
                each.result()
        return list(batch.rows.values())

    def _rows_before(self, batch: Batch) -> dict[bytes, tuple[EntryRow, bytes]]:
        """The rows and vectors that are stored of the entries that the batch is about."""
        of_pictures = (encode_key(key.of_entry) for key in batch.pictures)
        names = [
            name for name in dict.fromkeys([*batch.rows, *of_pictures]) if isinstance(read_own_key(name), EntryKey)
        ]
        return {name: row for name, row in zip(names, self._store.read_entries(names), strict=True) if row is not None}

    def _make_again(
        self, batch: Batch, new: NewEntry, upload: tuple[str, str], before: tuple[EntryRow, bytes] | None
    ) -> None:
        """Make an entry of an upload that the window does not have from what is kept, or was there under its name."""
        kept = batch.pictures.get(PictureKey.of(new.entry.key, new.at))
        if kept is not None:
            batch.made[new.name] = kept.new_row(new.name, self._model)
        elif before is not None and before[0].of_image == upload and before[0].digest is not None:
            row = entry_row(new, digest=bytes.fromhex(before[0].digest), of_image=upload)
            [features] = self._store.read_features([new.name])
            batch.made[new.name] = again = NewRow(new.name, row, before[1], features or b"")
            batch.to_send.append(self._picture(again, row))

    def _apply(
        self, batch: Batch, key: PictureKey, kept: KeptPicture | None, before: tuple[EntryRow, bytes] | None
    ) -> None:
        """Follow a message about what is kept of an entry, where the batch has none about the entry itself."""
        name = encode_key(key.of_entry)
        if kept is None:
            if before is not None and before[0].of_image and PictureKey.of(key.of_entry, before[0].at) == key:
                batch.rows[name] = NewRow(name, None)
        elif before is None:
            expires_us = kept.row.expires_us
            if expires_us is not None and expires_us <= to_us(datetime.now(UTC)):
                batch.to_send.append(removal_message(self._topic, key))
            else:
                batch.rows[name] = kept.new_row(name, self._model)

    def _picture(self, new: NewRow, row: EntryRow) -> OutgoingMessage:
        return picture_message(self._topic, _entry_key(new.name), KeptPicture.of(new, row, self._model))

    def _removal(self, name: bytes, row: EntryRow) -> OutgoingMessage:
        return removal_message(self._topic, PictureKey.of(_entry_key(name), row.at))


def _entry_key(name: bytes) -> EntryKey:
    key = read_own_key(name)
    assert isinstance(key, EntryKey)  # noqa: S101 (narrows the type)
    return key
