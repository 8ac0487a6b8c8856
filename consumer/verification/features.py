"""Match the local features of two pictures, and find the transformation that most matches agree on.

Local features of both pictures, from the encoder's forward pass, are matched as mutual nearest neighbours by cosine
similarity. The transformation that most matches agree on is then tested on all features: where it lays one upon
another, their descriptors have to be similar. Features without detail never vote.

A network describes a picture and the same picture rotated by a quarter turn with different descriptors, which a linear
map takes to each other (Lenc and Vedaldi, Understanding image representations by measuring their equivariance and
equivalence, 2015).
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.verification.consensus import FEATURE_RADIUS, Correspondences, areas, find_consensus, squared_tolerance

Floats = NDArray[np.float32]
Int8s = NDArray[np.int8]
Indexes = NDArray[np.intp]

PAIRS_AT_ONCE = 32  # pairs of pictures compared together: what they take stays in the processor's cache

MIN_COSINE = 0.45  # cosine similarity of two features that may match
L2_WEIGHT = 20.0  # weight of matches that makes up for an L2 distance of one
MAX_VOTES = 32  # matches that vote on the transformation, the best first
SEARCH_RADIUS = 0.1  # around a projected feature, in which the most similar one is looked for, at one to one scale
NEUTRAL_COSINE = 0.3  # at which two features speak neither for nor against a copy, unless such a cosine is usual
HALF_TRUST_INLIERS = 16.0  # inliers that give half of the trust which very many give, where the whole pictures meet
MIN_ROTATION_GAIN = 1.03  # in matches, for an upload to be tried as rotated: slightly more match by chance


class Geometry(NamedTuple):
    """How the local features of M uploads lie upon those of their candidates.

    `transforms` float32 [M, 2, 3] take places (x, y, 1) in the upload to places in the candidate, both as fractions of
    width and height. `links` are the inliers of each pair, float32 [inliers, 4]: x, y in the upload and x, y in the
    candidate. All others are float32 [M]: `inliers` is their number, `trust` how far that many may be trusted, 0 to 1,
    `similarity` how similar the features are that lie on each other, 0 to 1, `match_weight` and `inlier_weight` the
    weights of all matches and of the inliers, and the `rarity` of a picture the mean of that of its features.
    """

    transforms: Floats
    links: list[Floats]
    inliers: Floats
    trust: Floats
    similarity: Floats
    match_weight: Floats
    inlier_weight: Floats
    upload_rarity: Floats
    candidate_rarity: Floats

    @classmethod
    def concatenate(cls, parts: Sequence["Geometry"]) -> "Geometry":
        """Join the parts of several calls, in order."""
        transforms, links, *others = zip(*parts, strict=True)
        return cls(np.concatenate(transforms), list(chain.from_iterable(links)), *map(np.concatenate, others))


class _Features(NamedTuple):
    """The P local features of each of M pictures.

    `descriptors` [M, P, C - 2] are whole numbers, whose products are exact on every processor, so that equal features
    are equally similar. Times `scale` [M, P] they have unit length; they are zero where `valid` [M, P] is 0 instead of
    1. `keypoints` [M, P, 2] are their places (x, y) in 0..1. `neighbours` [M, P, P] is 1 for two features so close
    that they see much the same, else 0. `rarity` [M, P] is 1 for a feature unlike all others of its picture, and less
    for one of many: grass, bricks, letters.
    """

    descriptors: Floats
    scale: Floats
    keypoints: Floats
    valid: Floats
    neighbours: Floats
    rarity: Floats


def candidate_scores(uploads: Int8s, candidates: Int8s, l2: Floats) -> Floats:
    """Score how likely each candidate, local features int8 [M, P, C], shows what the upload beside it shows: [M].

    The scores rank the candidates of one upload, at far less than the cost of a look, by the number and similarity of
    matching features, wherever these are, and by the distances `l2` [M] of the embeddings.
    """
    scores = np.empty(len(uploads), np.float32)
    for start in range(0, len(uploads), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        (upload, upload_scale, _), (candidate, candidate_scale, _) = (
            _descriptors(patches[part]) for patches in (uploads, candidates)
        )
        # Scaled before they are multiplied, which is cheaper: a rank needs no exact products.
        upload *= upload_scale[..., None]
        candidate *= candidate_scale[..., None]
        _, weight = _mutual_nearest_neighbours(upload @ candidate.transpose(0, 2, 1))
        scores[part] = weight.sum(axis=1) - L2_WEIGHT * l2[part]
    return scores


def match_features(uploads: Int8s, candidates: Int8s, rotation_maps: Floats | None = None) -> Geometry:
    """Match each upload with the candidate beside it, both local features int8 [M, P, C].

    Of the C channels the last two are the keypoint (x, y) in 1/128 of half the side from the middle, the others a
    descriptor of any scale, all zero for features that show too little. `rotation_maps` float32 [T, C - 2, C - 2] take
    descriptors of rotated pictures to upright ones: the transformation may then be a quarter turn as well.
    """
    upload, candidate = _features(uploads), _features(candidates)
    cosines = _cosines(upload.descriptors, upload.scale, candidate.descriptors, candidate.scale)
    _leave_out_invalid(cosines, upload.valid, candidate.valid)
    pairs = np.arange(len(cosines))
    if rotation_maps is not None:
        rotated, rotated_cosines = _undo_rotations(upload, candidate, cosines, rotation_maps)
        pairs, cosines = np.concatenate([pairs, rotated]), np.concatenate([cosines, rotated_cosines])
    matches = _match(upload, candidate, cosines, pairs)
    transforms, inliers = find_consensus(matches)
    similarity = _projected_similarity(upload, candidate, cosines, pairs, transforms)
    count = inliers.sum(axis=1, dtype=np.float32)
    trust = _trust(count, transforms)
    best = _best_of_each(pairs, similarity * trust)
    links = np.concatenate([matches.source, matches.target], axis=2)
    return Geometry(
        transforms[best],
        [links[each][inliers[each]] for each in best.tolist()],
        count[best],
        trust[best],
        similarity[best],
        matches.weight[best].sum(axis=1),
        (matches.weight[best] * inliers[best]).sum(axis=1),
        upload.rarity.mean(axis=1),
        candidate.rarity.mean(axis=1),
    )


def _best_of_each(pairs: Indexes, scores: Floats) -> Indexes:
    """Choose for each pair of pictures, of the looks that `pairs` tell, the one of the highest score, or the first."""
    best = np.arange(int(pairs.max()) + 1)
    for look in range(len(best), len(pairs)):
        if scores[look] > scores[pairs[look]]:
            best[pairs[look]] = look
    return best


def _trust(inliers: Floats, transforms: Floats) -> Floats:
    """Tell how far to trust M transformations [M, 2, 3] by their numbers of `inliers` [M]: [M], 0 to 1.

    Where little can meet, as between a picture and a small part of it, fewer inliers are enough.
    """
    area = areas(transforms)
    size = np.minimum(area, 1 / np.maximum(area, 1e-6))
    saturation: Floats = np.maximum(inliers + HALF_TRUST_INLIERS * np.sqrt(size), 1)
    trust: Floats = np.divide(inliers, saturation)
    return trust


def _features(patches: Int8s) -> _Features:
    """Read the local features in `patches` [M, P, C]."""
    descriptors, scale, valid = _descriptors(patches)
    keypoints = patches[..., -2:].astype(np.float32)
    keypoints += 128
    keypoints /= 256
    neighbours = (_squared_distances(keypoints, keypoints) <= FEATURE_RADIUS**2).astype(np.float32)
    unit = descriptors * scale[..., None]
    cosines = unit @ unit.transpose(0, 2, 1)
    return _Features(descriptors, scale, keypoints, valid, neighbours, _rarity(cosines, neighbours))


def _descriptors(patches: Int8s) -> tuple[Floats, Floats, Floats]:
    """Read descriptors [M, P, C - 2], what scales them to unit length, and their validity, [M, P] each."""
    descriptors = patches[..., :-2].astype(np.float32)
    length = np.sqrt(np.einsum("mpc,mpc->mp", descriptors, descriptors))
    return descriptors, 1 / np.maximum(length, 1), (length > 0).astype(np.float32)


def _cosines(upload: Floats, upload_scale: Floats, candidate: Floats, candidate_scale: Floats) -> Floats:
    """Compute cosines [M, P, P] of all descriptors of two pictures."""
    cosines: Floats = upload @ candidate.transpose(0, 2, 1)
    cosines *= upload_scale[:, :, None]
    cosines *= candidate_scale[:, None]
    return cosines


def _leave_out_invalid(cosines: Floats, upload_valid: Floats, candidate_valid: Floats) -> None:
    """Lower cosines [M, P, P] to -1 or less where one of both features is not valid."""
    cosines += (upload_valid - 1)[:, :, None]
    cosines += (candidate_valid - 1)[:, None]


def _undo_rotations(
    upload: _Features, candidate: _Features, cosines: Floats, rotation_maps: Floats
) -> tuple[Indexes, Floats]:
    """Choose the pairs, of those with `cosines`, whose upload is to be tried as rotated: their indexes and new cosines.

    These are the pairs of which more features match after one of the rotations is undone, and the rotation is the one
    after which most match.
    """
    upright = upload.descriptors @ rotation_maps[:, None]
    upright /= np.maximum(np.sqrt(np.einsum("tmpc,tmpc->tmp", upright, upright)), 1e-6)[..., None]
    rotated = upright @ (candidate.descriptors * candidate.scale[..., None]).transpose(0, 2, 1)
    strength = np.stack([_match_strength(each) for each in rotated])
    m = np.flatnonzero(strength.max(axis=0) > MIN_ROTATION_GAIN * _match_strength(cosines))
    chosen = rotated[strength[:, m].argmax(axis=0), m]
    _leave_out_invalid(chosen, upload.valid[m], candidate.valid[m])
    return m, chosen


def _match_strength(cosines: Floats) -> Floats:
    """Sum up, over the candidate's features, the cosine of the best match of each above the least allowed: [M]."""
    strength: Floats = np.maximum(cosines.max(axis=1) - MIN_COSINE, 0).sum(axis=1)
    return strength


def _match(upload: _Features, candidate: _Features, cosines: Floats, pairs: Indexes) -> Correspondences:
    """Match mutual nearest neighbours; a match weighs more the more similar and the rarer its features are."""
    m = np.arange(len(cosines))[:, None]
    nearest, weight = _mutual_nearest_neighbours(cosines)
    weight *= np.sqrt(upload.rarity[pairs] * candidate.rarity[pairs[:, None], nearest])
    sources = np.argsort(-weight, axis=1, kind="stable")[:, :MAX_VOTES]
    targets = nearest[m, sources]
    return Correspondences(
        _interpolated_keypoints(cosines[m, :, targets], upload, pairs, sources),
        _interpolated_keypoints(cosines[m, sources], candidate, pairs, targets),
        weight[m, sources],
    )


def _mutual_nearest_neighbours(cosines: Floats) -> tuple[Indexes, Floats]:
    """Find each upload feature's nearest one of the candidate, and the weight of the match: [M, P] each.

    The weight is 0 unless both are each other's nearest; of several as near, each is.
    """
    nearest = cosines.argmax(axis=2)
    cosine = np.take_along_axis(cosines, nearest[..., None], 2)[..., 0]
    mutual = (cosine == np.take_along_axis(cosines.max(axis=1), nearest, 1)) & (cosine > MIN_COSINE)
    return nearest, mutual * (cosine - MIN_COSINE / 2)


def _rarity(cosines: Floats, neighbours: Floats) -> Floats:
    """Tell from its cosines with all others how rare each feature of a picture is, see `_Features`: [M, P], 0 to 1."""
    similarity = cosines - np.float32(0.4)
    np.maximum(similarity, 0, out=similarity)
    elsewhere = np.einsum("mpq,mpq->mp", similarity, 1 - neighbours)
    rarity: Floats = 1 / (1 + elsewhere / 0.6)
    return rarity


def _squared_distances(a: Floats, b: Floats) -> Floats:
    """Compute squared distances [M, A, B] of places `a` [M, A, 2] and `b` [M, B, 2]."""
    a_squared, b_squared = (np.einsum("mpi,mpi->mp", places, places)[..., None] for places in (a, b))
    # |a - b|^2 as one product, of (a, |a|^2, 1) and (-2 b, 1, |b|^2).
    left = np.concatenate([a, a_squared, np.ones_like(a_squared)], axis=2)
    right = np.concatenate([-2 * b, np.ones_like(b_squared), b_squared], axis=2)
    squared: Floats = left @ right.transpose(0, 2, 1)
    return squared


def _interpolated_keypoints(cosines: Floats, features: _Features, pairs: Indexes, chosen: Indexes) -> Floats:
    """Place the `chosen` features [L, V] between the cells of the grid, each at the mean of its similar neighbours.

    `cosines` [L, V, P] are those of the features that they match with all `features` of their pictures.
    """
    best = np.take_along_axis(cosines, chosen[..., None], 2)
    weight = np.maximum(cosines - (best - 0.35), 0)
    weight *= weight
    weight *= features.neighbours[pairs[:, None], chosen]
    mean: Floats = weight @ features.keypoints[pairs] / weight.sum(axis=2, keepdims=True)
    return mean


def _projected_similarity(
    upload: _Features, candidate: _Features, cosines: Floats, pairs: Indexes, transforms: Floats
) -> Floats:
    """Tell how similar the features are that `transforms` [L, 2, 3] lay on each other: [L], 0 to 1.

    Every feature of one lawn is similar to every feature of another lawn: what counts is how much more similar a
    feature is to those in its place than to all.
    """
    projected = upload.keypoints[pairs] @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, None, :, 2]
    inside = ((projected > 0) & (projected < 1)).all(axis=2)
    tolerance = squared_tolerance(SEARCH_RADIUS, areas(transforms))[:, None, None]
    too_far = _squared_distances(projected, candidate.keypoints[pairs]) >= tolerance
    best = (cosines - 3 * too_far.astype(np.float32)).max(axis=2)  # of what is too far, -2 and some rounding at most
    compared = inside & (best > -1)
    valid_count = candidate.valid.sum(axis=1)[pairs, None]
    # The mean of the valid ones: each of the others counts as -1.
    usual = (cosines.sum(axis=2) + (candidate.valid.shape[1] - valid_count)) / np.maximum(valid_count, 1)
    usual = np.clip(usual, NEUTRAL_COSINE, 0.95)
    total = np.where(compared, (best - usual) / (1 - usual), 0).sum(axis=1)
    similarity: Floats = np.clip(total / np.maximum(compared.sum(axis=1), 4), 0, 1)
    return similarity
