"""Decide for two pictures at hand, outside any window, whether one is a copy of the other."""

from dataclasses import dataclass

import numpy as np

from consumer.encoder.contract import ModelInfo, Strictness
from consumer.encoder.views import EncodedViews
from consumer.verification.look import verify
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


def verify_pair(
    model: ModelInfo, original: EncodedViews, upload: EncodedViews, strictness: Strictness = "balanced"
) -> PairResult:
    """Compare an original, of which the whole picture counts, with all views of an upload.

    The upload is a duplicate if the second look verifies any view; without a rule for that, if the whole of it lies
    within the model's threshold. The best view is the nearest verified one, else the whole.
    """
    distances = np.linalg.norm(original.embeddings[0] - upload.embeddings, axis=1).astype(np.float32)
    rule = model.verification_rule
    if rule is None or original.features is None or upload.features is None:
        return PairResult(float(distances[0]), 0, bool(distances[0] <= model.threshold_l2), None)
    originals = [original.features[0]] * len(upload.features)
    verifications = verify(upload.features, originals, distances, rule)
    accepted = [
        view
        for view, (l2, verification) in enumerate(zip(distances.tolist(), verifications, strict=True))
        if rule.accepts(l2, verification.score, strictness)
    ]
    view = min(accepted, key=distances.__getitem__, default=0)
    verification = verifications[view].in_whole_image(upload.regions[view])
    return PairResult(float(distances[view]), view, bool(accepted), verification)
