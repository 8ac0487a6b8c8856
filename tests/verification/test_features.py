"""The second look, on pictures made of numbers: a field of descriptors is a scene, and features are samples of it."""

from collections.abc import Callable

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

CHANNELS, GRID = 24, 10
CENTRES = (np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2) + 0.5) / GRID

Scene = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Affine = list[list[float]]

SAME: Affine = [[1, 0, 0], [0, 1, 0]]
# From places in the upload to places in the match.
EDITS: dict[str, Affine] = {
    "same frame": SAME,
    "zoom": [[0.7, 0, 0.2], [0, 0.7, 0.1]],
    "strong crop": [[0.5, 0, 0.45], [0, 0.5, 0.3]],
    "another aspect": [[0.6, 0, 0.3], [0, 1, 0]],
    "mirrored": [[-1, 0, 1], [0, 1, 0]],
    "upside down": [[-1, 0, 1], [0, -1, 1]],
    "quarter turn": [[0, 1, 0], [-1, 0, 1]],
    "mirrored quarter turn": [[0, 1, 0], [1, 0, 0]],
    "rotated": [[0.866, 0.5, -0.183], [-0.5, 0.866, 0.317]],
    "in a bigger picture": [[2, 0, -0.2], [0, 2, -0.9]],
    "mirrored zoom": [[-0.7, 0, 0.9], [0, 0.7, 0.1]],
}


def scene(seed: int) -> Scene:
    """A field that changes as much from cell to cell as features do."""
    rng = np.random.default_rng(seed)
    frequencies, phases = rng.normal(0, 7, (2, CHANNELS - 2)), rng.uniform(0, 2 * np.pi, CHANNELS - 2)
    return lambda places: np.sin(places @ frequencies + phases)


def features(field: Scene, affine: Affine = SAME, around: Scene | None = None, noise: float = 0.0) -> NDArray[np.int8]:
    """int8 [1, 64, C] of an edit of the scene: what is outside of it shows the scene `around`, or nothing at all."""
    rng = np.random.default_rng(len(str(affine)))
    matrix = np.array(affine)
    there = CENTRES @ matrix[:, :2].T + matrix[:, 2]
    inside = ((there >= 0) & (there <= 1)).all(axis=1)
    values = np.where(inside[:, None], field(there), around(CENTRES) if around else 0)
    values = values + noise * rng.standard_normal(values.shape) * (values != 0)
    order = np.argsort(~values.any(axis=1), kind="stable")[:64] if not inside.all() else rng.permutation(100)[:64]
    descriptors = np.clip(values[order] / 2 * 127, -127, 127)
    return np.concatenate([descriptors, CENTRES[order] * 256 - 128], axis=1).round().astype(np.int8)[None]


def look(upload: NDArray[np.int8], match: NDArray[np.int8]) -> Verification:
    [found] = verify(upload, match)
    return found


def covers(box: Box, left: float, top: float, right: float, bottom: float) -> bool:
    expected = pytest.approx((left, top, right, bottom), abs=0.06)
    return expected == (box.left, box.top, box.right, box.bottom)


@pytest.mark.parametrize("name", EDITS)
def test_edits_are_told(name: str) -> None:
    expected = np.array(EDITS[name])
    found = look(features(scene(1), EDITS[name], around=scene(2), noise=0.1), features(scene(1)))
    assert found.score > 0.3
    assert found.inliers >= 8
    assert len(found.links) == found.inliers
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    shown = ((corners @ expected.T >= -1e-6) & (corners @ expected.T <= 1 + 1e-6)).all()
    assert np.abs(corners @ (found.transform - expected).T).max() < (0.1 if shown else 0.25)


def test_the_edit_is_said_in_words_of_the_upload() -> None:
    original = features(scene(3))
    zoom = look(features(scene(3), EDITS["zoom"]), original).edit
    assert zoom is not None
    assert zoom.zoom == pytest.approx(1 / 0.7, rel=0.05)
    assert zoom.rotation_deg == pytest.approx(0, abs=3)
    assert not zoom.mirrored
    assert covers(zoom.box_in_match, 0.2, 0.1, 0.9, 0.8)
    assert covers(zoom.box_in_upload, 0, 0, 1, 1)
    assert zoom.overlap == pytest.approx(0.49, abs=0.06)

    inset = look(features(scene(3), EDITS["in a bigger picture"], around=scene(4)), original).edit
    assert inset is not None
    assert inset.zoom == pytest.approx(0.5, rel=0.08)
    assert covers(inset.box_in_match, 0, 0, 1, 1)
    assert covers(inset.box_in_upload, 0.1, 0.45, 0.6, 0.95)
    assert inset.overlap == pytest.approx(0.25, abs=0.05)


# The upload's own place (x, y) shows the match's: a clockwise turn takes what was at the top left to the top right.
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
    edit = look(features(scene(5), affine), features(scene(5))).edit
    assert edit is not None
    assert edit.mirrored is mirrored
    assert (edit.rotation_deg - rotation_deg + 180) % 360 - 180 == pytest.approx(0, abs=4)


@pytest.mark.parametrize("turn", range(3))
def test_a_turn_that_changes_the_features_is_seen_through(turn: int) -> None:
    """An encoder that sees a turned picture with other features, each of its turns being another change of axes."""
    rng = np.random.default_rng(9)
    turns = np.stack([np.linalg.qr(rng.normal(size=(CHANNELS - 2, CHANNELS - 2)))[0] for _ in range(3)])
    turned, upright = features(scene(8), EDITS["quarter turn"], noise=0.1).astype(float), features(scene(8))
    turned[..., :-2] = turned[..., :-2] @ turns[turn].T
    upload = turned.round().astype(np.int8)
    [blind], [seeing] = verify(upload, upright), verify(upload, upright, turns.astype(np.float32))
    assert blind.score < 0.15
    assert seeing.score > 0.3
    assert seeing.edit is not None
    assert seeing.edit.rotation_deg == pytest.approx(90, abs=4)
    # It takes nothing from pictures that were not turned, nor makes others the same.
    [plain], [zoomed] = (
        verify(features(scene(8), EDITS["zoom"]), upright, *more) for more in ([], [turns.astype(np.float32)])
    )
    assert zoomed.score == plain.score
    [stranger] = verify(features(scene(9)), upright, turns.astype(np.float32))
    assert stranger.score < 0.15


def test_what_only_looks_as_if_turned_is_seen_as_it_is() -> None:
    """Under a turn that makes all features one and the same, more find their like, and none its place."""
    same = np.zeros((1, CHANNELS - 2, CHANNELS - 2), np.float32)
    same[0, :, 0] = 1
    upload, match = features(scene(8), EDITS["zoom"], noise=0.1), features(scene(8))
    match[..., 1:-2] //= 2
    match[..., 0] = 127  # what all of the match have in common
    [plain], [turned] = verify(upload, match), verify(upload, match, same)
    assert plain.score > 0.15
    assert turned.score == plain.score


def test_of_a_small_part_less_is_asked() -> None:
    crop = look(features(scene(10), EDITS["strong crop"]), features(scene(10)))
    whole = look(features(scene(10)), features(scene(10)))
    assert crop.inliers < whole.inliers
    assert crop.score > whole.score * crop.inliers / (crop.inliers + 16) / (whole.inliers / (whole.inliers + 16))


def test_other_scenes_do_not_pass_for_copies() -> None:
    strangers = [look(features(scene(n)), features(scene(n + 1))).score for n in range(0, 60, 2)]
    copies = [look(features(scene(n), EDITS["zoom"], noise=0.2), features(scene(n))).score for n in range(0, 60, 2)]
    assert max(strangers) < min(copies)


def test_features_without_detail_never_vote() -> None:
    upload, match = features(scene(6), EDITS["zoom"]), features(scene(6))
    silent = np.zeros((1, 30, CHANNELS), np.int8)
    silent[..., -2:] = np.random.default_rng(0).integers(-128, 128, (1, 30, 2))
    padded = look(np.concatenate([upload, silent], axis=1), np.concatenate([match, silent], axis=1))
    alone = look(upload, match)
    assert padded.score == pytest.approx(alone.score, abs=1e-5)
    assert padded.inliers == alone.inliers
    blank = look(silent, silent)
    assert (blank.score, blank.inliers, blank.edit) == (0, 0, None)


def test_nothing_to_see_is_no_likeness() -> None:
    """Features that are usually alike, as those of one lawn are, with some that show nothing and without."""
    upload, match = features(scene(6), EDITS["zoom"]), features(scene(6))
    for patches in (upload, match):
        patches[..., :-2] = patches[..., :-2] // 2 + 60
    silent = np.zeros((1, 30, CHANNELS), np.int8)
    alone, padded = look(upload, match), look(upload, np.concatenate([match, silent], axis=1))
    assert alone.score > 0.3
    assert padded.score == pytest.approx(alone.score, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_a_feature_far_from_its_like_meets_nothing(seed: int) -> None:
    every = features(scene(seed))[0]
    left = every[every[:, -2] < -20][None]  # the match shows nothing to the right of them
    doubles = left.copy()
    doubles[..., -2] += 120
    alone, twice = look(left, left), look(np.concatenate([left, doubles], axis=1), left)
    assert min(alone.inliers, twice.inliers) > 10
    assert likeness(twice) == pytest.approx(likeness(alone), abs=0.01)


def likeness(verification: Verification) -> float:
    """The score without the trust in its inliers, of pictures that meet as wholes.

    A feature and its exact double tie for the nearest of a third, and how a processor rounds decides which one wins: so
    the number of inliers may differ between processors, the likeness may not.
    """
    return verification.score * (1 + HALF_TRUST_INLIERS / verification.inliers)


def test_the_length_of_descriptors_means_nothing() -> None:
    upload, match = features(scene(7), EDITS["zoom"]), features(scene(7))
    half = match.copy()
    half[..., :-2] = np.trunc(half[..., :-2] / 2)
    assert look(upload, half).score == pytest.approx(look(upload, match).score, abs=0.02)


def test_neighbours_in_a_batch_change_nothing() -> None:
    uploads = np.concatenate([features(scene(n), edit, noise=0.1) for n, edit in enumerate(EDITS.values())])
    matches = np.concatenate([features(scene(n)) for n in range(len(EDITS))])
    together = verify(uploads, matches)
    for index, found in enumerate(together):
        alone = look(uploads[index : index + 1], matches[index : index + 1])
        assert (alone.score, alone.inliers, alone.edit) == (found.score, found.inliers, found.edit)
    assert verify(uploads[:0], matches[:0]) == []


@pytest.mark.parametrize("name", EDITS)
def test_a_copy_promises_more_than_a_stranger_that_is_somewhat_nearer(name: str) -> None:
    upload = features(scene(1), EDITS[name], around=scene(2), noise=0.1)
    l2 = np.array([1.1, 1.0], np.float32)
    copy, stranger = candidate_scores(
        np.concatenate([upload, upload]), np.concatenate([features(scene(1)), features(scene(3))]), l2
    )
    assert copy > stranger


def test_of_two_alike_the_nearer_promises_more() -> None:
    same = np.concatenate([features(scene(1))] * 2)
    near, far = candidate_scores(same, same, np.array([0.9, 0.91], np.float32))
    assert near > far


def test_what_promises_does_so_beside_any_others() -> None:
    uploads = np.concatenate([features(scene(n), EDITS["zoom"], noise=0.1) for n in range(PAIRS_AT_ONCE + 3)])
    matches = np.concatenate([features(scene(n // 2)) for n in range(PAIRS_AT_ONCE + 3)])
    l2 = np.linspace(0.9, 1.2, PAIRS_AT_ONCE + 3, dtype=np.float32)
    together = candidate_scores(uploads, matches, l2)
    for n in (0, PAIRS_AT_ONCE - 1, PAIRS_AT_ONCE, PAIRS_AT_ONCE + 2):
        assert candidate_scores(uploads[n : n + 1], matches[n : n + 1], l2[n : n + 1]) == together[n]
    assert len(candidate_scores(uploads[:0], matches[:0], l2[:0])) == 0


SIDE = 24


def shown(field: Scene, affine: Affine = SAME) -> NDArray[np.int8]:
    """int8 [1, 12, C]: the thumbnail of a scene, or of an edit of it, as it stands behind the features."""
    x, y = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2)
    there = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ np.array(affine).T
    inside = ((there > 0) & (there < 1)).all(axis=1)
    levels = np.where(inside, np.clip(field(there).sum(axis=1) + 7.5, 0, 15), 0).round().astype(int).reshape(-1, 2)
    return (levels[:, 0] * 16 + levels[:, 1] - 128).astype(np.int8).reshape(1, -1, CHANNELS)


def seen(features: NDArray[np.int8], thumbnail: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.concatenate([features, thumbnail], axis=1)


def test_thumbnails_promise_nothing() -> None:
    upload, match, l2 = features(scene(1), EDITS["zoom"]), features(scene(1)), np.ones(1, np.float32)
    with_them = candidate_scores(seen(upload, shown(scene(1))), seen(match, shown(scene(2))), l2, SIDE)
    assert with_them == candidate_scores(upload, match, l2)


@pytest.mark.parametrize("name", ["same frame", "zoom", "strong crop", "mirrored", "quarter turn"])
def test_laid_upon_each_other_copies_are_told_from_what_only_has_the_same_features(name: str) -> None:
    upload, match, edit = features(scene(1), EDITS[name], noise=0.1), features(scene(1)), EDITS[name]
    [copy] = verify(seen(upload, shown(scene(1), edit)), seen(match, shown(scene(1))), None, SIDE)
    [other] = verify(seen(upload, shown(scene(2), edit)), seen(match, shown(scene(1))), None, SIDE)
    assert copy.score > 1.7 * other.score
    # The pixels say where the picture lies more exactly than features can.
    rough = look(upload, match)
    assert np.abs(copy.transform - edit).max() < 0.6 * np.abs(rough.transform - edit).max()
    assert (copy.inliers, len(copy.links)) == (rough.inliers, len(rough.links))


def test_what_hangs_over_counts_less() -> None:
    beside: Affine = [[1, 0, 0.5], [0, 1, 0]]
    upload = seen(features(scene(1), beside, around=scene(2)), shown(scene(1), beside))
    match = seen(features(scene(1)), shown(scene(1)))
    [found] = verify(upload, match, None, SIDE)
    inside = [[0.5, 0, 0.5], [0, 1, 0]]
    [part] = verify(seen(features(scene(1), inside), shown(scene(1), inside)), match, None, SIDE)
    assert 0 < found.score < 0.7 * part.score


def test_strangers_are_not_laid_upon_each_other() -> None:
    upload, match = features(scene(1)), features(scene(2))
    [found] = verify(seen(upload, shown(scene(1))), seen(match, shown(scene(1))), None, SIDE)
    assert found.score == look(upload, match).score < 0.1


def test_each_of_a_mixed_batch_is_turned_and_laid_for_itself() -> None:
    """Some are sure as they are, some are found only turned, some are strangers."""
    rng = np.random.default_rng(11)
    turns = np.stack([np.linalg.qr(rng.normal(size=(CHANNELS - 2, CHANNELS - 2)))[0] for _ in range(3)])
    turns = turns.astype(np.float32)
    uploads, matches = [], []
    for number in range(9):
        affine = EDITS["quarter turn"] if number % 3 == 1 else EDITS["zoom"]
        upload = features(scene(number + 50 * (number % 3 == 2)), affine, noise=0.1)
        if number % 3 == 1:
            values = upload.astype(float)
            values[..., :-2] = values[..., :-2] @ turns[1].T
            upload = values.round().astype(np.int8)
        uploads.append(seen(upload, shown(scene(number), affine)))
        matches.append(seen(features(scene(number)), shown(scene(number))))
    together = verify(np.concatenate(uploads), np.concatenate(matches), turns, SIDE)
    for number, found in enumerate(together):
        [alone] = verify(uploads[number], matches[number], turns, SIDE)
        assert (alone.score, alone.inliers) == (found.score, found.inliers)
        np.testing.assert_array_equal(alone.transform, found.transform)
    scores = np.array([found.score for found in together]).reshape(3, 3)
    assert scores[:, :2].min() > 2 * scores[:, 2].max()
    for found in together[1::3]:
        assert found.edit is not None
        assert found.edit.rotation_deg == pytest.approx(90, abs=4)


patches = hnp.arrays(np.int8, (2, 20, 6), elements=st.integers(-128, 127))


@settings(deadline=None)
@given(patches, patches, st.sampled_from([0, 6]))
def test_no_features_are_too_odd(uploads: NDArray[np.int8], candidates: NDArray[np.int8], side: int) -> None:
    for found in verify(uploads, candidates, None, side):
        assert 0 <= found.score <= 1
        assert found.to_evidence(verified=True).inliers == len(found.links)
        if found.edit is not None:
            assert found.edit.zoom > 0
            assert 0 <= found.edit.overlap <= 1
            for box in (found.edit.box_in_match, found.edit.box_in_upload):
                assert 0 <= box.left <= box.right <= 1
                assert 0 <= box.top <= box.bottom <= 1


@pytest.mark.parametrize("count", [2, 5, 13])
def test_few_features_are_no_fault(count: int) -> None:
    few = features(scene(1))[:, :count]
    assert look(few, few).inliers <= count


def test_the_nearer_the_less_score_is_asked_for() -> None:
    rule = VerificationRule(candidate_l2=0.9, min_score=0.6, score_per_l2=0.5)
    assert rule.accepts(0.9, 0.6)
    assert not rule.accepts(0.9, 0.59)
    assert not rule.accepts(0.91, 1.0)
    assert rule.accepts(0.5, 0.41)
    assert not rule.accepts(0.5, 0.39)


def test_of_a_part_the_boxes_are_those_of_what_it_shows() -> None:
    frame = Region(0.0, 0.5, 0.5, 1.0)
    alone = look(features(scene(1), EDITS["zoom"]), features(scene(1)))
    found = alone.in_whole_image(frame)
    part, edit = alone.edit, found.edit
    assert part is not None
    assert edit is not None
    assert box(edit.box_in_match) == pytest.approx(box(part.box_in_match), abs=1e-3)
    left, top, right, bottom = box(part.box_in_upload)
    assert box(edit.box_in_upload) == pytest.approx((left / 2, 0.5 + top / 2, right / 2, 0.5 + bottom / 2), abs=1e-3)
    assert edit.zoom == pytest.approx(part.zoom / 2, abs=1e-3)
    assert edit.overlap == pytest.approx(part.overlap, abs=2e-3)
    assert (found.links[:, 0] <= 0.55).all()
    assert (found.links[:, 1] >= 0.45).all()


def box(found: Box) -> tuple[float, float, float, float]:
    return found.left, found.top, found.right, found.bottom
