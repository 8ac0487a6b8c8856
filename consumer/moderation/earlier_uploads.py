"""Searches the windows of tenants, and the changelog for what has left them, for uploads that show given entries.

A window is read page by page, and each page is compared with all entries at once. The search takes a share of the time
alone, so that uploads that come meanwhile are not held up.
"""

import heapq
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import ModelInfo, VerificationRule
from consumer.encoder.views import EncodedViews, PackedFeatures
from consumer.errors import Unavailable
from consumer.images.region import WHOLE_IMAGE
from consumer.moderation.candidates import BankRequest
from consumer.moderation.shelf import Entry
from consumer.moderation.store import BankRow
from consumer.settings import KafkaSettings
from consumer.verdicts import Evidence
from consumer.verification.looks import Candidate, Comparison, look_at
from consumer.window.changelog import ChangelogReader, Tombstone, Upsert, parse_change
from consumer.window.records import Position, RecordContent, decode_name, decode_record, to_datetime
from consumer.window.replica import Page, page_after
from consumer.window.store import WindowRecovering
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# The share of its time that a search works; it rests for the rest of it.
WORKING_SHARE = 0.2
# Uploads within the threshold of an entry that are told of, and farther ones, nearly all strangers, that get a look.
MAX_WITHIN, MAX_FAR_LOOKS = 10_000, 32
# Looks at once, and messages of the changelog.
LOOKS_AT_ONCE, MESSAGES_AT_ONCE = 256, 500


@dataclass(slots=True)
class WantedEntry:
    """An entry to search for; `vector` float32 [D] is None for one that matches exactly alone."""

    entry: Entry
    bank: BankRow
    vector: NDArray[np.float32] | None
    features: PackedFeatures | None
    lookback_s: float | None


class StoredUpload(NamedTuple):
    """An upload that may show an entry; `patches` are its own where they are at hand."""

    l2: float
    tenant: str
    position: Position
    content: RecordContent
    patches: bytes | None


class EarlierUpload(NamedTuple):
    """An upload from before an entry, that shows it."""

    wanted: WantedEntry
    upload: StoredUpload
    evidence: Evidence | None

    @property
    def image_id(self) -> str:
        return decode_name(self.upload.content.image_id)

    @property
    def digest(self) -> bytes:
        return self.upload.content.digest

    @property
    def uploaded_at(self) -> datetime:
        return to_datetime(self.upload.content.uploaded_us)


@dataclass(slots=True)
class _Candidates:
    """Uploads near an entry: within the threshold, the same bytes among them, and farther ones; the nearest of each."""

    within: list[tuple[float, int, StoredUpload]] = field(default_factory=list)  # heaps, the farthest first
    far: list[tuple[float, int, StoredUpload]] = field(default_factory=list)
    left_out: int = 0  # of those within the threshold

    def add(self, found: StoredUpload, threshold_l2: float) -> None:
        is_near = found.l2 <= threshold_l2
        heap, limit = (self.within, MAX_WITHIN) if is_near else (self.far, MAX_FAR_LOOKS)
        heapq.heappush(heap, (-found.l2, -found.position.serial, found))
        if len(heap) > limit:
            heapq.heappop(heap)
            self.left_out += is_near

    def all(self) -> list[StoredUpload]:
        """All of them, in the order of arrival."""
        return sorted((found for *_, found in (*self.within, *self.far)), key=lambda each: each.position)


class EarlierUploads:
    """Searches for uploads that show entries. For one thread."""

    def __init__(self, settings: KafkaSettings, model: ModelInfo, window: RedisWindow, rest: Callable[[float], None]):
        """`rest` is called with how long to do nothing, in seconds, at least every second or two of a search."""
        self._settings = settings
        self._model = model
        self._window = window
        self._rest = rest

    def find(self, wanted: Sequence[WantedEntry]) -> list[EarlierUpload]:
        """Find the uploads that show any of these entries. Raises Unavailable."""
        candidates = [_Candidates() for _ in wanted]
        tenants = self._window.store.tenants() if any(each.entry.key.tenant is None for each in wanted) else []
        for tenant in dict.fromkeys([*tenants, *(each.entry.key.tenant for each in wanted if each.entry.key.tenant)]):
            self._collect(wanted, candidates, self._in_window(tenant), tenant)
        if self._settings.embeddings_topic and any(each.lookback_s for each in wanted):
            self._look_back(wanted, candidates)
        found: dict[tuple[int, str, bytes, bytes], EarlierUpload] = {}
        for index, (each, near) in enumerate(zip(wanted, candidates, strict=True)):
            if near.left_out:
                log.warning("entry %s: %d near uploads are not told of", each.entry.name.decode(), near.left_out)
            for one in self._verified(each, near.all()):
                content = one.upload.content
                found.setdefault((index, one.upload.tenant, content.image_id, content.digest), one)
        return list(found.values())

    def requests(self, uploads: Sequence[EarlierUpload]) -> list[BankRequest]:
        """What banks are asked about these uploads. Raises Unavailable."""
        found = [each.upload for each in uploads]
        stored = self._window.read_patches([(each.tenant, each.position) for each in found])
        requests = []
        for each, patches in zip(found, stored, strict=True):
            vector = np.frombuffer(each.content.vector, "<f2").astype(np.float32)
            shape, data = self._model.patches, each.patches or patches or b""
            packed = None if shape is None else PackedFeatures.of(data, shape)
            features = None if packed is None else [packed.unpacked()]
            views = EncodedViews([WHOLE_IMAGE], vector[np.newaxis], features) if len(vector) else None
            requests.append(BankRequest(each.tenant, each.content.digest, views))
        return requests

    def _in_window(self, tenant: str) -> Iterator[list[StoredUpload]]:
        """Read a tenant's window, a page at a time, up to where it ended at the first one."""
        store, cursor, end = self._window.store, b"-", -1
        while True:
            try:
                [reply] = store.run("sync", [(tenant, ["", *page_after(cursor)])])
            except WindowRecovering:
                raise Unavailable("redis", "the window is being rebuilt") from None
            page = Page(*reply)
            end = page.newest_serial if end < 0 else end
            pairs = zip(page.records[::2], page.records[1::2], strict=True)
            rows = [
                StoredUpload(0.0, tenant, Position.parse(each), decode_record(record), None) for each, record in pairs
            ]
            yield [row for row in rows if row.position.serial <= end]
            if not page.more or (rows and rows[-1].position.serial > end):
                return
            cursor = page.cursor

    def _look_back(self, wanted: Sequence[WantedEntry], candidates: Sequence[_Candidates]) -> None:
        """Search the changelog for uploads that have left the window, but were not deleted."""
        lookbacks = [each for each in wanted if each.lookback_s]
        from_ms = round((time.time() - max(each.lookback_s or 0 for each in lookbacks)) * 1000)
        earlier = [_Candidates() for _ in wanted]
        deleted: list[Tombstone] = []
        reader = ChangelogReader(self._settings, max(0, from_ms), MESSAGES_AT_ONCE)
        try:
            for messages in reader.read():
                by_tenant: dict[str, list[StoredUpload]] = {}
                for message in messages:
                    change = parse_change(self._model, message)
                    if isinstance(change, Tombstone):
                        deleted.append(change)
                    elif isinstance(change, Upsert):
                        stored = change.stored
                        row = StoredUpload(
                            0.0, change.tenant, stored.position, decode_record(stored.record), stored.patches
                        )
                        by_tenant.setdefault(change.tenant, []).append(row)
                for tenant, rows in by_tenant.items():
                    self._collect(wanted, earlier, [rows], tenant)
        finally:
            reader.close()
        now_ms = time.time() * 1000
        for each, of_entry, near in zip(wanted, candidates, earlier, strict=True):
            since_ms = now_ms - (each.lookback_s or 0) * 1000
            for row in near.all():
                if row.position.ms >= since_ms and not any(_deletes(tombstone, row) for tombstone in deleted):
                    of_entry.add(row, self._model.threshold_l2)

    def _collect(
        self,
        wanted: Sequence[WantedEntry],
        candidates: Sequence[_Candidates],
        pages: Iterable[list[StoredUpload]],
        tenant: str,
    ) -> None:
        """Compare pages of a tenant's uploads with the entries that hold for it, and keep what is near each."""
        indexes = [index for index, each in enumerate(wanted) if each.entry.key.tenant in (None, tenant)]
        by_digest: dict[str, list[int]] = {}
        for index in indexes:
            by_digest.setdefault(wanted[index].entry.row.digest or "", []).append(index)
        with_vector = [index for index in indexes if wanted[index].vector is not None]
        vectors = np.array([wanted[index].vector for index in with_vector], np.float32)
        began_s = time.monotonic()
        for rows in pages:
            for row in rows:
                for index in by_digest.get(row.content.digest.hex(), ()):
                    candidates[index].add(row, self._model.threshold_l2)
            comparable = [row for row in rows if len(row.content.vector) == 2 * self._model.dim]
            if with_vector and comparable:
                for number, row, l2 in _near(vectors, comparable, self._model.match_radius_l2):
                    index = with_vector[number]
                    if row.content.digest.hex() != wanted[index].entry.row.digest:
                        candidates[index].add(row._replace(l2=l2), self._model.threshold_l2)
            self._rest((time.monotonic() - began_s) * (1 / WORKING_SHARE - 1))
            began_s = time.monotonic()

    def _verified(self, wanted: WantedEntry, near: Sequence[StoredUpload]) -> Iterator[EarlierUpload]:
        """Take a second look at uploads near an entry; yield those that show it."""
        rule, shape = self._model.verification_rule, self._model.patches
        exact = [each for each in near if each.content.digest.hex() == wanted.entry.row.digest]
        yield from (EarlierUpload(wanted, each, None) for each in exact)
        others = [each for each in near if each.content.digest.hex() != wanted.entry.row.digest]
        if rule is None or shape is None:
            yield from (EarlierUpload(wanted, each, None) for each in others if each.l2 <= self._model.threshold_l2)
            return
        for start in range(0, len(others), LOOKS_AT_ONCE):
            began_s = time.monotonic()
            yield from self._look(wanted, others[start : start + LOOKS_AT_ONCE], rule, shape)
            self._rest((time.monotonic() - began_s) * (1 / WORKING_SHARE - 1))

    def _look(
        self, wanted: WantedEntry, near: Sequence[StoredUpload], rule: VerificationRule, shape: tuple[int, int]
    ) -> list[EarlierUpload]:
        if wanted.features is None:
            return []
        stored = self._window.read_patches([(each.tenant, each.position) for each in near])
        # As in a verdict: does the upload show the entry?
        comparisons = [
            Comparison(Candidate(0, 0, each.l2, each), features, wanted.features)
            for each, patches in zip(near, stored, strict=True)
            if (features := PackedFeatures.of(each.patches or patches or b"", shape)) is not None
        ]
        return [
            EarlierUpload(wanted, candidate.picture, looked.to_evidence(True))
            for candidate, looked in look_at(comparisons, rule)
            if rule.accepts(candidate.l2, looked.score, wanted.bank.strictness)
        ]


def _near(
    vectors: NDArray[np.float32], rows: Sequence[StoredUpload], radius_l2: float
) -> Iterator[tuple[int, StoredUpload, float]]:
    """Yield the pairs of a vector [N, D], by its number, and an upload that are within the radius."""
    others = np.stack([np.frombuffer(row.content.vector, "<f2") for row in rows]).astype(np.float32)
    squared = (vectors**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * vectors @ others.T
    l2 = np.round(np.sqrt(np.maximum(squared, 0)), 6)
    for number, row in zip(*np.nonzero(l2 <= radius_l2), strict=True):
        yield int(number), rows[row], float(l2[number, row])


def _deletes(tombstone: Tombstone, row: StoredUpload) -> bool:
    """Whether a deletion is about an upload: of its image id or, of a version, of its object."""
    name, own = decode_name(tombstone.image_id), decode_name(row.content.image_id)
    if tombstone.tenant != row.tenant or not (own == name or own.startswith(f"{name}?versionId=")):
        return False
    _, _, deleted_us = (*tombstone.source.split(), "", "", "")[:3]
    return row.position <= tombstone.position and not (deleted_us and row.content.uploaded_us > int(deleted_us))
