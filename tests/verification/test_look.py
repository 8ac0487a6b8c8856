"""The second look at local features and thumbnails, on scenes made of numbers."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from consumer.encoder.contract import VerificationRule
from consumer.encoder.patches import encode_rotation_maps
from consumer.encoder.views import Features
from consumer.errors import Misconfigured
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.images.thumbnail import SIDE, Thumbnail, find_content
from consumer.verification.features import PAIRS_AT_ONCE
from consumer.verification.look import MAX_LOST_L2, look, verify
from consumer.verification.measures import MEASURES, PIXEL_MEASURES
from consumer.verification.result import Verification
from tests.fakes.rule import make_rule
from tests.verification.scenes import CHANNELS, EDITS, features, patches, pixels, scene

RULE = make_rule()
ACCEPTED = RULE.min_scores["balanced"]
BLANK = Thumbnail.of(np.full((SIDE, SIDE, 3), 128, np.uint8), WHOLE_IMAGE, 1.0)
SILENT = np.zeros((64, CHANNELS), np.int8)


def verify_one(upload: Features, match: Features, rule: VerificationRule = RULE, l2: float = 1.0) -> Verification:
    [verification] = verify([upload], [match], np.array([l2], np.float32), rule)
    return verification


def assert_same(one: Verification, other: Verification) -> None:
    assert (one.score, one.inliers, one.measures, one.edit) == (other.score, other.inliers, other.measures, other.edit)
    np.testing.assert_array_equal(one.transform, other.transform)
    np.testing.assert_array_equal(one.links, other.links)


@pytest.mark.parametrize("name", EDITS)
def test_copies_are_recognised_and_laid_upon_their_originals(name: str) -> None:
    copy = features(scene(1), EDITS[name], around=scene(2), noise=0.1)
    verification = verify_one(copy, features(scene(1)))
    within = name != "in a bigger picture"  # of what is small, pixels tell less
    assert verification.score > (0.85 if within else 0.8)
    assert len(verification.links) == verification.inliers >= 8
    assert np.abs(verification.transform - EDITS[name]).max() < (0.005 if within else 0.3)


def test_strangers_score_low_and_copies_high() -> None:
    numbers = range(0, 80, 2)
    strangers = [verify_one(features(scene(n)), features(scene(n + 1))) for n in numbers]
    copies = [verify_one(features(scene(n), EDITS["zoom"], noise=0.2), features(scene(n))) for n in numbers]
    assert max(each.score for each in strangers) < ACCEPTED / 2
    assert min(each.score for each in copies) > 0.9


@pytest.mark.parametrize("name", ["same frame", "zoom", "strong crop", "mirrored", "quarter turn"])
def test_pixels_tell_copies_from_pictures_that_only_have_the_same_features(name: str) -> None:
    upload, match = features(scene(1), EDITS[name], noise=0.1), features(scene(1))
    copy = verify_one(upload, match)
    other = verify_one(upload._replace(thumbnail=features(scene(2), EDITS[name]).thumbnail), match)
    assert other.score < ACCEPTED / 2
    assert copy.score > ACCEPTED
    assert other.inliers == copy.inliers  # features alone see no difference


def test_features_alone_and_pixels_alone_are_no_copy_to_a_rule_for_both() -> None:
    match = features(scene(1))
    only_features = verify_one(match._replace(thumbnail=features(scene(2)).thumbnail), match)
    only_pixels = verify_one(match._replace(patches=features(scene(2)).patches), match, l2=0.9)
    assert only_features.measures["inliers"] > 4 * only_pixels.measures["inliers"]
    assert only_pixels.measures["fine"] > 0.9
    assert only_features.measures["fine"] < 0.3


def test_pixels_of_far_pictures_are_compared_only_where_features_promise_something() -> None:
    match = features(scene(1))
    upload = match._replace(patches=features(scene(2)).patches)
    near, far = (verify_one(upload, match, l2=l2) for l2 in (MAX_LOST_L2 - 0.01, MAX_LOST_L2))
    assert near.score > 0.9
    assert far.score < ACCEPTED / 2
    assert {far.measures[name] for name in PIXEL_MEASURES} == {0}
    assert verify_one(features(scene(1), EDITS["zoom"]), match, l2=1.2).score > 0.9


def test_pixels_place_a_picture_more_exactly_than_features_can() -> None:
    upload, match = features(scene(1), EDITS["rotated"], noise=0.1), features(scene(1))
    looked = look([upload], [match], np.ones(1, np.float32), None)
    by_features, by_both = (
        np.abs(each[0] - EDITS["rotated"]).max() for each in (looked.geometry.transforms, looked.transforms)
    )
    assert by_both < 0.3 * by_features


def test_a_blank_picture_is_compared_without_an_error_and_is_no_copy() -> None:
    blank, other = Features(SILENT, BLANK), features(scene(1))
    for upload, match in ((blank, blank), (blank, other), (other, blank)):
        verification = verify_one(upload, match)
        assert np.isfinite([verification.score, *verification.measures.values()]).all()
        assert np.isfinite(verification.transform).all()
        assert (verification.score < ACCEPTED, verification.inliers, verification.edit) == (True, 0, None)


def test_one_valid_feature_is_no_error() -> None:
    few = features(scene(1))
    few.patches[1:, :-2] = 0
    verification = verify_one(few, few, l2=0.9)
    assert verification.inliers <= 1
    assert verification.score > 0.9  # pixels agree


@pytest.mark.parametrize("count", [2, 5, 13])
def test_models_with_few_features_are_no_error(count: int) -> None:
    whole = features(scene(1))
    few = whole._replace(patches=whole.patches[:count])
    assert verify_one(few, few).inliers <= count


def with_margins(number: int, content: Region, affine: str = "same frame") -> Features:
    """Put an edit of a scene on a white page, of which it takes `content`, as a decoder would cut it out again."""
    shown = pixels(scene(number), EDITS[affine])
    page = np.full((SIDE, SIDE, 3), 255, np.uint8)
    left, top, right, bottom = (round(edge) for edge in content.box((SIDE, SIDE)))
    page[top:bottom, left:right] = shown[: bottom - top, : right - left] // 2  # just to be found
    found = find_content(page)
    assert found.area == pytest.approx(content.area, abs=0.2)
    local = patches(scene(number), EDITS[affine])[0].astype(float)
    corner, size = np.array(content[:2]), np.array([content.right - content.left, content.bottom - content.top])
    local[:, -2:] = ((local[:, -2:] + 128) / 256 * size + corner) * 256 - 128
    return Features(local.round().astype(np.int8), Thumbnail.of(shown, content, 1.0))


def test_transformations_are_those_of_whole_pictures_whatever_their_margins() -> None:
    wide, narrow = Region(0.25, 0.125, 0.75, 0.625), Region(0.125, 0.125, 0.875, 0.875)
    verification = verify_one(with_margins(1, wide), with_margins(1, narrow))
    assert verification.score > 0.9
    expected = [[1.5, 0, 0.125 - 1.5 * 0.25], [0, 1.5, 0.125 - 1.5 * 0.125]]
    np.testing.assert_allclose(verification.transform, expected, atol=0.01)
    assert verification.measures["upload_content"] == pytest.approx(0.25)
    assert verification.measures["match_content"] == pytest.approx(0.5625)
    # The features of strangers say nothing of use: the start at the same content finds it.
    lost = with_margins(1, wide)._replace(patches=features(scene(7)).patches)
    assert verify_one(lost, with_margins(1, narrow), l2=0.9).score > 0.9


def test_a_mirrored_picture_is_found_where_features_take_it_for_an_upright_one() -> None:
    upright, mirrored = features(scene(1)), features(scene(1), EDITS["mirrored"])
    verification = verify_one(mirrored._replace(patches=upright.patches), upright)
    assert verification.score > 0.9
    np.testing.assert_allclose(verification.transform, EDITS["mirrored"], atol=0.01)


def test_each_pair_of_a_mixed_batch_is_rotated_and_registered_by_itself() -> None:
    """Some match as they are, some only when rotated, some are strangers; more than are looked at together."""
    rng, count = np.random.default_rng(11), PAIRS_AT_ONCE + 7
    maps = np.stack([np.linalg.qr(rng.normal(size=(CHANNELS - 2, CHANNELS - 2)))[0] for _ in range(3)])
    rule = make_rule(rotation_map_bytes=encode_rotation_maps(maps.astype(np.float32)))
    uploads, matches = [], []
    for number in range(count):
        upload = features(
            scene(number + 50 * (number % 3 == 2)), EDITS["quarter turn" if number % 3 == 1 else "zoom"], noise=0.1
        )
        if number % 3 == 1:
            values = upload.patches.astype(float)
            values[:, :-2] = values[:, :-2] @ maps[1].T
            upload = upload._replace(patches=values.round().astype(np.int8))
        uploads.append(upload)
        matches.append(features(scene(number)))
    l2 = np.linspace(0.2, 1.2, count, dtype=np.float32)
    together = verify(uploads, matches, l2, rule)
    for number, in_batch in enumerate(together):
        assert_same(verify_one(uploads[number], matches[number], rule, l2[number]), in_batch)
        assert (in_batch.score > 0.9) == (number % 3 != 2)
    for rotated in together[1::3]:
        assert rotated.edit is not None
        assert rotated.edit.rotation_deg == pytest.approx(90, abs=2)
    backwards = verify(uploads[::-1], matches[::-1], l2[::-1], rule)
    for one, other in zip(together, backwards[::-1], strict=True):
        assert_same(one, other)
    assert verify([], [], l2[:0], rule) == []


def test_a_rule_scores_by_the_measures_that_it_names() -> None:
    upload, match = features(scene(1), EDITS["zoom"], noise=0.1), features(scene(1))
    for name in ("l2", "inliers", "match_rarity"):
        rule = make_rule(measure=name)
        verification = verify_one(upload, match, rule, l2=0.3)
        assert list(verification.measures) == list(MEASURES)
        row = np.array([[verification.measures[name]]], np.float32)
        assert verification.score == rule.trees.scores(row)[0]
    with pytest.raises(Misconfigured, match="asks for sharpness, which this version does not measure"):
        verify_one(upload, match, make_rule(measure="sharpness"))


def test_a_rule_accepts_by_distance_score_and_strictness() -> None:
    rule = make_rule(candidate_l2=0.9)
    scores: Mapping[str, float] = rule.min_scores
    assert rule.accepts(0.9, scores["balanced"], "balanced")
    assert not rule.accepts(0.9, scores["balanced"] - 1e-6, "balanced")
    assert not rule.accepts(0.91, 1.0, "eager")
    assert [rule.accepts(0.1, 0.6, each) for each in ("strict", "balanced", "eager")] == [False, True, True]


# Levels of few different values have blank rows and blocks, and ties.
levels = hnp.arrays(np.uint8, (SIDE, SIDE), elements=st.sampled_from([0, 7, 8, 15]))
sides = st.floats(0, 0.4)
contents = st.builds(Region, sides, sides, st.floats(0.5, 1), st.floats(0.5, 1))
any_features = st.builds(
    Features,
    hnp.arrays(np.int8, (20, 6), elements=st.integers(-128, 127)),
    st.builds(Thumbnail, levels, contents, st.floats(0.01, 100)),
)


@settings(deadline=None, max_examples=60)
@given(any_features, any_features, st.floats(0, 2, width=32))
def test_any_features_give_a_valid_result(upload: Features, match: Features, l2: float) -> None:
    for maps in (b"", bytes(np.random.default_rng(1).integers(0, 256, 48, np.uint8))):
        verification = verify_one(upload, match, make_rule(rotation_map_bytes=maps), l2)
        assert 0 <= verification.score <= 1
        assert np.isfinite(verification.transform).all()
        assert np.isfinite(list(verification.measures.values())).all()
        assert verification.to_evidence(verified=True).inliers == len(verification.links)


def test_what_is_looked_at_stays_as_it_is() -> None:
    upload, match = features(scene(1), EDITS["zoom"]), features(scene(1))
    kept = [array.copy() for each in (upload, match) for array in (each.patches, each.thumbnail.levels)]
    verify_one(upload, match)
    for before, after in zip(
        kept, [array for each in (upload, match) for array in (each.patches, each.thumbnail.levels)], strict=True
    ):
        np.testing.assert_array_equal(before, after)
