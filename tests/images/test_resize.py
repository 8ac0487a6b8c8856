"""The library that resizes on the processor's vectors gives what Pillow gives; where it is missing, Pillow does it."""

import numpy as np
import pytest
from PIL import Image
from skimage import data as samples

from consumer.images import resize
from consumer.images.resize import squash, squash_rgb

SIDE_PX = 192
PHOTO = Image.fromarray(samples.astronaut())
has_library = pytest.mark.skipif(resize.Resizer is None, reason="there is no cykooz_resizer for this processor")


@has_library
@pytest.mark.parametrize("size", [(320, 240), (193, 767), (192, 192), (100, 50), (8, 8)])
def test_both_give_the_same_but_for_a_grey_level(size: tuple[int, int]) -> None:
    image = PHOTO.resize(size)
    difference = np.abs(squash_rgb(image, SIDE_PX).astype(int) - np.asarray(squash(image, SIDE_PX)))
    assert difference.max() <= 2
    assert difference.mean() < 0.25


@pytest.mark.parametrize("size", [(768, 300), (2000, 1500)])
def test_pillow_takes_those_that_it_averages_first(size: tuple[int, int]) -> None:
    image = PHOTO.resize(size)
    assert np.array_equal(squash_rgb(image, SIDE_PX), np.asarray(squash(image, SIDE_PX)))


def test_pillow_takes_all_where_there_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "Resizer", None)
    image = PHOTO.resize((320, 240))
    assert np.array_equal(squash_rgb(image, SIDE_PX), np.asarray(squash(image, SIDE_PX)))
