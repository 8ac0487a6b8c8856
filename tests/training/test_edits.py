"""The copies that evaluation and calibration are made of."""

import numpy as np
import pytest

from tests.training.drawings import draw_picture
from triton_models.training.edits import EDITS, library_edits

ALL = {**EDITS, **library_edits()}


@pytest.mark.parametrize("name", ALL)
def test_an_edit_changes_the_picture_repeatably(name: str) -> None:
    picture, other = draw_picture(1), draw_picture(2)
    before = np.asarray(picture).copy()
    for strength in (0.0, 0.5, 1.0):
        edited, again = (ALL[name].apply(picture, strength, np.random.default_rng(3), other) for _ in range(2))
        assert edited.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(edited), np.asarray(again))
        np.testing.assert_array_equal(np.asarray(picture), before)  # the original is left alone
        assert edited.size != picture.size or (np.asarray(edited) != before).any()
