"""Local features are matched, on scenes made of numbers; and the edits that the matches give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from consumer.verification.features import HALF_TRUST_INLIERS, PAIRS_AT_ONCE, candidate_scores, match_features
from consumer.verification.result import Verification
from tests.verification.scenes import CHANNELS, EDITS, check_edit, patches, scene


def match_all(
    uploads: NDArray[np.int8], matches: NDArray[np.int8], rotation_maps: NDArray[np.float32] | None = None
) -> list[Verification]:
    """Put what local features alone tell of each pair into a verification, similarity times trust as its score."""
    found = match_features(uploads, matches, rotation_maps)
    return [
        Verification(score, int(inliers), transform, links, {})
        for score, inliers, transform, links in zip(
            (found.similarity * found.trust).tolist(), found.inliers, found.transforms, found.links, strict=True
        )
    ]


def match_one(
    upload: NDArray[np.int8], match: NDArray[np.int8], rotation_maps: NDArray[np.float32] | None = None
) -> Verification:
    [verification] = match_all(upload, match, rotation_maps)
    return verification


@pytest.mark.parametrize("name", EDITS)
def test_edits_are_recognised(name: str) -> None:
    expected = np.array(EDITS[name])
    verification = match_one(patches(scene(1), EDITS[name], around=scene(2), noise=0.1), patches(scene(1)))
    assert verification.score > 0.3
    assert verification.inliers >= 8
    assert len(verification.links) == verification.inliers
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    all_inside = ((corners @ expected.T >= -1e-6) & (corners @ expected.T <= 1 + 1e-6)).all()
    assert np.abs(corners @ (verification.transform - expected).T).max() < (0.1 if all_inside else 0.25)


@pytest.mark.parametrize("rotation", range(3))
def test_a_rotation_that_changes_the_descriptors_is_undone(rotation: int) -> None:
    """An encoder gives a rotated picture other descriptors, each rotation being another change of axes."""
    rng = np.random.default_rng(9)
    rotation_maps = np.stack([np.linalg.qr(rng.normal(size=(CHANNELS - 2, CHANNELS - 2)))[0] for _ in range(3)])
    rotated, upright = patches(scene(8), EDITS["quarter turn"], noise=0.1).astype(float), patches(scene(8))
    rotated[..., :-2] = rotated[..., :-2] @ rotation_maps[rotation].T
    upload = rotated.round().astype(np.int8)
    rotation_maps = rotation_maps.astype(np.float32)
    [without_maps], [with_maps] = match_all(upload, upright), match_all(upload, upright, rotation_maps)
    assert without_maps.score < 0.15
    assert with_maps.score > 0.3
    assert with_maps.edit is not None
    assert with_maps.edit.rotation_deg == pytest.approx(90, abs=4)
    # The maps take nothing from pictures that were not rotated, nor make others the same.
    zoomed = patches(scene(8), EDITS["zoom"])
    [plain], [zoomed_with_maps] = match_all(zoomed, upright), match_all(zoomed, upright, rotation_maps)
    assert zoomed_with_maps.score == plain.score
    [stranger] = match_all(patches(scene(9)), upright, rotation_maps)
    assert stranger.score < 0.15


def test_a_picture_that_only_seems_rotated_is_matched_as_it_is() -> None:
    """Under a rotation map that makes all features one and the same, more features match, and none at its place."""
    same = np.zeros((1, CHANNELS - 2, CHANNELS - 2), np.float32)
    same[0, :, 0] = 1
    upload, match = patches(scene(8), EDITS["zoom"], noise=0.1), patches(scene(8))
    match[..., 1:-2] //= 2
    match[..., 0] = 127  # what all of the match have in common
    [plain], [with_map] = match_all(upload, match), match_all(upload, match, same)
    assert plain.score > 0.15
    assert with_map.score == plain.score


def test_a_small_part_needs_fewer_inliers() -> None:
    crop = match_one(patches(scene(10), EDITS["strong crop"]), patches(scene(10)))
    whole = match_one(patches(scene(10)), patches(scene(10)))
    assert crop.inliers < whole.inliers
    assert crop.score > whole.score * crop.inliers / (crop.inliers + 16) / (whole.inliers / (whole.inliers + 16))


def test_other_scenes_do_not_pass_for_copies() -> None:
    strangers = [match_one(patches(scene(n)), patches(scene(n + 1))).score for n in range(0, 60, 2)]
    copies = [match_one(patches(scene(n), EDITS["zoom"], noise=0.2), patches(scene(n))).score for n in range(0, 60, 2)]
    assert max(strangers) < min(copies)


def test_features_without_detail_never_vote() -> None:
    upload, match = patches(scene(6), EDITS["zoom"]), patches(scene(6))
    silent = np.zeros((1, 30, CHANNELS), np.int8)
    silent[..., -2:] = np.random.default_rng(0).integers(-128, 128, (1, 30, 2))
    padded = match_one(np.concatenate([upload, silent], axis=1), np.concatenate([match, silent], axis=1))
    alone = match_one(upload, match)
    assert padded.score == pytest.approx(alone.score, abs=1e-5)
    assert padded.inliers == alone.inliers
    blank = match_one(silent, silent)
    assert (blank.score, blank.inliers, blank.edit) == (0, 0, None)


def test_features_without_detail_are_no_similarity() -> None:
    """Features that are all similar, as on a lawn, give the same score with and without features that show nothing."""
    upload, match = patches(scene(6), EDITS["zoom"]), patches(scene(6))
    for each in (upload, match):
        each[..., :-2] = each[..., :-2] // 2 + 60
    silent = np.zeros((1, 30, CHANNELS), np.int8)
    alone, padded = match_one(upload, match), match_one(upload, np.concatenate([match, silent], axis=1))
    assert alone.score > 0.3
    assert padded.score == pytest.approx(alone.score, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_a_feature_far_from_its_match_is_not_compared(seed: int) -> None:
    whole = patches(scene(seed))[0]
    left = whole[whole[:, -2] < -20][None]  # the match shows nothing to the right of them
    doubles = left.copy()
    doubles[..., -2] += 120
    alone, twice = match_one(left, left), match_one(np.concatenate([left, doubles], axis=1), left)
    assert min(alone.inliers, twice.inliers) > 10
    assert similarity(twice) == pytest.approx(similarity(alone), abs=0.01)


def similarity(verification: Verification) -> float:
    """Divide the score by the trust in its inliers, for pictures that overlap as wholes.

    A feature and its exact double tie for the nearest of a third, and how a processor rounds decides which one wins: so
    the number of inliers may differ between processors, the similarity may not.
    """
    return verification.score * (1 + HALF_TRUST_INLIERS / verification.inliers)


def test_the_length_of_descriptors_means_nothing() -> None:
    upload, match = patches(scene(7), EDITS["zoom"]), patches(scene(7))
    half = match.copy()
    half[..., :-2] = np.trunc(half[..., :-2] / 2)
    assert match_one(upload, half).score == pytest.approx(match_one(upload, match).score, abs=0.02)


def test_neighbours_in_a_batch_change_nothing() -> None:
    uploads = np.concatenate([patches(scene(n), edit, noise=0.1) for n, edit in enumerate(EDITS.values())])
    matches = np.concatenate([patches(scene(n)) for n in range(len(EDITS))])
    together = match_all(uploads, matches)
    for index, in_batch in enumerate(together):
        alone = match_one(uploads[index : index + 1], matches[index : index + 1])
        assert (alone.score, alone.inliers, alone.edit) == (in_batch.score, in_batch.inliers, in_batch.edit)


@pytest.mark.parametrize("name", EDITS)
def test_a_copy_has_a_higher_candidate_score_than_a_stranger_that_is_somewhat_nearer(name: str) -> None:
    upload = patches(scene(1), EDITS[name], around=scene(2), noise=0.1)
    l2 = np.array([1.1, 1.0], np.float32)
    copy, stranger = candidate_scores(
        np.concatenate([upload, upload]), np.concatenate([patches(scene(1)), patches(scene(3))]), l2
    )
    assert copy > stranger


def test_of_two_equal_candidates_the_nearer_has_the_higher_score() -> None:
    same = np.concatenate([patches(scene(1))] * 2)
    near, far = candidate_scores(same, same, np.array([0.9, 0.91], np.float32))
    assert near > far


def test_neighbours_in_a_batch_change_no_candidate_score() -> None:
    uploads = np.concatenate([patches(scene(n), EDITS["zoom"], noise=0.1) for n in range(PAIRS_AT_ONCE + 3)])
    matches = np.concatenate([patches(scene(n // 2)) for n in range(PAIRS_AT_ONCE + 3)])
    l2 = np.linspace(0.9, 1.2, PAIRS_AT_ONCE + 3, dtype=np.float32)
    together = candidate_scores(uploads, matches, l2)
    for n in (0, PAIRS_AT_ONCE - 1, PAIRS_AT_ONCE, PAIRS_AT_ONCE + 2):
        assert candidate_scores(uploads[n : n + 1], matches[n : n + 1], l2[n : n + 1]) == together[n]
    assert len(candidate_scores(uploads[:0], matches[:0], l2[:0])) == 0


any_patches = hnp.arrays(np.int8, (2, 20, 6), elements=st.integers(-128, 127))


@settings(deadline=None)
@given(any_patches, any_patches)
def test_any_features_give_a_valid_result(uploads: NDArray[np.int8], candidates: NDArray[np.int8]) -> None:
    for verification in match_all(uploads, candidates):
        assert 0 <= verification.score <= 1
        assert verification.inliers == len(verification.links)
        if verification.edit is not None:
            check_edit(verification.edit)


@pytest.mark.parametrize("count", [2, 5, 13])
def test_few_features_are_no_error(count: int) -> None:
    few = patches(scene(1))[:, :count]
    assert match_one(few, few).inliers <= count
