"""Two pictures at hand: the verdict rests on the nearest view that is verified, or else on the whole upload."""

from collections.abc import Sequence

import numpy as np
import pytest

from consumer.encoder.contract import ModelInfo, Strictness
from consumer.encoder.views import EncodedViews, Features
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.verification.look import verify
from consumer.verification.pair import PairResult, verify_pair
from tests.fakes.rule import make_rule
from tests.verification.scenes import EDITS, features, scene

RULE = make_rule(1.2)
MODEL = ModelInfo("encoder", "1", 144, 2, 0.3, 32, patches=(64, 24), verification_rule=RULE)
WITHOUT_RULE = ModelInfo("encoder", "1", 144, 2, 0.3, 32, patches=(64, 24))
ORIGINAL, STRANGER = features(scene(1)), features(scene(2))
COPY = features(scene(1), EDITS["zoom"], noise=0.1)
ROUGH_COPY = features(scene(1), EDITS["zoom"], noise=1.2)  # of a middling score
REGIONS = [WHOLE_IMAGE, Region(0, 0.5, 0.5, 1), Region(0.5, 0, 1, 0.5)]


def views(distances: Sequence[float], features: Sequence[Features] | None) -> EncodedViews:
    """Make views at these distances from the one at distance 0."""
    angles = 2 * np.arcsin(np.array(distances) / 2)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return EncodedViews(REGIONS[: len(distances)], vectors, features)


def compare(distances: Sequence[float], uploads: Sequence[Features], strictness: Strictness = "balanced") -> PairResult:
    """Compare an upload of these views with the original."""
    return verify_pair(MODEL, views([0.0], [ORIGINAL]), views(distances, uploads), strictness)


def test_an_upload_is_a_duplicate_only_if_it_is_verified_however_near_it_is() -> None:
    near = compare([0.01], [STRANGER])
    assert (near.duplicate, near.region_index) == (False, 0)
    assert near.l2 == pytest.approx(0.01, abs=1e-6)
    assert near.verification is not None
    copy, too_far = compare([0.8], [COPY]), compare([1.3], [COPY])
    assert [each.duplicate for each in (copy, too_far)] == [True, False]
    assert copy.l2 == pytest.approx(0.8, abs=1e-6)
    [expected] = verify([COPY], [ORIGINAL], np.array([0.8], np.float32), RULE)
    for result in (copy, too_far):
        assert result.verification is not None
        assert result.verification.score == expected.score
        assert result.verification.edit == expected.edit


def test_the_strictness_decides_on_doubtful_pairs() -> None:
    result = compare([0.5], [ROUGH_COPY])
    assert result.verification is not None
    assert 0.2 < result.verification.score < 0.8
    verdicts = [compare([0.5], [ROUGH_COPY], each).duplicate for each in ("strict", "balanced", "eager")]
    assert verdicts == [False, result.verification.score >= 0.5, True]


def test_the_nearest_verified_view_is_reported_in_coordinates_of_the_whole_upload() -> None:
    result = compare([1.0, 0.9, 0.8], [COPY, COPY, COPY])
    assert (result.duplicate, result.region_index) == (True, 2)
    assert result.l2 == pytest.approx(0.8, abs=1e-6)
    assert result.verification is not None
    assert result.verification.region == REGIONS[2]
    [alone] = verify([COPY], [ORIGINAL], np.ones(1, np.float32), RULE)
    assert result.verification.edit == alone.in_whole_image(REGIONS[2]).edit


def test_a_near_region_counts_only_if_it_is_verified() -> None:
    collage = compare([1.4, 0.1, 0.7], [STRANGER, STRANGER, COPY])
    assert (collage.duplicate, collage.region_index) == (True, 2)
    strangers = compare([1.4, 0.1, 0.7], [STRANGER] * 3)
    assert (strangers.duplicate, strangers.region_index) == (False, 0)
    assert strangers.l2 == pytest.approx(1.4, abs=1e-6)
    assert strangers.verification is not None


def test_a_verified_region_is_reported_although_the_whole_is_nearer() -> None:
    result = compare([0.2, 0.7], [STRANGER, COPY])
    assert (result.duplicate, result.region_index) == (True, 1)


@pytest.mark.parametrize(
    ("model", "features"), [(MODEL, None), (WITHOUT_RULE, [COPY])], ids=["no local features", "no rule"]
)
@pytest.mark.parametrize(("l2", "duplicate"), [(0.3, True), (0.31, False)])
def test_without_local_features_or_a_rule_distance_alone_decides(
    model: ModelInfo, features: list[Features] | None, l2: float, duplicate: bool
) -> None:
    original = views([0.0], None if features is None else [ORIGINAL])
    result = verify_pair(model, original, views([l2 - 1e-4], features))
    assert (result.duplicate, result.region_index, result.verification) == (duplicate, 0, None)
