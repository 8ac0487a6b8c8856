"""What a verification tells of a pair of pictures: the edit between them, and the evidence."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from consumer.images.region import Region
from consumer.verdicts import Box, Edit
from consumer.verification.look import verify
from consumer.verification.measures import MEASURES
from consumer.verification.result import Verification
from tests.fakes.rule import make_rule
from tests.verification.scenes import EDITS, Affine, Scene, check_edit, features, scene

ONE = np.ones(1, np.float32)
REGION = Region(0.0, 0.5, 0.5, 1.0)
NO_LINKS = np.zeros((0, 4), np.float32)


def verification(of: Scene, affine: Affine, around: Scene | None = None) -> Verification:
    """Look at an edit of a scene, with something around it, and at the scene."""
    [one] = verify([features(of, affine, around)], [features(of)], ONE, make_rule())
    return one


def edit_of(one: Verification) -> Edit:
    assert one.edit is not None
    return one.edit


def covers(box: Box, left: float, top: float, right: float, bottom: float) -> bool:
    expected = pytest.approx((left, top, right, bottom), abs=0.06)
    return expected == (box.left, box.top, box.right, box.bottom)


def test_the_edit_leads_from_the_match_to_the_upload() -> None:
    zoom = edit_of(verification(scene(3), EDITS["zoom"]))
    assert zoom.zoom == pytest.approx(1 / 0.7, rel=0.01)
    assert zoom.rotation_deg == pytest.approx(0, abs=1)
    assert not zoom.mirrored
    assert covers(zoom.box_in_match, 0.2, 0.1, 0.9, 0.8)
    assert covers(zoom.box_in_upload, 0, 0, 1, 1)
    assert zoom.overlap == pytest.approx(0.49, abs=0.01)

    inset = edit_of(verification(scene(3), EDITS["in a bigger picture"], scene(4)))
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
    edit = edit_of(verification(scene(5), affine))
    assert edit.mirrored is mirrored
    assert (edit.rotation_deg - rotation_deg + 180) % 360 - 180 == pytest.approx(0, abs=1)


def test_the_boxes_of_a_region_are_in_coordinates_of_the_whole_image() -> None:
    alone = verification(scene(1), EDITS["zoom"])
    in_whole = alone.in_whole_image(REGION)
    part, edit = edit_of(alone), edit_of(in_whole)
    assert bounds(edit.box_in_match) == pytest.approx(bounds(part.box_in_match), abs=1e-3)
    left, top, right, bottom = bounds(part.box_in_upload)
    assert bounds(edit.box_in_upload) == pytest.approx((left / 2, 0.5 + top / 2, right / 2, 0.5 + bottom / 2), abs=1e-3)
    assert edit.zoom == pytest.approx(part.zoom / 2, abs=1e-3)
    assert edit.overlap == pytest.approx(part.overlap, abs=2e-3)
    assert (in_whole.links[:, 0] <= 0.55).all()
    assert (in_whole.links[:, 1] >= 0.45).all()
    assert (in_whole.score, in_whole.measures) == (alone.score, alone.measures)


def bounds(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom


@settings(deadline=None)
@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(-4, 4, width=32)), st.booleans())
def test_any_transformation_gives_a_valid_edit(transform: NDArray[np.float32], of_region: bool) -> None:
    one = Verification(0.5, 3, transform, NO_LINKS, {})
    edit = (one.in_whole_image(REGION) if of_region else one).edit
    if edit is not None:
        check_edit(edit)


def with_measures(measures: Mapping[str, float]) -> Verification:
    """Make a verification whose other measures are 0."""
    return Verification(0.61239, 5, np.eye(2, 3, dtype=np.float32), NO_LINKS, dict.fromkeys(MEASURES, 0.0) | measures)


def test_the_evidence_names_what_was_measured() -> None:
    measures = {"small_blocks_mean": 0.71239, "small_blocks_q10": -0.1, "stretch": np.log(1.25)}
    for verified in (True, False):
        evidence = with_measures(measures).to_evidence(verified)
        assert (evidence.verified, evidence.score, evidence.inliers) == (verified, 0.6124, 5)
        assert (evidence.agreement, evidence.least_agreement) == (0.712, -0.1)
        assert evidence.stretch == 0.25
        assert (evidence.edit is not None) == verified
    assert with_measures({"stretch": 20.0}).to_evidence(verified=False).stretch == 99


@pytest.mark.parametrize(("upload", "match", "writing"), [(0.6, 0.5, True), (0.6, 0.4, False), (0.4, 0.9, False)])
def test_two_pictures_mostly_of_one_grey_are_writing(upload: float, match: float, writing: bool) -> None:
    one = with_measures({"upload_blankness": upload, "match_blankness": match})
    assert one.to_evidence(verified=True).writing is writing
