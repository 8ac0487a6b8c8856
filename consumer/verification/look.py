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
from consumer.verification.agreement import agreement, blankness, structure
from consumer.verification.features import PAIRS_AT_ONCE, Geometry, match_features
from consumer.verification.measures import MEASURES, Pictures, columns_of, measure
from consumer.verification.registration import register
from consumer.verification.result import Verification
from consumer.verification.search import search

Floats = NDArray[np.float32]

# Pictures as near as this are searched for each other by their pixels where features agree on no more than chance.
MAX_LOST_L2, MAX_LOST_INLIERS = 1.0, 14
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
    columns, rotation_maps = columns_of(rule.measures), rule.rotation_maps
    verifications: list[Verification] = []
    for start in range(0, len(uploads), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        looked = look(uploads[part], candidates[part], l2[part], rotation_maps)
        scores = rule.trees.scores(looked.measures[:, columns])
        verifications += [
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
    return verifications


def look(uploads: Sequence[Features], candidates: Sequence[Features], l2: Floats, rotation_maps: Floats | None) -> Look:
    """Compare each upload with the candidate beside it, M pairs at once."""
    geometry = match_features(
        np.stack([each.patches for each in uploads]), np.stack([each.patches for each in candidates]), rotation_maps
    )
    upload_levels, candidate_levels = (
        np.stack([each.thumbnail.levels for each in pictures]) for pictures in (uploads, candidates)
    )
    upload_pixels, candidate_pixels = (levels.astype(np.float32) for levels in (upload_levels, candidate_levels))
    upload_content, candidate_content = (_content(each) for each in (uploads, candidates))
    upload_frames, candidate_frames = _frames(upload_content), _frames(candidate_content)
    inverse = np.linalg.inv(candidate_frames)
    by_features = _between(inverse, geometry.transforms, upload_frames)
    unmoved = np.broadcast_to(IDENTITY, by_features.shape)
    starts = [by_features, unmoved, _between(inverse, IDENTITY[None], upload_frames)]
    lost = (geometry.inliers < MAX_LOST_INLIERS) & (l2 < MAX_LOST_L2)
    if lost.any():
        found = unmoved.copy()
        found[lost] = search(upload_pixels[lost], candidate_pixels[lost])
        starts.append(found)
    registration = register(upload_pixels, candidate_pixels, np.stack(starts, axis=1))
    agreed = agreement(upload_pixels, candidate_pixels, registration.transforms)
    measures = measure(
        l2,
        geometry,
        np.abs(registration.transforms - by_features).max(axis=(1, 2)),
        registration,
        agreed,
        Pictures(upload_content, _aspects(uploads), structure(upload_pixels), blankness(upload_levels)),
        Pictures(candidate_content, _aspects(candidates), structure(candidate_pixels), blankness(candidate_levels)),
    )
    transforms = _between(candidate_frames, registration.transforms, np.linalg.inv(upload_frames))
    return Look(transforms, geometry, measures)


def _content(pictures: Sequence[Features]) -> Floats:
    """Stack where the thumbnails were cut out: float32 [M, 4]."""
    return np.array([each.thumbnail.content for each in pictures], np.float32)


def _aspects(pictures: Sequence[Features]) -> Floats:
    """List the width over the height of each picture: float32 [M]."""
    return np.array([each.thumbnail.aspect for each in pictures], np.float32)


def _frames(content: Floats) -> Floats:
    """Make the maps [M, 3, 3] from places in the thumbnails of `content` [M, 4] to places in the whole pictures."""
    frames = np.zeros((len(content), 3, 3), np.float32)
    frames[:, 0, 0], frames[:, 1, 1] = content[:, 2] - content[:, 0], content[:, 3] - content[:, 1]
    frames[:, 0, 2], frames[:, 1, 2], frames[:, 2, 2] = content[:, 0], content[:, 1], 1
    return frames


def _between(after: Floats, transforms: Floats, before: Floats) -> Floats:
    """Put maps [M, 3, 3] after and before transformations [M, 2, 3]: [M, 2, 3]."""
    moved: Floats = after[:, :2, :2] @ (transforms @ before)
    moved[:, :, 2] += after[:, :2, 2]
    return moved
