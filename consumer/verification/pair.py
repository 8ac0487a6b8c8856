"""Decide for two pictures at hand, outside any window, whether one is a copy of the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from consumer.encoder.contract import Encoded, ModelInfo, VerificationRule
from consumer.images.regions import Region
from consumer.verification.features import verify
from consumer.verification.result import Verification


@dataclass(frozen=True, slots=True)
class PairResult:
    """Tells whether an upload is a copy of an original, and which view of the upload shows it best.

    `l2` is the distance of the best view and `region_index` its place among the regions, 0 for the whole upload.
    `verification` is in coordinates of the whole upload, or None when local features or a rule for them are missing.
    """

    l2: float
    region_index: int
    duplicate: bool
    verification: Verification | None


def verify_pair(model: ModelInfo, original: Encoded, upload: Encoded, regions: Sequence[Region]) -> PairResult:
    """Compare an original (one row) with all views of an upload: the whole (row 0) and its regions, N rows.

    The upload is a duplicate if the whole of it lies within the model's threshold, or if the second look verifies any
    view. The best view is the nearest verified one, else the whole.
    """
    distances: list[float] = np.linalg.norm(original.embeddings - upload.embeddings, axis=1).tolist()
    within_threshold = distances[0] <= model.threshold_l2
    rule = model.verification_rule
    if rule is None or original.patches is None or upload.patches is None:
        return PairResult(distances[0], 0, within_threshold, None)
    originals = np.broadcast_to(original.patches, upload.patches.shape)
    verifications = verify(upload.patches, originals, rule.rotation_maps, rule.thumbnail_side)
    best = _nearest_accepted(rule, distances, verifications)
    view = 0 if best is None else best
    verification = verifications[view].in_whole_image(regions[view])
    return PairResult(distances[view], view, within_threshold or best is not None, verification)


def _nearest_accepted(
    rule: VerificationRule, distances: Sequence[float], verifications: Sequence[Verification]
) -> int | None:
    """Return the view of least distance among those that the rule accepts; None when it accepts none."""
    accepted = [
        view
        for view, (l2, verification) in enumerate(zip(distances, verifications, strict=True))
        if rule.accepts(l2, verification.score)
    ]
    return min(accepted, key=distances.__getitem__, default=None)
