"""A second look: compare an upload with a candidate by local features, then by thumbnails laid upon each other.

Features say where, pixels say whether. What both find is put into numbers (`verification.measures`), from which the
model's rule, boosted trees that were fitted to copies and look-alikes, makes the score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import VerificationRule
from consumer.encoder.views import Features
from consumer.verification.agreement import agreement
from consumer.verification.features import PAIRS_AT_ONCE, Geometry, match_features
from consumer.verification.measures import (
    FEATURE_MEASURES,
    MEASURES,
    Thumbnails,
    columns_of,
    feature_measures,
    pixel_measures,
)
from consumer.verification.registration import register
from consumer.verification.result import Verification
from consumer.verification.search import search, turned

Floats = NDArray[np.float32]

# Pictures as near as this are searched for each other by their pixels where features agree on no more than chance.
MAX_LOST_L2, MAX_LOST_INLIERS = 1.0, 14
# Farther ones are not compared by pixels unless their features are as similar as this, times the trust in them: 3 in 5
# strangers are not, and 1 in 500 of the copies that pixels would have verified.
MIN_FAR_SIMILARITY = 0.12
IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


class Look(NamedTuple):
    """What was found on M pairs: `transforms` float32 [M, 2, 3] between whole pictures, and the `measures` [M, F]."""

    transforms: Floats
    geometry: Geometry
    measures: Floats


def verify(
    uploads: Sequence[Features], candidates: Sequence[Features], l2: Floats, rule: VerificationRule
) -> list[Verification]:
    """Verify each upload against the candidate beside it; `l2` [M] are the distances of their vectors.

    Raises Misconfigured for a rule that asks for measures that a look does not take.
    """
    columns = columns_of(rule.measures)
    if not uploads:
        return []
    looked = look(uploads, candidates, l2, rule.rotation_maps)
    scores = rule.trees.scores(looked.measures[:, columns])
    return [
        Verification(score, int(inliers), transform, links, dict(zip(MEASURES, measures, strict=True)))
        for score, inliers, transform, links, measures in zip(
            scores.tolist(),
            looked.geometry.inliers.tolist(),
            looked.transforms,
            looked.geometry.links,
            looked.measures.tolist(),
            strict=True,
        )
    ]


def look(uploads: Sequence[Features], candidates: Sequence[Features], l2: Floats, rotation_maps: Floats | None) -> Look:
    """Compare each of M uploads, one at least, with the candidate beside it.

    Pairs that are far and whose features hardly agree are not laid upon each other: all that pixels would tell is 0.
    The few of many pairs that are, are so together: half of what one takes by itself is numpy's calls.
    """
    geometry = Geometry.concatenate(
        [
            match_features(
                np.stack([each.patches for each in uploads[part]]),
                np.stack([each.patches for each in candidates[part]]),
                rotation_maps,
            )
            for part in _parts(len(l2))
        ]
    )
    transforms = geometry.transforms.copy()
    measures = np.zeros((len(l2), len(MEASURES)), np.float32)
    measures[:, : len(FEATURE_MEASURES)] = feature_measures(l2, geometry)
    is_near = l2 < MAX_LOST_L2
    worthwhile = np.flatnonzero(is_near | (geometry.similarity * geometry.trust >= MIN_FAR_SIMILARITY))
    for part in _parts(len(worthwhile)):
        rows = worthwhile[part]
        transforms[rows], measures[rows, len(FEATURE_MEASURES) :] = _compare_pixels(
            Thumbnails([uploads[m].thumbnail for m in rows.tolist()]),
            Thumbnails([candidates[m].thumbnail for m in rows.tolist()]),
            geometry.transforms[rows],
            is_near[rows] & (geometry.inliers[rows] < MAX_LOST_INLIERS),
        )
    return Look(transforms, geometry, measures)


def _parts(count: int) -> list[slice]:
    """Divide so many pairs into those that are compared at once."""
    return [slice(start, start + PAIRS_AT_ONCE) for start in range(0, count, PAIRS_AT_ONCE)]


def _compare_pixels(
    uploads: Thumbnails, candidates: Thumbnails, transforms: Floats, lost: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Lay thumbnails upon each other, from the `transforms` [M, 2, 3] of features: the better ones, and the measures.

    Where features are `lost` [M], one is also searched for in the other.
    """
    inverse = np.linalg.inv(candidates.frames)
    by_features = _between(inverse, transforms, uploads.frames)
    unmoved = np.broadcast_to(IDENTITY, by_features.shape)
    starts = [
        by_features,
        unmoved,
        _between(inverse, IDENTITY[None], uploads.frames),
        turned(uploads.pixels, candidates.pixels),
    ]
    if lost.any():
        found = unmoved.copy()
        found[lost] = search(uploads.pixels[lost], candidates.pixels[lost])
        starts.append(found)
    registration = register(uploads.pixels, candidates.pixels, np.stack(starts, axis=1))
    agreed = agreement(uploads.pixels, candidates.pixels, registration.transforms)
    moved = np.abs(registration.transforms - by_features).max(axis=(1, 2))
    measures = pixel_measures(moved, registration, agreed, uploads, candidates)
    return _between(candidates.frames, registration.transforms, np.linalg.inv(uploads.frames)), measures


def _between(after: Floats, transforms: Floats, before: Floats) -> Floats:
    """Put maps [M, 3, 3] after and before transformations [M, 2, 3]: [M, 2, 3]."""
    moved: Floats = after[:, :2, :2] @ (transforms @ before)
    moved[:, :, 2] += after[:, :2, 2]
    return moved
