"""Turn entries as they stand on the topic into rows: each picture is fetched, decoded and encoded once for all.

Pictures are decoded in child processes, since an entry that brings down its decoder would bring down each process that
tries it in turn.
"""

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from consumer.encoder.contract import Encoded, Encoder
from consumer.encoder.views import Features
from consumer.errors import Unavailable, Unprocessable
from consumer.events import DEFAULT_TENANT, ImageUpload
from consumer.images.decode import Picture
from consumer.images.sandbox import DecodeSandbox
from consumer.json_values import cut
from consumer.moderation.banks import BankEntry
from consumer.moderation.store import EntryRow, NewRow
from consumer.settings import Settings
from consumer.window.records import decode_record, to_us
from consumer.window.window import RedisWindow

# Children that decode at once, each started when the others are busy.
SANDBOXES = 4
# How often a store that is away is asked for a picture, and how long to wait in between.
ATTEMPTS, RETRY_PAUSE_S = 3, 1.0
# How often the lease is renewed while pictures are fetched, which may take longer than it holds.
KEEP_LEASE_EVERY_S = 3.0


class NewEntry(NamedTuple):
    """An entry, under its key as it stands on the topic, and the message that says it."""

    name: bytes
    at: tuple[int, int]  # partition, offset
    entry: BankEntry


class _Decoded(NamedTuple):
    digest: bytes
    picture: Picture


class EntryEncoder:
    """Makes rows of entries. For one thread."""

    def __init__(self, settings: Settings, encoder: Encoder, window: RedisWindow) -> None:
        self._min_detail = settings.decode.min_detail
        self._encoder = encoder
        self._window = window
        self._sandboxes: queue.LifoQueue[DecodeSandbox] = queue.LifoQueue()
        for _ in range(SANDBOXES):
            self._sandboxes.put(DecodeSandbox(encoder.info.size, settings))
        self._threads = ThreadPoolExecutor(SANDBOXES, "entries")

    def encode(self, entries: Sequence[NewEntry], keep_lease: Callable[[], None]) -> list[NewRow | Unprocessable]:
        """Make a row of each entry, or the reason why there is none; `keep_lease` is called every few seconds.

        Raises Unavailable while the encoder or the window cannot be asked, and what `keep_lease` raises.
        """
        made: dict[int, NewRow | Unprocessable] = {}
        decoding: dict[int, Future[_Decoded]] = {}
        for index, new in enumerate(entries):
            entry = new.entry
            if entry.pdq is not None:
                made[index] = NewRow(new.name, entry_row(new, pdq=entry.pdq.lower()))
            elif (upload := upload_of(entry)) is not None:
                made[index] = self._of_upload(new, *upload)
            else:
                decoding[index] = self._threads.submit(self._decode, entry)
        decoded: dict[int, _Decoded] = {}
        try:
            for index, future in decoding.items():
                while not wait((future,), KEEP_LEASE_EVERY_S).done:
                    keep_lease()
                try:
                    decoded[index] = future.result()
                except Unprocessable as error:
                    made[index] = error
            keep_lease()
        finally:
            for future in decoding.values():
                future.cancel()
        for index, encoded in zip(decoded, self._encode([each.picture for each in decoded.values()]), strict=True):
            new = entries[index]
            made[index] = NewRow(new.name, entry_row(new, digest=decoded[index].digest), *encoded)
        return [made[index] for index in range(len(entries))]

    def _of_upload(self, new: NewEntry, tenant: str, image_id: str) -> NewRow | Unprocessable:
        """Take what the window stores of an upload."""
        record = self._window.find_record(tenant, image_id)
        if record is None:
            return Unprocessable(
                "not-found",
                f"the window of tenant {cut(tenant, 80)!r} has no picture of its own named {cut(image_id)!r}: name an "
                "exact copy by its original, and add what has left the window by its address or its bytes",
            )
        content = decode_record(record.record)
        row = entry_row(new, digest=content.digest, of_image=(tenant, image_id))
        return NewRow(new.name, row, content.vector, record.patches)

    def _decode(self, entry: BankEntry) -> _Decoded:
        """Fetch and decode in a child. Raises Unprocessable."""
        sandbox = self._sandboxes.get()
        try:
            upload = ImageUpload(image_id=entry.entry_id, url=entry.url, data_base64=entry.data_base64)
            for attempt in range(ATTEMPTS):
                try:
                    result = sandbox.decode(upload)
                    break
                except Unavailable as error:
                    if attempt + 1 == ATTEMPTS:
                        raise Unprocessable("unreachable", error.detail) from None
                    time.sleep(RETRY_PAUSE_S)
            if result is None:
                raise Unprocessable(
                    "unreachable", "the picture could not be fetched and decoded in time; send it again"
                )
            return _Decoded(result.digest, result.decoding.result())
        finally:
            self._sandboxes.put(sandbox)

    def _encode(self, pictures: Sequence[Picture]) -> list[tuple[bytes, bytes]]:
        """Encode pictures: vector and features as they are stored, empty for one that shows too little."""
        detailed = [index for index, picture in enumerate(pictures) if picture.detail >= self._min_detail]
        size = self._encoder.info.max_batch_size
        inferences = [
            self._encoder.submit(np.stack([pictures[index].pixels for index in detailed[start : start + size]]))
            for start in range(0, len(detailed), size)
        ]
        stored = [(b"", b"")] * len(pictures)
        if inferences:
            encoded = Encoded.concatenate([inference.result() for inference in inferences])
            for number, index in enumerate(detailed):
                features = b""
                if encoded.patches is not None and self._encoder.info.verification_rule is not None:
                    features = Features(encoded.patches[number], pictures[index].thumbnail).to_bytes()
                stored[index] = encoded.embeddings[number].astype("<f2").tobytes(), features
        return stored

    def rest(self) -> None:
        """End the children; the next entries start others. To be called while there is nothing to do."""
        for sandbox in list(self._sandboxes.queue):
            sandbox.close()

    def close(self) -> None:
        """Take on nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.rest()


def upload_of(entry: BankEntry) -> tuple[str, str] | None:
    """The tenant and the image id of the upload that an entry is, if it is one."""
    return None if entry.image_id is None else (entry.tenant or DEFAULT_TENANT, entry.image_id)


def entry_row(
    new: NewEntry, digest: bytes | None = None, pdq: str | None = None, of_image: tuple[str, str] | None = None
) -> EntryRow:
    """Make what is stored of an entry beside vector and features."""
    entry = new.entry
    return EntryRow(
        at=new.at,
        digest=None if digest is None else digest.hex(),
        pdq=pdq,
        labels=entry.labels,
        source=entry.source,
        expires_us=None if entry.expires_at is None else to_us(entry.expires_at),
        of_image=of_image,
    )
