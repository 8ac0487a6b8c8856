"""Distances and second-look scores of copies, to their own originals and to the other references near them.

Of the references near a copy only the one with the highest candidate score is verified, as in the service.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.verification.rerank import MAX_CANDIDATES
from consumer.verification.result import Verification
from triton_models.training.bench import Patches, Vectors
from triton_models.training.encoders import Floats, OnnxEncoder
from triton_models.training.measure import distance

Indexes = NDArray[np.int64]

CANDIDATE_RATE = 2.5e-4  # share of other pairs that are near enough to be candidates


@dataclass(frozen=True, slots=True)
class RegionScores:
    """Distances and scores of U regions of copies, to the original of each and to the most likely other reference.

    `copy` [U] names the copy that a region is in, by its place among K * N, and `other_reference` [U] the other
    reference. Scores are -inf where a region would not be compared with the reference, see `PairScores`.
    """

    copy: Indexes
    original_l2: Floats
    original_score: Floats
    other_reference: Indexes
    other_l2: Floats
    other_score: Floats


@dataclass(frozen=True, slots=True)
class PairScores:
    """Distances and scores of copies to their own originals, [K, N], and to other references near them, [T].

    Of the nearest candidates of a copy only the most likely one is verified. Where that is not the original, the score
    of the copy is -inf; so is that of all other references but the one that would be verified without the original.
    `others_copy` [T] names the copy of each other pair, by its place among K * N, `others_reference` [T] the reference.
    `pair_count` is the number of all other pairs, near or not. `original_verifications` [K * N] are those of the copies
    with their originals.
    """

    pair_count: int
    copies_l2: Floats
    copies_score: Floats
    others_l2: Floats
    others_score: Floats
    others_copy: Indexes
    others_reference: Indexes
    original_verifications: list[Verification]
    ms_per_verification: float
    regions: RegionScores


def score_pairs(
    vectors: Vectors,
    originals: Indexes,
    duplicates: Mapping[int, set[int]],
    mixed_in: Indexes,
    encoder: OnnxEncoder,
) -> PairScores:
    """Verify every copy against its original, and against the most likely other reference near it.

    `originals` [N] are places among the references, `duplicates` those of each reference, `mixed_in` [K, N] the
    references put into copies, `encoder` the one that made the vectors. Raises ValueError for vectors without local
    features.
    """
    if vectors.copy_patches is None or vectors.reference_patches is None:
        raise ValueError("The encoder gives no local features, so there is nothing to look at twice")
    kinds, count, dim = vectors.copies.shape
    copies, patches = vectors.copies.reshape(-1, dim), vectors.copy_patches.reshape(-1, *vectors.copy_patches.shape[2:])
    owners, inside = np.tile(originals, kinds), mixed_in.ravel()
    nearest = _nearest_references(vectors.references, copies, owners, inside, duplicates)
    candidates = min(int(CANDIDATE_RATE * nearest.pair_count), nearest.l2.size - 1)
    candidate_l2 = float(np.partition(nearest.l2.ravel(), candidates)[candidates])
    started_s = time.process_time()
    verified = _verify_most_likely(encoder, patches, vectors.reference_patches, owners, nearest, candidate_l2)
    verification_count = len(verified.original_verifications) + len(verified.other_score)
    ms_per_verification = (time.process_time() - started_s) * 1e3 / verification_count
    scores = np.full(nearest.l2.shape, -np.inf, np.float32)
    scores[np.arange(len(copies)), verified.other] = verified.other_score
    others_copy, rank = np.nonzero(nearest.l2 <= candidate_l2)
    return PairScores(
        nearest.pair_count,
        nearest.original_l2.reshape(kinds, count),
        verified.original_score.reshape(kinds, count),
        nearest.l2[others_copy, rank],
        scores[others_copy, rank],
        others_copy,
        nearest.reference[others_copy, rank],
        verified.original_verifications,
        ms_per_verification,
        _score_regions(vectors, owners, inside, duplicates, encoder, candidate_l2),
    )


def _score_regions(
    vectors: Vectors,
    owners: Indexes,
    inside: Indexes,
    duplicates: Mapping[int, set[int]],
    encoder: OnnxEncoder,
    candidate_l2: float,
) -> RegionScores:
    """Verify the regions of copies, whose originals are `owners` [K * N], with `inside` [K * N] mixed in."""
    assert vectors.region_vectors is not None  # noqa: S101 (they come with local features)
    assert vectors.region_copy is not None  # noqa: S101
    assert vectors.region_patches is not None  # noqa: S101
    assert vectors.reference_patches is not None  # noqa: S101
    owners, inside = owners[vectors.region_copy], inside[vectors.region_copy]
    nearest = _nearest_references(vectors.references, vectors.region_vectors, owners, inside, duplicates)
    verified = _verify_most_likely(
        encoder, vectors.region_patches, vectors.reference_patches, owners, nearest, candidate_l2
    )
    chosen = np.arange(len(owners)), verified.other
    return RegionScores(
        vectors.region_copy,
        nearest.original_l2,
        verified.original_score,
        nearest.reference[chosen],
        nearest.l2[chosen],
        verified.other_score,
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
        cosines = references @ queries[query]
        original_cosine = cosines[owner]
        left_out = [owner, other, *duplicates.get(owner, ()), *duplicates.get(other, ())]
        cosines[left_out] = -2.0
        pair_count += len(cosines) - len(set(left_out))
        original_rank[query] = (cosines > original_cosine).sum()
        nearest = np.argpartition(-cosines, MAX_CANDIDATES)[:MAX_CANDIDATES]
        reference[query] = nearest[np.argsort(-cosines[nearest], kind="stable")]
        original_l2[query], l2[query] = distance(original_cosine), distance(cosines[reference[query]])
    return _NearestReferences(original_l2, original_rank, reference, l2, pair_count)


class _Verified(NamedTuple):
    """Verifications of Q queries with their originals, and of each with the most likely other reference.

    `original_score` [Q] is -inf where the original is not the candidate that is verified. `other` [Q] is the place of
    the other reference among the nearest.
    """

    original_verifications: list[Verification]
    original_score: Floats
    other: Indexes
    other_score: Floats


def _verify_most_likely(
    encoder: OnnxEncoder,
    patches: Patches,
    references: Patches,
    owners: Indexes,
    nearest: _NearestReferences,
    radius_l2: float,
) -> _Verified:
    """Verify, as the service does where all candidates are beyond the threshold, the most likely one within a radius.

    The other reference is verified as if the original were not in the window.
    """
    original_likelihood = encoder.candidate_scores(patches, references[owners], nearest.original_l2)
    likelihoods = [
        encoder.candidate_scores(patches, references[nearest.reference[:, k]], nearest.l2[:, k])
        for k in range(MAX_CANDIDATES)
    ]
    others = np.where(nearest.l2 <= radius_l2, np.stack(likelihoods, axis=1), -np.inf)
    originals, other = encoder.verify(patches, references[owners]), others.argmax(axis=1)
    strangers = encoder.verify(patches, references[nearest.reference[np.arange(len(patches)), other]])
    original_score, other_score = (
        np.array([verification.score for verification in verifications], np.float32)
        for verifications in (originals, strangers)
    )
    # An original among the nearest takes the place of the farthest of the others.
    is_candidate = nearest.original_rank < MAX_CANDIDATES
    original_score[~is_candidate | (others[:, :-1].max(axis=1) >= original_likelihood)] = -np.inf
    return _Verified(originals, original_score, other, other_score)
