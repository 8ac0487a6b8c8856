"""Two pictures at hand: the verdict rests on the whole upload, and on the nearest view that is verified."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.encoder.contract import Encoded, ModelInfo, VerificationRule
from consumer.images.regions import WHOLE_IMAGE, Region
from consumer.verification.features import verify
from consumer.verification.pair import verify_pair
from tests.verification.scenes import EDITS, features, scene

RULE = VerificationRule(1.2, min_score=0.25, score_per_l2=0.01)
MODEL = ModelInfo("encoder", "1", 144, 2, 0.3, 32, patches=(64, 24), verification_rule=RULE)
WITHOUT_RULE = ModelInfo("encoder", "1", 144, 2, 0.3, 32, patches=(64, 24))
ORIGINAL, STRANGER = features(scene(1)), features(scene(2))
COPY = features(scene(1), EDITS["zoom"], noise=0.1)
REGIONS = [WHOLE_IMAGE, Region(0, 0.5, 0.5, 1), Region(0.5, 0, 1, 0.5)]


def encoded(distances: Sequence[float], patches: Sequence[NDArray[np.int8]] | None) -> Encoded:
    """Make views at these distances from the one at distance 0."""
    angles = 2 * np.arcsin(np.array(distances) / 2)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return Encoded(vectors, None if patches is None else np.concatenate(patches))


def test_within_the_threshold_the_whole_upload_is_a_duplicate_even_if_it_is_not_verified() -> None:
    result = verify_pair(MODEL, encoded([0.0], [ORIGINAL]), encoded([0.2], [STRANGER]), REGIONS[:1])
    assert result.duplicate
    assert result.l2 == pytest.approx(0.2, abs=1e-6)
    assert result.region_index == 0
    assert result.verification is not None
    assert not RULE.accepts(result.l2, result.verification.score)


def test_beyond_the_threshold_only_a_verified_upload_is_a_duplicate() -> None:
    original = encoded([0.0], [ORIGINAL])
    copy = verify_pair(MODEL, original, encoded([0.8], [COPY]), REGIONS[:1])
    stranger = verify_pair(MODEL, original, encoded([0.8], [STRANGER]), REGIONS[:1])
    too_far = verify_pair(MODEL, original, encoded([1.3], [COPY]), REGIONS[:1])
    assert [each.duplicate for each in (copy, stranger, too_far)] == [True, False, False]
    [expected] = verify(COPY, ORIGINAL)
    for result in (copy, too_far):
        assert result.verification is not None
        assert result.verification.score == expected.score
        assert result.verification.edit == expected.edit


def test_the_nearest_verified_view_is_reported_in_coordinates_of_the_whole_upload() -> None:
    upload = encoded([1.0, 0.9, 0.8], [COPY, COPY, COPY])
    result = verify_pair(MODEL, encoded([0.0], [ORIGINAL]), upload, REGIONS)
    assert result.duplicate
    assert result.l2 == pytest.approx(0.8, abs=1e-6)
    assert result.region_index == 2
    assert result.verification is not None
    assert result.verification.region == REGIONS[2]
    [alone] = verify(COPY, ORIGINAL)
    assert result.verification.edit == alone.in_whole_image(REGIONS[2]).edit


def test_a_near_region_counts_only_if_it_is_verified() -> None:
    original = encoded([0.0], [ORIGINAL])
    collage = verify_pair(MODEL, original, encoded([1.4, 0.1, 0.7], [STRANGER, STRANGER, COPY]), REGIONS)
    assert (collage.duplicate, collage.region_index) == (True, 2)
    strangers = verify_pair(MODEL, original, encoded([1.4, 0.1, 0.7], [STRANGER] * 3), REGIONS)
    assert (strangers.duplicate, strangers.region_index) == (False, 0)
    assert strangers.l2 == pytest.approx(1.4, abs=1e-6)
    assert strangers.verification is not None


def test_a_verified_region_is_reported_although_the_whole_is_nearer_and_within_the_threshold() -> None:
    upload = encoded([0.2, 0.7], [STRANGER, COPY])
    result = verify_pair(MODEL, encoded([0.0], [ORIGINAL]), upload, REGIONS[:2])
    assert (result.duplicate, result.region_index) == (True, 1)


@pytest.mark.parametrize(
    ("model", "patches"), [(MODEL, None), (WITHOUT_RULE, [COPY])], ids=["no local features", "no rule"]
)
@pytest.mark.parametrize(("l2", "duplicate"), [(0.3, True), (0.31, False)])
def test_without_local_features_or_a_rule_distance_alone_decides(
    model: ModelInfo, patches: list[NDArray[np.int8]] | None, l2: float, duplicate: bool
) -> None:
    original = encoded([0.0], None if patches is None else [ORIGINAL])
    result = verify_pair(model, original, encoded([l2 - 1e-4], patches), REGIONS[:1])
    assert (result.duplicate, result.region_index, result.verification) == (duplicate, 0, None)
