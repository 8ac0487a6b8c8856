"""The numbers that a look at two pictures gives, by which a learned rule tells copies from look-alikes.

Beside how well both agree, they tell how plausible the transformation is: strangers are stretched along one side and
turned by a few degrees until they fit, copies are zoomed and cropped and keep their proportions.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Misconfigured
from consumer.images.thumbnail import Thumbnail
from consumer.verification.agreement import Agreement, blankness, structure
from consumer.verification.features import Geometry
from consumer.verification.registration import Registration

Floats = NDArray[np.float32]

# Their order is that of the columns: first what local features tell, then what pixels do. Models name those that their
# rule asks for.
FEATURE_MEASURES = (
    "l2",
    "inliers",
    "trust",
    "similarity",
    "match_weight",
    "inlier_weight",
    "upload_rarity",
    "match_rarity",
)
PIXEL_MEASURES = (
    "correlation",
    "contained",
    "overlap",
    "moved",
    "fine",
    *(
        f"{blocks}_blocks_{part}"
        for blocks in ("small", "large", "shared")
        for part in ("mean", "q10", "q25", "q50", "q75")
    ),
    "stretch",
    "stretch_in_frame",
    "rotation_deg",
    "log_area",
    "aspect_change",
    "upload_structure",
    "match_structure",
    "upload_blankness",
    "match_blankness",
    "upload_content",
    "match_content",
)
MEASURES = FEATURE_MEASURES + PIXEL_MEASURES


def columns_of(names: Sequence[str]) -> list[int]:
    """Find the columns of measures. Raises Misconfigured for a name that is none."""
    unknown = sorted(set(names) - set(MEASURES))
    if unknown:
        raise Misconfigured(f"The model's rule asks for {', '.join(unknown)}, which this version does not measure")
    return [MEASURES.index(name) for name in names]


class Thumbnails:
    """What is compared of M pictures: all float32.

    `pixels` [M, side, side] are their thumbnails' levels, `frames` [M, 3, 3] the maps from places in the thumbnails to
    places in the whole pictures. `content_area` and `content_aspect` [M] are of what the thumbnails show, `structure`
    and `blankness` [M] those of `agreement`.
    """

    def __init__(self, thumbnails: Sequence[Thumbnail]) -> None:
        levels = np.stack([each.levels for each in thumbnails])
        content = np.array([each.content for each in thumbnails], np.float32)
        size = content[:, 2:] - content[:, :2]
        self.pixels: Floats = levels.astype(np.float32)
        self.frames = np.zeros((len(content), 3, 3), np.float32)
        self.frames[:, 0, 0], self.frames[:, 1, 1], self.frames[:, :2, 2] = size[:, 0], size[:, 1], content[:, :2]
        self.frames[:, 2, 2] = 1
        self.content_area: Floats = size[:, 0] * size[:, 1]
        aspect = np.array([each.aspect for each in thumbnails], np.float32)
        self.content_aspect: Floats = aspect * size[:, 0] / size[:, 1]
        self.structure, self.blankness = structure(self.pixels), blankness(levels)


def feature_measures(l2: Floats, geometry: Geometry) -> Floats:
    """Put together what the local features of M pairs tell: [M, FEATURE_MEASURES]."""
    columns = [
        l2,
        geometry.inliers,
        geometry.trust,
        geometry.similarity,
        geometry.match_weight,
        geometry.inlier_weight,
        geometry.upload_rarity,
        geometry.candidate_rarity,
    ]
    return np.stack(columns, axis=1, dtype=np.float32)


def pixel_measures(
    moved: Floats, registration: Registration, agreement: Agreement, uploads: Thumbnails, candidates: Thumbnails
) -> Floats:
    """Put together what the thumbnails of M pairs tell: [M, PIXEL_MEASURES].

    `moved` [M] is how far registration moved the upload from where its features lay, in sides of the candidate.
    """
    columns = [
        registration.correlation,
        registration.contained,
        agreement.overlap,
        np.minimum(moved, 1),
        agreement.fine,
        *agreement.small_blocks.T,
        *agreement.large_blocks.T,
        *agreement.shared_blocks.T,
        *_plausibility(registration.transforms[:, :, :2], uploads.content_aspect, candidates.content_aspect),
        uploads.structure,
        candidates.structure,
        uploads.blankness,
        candidates.blankness,
        uploads.content_area,
        candidates.content_area,
    ]
    return np.stack(columns, axis=1, dtype=np.float32)


def _plausibility(linear: Floats, upload_aspect: Floats, candidate_aspect: Floats) -> tuple[Floats, ...]:
    """Compute from linear maps [M, 2, 2] of squashed pictures how plausible they are, [M] each.

    These are the stretch of the pictures in their true proportions, and as squashed (log of the longer over the shorter
    axis), the angle to the nearest quarter turn, the log of the area, and by how much the proportions differ.
    """
    quarter = np.abs(linear[:, 0, 1]) + np.abs(linear[:, 1, 0]) > np.abs(linear[:, 0, 0]) + np.abs(linear[:, 1, 1])
    candidate_sides = np.stack([np.sqrt(candidate_aspect), 1 / np.sqrt(candidate_aspect)], axis=1)
    upload_sides = np.stack([np.sqrt(upload_aspect), 1 / np.sqrt(upload_aspect)], axis=1)
    true = linear * candidate_sides[:, :, None] / upload_sides[:, None, :]
    upright_aspect = np.where(quarter, 1 / upload_aspect, upload_aspect)
    return (
        _stretch(true),
        _stretch(linear),
        _degrees_off_quarter_turns(true),
        np.log(np.maximum(np.abs(np.linalg.det(linear)), 1e-4)),
        np.abs(np.log(upright_aspect / candidate_aspect)),
    )


def _stretch(linear: Floats) -> Floats:
    """Compute the log of the larger over the smaller singular value of maps [M, 2, 2]: [M]."""
    squares = np.einsum("mij,mij->m", linear, linear)
    determinant = np.linalg.det(linear)
    root = np.sqrt(np.maximum(squares * squares - 4 * determinant * determinant, 0))
    stretch: Floats = 0.5 * np.log(np.maximum(squares + root, 1e-6) / np.maximum(squares - root, 1e-6))
    return stretch


def _degrees_off_quarter_turns(linear: Floats) -> Floats:
    """Compute the angle between the rotation in maps [M, 2, 2], mirrored or not, and the nearest quarter turn: [M]."""
    sign = np.where(np.linalg.det(linear) < 0, -1, 1)
    sine, cosine = sign * linear[:, 1, 0] - linear[:, 0, 1], sign * linear[:, 0, 0] + linear[:, 1, 1]
    angle = np.degrees(np.arctan2(sine, cosine)) % 90
    off: Floats = np.minimum(angle, 90 - angle)
    return off
