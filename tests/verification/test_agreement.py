"""Agreement of thumbnails that are laid upon each other: copies agree all over, other words on one layout nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from consumer.images.thumbnail import SIDE
from consumer.verification.agreement import QUANTILES, Agreement, agreement, blankness, structure
from tests.verification.drawings import IDENTITY, SIDE_PX, drawing, edited, page, thumbnail

Floats = NDArray[np.float32]
ZOOM = [[0.8, 0, 0.1], [0, 0.8, 0.15]]


def agree(upload: Image.Image, candidate: Image.Image, transform: object = IDENTITY) -> Agreement:
    """Compare two drawings."""
    one = np.asarray(transform, np.float32)[None]
    return agreement(thumbnail(upload)[None], thumbnail(candidate)[None], one)


def mean(found: Agreement) -> float:
    return float(found.small_blocks[0, 0])


@pytest.mark.parametrize("seed", range(5))
def test_other_words_on_one_layout_agree_far_less_than_a_copy(seed: int) -> None:
    original = page(seed)
    copies = [agree(original, original), agree(edited(original, ZOOM), original, ZOOM)]
    others = [agree(page(other), original) for other in range(100, 120)]
    least_of_copies, most_of_others = min(map(mean, copies)), max(map(mean, others))
    assert least_of_copies > 0.6
    assert most_of_others < 0.45 * least_of_copies
    # The plain correlation is high wherever lines of text fall upon each other.
    a, b = (thumbnail(each).ravel() for each in (page(100), original))
    assert np.corrcoef(a, b)[0, 1] > 0.5 > mean(others[0])


def test_a_drawing_agrees_with_its_copy_and_with_no_other() -> None:
    for seed in range(10):
        copy = agree(edited(drawing(seed), ZOOM), drawing(seed), ZOOM)
        other = agree(drawing(seed + 50), drawing(seed))
        assert min(mean(copy), float(copy.fine[0])) > 0.8
        assert max(mean(other), float(other.fine[0])) < 0.4


def test_a_half_covered_copy_agrees_where_it_is_not_covered() -> None:
    covered = drawing(1)
    covered.paste(drawing(30).crop((0, 0, SIDE_PX, SIDE_PX // 2)), (0, 0))
    other, half, whole = (agree(each, drawing(1)) for each in (drawing(30), covered, drawing(1)))
    q10, q25, _, q75 = range(1, 1 + len(QUANTILES))
    for blocks in ("small_blocks", "large_blocks"):
        of_other, of_half, of_whole = (getattr(each, blocks)[0] for each in (other, half, whole))
        assert of_whole[q10] > 0.9
        assert of_half[q75] > 0.9
        assert of_half[q25] < 0.4
        assert of_other[q75] < 0.5
        assert of_other[0] + 0.2 < of_half[0] < of_whole[0] - 0.2


def test_other_content_is_told_from_a_cover_by_what_both_show() -> None:
    """A plain patch hides a third of one copy; another has something else drawn there."""
    covered, replaced = drawing(1), drawing(1)
    box = (0, 0, SIDE_PX, SIDE_PX // 3)
    covered.paste(drawing(1).resize((1, 1)).getpixel((0, 0)), box)
    replaced.paste(drawing(30).crop(box), box)
    under_cover, of_other = (agree(each, drawing(1)).shared_blocks[0] for each in (covered, replaced))
    q10 = 1
    assert under_cover[q10] > 0.5
    assert of_other[q10] < 0.3


def test_light_and_contrast_change_little() -> None:
    for change in (lambda value: value * 0.5 + 20, lambda value: 255 - (255 - value) * 0.6):
        assert mean(agree(drawing(2).point(change), drawing(2))) > 0.95


def test_a_ball_on_a_lawn_is_no_ball_on_another_lawn() -> None:
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    ball = np.where((x - 24) ** 2 + (y - 24) ** 2 < 56, 14.0, 3.0)
    one, other = ((ball + rng.normal(0, 1.0, ball.shape)).astype(np.float32)[None] for _ in range(2))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.7
    found = agreement(one, other, IDENTITY[None])
    assert float(found.fine[0]) < 0.7
    assert mean(found) < 0.35


def test_only_what_meets_is_compared() -> None:
    half = [[1, 0, 0.5], [0, 1, 0]]
    found = agree(edited(drawing(6), half, 200), drawing(6), half)
    assert found.overlap[0] == pytest.approx(0.5, abs=0.1)
    assert mean(found) > 0.9
    aside = agree(drawing(6), drawing(6), [[1, 0, 2], [0, 1, 0]])
    assert (aside.overlap[0], aside.fine[0], mean(aside)) == (0, 0, 0)


def test_quantiles_rise_and_frame_the_mean() -> None:
    for seed in range(10):
        for blocks in agree(drawing(seed), drawing(seed + 1))[2:]:
            assert (np.diff(blocks[0, 1:]) >= 0).all()
            assert blocks[0, 1] <= blocks[0, 0]


def test_neighbours_in_a_batch_change_nothing() -> None:
    uploads = np.stack([thumbnail(edited(drawing(n), ZOOM)) for n in range(5)])
    candidates = np.stack([thumbnail(drawing(n // 2)) for n in range(5)])
    transforms = np.stack([np.asarray(ZOOM if n % 2 else IDENTITY, np.float32) for n in range(5)])
    together = agreement(uploads, candidates, transforms)
    for n in range(5):
        alone = agreement(uploads[n : n + 1], candidates[n : n + 1], transforms[n : n + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[n])


pictures = hnp.arrays(np.float32, (2, SIDE, SIDE), elements=st.sampled_from([0, 7, 8, 15]))
transformations = hnp.arrays(np.float32, (2, 2, 3), elements=st.floats(-4, 4, width=32))


@settings(deadline=None, max_examples=50)
@given(pictures, pictures, transformations)
def test_any_thumbnails_give_numbers_in_their_range(uploads: Floats, candidates: Floats, transforms: Floats) -> None:
    found = agreement(uploads, candidates, transforms)
    assert ((found.overlap >= 0) & (found.overlap <= 1)).all()
    for each in found[1:]:
        assert (np.abs(each) <= 1 + 1e-4).all()


def test_structure_and_blankness_tell_a_page_from_grain_and_from_nothing() -> None:
    grain = np.random.default_rng(3).integers(0, 16, (SIDE, SIDE)).astype(np.float32)
    thumbnails = np.stack([thumbnail(Image.new("L", (SIDE_PX, SIDE_PX), 90)), thumbnail(page(1, lines=2)), grain])
    none, little, much = structure(thumbnails).tolist()
    assert none < 1e-4
    assert 0.1 < little < 1 < much
    assert blankness(thumbnails.astype(np.uint8)).tolist() == pytest.approx([1, 0.8, 0.2], abs=0.1)
