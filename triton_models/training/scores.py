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
from consumer.verification.look import verify
from consumer.verification.result import Verification
from triton_models.training.bench import Vectors
from triton_models.training.looks import NO_RANK, Near, Pairs, find_near, gets_look, rank_candidates
from triton_models.training.measure import distance
from triton_models.training.uploads import Floats, Indexes, Stored

Bools = NDArray[np.bool_]

MIN_FALSE_PAIRS = 5  # that a rate has to allow, to be read from the pairs
AT_ONCE = 8192  # pairs that are unpacked together


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
    references put into copies. Raises ValueError for local features other than the model's, or a model without a rule.
    """
    references, copies = vectors
    owners = np.tile(originals, len(mixed_in))
    left_out = _left_out(owners, mixed_in.ravel(), duplicates)
    look = _Looks(model, references)
    whole = look(copies.wholes, owners, left_out, whole=True)
    places = copies.region_of
    region = look(copies.regions, owners[places], left_out[places], whole=False)
    region_score = np.full(len(owners), -np.inf, np.float32)
    np.maximum.at(region_score, places, region.original_score)
    return PairScores(
        len(owners) * len(references.vectors) - sum(len(set(row)) for row in left_out.tolist()),
        whole.original_l2.reshape(mixed_in.shape),
        whole.original_score.reshape(mixed_in.shape),
        region_score.reshape(mixed_in.shape),
        np.concatenate([whole.other_score, region.other_score]),
        np.concatenate([whole.other_query, places[region.other_query]]),
        np.concatenate([whole.other_reference, region.other_reference]),
        np.sort(whole.nearest_l2, axis=None),
        whole.verifications,
        look.count,
        look.spent_s * 1e3 / max(look.count, 1),
    )


def _left_out(owners: Indexes, inside: Indexes, duplicates: Mapping[int, set[int]]) -> Indexes:
    """List for each copy the references that are no others: [Q, L], some of them more than once.

    These are its original, `owners` [Q], what was mixed into it, `inside` [Q], and the duplicates of both.
    """
    pairs = zip(owners.tolist(), inside.tolist(), strict=True)
    rows = [[*pair, *(each for one in pair for each in duplicates.get(one, ()))] for pair in pairs]
    most = max(map(len, rows))
    return np.array([row + row[:1] * (most - len(row)) for row in rows])


class _Looked(NamedTuple):
    """Distances and scores of Q queries with their originals, [Q], and of looks at other references, [T].

    `nearest_l2` [Q, C] are the distances of the nearest other references. The rest is as in `PairScores`, by query.
    """

    original_l2: Floats
    original_score: Floats
    nearest_l2: Floats
    other_score: Floats
    other_query: Indexes
    other_reference: Indexes
    verifications: dict[int, Verification]


class _Looks:
    """Looks at queries, whole copies or regions, and what is near them; counts looks and the time that they take."""

    def __init__(self, model: ModelInfo, references: Stored) -> None:
        if model.verification_rule is None:
            raise ValueError(f"Model {model.name!r} has no rule for a second look")
        if references.patches.shape[1:] != model.patches:
            raise ValueError(
                f"The encoder gives local features of shape {references.patches.shape[1:]}, and model {model.name!r} "
                f"compares those of shape {model.patches}"
            )
        self.count, self.spent_s = 0, 0.0
        self._rule: VerificationRule = model.verification_rule
        self._threshold_l2 = model.threshold_l2
        self._references = references

    def __call__(self, queries: Stored, owners: Indexes, left_out: Indexes, whole: bool) -> _Looked:
        """Look at what is near Q queries: at the candidates of each that promise most.

        Of whole copies the rest within the threshold is looked at as well once one is accepted: its score then is the
        lower one of its own and the highest of those looked at first. Other references are looked at as if the original
        were not in the window.
        """
        original_l2 = distance(np.einsum("qd,qd->q", queries.vectors, self._references.vectors[owners]))
        nearest = find_near(queries.vectors, self._references.vectors, self._threshold_l2, left_out=left_out)
        nearest = Near(nearest.place[:, :-1], nearest.l2[:, :-1])  # without the earliest
        started_s = time.process_time()
        own, others = (
            pairs.take(gets_look(pairs.rank) | (whole & (pairs.l2 <= self._threshold_l2)))
            for pairs in self._candidates(queries, owners, original_l2, nearest)
        )
        of_originals = self._verify(queries, own)
        scores = np.array([each.score for each in self._verify(queries, others)], np.float32)
        first, own_later = gets_look(others.rank), own.query[~gets_look(own.rank)]
        best, original_score = np.full((2, len(owners)), -np.inf, np.float32)
        np.maximum.at(best, others.query[first], scores[first])
        original_score[own.query] = [each.score for each in of_originals]
        original_score[own_later] = np.minimum(original_score, best)[own_later]
        accepted = np.maximum(best, original_score)[others.query]
        scores = np.where(first, scores, np.minimum(scores, accepted))
        self.spent_s += time.process_time() - started_s
        verifications = dict(zip(own.query.tolist(), of_originals, strict=True))
        return _Looked(original_l2, original_score, nearest.l2, scores, others.query, others.place, verifications)

    def _candidates(self, queries: Stored, owners: Indexes, original_l2: Floats, nearest: Near) -> tuple[Pairs, Pairs]:
        """Rank the pairs with originals among the nearest others, and those with others as if it were not there.

        An original takes the place of the farthest of the others.
        """
        farthest, farthest_l2 = nearest.place[:, -1], nearest.l2[:, -1]
        place = np.column_stack([owners, nearest.place])
        l2 = np.column_stack([np.where(original_l2 <= farthest_l2, original_l2, np.inf), nearest.l2])
        order = np.argsort(l2, axis=1, kind="stable")
        near = Near(np.take_along_axis(place, order, 1), np.take_along_axis(l2, order, 1))
        pairs = rank_candidates(queries, self._references, near, self._rule.candidate_l2)
        is_own = pairs.place == owners[pairs.query]
        others = _without(pairs, is_own)
        own = _without(pairs, ~is_own & (pairs.place == farthest[pairs.query]))
        return own.take(own.place == owners[own.query]), others

    def _verify(self, queries: Stored, pairs: Pairs) -> list[Verification]:
        """Look at pairs."""
        self.count += len(pairs.query)
        verifications: list[Verification] = []
        for start in range(0, len(pairs.query), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            uploads, candidates = queries.features(pairs.query[part]), self._references.features(pairs.place[part])
            verifications += verify(uploads, candidates, pairs.l2[part], self._rule)
        return verifications


def _without(pairs: Pairs, gone: Bools) -> Pairs:
    """Take the pairs that are not `gone`, of which there is at most one of each query, and close up the ranks."""
    gone_rank = np.full(pairs.query.max(initial=-1) + 1, NO_RANK)
    gone_rank[pairs.query[gone]] = pairs.rank[gone]
    rest = pairs.take(~gone)
    return rest._replace(rank=rest.rank - (gone_rank[rest.query] < rest.rank))
