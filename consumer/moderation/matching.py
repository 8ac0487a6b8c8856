"""Compare uploads with the banks of their tenant and of all tenants: by digest, by vector and second look.

As in the window, a look is taken at the candidate of each view that promises most, and only where that turns out to be
in the picture, at the others that are near. Each bank decides by its own strictness.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, get_args

from consumer.encoder.contract import ModelInfo, Strictness
from consumer.encoder.views import PackedFeatures
from consumer.errors import Unprocessable
from consumer.json_values import cut
from consumer.moderation.banks import BankKey, EntryKey
from consumer.moderation.candidates import BankRequest, Holders, nearest_pictures
from consumer.moderation.hits import BankResult, Hit, result_of
from consumer.moderation.pdq_index import PdqIndex
from consumer.moderation.replica import BankReplica
from consumer.moderation.shelf import MAX_EXACT, RETENTION_MS, Entry, Shelf
from consumer.moderation.store import BankRow, BankStore
from consumer.verdicts import Evidence
from consumer.verification.looks import MAX_CANDIDATES, Asked, Candidate, Comparison, Looked, look_at_best
from consumer.window.index import SearchParams, VectorIndex
from consumer.window.inverted_lists import Effort
from consumer.window.large_index import LargeIndex

# What a search among more than MAX_EXACT pictures may cost.
EFFORT = Effort(share=0.6, candidates=200)
# Bits of 256 in which PDQ hashes may differ. The makers of PDQ recommend 31.
MAX_PDQ_DISTANCES: Mapping[Strictness, int] = {"strict": 20, "balanced": 31, "eager": 40}
# Of all banks: what it accepts is in the picture for one of them at least.
MOST_LENIENT: Strictness = "eager"
STRICTNESSES: tuple[Strictness, ...] = get_args(Strictness)


class Found(NamedTuple):
    """What uploads may show: for each the entries of the same bytes, and PDQ hashes; pictures near any of their views.

    `banks` are as they were at that moment.
    """

    requests: Sequence[BankRequest]
    banks: Mapping[BankKey, BankRow]
    exact: list[list[Entry]]
    hashes: list[list[PdqIndex[Entry]]]
    near: list[Candidate[Holders]]

    def hit(self, view: int, entry: Entry, l2: float | None, evidence: Evidence | None = None, *, exact: bool) -> Hit:
        return Hit(view, entry, self.banks[entry.key.of_bank], exact, l2, evidence)


class Banks:
    """The banks of all tenants, for one encoder. Thread-safe."""

    def __init__(self, store: BankStore, model: ModelInfo) -> None:
        search = SearchParams(model.match_radius_l2, model.threshold_l2, MAX_CANDIDATES)
        new_index = partial(VectorIndex, model.dim, search, RETENTION_MS)
        new_large_index: Callable[[], LargeIndex] | None = None
        if model.codebooks is not None:
            new_large_index = partial(LargeIndex, model.codebooks, search, RETENTION_MS, EFFORT, MAX_EXACT)
        self._store = store
        self._model = model
        self._replica = BankReplica(store, lambda: Shelf(new_index, new_large_index))
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
        return any(shelf.has_hashes for shelf in self._replica.shelves_for(tenant))

    def is_read(self, offsets: Mapping[int, int]) -> bool:
        """Whether the topic was read up to these offsets, by partition."""
        with self._lock:
            read = self._replica.offsets
            return all(read.get(partition, 0) >= offset for partition, offset in offsets.items())

    def bank(self, key: BankKey) -> BankRow | None:
        """The bank of this name, as far as is known."""
        with self._lock:
            return self._replica.banks.get(key)

    def is_for_all(self, tenant: str, name: str) -> bool:
        """Read what changed; tell whether the bank that a tenant knows by a name is one of all tenants."""
        self.sync()
        return self.bank(BankKey(tenant, name)) is None and self.bank(BankKey(None, name)) is not None

    def known(self) -> dict[BankKey, BankRow]:
        """All banks, as far as is known."""
        with self._lock:
            return dict(self._replica.banks)

    def sizes(self) -> list[tuple[str, int]]:
        """The name of each bank, and how many entries it has, as far as is known."""
        with self._lock:
            return [(key.bank, len(self._replica.of_bank(key))) for key in self._replica.banks]

    def entries(self, key: BankKey) -> list[Entry]:
        """All entries of a bank, as far as is known, in the order in which they came."""
        with self._lock:
            return sorted(self._replica.of_bank(key), key=lambda each: each.serial)

    def entry(self, key: EntryKey) -> tuple[Entry, BankRow] | None:
        """An entry that counts, and its bank."""
        with self._lock:
            return self._replica.counting(key)

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
        return [result_of(hits) for hits in self._hits(requests)]

    def search(self, requests: Sequence[BankRequest]) -> tuple[Found, Asked[Holders]]:
        """Find what uploads may show, and what has to be looked at for it. Raises Unavailable("redis", ...)."""
        with self._lock:
            found = self._find(requests)
        threshold_l2, shape = self._model.threshold_l2, self._model.patches
        has_rule = self._model.verification_rule is not None
        comparisons = self._comparisons(requests, found.near, shape) if has_rule and shape is not None else []
        return found, Asked(comparisons, MOST_LENIENT, lambda each: each.l2 <= threshold_l2)

    def results(self, found: Found, looked: Looked[Holders]) -> list[BankResult]:
        """Tell what uploads show, after these looks."""
        return [result_of(hits) for hits in self._all_hits(found, looked)]

    def silenced(self, requests: Sequence[BankRequest]) -> list[list[Hit]]:
        """Find the allowed entries that each upload shows as a whole, which silence others. Raises Unavailable."""
        return [[hit for hit in hits if hit.view == 0 and hit.bank.kind == "allow"] for hits in self._hits(requests)]

    def _hits(self, requests: Sequence[BankRequest]) -> list[list[Hit]]:
        """Find the entries that each upload shows, those that are allowed among them. Raises Unavailable."""
        found, asked = self.search(requests)
        [looked] = look_at_best([asked], self._model.verification_rule)
        return self._all_hits(found, looked)

    def _all_hits(self, found: Found, looked: Looked[Holders]) -> list[list[Hit]]:
        hits = [[found.hit(0, entry, 0.0, exact=True) for entry in entries] for entries in found.exact]
        for of_request, request, hashes in zip(hits, found.requests, found.hashes, strict=True):
            for entry, distance in _near_hashes(request, hashes):
                hit = found.hit(0, entry, None, exact=False)
                if distance <= MAX_PDQ_DISTANCES[hit.bank.strictness]:
                    of_request.append(hit)
        for (index, view, l2, entries), strictness, evidence in self._verified(found, looked):
            for entry in entries:
                hit = found.hit(view, entry, l2, evidence, exact=False)
                if hit.bank.strictness in strictness:
                    hits[index].append(hit)
        return hits

    def _find(self, requests: Sequence[BankRequest]) -> Found:
        """Find what uploads may show, of the entries that count now. Raises Unavailable."""
        self._replica.drop_expired(datetime.now(UTC))
        shelves = [list(self._replica.shelves_for(each.tenant)) for each in requests]
        of_requests = list(zip(requests, shelves, strict=True))
        return Found(
            requests,
            self._replica.banks,
            [[entry for shelf in each for entry in shelf.exact(asked.digest.hex())] for asked, each in of_requests],
            [[shelf.hashes() for shelf in each if asked.pdq] for asked, each in of_requests],
            nearest_pictures(requests, shelves),
        )

    def _verified(
        self, found: Found, looked: Looked[Holders]
    ) -> Iterator[tuple[Candidate[Holders], Collection[Strictness], Evidence | None]]:
        """Yield the candidates that are in the pictures, to banks of which strictness, and the evidence."""
        rule, shape = self._model.verification_rule, self._model.patches
        if rule is None or shape is None:
            yield from ((each, STRICTNESSES, None) for each in found.near if each.l2 <= self._model.threshold_l2)
            return
        for candidate, one in looked:
            views = found.requests[candidate.request].views
            accepting = [each for each in STRICTNESSES if rule.accepts(candidate.l2, one.score, each)]
            if views is not None and accepting:
                yield candidate, accepting, one.in_whole_image(views.regions[candidate.view]).to_evidence(True)

    def _comparisons(
        self, requests: Sequence[BankRequest], near: Sequence[Candidate[Holders]], shape: tuple[int, int]
    ) -> list[Comparison[Holders]]:
        """List the candidates whose features are known, in order."""
        # Where one of several holders goes at this moment, another one has the same.
        names = list(dict.fromkeys(holder.name for each in near for holder in each.picture[:2]))
        stored = dict(zip(names, self._store.read_features(names), strict=True))
        comparisons = []
        for candidate in near:
            views = requests[candidate.request].views
            data = next((data for holder in candidate.picture if (data := stored.get(holder.name))), b"")
            other = PackedFeatures.of(data, shape)
            if views is not None and views.features is not None and other is not None:
                comparisons.append(Comparison(candidate, views.features[candidate.view], other))
        return comparisons


def _near_hashes(request: BankRequest, hashes: Sequence[PdqIndex[Entry]]) -> Iterator[tuple[Entry, int]]:
    """Yield the entries whose PDQ hash is near that of an upload to any bank, with the distance."""
    if request.pdq:
        for each in hashes:
            yield from each.near(request.pdq, max(MAX_PDQ_DISTANCES.values()))
