"""The second look: do two pictures show the same, part upon part, and which edit leads from one to the other?

Local features of both, from the encoder's forward pass, are paired off by mutual nearest neighbours. The transformation
that most pairs agree on is put to the test on all features: where it lays one upon another, they have to look alike.
Features without detail never vote. Where they do look alike, thumbnails of both are laid upon each other as well.

A network sees a picture and the same picture turned by a quarter with other features, that a linear map takes to each
other (Lenc and Vedaldi, Understanding image representations by measuring their equivariance and equivalence, 2015).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.patches import split_features, unpack_thumbnails
from consumer.verification.consensus import FEATURE_RADIUS, Correspondences, areas, find_consensus, squared_tolerance
from consumer.verification.registration import register
from consumer.verification.result import Verification

Floats = NDArray[np.float32]
Indexes = NDArray[np.intp]

PAIRS_AT_ONCE = 32  # pairs of pictures looked at together: what they take stays in the processor's cache

MIN_COSINE = 0.45  # of two features that may be a pair
L2_WEIGHT = 20.0  # features that find their like make up for a distance of one
MAX_VOTES = 32  # pairs that vote on the transformation, the best first
SEARCH_RADIUS = 0.1  # in which a feature laid upon the other picture looks for its like, for one to one scale
NEUTRAL_COSINE = 0.3  # cosine at which two features speak neither for nor against a copy, unless such are usual
HALF_TRUST_INLIERS = 16.0  # inliers that give half of the trust which very many give, where the whole pictures meet
MIN_ROTATION_GAIN = (
    1.03  # times as many features have to find their like in a turned picture: a few more do so by chance
)
MIN_ALIGN_SCORE = 0.1  # score with which pictures are laid upon each other
UNCORRELATED_SCORE_SHARE = (
    1 / 3
)  # what is left of the score where they do not agree at all: of a copy half covered, say
CORRELATION_EXPONENT = 8  # at a correlation of 0.9 they agree by half


class _Features(NamedTuple):
    """`descriptors` [M, P, C - 2] of unit length, `places` [M, P, 2] in 0..1.

    `seen` [M, P] is 1 where there is one, else 0. `near` [M, P, P] is 1 for two that see much the same, else 0.
    `rarity` [M, P] is one for a feature like no other in its picture, less for one of many: grass, bricks, letters.
    """

    descriptors: Floats
    places: Floats
    seen: Floats
    near: Floats
    rarity: Floats


def candidate_scores(
    uploads: NDArray[np.int8], candidates: NDArray[np.int8], l2: Floats, thumbnail_side: int = 0
) -> Floats:
    """How much each candidate [M, P, C] promises to be what the upload beside it shows, for less than a look: [M].

    It tells the candidates of one upload apart, by how many features find their like, wherever that is, and how much
    alike those are, and by the distances `l2` [M] of their vectors.
    """
    promises = np.empty(len(uploads), np.float32)
    for start in range(0, len(uploads), PAIRS_AT_ONCE):
        upload, candidate = (
            _descriptors(split_features(patches[start : start + PAIRS_AT_ONCE], thumbnail_side))[0]
            for patches in (uploads, candidates)
        )
        _, weight = _mutual(upload @ candidate.transpose(0, 2, 1))
        promises[start : start + PAIRS_AT_ONCE] = weight.sum(axis=1) - L2_WEIGHT * l2[start : start + PAIRS_AT_ONCE]
    return promises


def verify(
    uploads: NDArray[np.int8], candidates: NDArray[np.int8], turns: Floats | None = None, thumbnail_side: int = 0
) -> list[Verification]:
    """Look twice at each upload and the candidate beside it, both int8 [M, P, C] as the encoder's `patches`.

    Of the C channels the last two are the place (x, y) in 1/128 of half the side from the middle, the others a
    descriptor of any scale, all zero for features that show too little. With `turns` float32 [T, C - 2, C - 2], each of
    which takes descriptors of a turned picture to those of the picture as it was, uploads may have been turned. With a
    `thumbnail_side` the last rows are thumbnails, see `consumer.verification.registration`.
    """
    looks: list[Verification] = []
    for start in range(0, len(uploads), PAIRS_AT_ONCE):
        ours, theirs = uploads[start : start + PAIRS_AT_ONCE], candidates[start : start + PAIRS_AT_ONCE]
        upload, candidate = (_features(split_features(patches, thumbnail_side)) for patches in (ours, theirs))
        alike = _compare(upload.descriptors, upload.seen, candidate.descriptors, candidate.seen)
        of = np.arange(len(alike))
        if turns is not None:
            turned, alike_turned = _turned(upload, candidate, alike, turns)
            of, alike = np.concatenate([of, turned]), np.concatenate([alike, alike_turned])
        best: dict[int, Verification] = {}
        for m, look in zip(of.tolist(), _looks(upload, candidate, alike, of), strict=True):
            if m not in best or look.score > best[m].score:
                best[m] = look
        found = list(best.values())
        likely = [m for m, look in enumerate(found) if look.score >= MIN_ALIGN_SCORE]
        if thumbnail_side and likely:
            shown, there = (unpack_thumbnails(patches[likely], thumbnail_side) for patches in (ours, theirs))
            laid = _laid_upon([found[m] for m in likely], shown, there)
            for m, look in zip(likely, laid, strict=True):
                found[m] = look
        looks += found
    return looks


def _looks(upload: _Features, candidate: _Features, alike: Floats, of: Indexes) -> list[Verification]:
    """Looks by cosines [L, P, P] of features, each of one of M uploads and the candidate beside it, which `of` [L]."""
    pairs = _pair_off(upload, candidate, alike, of)
    transforms, inliers = find_consensus(pairs)
    likeness = _likeness(upload, candidate, alike, of, transforms)
    count = inliers.sum(axis=1, dtype=np.float32)
    scores = likeness * _trust(count, transforms)
    links = np.concatenate([pairs.start, pairs.end], axis=2)
    return [
        Verification(score, int(agreeing), transform, linked[agree])
        for score, agreeing, transform, linked, agree in zip(
            scores.tolist(), count.tolist(), transforms, links, inliers, strict=True
        )
    ]


def _trust(inliers: Floats, transforms: Floats) -> Floats:
    """How far M transformations [M, 2, 3] are to be trusted by the pairs that agree with them: [M], 0 to 1.

    Where little can meet, as between a picture and a small part of it, less is enough.
    """
    area = areas(transforms)
    size = np.minimum(area, 1 / np.maximum(area, 1e-6))
    asked: Floats = np.maximum(inliers + HALF_TRUST_INLIERS * np.sqrt(size), 1)
    trust: Floats = np.divide(inliers, asked)
    return trust


def _laid_upon(looks: list[Verification], uploads: Floats, candidates: Floats) -> list[Verification]:
    """The same with the transformations made finer, and scores by what the thumbnails [M, side, side] say to them."""
    rough = np.stack([look.transform for look in looks])
    laid = register(uploads, candidates, rough)
    agreement = (
        UNCORRELATED_SCORE_SHARE
        + (1 - UNCORRELATED_SCORE_SHARE) * np.maximum(laid.correlation, 0) ** CORRELATION_EXPONENT
    )
    inliers = np.array([look.inliers for look in looks], np.float32)
    scores = _trust(inliers, rough) * agreement * laid.contained
    return [
        replace(look, score=float(score), transform=transform)
        for look, score, transform in zip(looks, scores, laid.transforms, strict=True)
    ]


def _features(patches: NDArray[np.int8]) -> _Features:
    descriptors, seen = _descriptors(patches)
    places = patches[..., -2:].astype(np.float32)
    places += 128
    places /= 256
    near = (_squared(places, places) <= FEATURE_RADIUS**2).astype(np.float32)
    return _Features(descriptors, places, seen, near, _rarity(descriptors, near))


def _descriptors(patches: NDArray[np.int8]) -> tuple[Floats, Floats]:
    """Those of `_Features`, and which are seen; the others are zero."""
    descriptors = patches[..., :-2].astype(np.float32)
    length = np.sqrt(np.einsum("mpc,mpc->mp", descriptors, descriptors))
    descriptors /= np.maximum(length, 1.0)[..., None]
    return descriptors, (length > 0).astype(np.float32)


def _compare(some: Floats, seen: Floats, others: Floats, others_seen: Floats) -> Floats:
    """Cosines [M, P, P] of descriptors of both; -1 or less where one shows nothing."""
    alike: Floats = some @ others.transpose(0, 2, 1)
    alike += (seen - 1)[:, :, None]
    alike += (others_seen - 1)[:, None]
    return alike


def _turned(upload: _Features, candidate: _Features, alike: Floats, turns: Floats) -> tuple[Indexes, Floats]:
    """Which pairs, whose cosines are `alike`, to look at as if the upload had been turned, and their cosines then.

    Those of which more features find their like so, by the turn after which most do.
    """
    turned = upload.descriptors @ turns[:, None]
    turned /= np.maximum(np.sqrt(np.einsum("tmpc,tmpc->tmp", turned, turned)), 1e-6)[..., None]
    found = np.stack([_like(each @ candidate.descriptors.transpose(0, 2, 1)) for each in turned])
    m = np.flatnonzero(found.max(axis=0) > MIN_ROTATION_GAIN * _like(alike))
    return m, _compare(
        turned[found[:, m].argmax(axis=0), m], upload.seen[m], candidate.descriptors[m], candidate.seen[m]
    )


def _like(alike: Floats) -> Floats:
    """How much the features of each candidate find their like in its upload: [M], of their cosines."""
    like: Floats = np.maximum(alike.max(axis=1) - MIN_COSINE, 0).sum(axis=1)
    return like


def _pair_off(upload: _Features, candidate: _Features, alike: Floats, of: Indexes) -> Correspondences:
    """Mutual nearest neighbours; each counts the more the more alike they are and the fewer others look like them."""
    m = np.arange(len(alike))[:, None]
    nearest, weight = _mutual(alike)
    weight *= np.sqrt(upload.rarity[of] * candidate.rarity[of[:, None], nearest])
    best = np.argsort(-weight, axis=1, kind="stable")[:, :MAX_VOTES]
    there = nearest[m, best]
    return Correspondences(
        _between_cells(alike[m, :, there], upload, of, best),
        _between_cells(alike[m, best], candidate, of, there),
        weight[m, best],
    )


def _mutual(alike: Floats) -> tuple[Indexes, Floats]:
    """Of each feature of the upload its nearest in the candidate, and how alike they are if each is the other's."""
    m, rows = np.arange(len(alike))[:, None], np.arange(alike.shape[1])
    nearest = alike.argmax(axis=2)
    cosine = np.take_along_axis(alike, nearest[..., None], 2)[..., 0]
    mutual = (alike.argmax(axis=1)[m, nearest] == rows) & (cosine > MIN_COSINE)
    return nearest, mutual * (cosine - MIN_COSINE / 2)


def _rarity(descriptors: Floats, near: Floats) -> Floats:
    alike = descriptors @ descriptors.transpose(0, 2, 1)
    alike -= 0.4
    np.maximum(alike, 0, out=alike)
    elsewhere = alike.sum(axis=2) - np.einsum("mpq,mpq->mp", alike, near)
    rarity: Floats = 1 / (1 + elsewhere / 0.6)
    return rarity


def _squared(some: Floats, others: Floats) -> Floats:
    """Squared distances [M, A, B] of places [M, A, 2] and [M, B, 2]."""
    ours, theirs = (np.einsum("mpi,mpi->mp", places, places)[..., None] for places in (some, others))
    # |a - b|^2 as one product, of (a, |a|^2, 1) and (-2 b, 1, |b|^2).
    left = np.concatenate([some, ours, np.ones_like(ours)], axis=2)
    right = np.concatenate([-2 * others, np.ones_like(theirs), theirs], axis=2)
    squared: Floats = left @ right.transpose(0, 2, 1)
    return squared


def _between_cells(alike: Floats, features: _Features, of: Indexes, chosen: Indexes) -> Floats:
    """Where between the cells of the grid the like of a feature is: the middle of those around the `chosen` [L, V].

    `alike` [L, V, P] are the cosines with all `features` of the pictures.
    """
    best = np.take_along_axis(alike, chosen[..., None], 2)
    weight = np.maximum(alike - (best - 0.35), 0)
    weight *= weight
    weight *= features.near[of[:, None], chosen]
    middle: Floats = weight @ features.places[of] / weight.sum(axis=2, keepdims=True)
    return middle


def _likeness(upload: _Features, candidate: _Features, alike: Floats, of: Indexes, transforms: Floats) -> Floats:
    """How alike the features are that come to lie on each other, 0 to 1: [L].

    Of two lawns every feature of one is like every feature of the other: what counts is how much more alike a feature
    is to those in its place than to all.
    """
    laid = upload.places[of] @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, None, :, 2]
    inside = ((laid > 0) & (laid < 1)).all(axis=2)
    far = _squared(laid, candidate.places[of]) >= squared_tolerance(SEARCH_RADIUS, areas(transforms))[:, None, None]
    best = (alike - 3 * far.astype(np.float32)).max(axis=2)  # of what is far, -2 and some rounding at most
    met = inside & (best > -1)
    shown = candidate.seen.sum(axis=1)[of, None]
    usual = (alike.sum(axis=2) + (candidate.seen.shape[1] - shown)) / np.maximum(shown, 1)  # less the -1 of the others
    usual = np.clip(usual, NEUTRAL_COSINE, 0.95)
    total = np.where(met, (best - usual) / (1 - usual), 0).sum(axis=1)
    likeness: Floats = np.clip(total / np.maximum(met.sum(axis=1), 4), 0, 1)
    return likeness
