"""The second look at local features and thumbnails, on scenes made of numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from consumer.encoder.contract import VerificationRule
from consumer.events import Box
from consumer.images.regions import Region
from consumer.verification.features import HALF_TRUST_INLIERS, PAIRS_AT_ONCE, candidate_scores, verify
from consumer.verification.result import Verification
from tests.verification.scenes import CHANNELS, EDITS, IDENTITY, Affine, Scene, features, scene


def verify_one(upload: NDArray[np.int8], match: NDArray[np.int8]) -> Verification:
    [verification] = verify(upload, match)
    return verification


def covers(box: Box, left: float, top: float, right: float, bottom: float) -> bool:
    expected = pytest.approx((left, top, right, bottom), abs=0.06)
    return expected == (box.left, box.top, box.right, box.bottom)


@pytest.mark.parametrize("name", EDITS)
def test_edits_are_recognised(name: str) -> None:
    expected = np.array(EDITS[name])
    verification = verify_one(features(scene(1), EDITS[name], around=scene(2), noise=0.1), features(scene(1)))
    assert verification.score > 0.3
    assert verification.inliers >= 8
    assert len(verification.links) == verification.inliers
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    all_inside = ((corners @ expected.T >= -1e-6) & (corners @ expected.T <= 1 + 1e-6)).all()
    assert np.abs(corners @ (verification.transform - expected).T).max() < (0.1 if all_inside else 0.25)


def test_the_edit_leads_from_the_match_to_the_upload() -> None:
    original = features(scene(3))
    zoom = verify_one(features(scene(3), EDITS["zoom"]), original).edit
    assert zoom is not None
    assert zoom.zoom == pytest.approx(1 / 0.7, rel=0.05)
    assert zoom.rotation_deg == pytest.approx(0, abs=3)
    assert not zoom.mirrored
    assert covers(zoom.box_in_match, 0.2, 0.1, 0.9, 0.8)
    assert covers(zoom.box_in_upload, 0, 0, 1, 1)
    assert zoom.overlap == pytest.approx(0.49, abs=0.06)

    inset = verify_one(features(scene(3), EDITS["in a bigger picture"], around=scene(4)), original).edit
    assert inset is not None
    assert inset.zoom == pytest.approx(0.5, rel=0.08)
    assert covers(inset.box_in_match, 0, 0, 1, 1)
    assert covers(inset.box_in_upload, 0.1, 0.45, 0.6, 0.95)
    assert inset.overlap == pytest.approx(0.25, abs=0.05)


# The matrices lead from the upload to the match: a clockwise turn takes the top left of the match to the top right.
@pytest.mark.parametrize(
    ("affine", "rotation_deg", "mirrored"),
    [
        (EDITS["quarter turn"], 90, False),
        ([[0, -1, 1], [1, 0, 0]], -90, False),
        (EDITS["upside down"], 180, False),
        (EDITS["mirrored"], 0, True),
        ([[1, 0, 0], [0, -1, 1]], 180, True),
        (EDITS["rotated"], 30, False),
    ],
)
def test_turns_are_clockwise_after_mirroring(affine: Affine, rotation_deg: float, mirrored: bool) -> None:
    edit = verify_one(features(scene(5), affine), features(scene(5))).edit
    assert edit is not None
    assert edit.mirrored is mirrored
    assert (edit.rotation_deg - rotation_deg + 180) % 360 - 180 == pytest.approx(0, abs=4)


@pytest.mark.parametrize("rotation", range(3))
def test_a_rotation_that_changes_the_descriptors_is_undone(rotation: int) -> None:
    """An encoder gives a rotated picture other descriptors, each rotation being another change of axes."""
    rng = np.random.default_rng(9)
    rotation_maps = np.stack([np.linalg.qr(rng.normal(size=(CHANNELS - 2, CHANNELS - 2)))[0] for _ in range(3)])
    rotated, upright = features(scene(8), EDITS["quarter turn"], noise=0.1).astype(float), features(scene(8))
    rotated[..., :-2] = rotated[..., :-2] @ rotation_maps[rotation].T
    upload = rotated.round().astype(np.int8)
    rotation_maps = rotation_maps.astype(np.float32)
    [without_maps], [with_maps] = verify(upload, upright), verify(upload, upright, rotation_maps)
    assert without_maps.score < 0.15
    assert with_maps.score > 0.3
    assert with_maps.edit is not None
    assert with_maps.edit.rotation_deg == pytest.approx(90, abs=4)
    # The maps take nothing from pictures that were not rotated, nor make others the same.
    zoomed = features(scene(8), EDITS["zoom"])
    [plain], [zoomed_with_maps] = verify(zoomed, upright), verify(zoomed, upright, rotation_maps)
    assert zoomed_with_maps.score == plain.score
    [stranger] = verify(features(scene(9)), upright, rotation_maps)
    assert stranger.score < 0.15


def test_a_picture_that_only_seems_rotated_is_verified_as_it_is() -> None:
    """Under a rotation map that makes all features one and the same, more features match, and none at its place."""
    same = np.zeros((1, CHANNELS - 2, CHANNELS - 2), np.float32)
    same[0, :, 0] = 1
    upload, match = features(scene(8), EDITS["zoom"], noise=0.1), features(scene(8))
    match[..., 1:-2] //= 2
    match[..., 0] = 127  # what all of the match have in common
    [plain], [with_map] = verify(upload, match), verify(upload, match, same)
    assert plain.score > 0.15
    assert with_map.score == plain.score


def test_a_small_part_needs_fewer_inliers() -> None:
    crop = verify_one(features(scene(10), EDITS["strong crop"]), features(scene(10)))
    whole = verify_one(features(scene(10)), features(scene(10)))
    assert crop.inliers < whole.inliers
    assert crop.score > whole.score * crop.inliers / (crop.inliers + 16) / (whole.inliers / (whole.inliers + 16))


def test_other_scenes_do_not_pass_for_copies() -> None:
    strangers = [verify_one(features(scene(n)), features(scene(n + 1))).score for n in range(0, 60, 2)]
    copies = [
        verify_one(features(scene(n), EDITS["zoom"], noise=0.2), features(scene(n))).score for n in range(0, 60, 2)
    ]
    assert max(strangers) < min(copies)


def test_features_without_detail_never_vote() -> None:
    upload, match = features(scene(6), EDITS["zoom"]), features(scene(6))
    silent = np.zeros((1, 30, CHANNELS), np.int8)
    silent[..., -2:] = np.random.default_rng(0).integers(-128, 128, (1, 30, 2))
    padded = verify_one(np.concatenate([upload, silent], axis=1), np.concatenate([match, silent], axis=1))
    alone = verify_one(upload, match)
    assert padded.score == pytest.approx(alone.score, abs=1e-5)
    assert padded.inliers == alone.inliers
    blank = verify_one(silent, silent)
    assert (blank.score, blank.inliers, blank.edit) == (0, 0, None)


def test_features_without_detail_are_no_similarity() -> None:
    """Features that are all similar, as on a lawn, give the same score with and without features that show nothing."""
    upload, match = features(scene(6), EDITS["zoom"]), features(scene(6))
    for patches in (upload, match):
        patches[..., :-2] = patches[..., :-2] // 2 + 60
    silent = np.zeros((1, 30, CHANNELS), np.int8)
    alone, padded = verify_one(upload, match), verify_one(upload, np.concatenate([match, silent], axis=1))
    assert alone.score > 0.3
    assert padded.score == pytest.approx(alone.score, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_a_feature_far_from_its_match_is_not_compared(seed: int) -> None:
    whole = features(scene(seed))[0]
    left = whole[whole[:, -2] < -20][None]  # the match shows nothing to the right of them
    doubles = left.copy()
    doubles[..., -2] += 120
    alone, twice = verify_one(left, left), verify_one(np.concatenate([left, doubles], axis=1), left)
    assert min(alone.inliers, twice.inliers) > 10
    assert similarity(twice) == pytest.approx(similarity(alone), abs=0.01)


def similarity(verification: Verification) -> float:
    """Divide the score by the trust in its inliers, for pictures that overlap as wholes.

    A feature and its exact double tie for the nearest of a third, and how a processor rounds decides which one wins: so
    the number of inliers may differ between processors, the similarity may not.
    """
    return verification.score * (1 + HALF_TRUST_INLIERS / verification.inliers)


def test_the_length_of_descriptors_means_nothing() -> None:
    upload, match = features(scene(7), EDITS["zoom"]), features(scene(7))
    half = match.copy()
    half[..., :-2] = np.trunc(half[..., :-2] / 2)
    assert verify_one(upload, half).score == pytest.approx(verify_one(upload, match).score, abs=0.02)


def test_neighbours_in_a_batch_change_nothing() -> None:
    uploads = np.concatenate([features(scene(n), edit, noise=0.1) for n, edit in enumerate(EDITS.values())])
    matches = np.concatenate([features(scene(n)) for n in range(len(EDITS))])
    together = verify(uploads, matches)
    for index, in_batch in enumerate(together):
        alone = verify_one(uploads[index : index + 1], matches[index : index + 1])
        assert (alone.score, alone.inliers, alone.edit) == (in_batch.score, in_batch.inliers, in_batch.edit)
    assert verify(uploads[:0], matches[:0]) == []


@pytest.mark.parametrize("name", EDITS)
def test_a_copy_has_a_higher_candidate_score_than_a_stranger_that_is_somewhat_nearer(name: str) -> None:
    upload = features(scene(1), EDITS[name], around=scene(2), noise=0.1)
    l2 = np.array([1.1, 1.0], np.float32)
    copy, stranger = candidate_scores(
        np.concatenate([upload, upload]), np.concatenate([features(scene(1)), features(scene(3))]), l2
    )
    assert copy > stranger


def test_of_two_equal_candidates_the_nearer_has_the_higher_score() -> None:
    same = np.concatenate([features(scene(1))] * 2)
    near, far = candidate_scores(same, same, np.array([0.9, 0.91], np.float32))
    assert near > far


def test_neighbours_in_a_batch_change_no_candidate_score() -> None:
    uploads = np.concatenate([features(scene(n), EDITS["zoom"], noise=0.1) for n in range(PAIRS_AT_ONCE + 3)])
    matches = np.concatenate([features(scene(n // 2)) for n in range(PAIRS_AT_ONCE + 3)])
    l2 = np.linspace(0.9, 1.2, PAIRS_AT_ONCE + 3, dtype=np.float32)
    together = candidate_scores(uploads, matches, l2)
    for n in (0, PAIRS_AT_ONCE - 1, PAIRS_AT_ONCE, PAIRS_AT_ONCE + 2):
        assert candidate_scores(uploads[n : n + 1], matches[n : n + 1], l2[n : n + 1]) == together[n]
    assert len(candidate_scores(uploads[:0], matches[:0], l2[:0])) == 0


SIDE = 24


def thumbnail(field: Scene, affine: Affine = IDENTITY) -> NDArray[np.int8]:
    """Make the thumbnail of a scene, or of an edit of it, in the rows that follow the features: int8 [1, 12, C]."""
    x, y = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2)
    source = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ np.array(affine).T
    inside = ((source > 0) & (source < 1)).all(axis=1)
    levels = np.where(inside, np.clip(field(source).sum(axis=1) + 7.5, 0, 15), 0).round().astype(int).reshape(-1, 2)
    return (levels[:, 0] * 16 + levels[:, 1] - 128).astype(np.int8).reshape(1, -1, CHANNELS)


def patches_of(features: NDArray[np.int8], thumbnail: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.concatenate([features, thumbnail], axis=1)


def test_thumbnails_change_no_candidate_score() -> None:
    upload, match, l2 = features(scene(1), EDITS["zoom"]), features(scene(1)), np.ones(1, np.float32)
    with_thumbnails = candidate_scores(
        patches_of(upload, thumbnail(scene(1))), patches_of(match, thumbnail(scene(2))), l2, SIDE
    )
    assert with_thumbnails == candidate_scores(upload, match, l2)


@pytest.mark.parametrize("name", ["same frame", "zoom", "strong crop", "mirrored", "quarter turn"])
def test_registration_tells_copies_from_pictures_that_only_have_the_same_features(name: str) -> None:
    upload, match, edit = features(scene(1), EDITS[name], noise=0.1), features(scene(1)), EDITS[name]
    [copy] = verify(patches_of(upload, thumbnail(scene(1), edit)), patches_of(match, thumbnail(scene(1))), None, SIDE)
    [other] = verify(patches_of(upload, thumbnail(scene(2), edit)), patches_of(match, thumbnail(scene(1))), None, SIDE)
    assert copy.score > 1.7 * other.score
    # The pixels say where the picture lies more exactly than features can.
    rough = verify_one(upload, match)
    assert np.abs(copy.transform - edit).max() < 0.6 * np.abs(rough.transform - edit).max()
    assert (copy.inliers, len(copy.links)) == (rough.inliers, len(rough.links))


def test_a_picture_that_overhangs_the_other_scores_less() -> None:
    beside: Affine = [[1, 0, 0.5], [0, 1, 0]]
    upload = patches_of(features(scene(1), beside, around=scene(2)), thumbnail(scene(1), beside))
    match = patches_of(features(scene(1)), thumbnail(scene(1)))
    [overhanging] = verify(upload, match, None, SIDE)
    inside = [[0.5, 0, 0.5], [0, 1, 0]]
    [part] = verify(patches_of(features(scene(1), inside), thumbnail(scene(1), inside)), match, None, SIDE)
    assert 0 < overhanging.score < 0.7 * part.score


def test_strangers_are_not_registered() -> None:
    upload, match = features(scene(1)), features(scene(2))
    [stranger] = verify(patches_of(upload, thumbnail(scene(1))), patches_of(match, thumbnail(scene(1))), None, SIDE)
    assert stranger.score == verify_one(upload, match).score < 0.1


def test_each_pair_of_a_mixed_batch_is_rotated_and_registered_by_itself() -> None:
    """Some match as they are, some only when rotated, some are strangers."""
    rng = np.random.default_rng(11)
    rotation_maps = np.stack([np.linalg.qr(rng.normal(size=(CHANNELS - 2, CHANNELS - 2)))[0] for _ in range(3)])
    rotation_maps = rotation_maps.astype(np.float32)
    uploads, matches = [], []
    for number in range(9):
        affine = EDITS["quarter turn"] if number % 3 == 1 else EDITS["zoom"]
        upload = features(scene(number + 50 * (number % 3 == 2)), affine, noise=0.1)
        if number % 3 == 1:
            values = upload.astype(float)
            values[..., :-2] = values[..., :-2] @ rotation_maps[1].T
            upload = values.round().astype(np.int8)
        uploads.append(patches_of(upload, thumbnail(scene(number), affine)))
        matches.append(patches_of(features(scene(number)), thumbnail(scene(number))))
    together = verify(np.concatenate(uploads), np.concatenate(matches), rotation_maps, SIDE)
    for number, in_batch in enumerate(together):
        [alone] = verify(uploads[number], matches[number], rotation_maps, SIDE)
        assert (alone.score, alone.inliers) == (in_batch.score, in_batch.inliers)
        np.testing.assert_array_equal(alone.transform, in_batch.transform)
    scores = np.array([each.score for each in together]).reshape(3, 3)
    assert scores[:, :2].min() > 2 * scores[:, 2].max()
    for rotated in together[1::3]:
        assert rotated.edit is not None
        assert rotated.edit.rotation_deg == pytest.approx(90, abs=4)


patches = hnp.arrays(np.int8, (2, 20, 6), elements=st.integers(-128, 127))


@settings(deadline=None)
@given(patches, patches, st.sampled_from([0, 6]))
def test_any_features_give_a_valid_result(uploads: NDArray[np.int8], candidates: NDArray[np.int8], side: int) -> None:
    for verification in verify(uploads, candidates, None, side):
        assert 0 <= verification.score <= 1
        assert verification.to_evidence(verified=True).inliers == len(verification.links)
        edit = verification.edit
        if edit is not None:
            assert edit.zoom > 0
            assert 0 <= edit.overlap <= 1
            for box in (edit.box_in_match, edit.box_in_upload):
                assert 0 <= box.left <= box.right <= 1
                assert 0 <= box.top <= box.bottom <= 1


@pytest.mark.parametrize("count", [2, 5, 13])
def test_few_features_are_no_error(count: int) -> None:
    few = features(scene(1))[:, :count]
    assert verify_one(few, few).inliers <= count


def test_nearer_pairs_need_less_score() -> None:
    rule = VerificationRule(candidate_l2=0.9, min_score=0.6, score_per_l2=0.5)
    assert rule.accepts(0.9, 0.6)
    assert not rule.accepts(0.9, 0.59)
    assert not rule.accepts(0.91, 1.0)
    assert rule.accepts(0.5, 0.41)
    assert not rule.accepts(0.5, 0.39)


def test_the_boxes_of_a_region_are_in_coordinates_of_the_whole_image() -> None:
    region = Region(0.0, 0.5, 0.5, 1.0)
    alone = verify_one(features(scene(1), EDITS["zoom"]), features(scene(1)))
    in_whole = alone.in_whole_image(region)
    part, edit = alone.edit, in_whole.edit
    assert part is not None
    assert edit is not None
    assert bounds(edit.box_in_match) == pytest.approx(bounds(part.box_in_match), abs=1e-3)
    left, top, right, bottom = bounds(part.box_in_upload)
    assert bounds(edit.box_in_upload) == pytest.approx((left / 2, 0.5 + top / 2, right / 2, 0.5 + bottom / 2), abs=1e-3)
    assert edit.zoom == pytest.approx(part.zoom / 2, abs=1e-3)
    assert edit.overlap == pytest.approx(part.overlap, abs=2e-3)
    assert (in_whole.links[:, 0] <= 0.55).all()
    assert (in_whole.links[:, 1] >= 0.45).all()


def bounds(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom
