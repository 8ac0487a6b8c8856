"""Distances and second-look scores of copies, to their own originals and to the other references near them.

Which references near a copy, or near a region of it, are looked at is chosen as the service does
(`consumer.verification.rerank`). Not modelled is that it also considers the earliest within the model's distance
threshold, which matters only where more than `MAX_CANDIDATES` are as near.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import ModelInfo, VerificationRule
from consumer.encoder.views import Features
from consumer.verification.features import candidate_scores
from consumer.verification.look import verify
from consumer.verification.rerank import MAX_CANDIDATES, MAX_LOOKS
from consumer.verification.result import Verification
from triton_models.training.bench import Packed, Patches, Vectors
from triton_models.training.encoders import Floats
from triton_models.training.measure import distance

Bools = NDArray[np.bool_]
Indexes = NDArray[np.int64]

MIN_FALSE_PAIRS = 5  # that a rate has to allow, to be read from the pairs
AT_ONCE = 8192  # pairs that are unpacked together
QUERIES_AT_ONCE = 256  # that are compared with all references together


@dataclass(frozen=True, slots=True)
class PairScores:
    """Distances and scores of K kinds of copies of N originals, to these and to other references near them.

    `copies_l2` [K, N] are the distances of whole copies to their originals. `whole_score` and `region_score` [K, N] are
    the scores at which the original is found by the whole copy, and by the best of its regions; -inf where the service
    would not look at it. A *look at another reference* is a false pair if its score is accepted: `others_score` [T],
    with the copy, `others_copy` [T], by its place among K * N, and the reference, `others_reference` [T].

    `pair_count` is the number of all other pairs, near or not, and `nearest_l2` [S], ascending, the distances of the
    nearest of them. `verifications` are the looks at originals by whole copies, by the copies' places among K * N.
    """

    pair_count: int
    copies_l2: Floats
    whole_score: Floats
    region_score: Floats
    others_score: Floats
    others_copy: Indexes
    others_reference: Indexes
    nearest_l2: Floats
    verifications: Mapping[int, Verification]
    look_count: int
    ms_per_look: float

    def min_score(self, rate: float) -> float:
        """Return the least score to ask for, so that at most a share `rate` of the other pairs is accepted."""
        allowed = self._allowed(rate)
        if len(self.others_score) <= allowed:
            return 0.0
        highest = np.sort(self.others_score)[::-1]
        return float(np.nextafter(highest[allowed], np.float32(np.inf)))

    def max_l2(self, rate: float) -> float:
        """Return the distance up to which a share `rate` of the other pairs lies: the threshold of vectors alone."""
        return float(self.nearest_l2[self._allowed(rate) - 1])

    def can_tell(self, rate: float) -> bool:
        """Tell whether there are pairs enough to read a rate from."""
        return int(rate * self.pair_count) >= MIN_FALSE_PAIRS

    def detected(self, min_score: float) -> Bools:
        """Tell which copies are found, [K, N], by the whole of them or by one of their regions."""
        return np.maximum(self.whole_score, self.region_score) >= min_score

    def false_pairs(self, min_score: float) -> Bools:
        """Tell which looks at other references are accepted: [T]."""
        return self.others_score >= min_score

    def _allowed(self, rate: float) -> int:
        """Return how many other pairs a rate allows. Raises ValueError when these are too few to tell."""
        if not self.can_tell(rate):
            raise ValueError(
                f"A rate of {rate:g} cannot be read from {self.pair_count:.2g} pairs: take more pictures or copies"
            )
        return int(rate * self.pair_count)


def score_pairs(
    vectors: Vectors, originals: Indexes, duplicates: Mapping[int, set[int]], mixed_in: Indexes, model: ModelInfo
) -> PairScores:
    """Look at every copy and its original, and at the other references near it, where the service would.

    `originals` [N] are places among the references, `duplicates` those of each reference, `mixed_in` [K, N] the
    references put into copies. Raises ValueError for vectors without local features, or a model without a rule.
    """
    references, copies = vectors
    if references.features is None or copies.features is None or copies.region_features is None:
        raise ValueError("The encoder gives no local features, so there is nothing to look at twice")
    assert copies.region_vectors is not None  # noqa: S101 (all regions' arrays come together)
    assert copies.region_copy is not None  # noqa: S101
    kinds, count, dim = copies.vectors.shape
    owners, inside = np.tile(originals, kinds), mixed_in.ravel()
    look = _Looks(model, references.features)
    whole_copies = copies.vectors.reshape(-1, dim)
    nearest = _nearest_references(references.vectors, whole_copies, owners, inside, duplicates)
    whole = look(copies.features.reshape(len(owners), -1), owners, nearest, whole=True)
    places = copies.region_copy
    of_regions = _nearest_references(
        references.vectors, copies.region_vectors, owners[places], inside[places], duplicates
    )
    region = look(copies.region_features, owners[places], of_regions, whole=False)
    region_score = np.full(len(owners), -np.inf, np.float32)
    np.maximum.at(region_score, places, region.original_score)
    return PairScores(
        nearest.pair_count,
        nearest.original_l2.reshape(kinds, count),
        whole.original_score.reshape(kinds, count),
        region_score.reshape(kinds, count),
        np.concatenate([whole.other_score, region.other_score]),
        np.concatenate([whole.other_query, places[region.other_query]]),
        np.concatenate([whole.other_reference, region.other_reference]),
        np.sort(nearest.l2, axis=None),
        whole.verifications,
        look.count,
        look.spent_s * 1e3 / max(look.count, 1),
    )


class _NearestReferences(NamedTuple):
    """The references nearest to each of Q query vectors, its own original not among them.

    `reference` and `l2` are [Q, MAX_CANDIDATES], nearest first. `original_l2` [Q] is the distance of the original and
    `original_rank` [Q] the number of references nearer than it. `pair_count` is the number of pairs compared.
    """

    original_l2: Floats
    original_rank: Indexes
    reference: Indexes
    l2: Floats
    pair_count: int


def _nearest_references(
    references: Floats,
    queries: Floats,
    owners: Indexes,
    inside: Indexes,
    duplicates: Mapping[int, set[int]],
) -> _NearestReferences:
    """Find the references nearest to `queries` [Q, D].

    Left out are the original of each, `owners` [Q], what was mixed into it, `inside` [Q], and the duplicates of both.
    """
    count = len(queries)
    original_l2, original_rank, pair_count = np.empty(count, np.float32), np.empty(count, np.int64), 0
    reference, l2 = np.empty((count, MAX_CANDIDATES), np.int64), np.empty((count, MAX_CANDIDATES), np.float32)
    for query, (owner, other) in enumerate(zip(owners.tolist(), inside.tolist(), strict=True)):
        if query % QUERIES_AT_ONCE == 0:
            of_queries = queries[query : query + QUERIES_AT_ONCE] @ references.T
        cosines = of_queries[query % QUERIES_AT_ONCE]
        original_cosine = cosines[owner]
        left_out = [owner, other, *duplicates.get(owner, ()), *duplicates.get(other, ())]
        cosines[left_out] = -2.0
        pair_count += len(cosines) - len(set(left_out))
        original_rank[query] = (cosines > original_cosine).sum()
        nearest = np.argpartition(-cosines, MAX_CANDIDATES)[:MAX_CANDIDATES]
        reference[query] = nearest[np.argsort(-cosines[nearest], kind="stable")]
        original_l2[query], l2[query] = distance(original_cosine), distance(cosines[reference[query]])
    return _NearestReferences(original_l2, original_rank, reference, l2, pair_count)


class _Looked(NamedTuple):
    """Scores of Q queries with their originals, [Q], and of looks at other references, [T], as in `PairScores`.

    `other_query` [T] are the queries. `verifications` are the looks at originals, by query.
    """

    original_score: Floats
    other_score: Floats
    other_query: Indexes
    other_reference: Indexes
    verifications: dict[int, Verification]


class _Looks:
    """Looks at queries, whole copies or regions, and what is near them; counts looks and the time that they take."""

    def __init__(self, model: ModelInfo, references: Packed) -> None:
        if model.verification_rule is None or model.patches is None:
            raise ValueError(f"Model {model.name!r} has no rule for a second look")
        self.count, self.spent_s = 0, 0.0
        self._rule: VerificationRule = model.verification_rule
        self._shape, self._threshold_l2 = model.patches, model.threshold_l2
        self._references = references

    def __call__(self, queries: Packed, owners: Indexes, nearest: _NearestReferences, whole: bool) -> _Looked:
        """Look at what is near Q queries, packed features [Q, B]: at 2 candidates of whole copies, at 1 of regions.

        Of whole copies the rest within the threshold is looked at as well once one is accepted: its score then is the
        lower one of its own and the highest of those looked at first. Other references are looked at as if the original
        were not in the window.
        """
        started_s = time.process_time()
        q, looks = np.arange(len(queries)), MAX_LOOKS
        is_candidate = nearest.l2 <= self._rule.candidate_l2
        promise = np.full(nearest.l2.shape, -np.inf, np.float32)
        query, rank = np.nonzero(is_candidate)
        promise[query, rank] = self._promise(queries, query, nearest.reference[query, rank], nearest.l2[query, rank])
        original_promise = self._promise(queries, q, owners, nearest.original_l2)
        # An original among the nearest takes the place of the farthest of the others, and is behind the nearer ones.
        nearer = np.arange(MAX_CANDIDATES - 1) < nearest.original_rank[:, None]
        of_others, of_original = promise[:, :-1], original_promise[:, None]
        ahead = ((of_others > of_original) | ((of_others == of_original) & nearer)).sum(axis=1)
        found = (nearest.original_rank < MAX_CANDIDATES) & (nearest.original_l2 <= self._rule.candidate_l2)
        found_first, found_later = found & (ahead < looks), found & (ahead >= looks)
        place = np.argsort(np.argsort(-promise, axis=1, kind="stable"), axis=1)
        first, later = is_candidate & (place < looks), is_candidate & (place >= looks)
        found_later &= whole & (nearest.original_l2 <= self._threshold_l2)
        later &= whole & (nearest.l2 <= self._threshold_l2)

        looked = np.flatnonzero(found_first | found_later)
        of_originals = self._verify(queries, looked, owners[looked], nearest.original_l2[looked])
        original_score = np.full(len(q), -np.inf, np.float32)
        original_score[looked] = [each.score for each in of_originals]
        query, rank = np.nonzero(first | later)
        reference = nearest.reference[query, rank]
        scores = np.full(promise.shape, -np.inf, np.float32)
        of_others_looked = self._verify(queries, query, reference, nearest.l2[query, rank])
        scores[query, rank] = [each.score for each in of_others_looked]
        best = np.where(first, scores, -np.inf).max(axis=1)
        original_score[found_later] = np.minimum(original_score, best)[found_later]
        accepted = np.maximum(best, original_score)[:, None]
        scores = np.where(later, np.minimum(scores, accepted), scores)
        self.spent_s += time.process_time() - started_s
        return _Looked(
            original_score,
            scores[query, rank],
            query,
            reference,
            dict(zip(looked.tolist(), of_originals, strict=True)),
        )

    def _promise(self, queries: Packed, query: Indexes, reference: Indexes, l2: Floats) -> Floats:
        """Compute the candidate scores of pairs, [M], by indexes of the query and of the reference."""
        promise = np.empty(len(query), np.float32)
        for start in range(0, len(query), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            pair = self._patches(queries[query[part]]), self._patches(self._references[reference[part]])
            promise[part] = candidate_scores(*pair, l2[part])
        return promise

    def _patches(self, packed: Packed) -> Patches:
        """Read the local features [M, P, C] of packed features [M, B]."""
        count, channels = self._shape
        return packed[:, : count * channels].view(np.int8).reshape(-1, count, channels)

    def _verify(self, queries: Packed, query: Indexes, reference: Indexes, l2: Floats) -> list[Verification]:
        """Look at pairs, by indexes of the query and of the reference."""
        self.count += len(query)
        verifications: list[Verification] = []
        for start in range(0, len(query), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            uploads, candidates = self._unpack(queries[query[part]]), self._unpack(self._references[reference[part]])
            verifications += verify(uploads, candidates, l2[part], self._rule)
        return verifications

    def _unpack(self, packed: Packed) -> list[Features]:
        unpacked = [Features.from_bytes(row.tobytes(), self._shape) for row in packed]
        if None in unpacked:
            raise ValueError(f"{packed.shape[1]} bytes are no features with local ones of shape {self._shape}")
        return [features for features in unpacked if features is not None]
