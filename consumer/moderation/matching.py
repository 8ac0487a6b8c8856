"""Compare uploads with the banks of their tenant and of all tenants: by digest, by vector and second look.

As in the window, a look is taken at the candidate of each view that promises most, and only where that turns out to be
in the picture, at the others that are near. Each bank decides by its own strictness. A picture within an upload cannot
silence what is in the rest of it: an allowed entry silences hits of the view that shows it.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np

from consumer.encoder.contract import ModelInfo, Strictness, VerificationRule
from consumer.encoder.views import EncodedViews, Features, PackedFeatures
from consumer.errors import Unprocessable
from consumer.json_values import cut
from consumer.moderation.banks import BankKey, EntryKey
from consumer.moderation.replica import BankReplica, Entry, Shelf
from consumer.moderation.store import BankRow, BankStore
from consumer.verdicts import BankHit, Evidence, SilencedBy
from consumer.verification.features import candidate_scores
from consumer.verification.look import verify
from consumer.verification.result import Verification
from consumer.window.index import Query, SearchParams, VectorIndex
from consumer.window.records import Position

# Entries of a shelf that are candidates of one view, and how many of these are considered.
MAX_NEAREST, MAX_CANDIDATES = 32, 8
# Behind all entries; no time passes in an index of entries.
_END, _RETENTION_MS = Position(0, 2**62), 1
_NOBODY = b"-"  # an image id that no row of such an index has
# Bits of 256 in which PDQ hashes may differ. The makers of PDQ recommend 31.
MAX_PDQ_DISTANCES: Mapping[Strictness, int] = {"strict": 20, "balanced": 31, "eager": 40}
# Of all banks: what it accepts is in the picture for one of them at least.
MOST_LENIENT: Strictness = "eager"


class BankRequest(NamedTuple):
    """Asks which entries an upload shows.

    `views` is None for a picture of too little detail, which matches exactly, and `pdq` where no such hash was made.
    """

    tenant: str
    digest: bytes  # SHA-256
    views: EncodedViews | None
    pdq: str | None = None


class BankResult(NamedTuple):
    """The hits that are reported of an upload, and the allowed entries that it shows."""

    hits: tuple[BankHit, ...] = ()
    silenced_by: tuple[SilencedBy, ...] = ()


NO_HITS = BankResult()


class _Hit(NamedTuple):
    """An entry that a view of an upload shows; view 0 is the whole."""

    view: int
    entry: Entry
    bank: BankRow
    exact: bool
    l2: float | None
    evidence: Evidence | None = None


class _Candidate(NamedTuple):
    """An entry near a view of an upload: `request` and `view` are indexes."""

    request: int
    view: int
    entry: Entry
    bank: BankRow
    l2: float


class _Comparison(NamedTuple):
    """A candidate with what is compared of both pictures."""

    candidate: _Candidate
    upload: Features
    entry: PackedFeatures


class Banks:
    """The banks of all tenants, for one encoder. Thread-safe."""

    def __init__(self, store: BankStore, model: ModelInfo) -> None:
        search = SearchParams(model.match_radius_l2, model.threshold_l2, MAX_NEAREST)
        self._store = store
        self._model = model
        self._replica = BankReplica(store, lambda: VectorIndex(model.dim, search, _RETENTION_MS))
        self._lock = threading.Lock()

    def sync(self) -> None:
        """Read what changed. Raises Unavailable("redis", ...) while not all is there that there has to be."""
        with self._lock:
            self._replica.sync()

    def compares(self, tenant: str) -> bool:
        """Whether there is any entry that uploads of a tenant are compared with, as far as is known."""
        return any(shelf.entries for shelf in self._replica.shelves_for(tenant))

    def require(self, offsets: Mapping[int, int]) -> None:
        """Let nothing be compared before the topic is read up to these offsets, by partition."""
        with self._lock:
            self._replica.require(offsets)

    def compares_pdq(self, tenant: str) -> bool:
        """Whether there is any entry that is a PDQ hash."""
        return any(shelf.hashes for shelf in self._replica.shelves_for(tenant))

    def is_read(self, offsets: Mapping[int, int]) -> bool:
        """Whether the topic was read up to these offsets, by partition."""
        with self._lock:
            read = self._replica.offsets
            return all(read.get(partition, 0) >= offset for partition, offset in offsets.items())

    def bank(self, key: BankKey) -> BankRow | None:
        """The bank of this name, as far as is known."""
        with self._lock:
            return self._replica.banks.get(key)

    def known(self) -> dict[BankKey, BankRow]:
        """All banks, as far as is known."""
        with self._lock:
            return dict(self._replica.banks)

    def entries(self, key: BankKey) -> list[Entry]:
        """All entries of a bank, as far as is known, in the order in which they came."""
        with self._lock:
            shelf = self._replica.shelves.get(key.tenant)
            entries = [] if shelf is None else [each for each in shelf.entries.values() if each.key.of_bank == key]
        return sorted(entries, key=lambda each: each.serial)

    def entry(self, key: EntryKey, now: datetime) -> tuple[Entry, BankRow] | None:
        """An entry that counts, and its bank."""
        with self._lock:
            entry = self._replica.entry(key)
            bank = None if entry is None else self._replica.bank_of(entry, now)
            return None if entry is None or bank is None else (entry, bank)

    def unknown_bank(self, key: EntryKey) -> Unprocessable:
        """Say why an entry is of no bank."""
        with self._lock:
            others = [bank.tenant for bank in self._replica.banks if bank.bank == key.bank]
        whose = "all tenants" if key.tenant is None else f"tenant {cut(key.tenant, 80)!r}"
        if not others:
            detail = f"there is no bank {cut(key.bank, 80)!r}; create it, and send the entry again"
        elif None in others:
            detail = f"the bank {cut(key.bank, 80)!r} is for all tenants: leave the entry's tenant out"
        else:
            detail = f"{whose} has no bank {cut(key.bank, 80)!r}, which is another tenant's"
        return Unprocessable("unknown-bank", detail)

    def entries_of_image(self, tenant: str, image_id: str) -> list[EntryKey]:
        """Read what changed, and return the entries that are of an upload."""
        with self._lock:
            self._replica.sync()
            return self._replica.of_image(tenant, image_id)

    def match(self, requests: Sequence[BankRequest]) -> list[BankResult]:
        """Find the entries that each upload shows, of those that were read. Raises Unavailable("redis", ...)."""
        now = datetime.now(UTC)
        hits: list[list[_Hit]] = [[] for _ in requests]
        with self._lock:
            if not self._replica.banks:
                return [NO_HITS] * len(requests)
            for index, request in enumerate(requests):
                hits[index] += self._exact_hits(request, now)
                hits[index] += self._pdq_hits(request, now)
            candidates = self._candidates(requests, now)
        for candidate, evidence in self._verified(requests, candidates):
            index, view, entry, bank, l2 = candidate
            hits[index].append(_Hit(view, entry, bank, False, l2, evidence))
        return [_result(each) for each in hits]

    def _exact_hits(self, request: BankRequest, now: datetime) -> list[_Hit]:
        digest = request.digest.hex()
        return [
            _Hit(0, entry, bank, True, 0.0)
            for shelf in self._replica.shelves_for(request.tenant)
            for entry in shelf.by_digest.get(digest, {}).values()
            if (bank := self._replica.bank_of(entry, now)) is not None
        ]

    def _pdq_hits(self, request: BankRequest, now: datetime) -> list[_Hit]:
        """Find the hashes that are near that of an upload, by each bank's own distance."""
        if not request.pdq:
            return []
        return [
            _Hit(0, entry, bank, False, None)
            for shelf in self._replica.shelves_for(request.tenant)
            for entry, distance in shelf.near_hashes(request.pdq, max(MAX_PDQ_DISTANCES.values()))
            if (bank := self._replica.bank_of(entry, now)) is not None
            if distance <= MAX_PDQ_DISTANCES[bank.strictness]
        ]

    def _candidates(self, requests: Sequence[BankRequest], now: datetime) -> list[_Candidate]:
        """List the entries near each view of each upload that are not the same bytes, nearest first."""
        queries: dict[int, tuple[Shelf, list[tuple[int, int]], list[Query]]] = {}
        for index, request in enumerate(requests):
            vectors = () if request.views is None else request.views.embeddings
            for shelf in self._replica.shelves_for(request.tenant):
                _, views, of_shelf = queries.setdefault(id(shelf), (shelf, [], []))
                for view, vector in enumerate(vectors):
                    views.append((index, view))
                    of_shelf.append(Query(_END, _NOBODY, vector.astype(np.float16), False))
        candidates = []
        for shelf, views, of_shelf in queries.values():
            for (index, view), hits in zip(views, shelf.index.search(of_shelf), strict=True):
                digest = requests[index].digest.hex()
                for hit in hits:
                    entry = shelf.entries[hit.position.serial]
                    bank = self._replica.bank_of(entry, now)
                    if bank is not None and (view or entry.row.digest != digest):
                        candidates.append(_Candidate(index, view, entry, bank, hit.l2))
        return sorted(candidates, key=lambda each: (each.request, each.view, each.l2, each.entry.name))

    def _verified(
        self, requests: Sequence[BankRequest], candidates: list[_Candidate]
    ) -> list[tuple[_Candidate, Evidence | None]]:
        """Select the candidates that are in the pictures, with the evidence."""
        rule, shape = self._model.verification_rule, self._model.patches
        if rule is None or shape is None:
            return [(each, None) for each in candidates if each.l2 <= self._model.threshold_l2]
        comparisons = self._comparisons(requests, candidates, shape)
        first, rest = _most_promising(comparisons)
        looked = self._look(first, rule)
        shown = {
            (each.request, each.view) for each, found in looked if rule.accepts(each.l2, found.score, MOST_LENIENT)
        }
        near = [
            each
            for each in rest
            if (each.candidate.request, each.candidate.view) in shown and each.candidate.l2 <= self._model.threshold_l2
        ]
        verified: list[tuple[_Candidate, Evidence | None]] = []
        for candidate, verification in looked + self._look(near, rule):
            if rule.accepts(candidate.l2, verification.score, candidate.bank.strictness):
                views = requests[candidate.request].views
                assert views is not None  # noqa: S101 (narrows the type)
                whole = verification.in_whole_image(views.regions[candidate.view])
                verified.append((candidate, whole.to_evidence(True)))
        return verified

    def _comparisons(
        self, requests: Sequence[BankRequest], candidates: Sequence[_Candidate], shape: tuple[int, int]
    ) -> list[_Comparison]:
        """List the nearest candidates of each view whose features are known, in order."""
        chosen = [
            each
            for _, group in groupby(candidates, lambda each: (each.request, each.view))
            for each in islice(group, MAX_CANDIDATES)
        ]
        names = list({each.entry.name: None for each in chosen})
        stored = {
            name: PackedFeatures.of(data, shape)
            for name, data in zip(names, self._store.read_features(names), strict=True)
            if data is not None
        }
        comparisons = []
        for candidate in chosen:
            views, entry = requests[candidate.request].views, stored.get(candidate.entry.name)
            if views is not None and views.features is not None and entry is not None:
                comparisons.append(_Comparison(candidate, views.features[candidate.view], entry))
        return comparisons

    def _look(
        self, comparisons: Sequence[_Comparison], rule: VerificationRule
    ) -> list[tuple[_Candidate, Verification]]:
        if not comparisons:
            return []
        l2 = np.array([each.candidate.l2 for each in comparisons], np.float32)
        found = verify([each.upload for each in comparisons], [each.entry.unpacked() for each in comparisons], l2, rule)
        return list(zip([each.candidate for each in comparisons], found, strict=True))


def _most_promising(comparisons: list[_Comparison]) -> tuple[list[_Comparison], list[_Comparison]]:
    """Divide the candidates into the most promising one of each view and the others."""
    if not comparisons:
        return [], []
    scores = candidate_scores(
        np.stack([each.upload.patches for each in comparisons]),
        np.stack([each.entry.patches for each in comparisons]),
        np.array([each.candidate.l2 for each in comparisons], np.float32),
    )
    best: dict[tuple[int, int], int] = {}
    for number, (each, score) in enumerate(zip(comparisons, scores.tolist(), strict=True)):
        of_view = (each.candidate.request, each.candidate.view)
        if of_view not in best or score > scores[best[of_view]]:
            best[of_view] = number
    first = set(best.values())
    return [comparisons[number] for number in best.values()], [
        each for number, each in enumerate(comparisons) if number not in first
    ]


def _result(hits: Sequence[_Hit]) -> BankResult:
    """Take out what allowed entries silence, and report each other entry once: exact, or by the nearest view."""
    allowed = [hit for hit in hits if hit.bank.kind == "allow"]
    reported: dict[bytes, _Hit] = {}
    silencing = {hit.entry.key for hit in allowed if hit.view == 0}
    for hit in sorted(hits, key=lambda each: (not each.exact, each.l2 or 0.0, each.entry.name)):
        if hit.bank.kind == "allow":
            continue
        silencers = [each for each in allowed if each.view == hit.view and hit.entry.key.bank in each.bank.silences]
        silencing |= {each.entry.key for each in silencers}
        if not silencers:
            reported.setdefault(hit.entry.name, hit)
    return BankResult(
        tuple(bank_hit(each.entry, each.bank, each.l2, each.evidence, exact=each.exact) for each in reported.values()),
        tuple(SilencedBy(bank=key.bank, entry_id=key.entry_id) for key in sorted(silencing, key=str)),
    )


def bank_hit(entry: Entry, bank: BankRow, l2: float | None, evidence: Evidence | None, *, exact: bool) -> BankHit:
    """Put in the words of verdicts that a picture shows an entry."""
    return BankHit(
        bank=entry.key.bank,
        kind=bank.kind,
        entry_id=entry.key.entry_id,
        action=bank.action,
        exact=exact,
        l2=l2,
        labels=entry.row.labels,
        evidence=evidence,
    )
