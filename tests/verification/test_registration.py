"""Registration of thumbnails: drawings under known transformations and other changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from consumer.images.thumbnail import SIDE
from consumer.verification.consensus import areas
from consumer.verification.registration import Registration, blurred, register
from tests.verification.drawings import IDENTITY, drawing, edited, thumbnail

Floats = NDArray[np.float32]
# From places in the upload to places in the match.
TRANSFORMS = {
    "the same frame": IDENTITY,
    "shifted": [[1, 0, 0.08], [0, 1, -0.06]],
    "zoom": [[0.7, 0, 0.2], [0, 0.7, 0.1]],
    "mirrored": [[-1, 0, 1], [0, 1, 0]],
    "mirrored zoom": [[-0.7, 0, 0.9], [0, 0.7, 0.1]],
    "quarter turn": [[0, 1, 0], [-1, 0, 1]],
    "rotated": [[0.94, 0.34, -0.14], [-0.34, 0.94, 0.2]],
    "in a bigger picture": [[1.6, 0, -0.2], [0, 1.6, -0.3]],
}


def roughened(transform: object, error: float = 0.03) -> Floats:
    """Make the transformation slightly wrong, as local features give it."""
    rough = np.array(transform, np.float32)
    rough[:, :2] *= 1 + error
    rough[:, 2] -= error
    return rough


def uploads_and_candidates(transform: object, count: int) -> tuple[Floats, Floats]:
    drawn = [drawing(seed) for seed in range(count)]
    return np.stack([thumbnail(edited(each, transform)) for each in drawn]), np.stack([*map(thumbnail, drawn)])


def register_from(uploads: Floats, candidates: Floats, *starts: object) -> Registration:
    """Register each pair from the same starts."""
    one = np.stack([np.asarray(start, np.float32) for start in starts])
    return register(uploads, candidates, np.repeat(one[None], len(uploads), axis=0))


def errors_px(registration: Registration, true: object) -> Floats:
    """Compute by how many pixels of the upload each transformation misses at the upload's corners, at most."""
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    missed = corners @ (registration.transforms - np.asarray(true)).transpose(0, 2, 1)
    area = abs(np.linalg.det(np.asarray(true)[:, :2]))
    largest: Floats = np.abs(missed).max(axis=(1, 2)) / np.sqrt(area) * SIDE
    return largest


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_rough_transformation_is_refined_to_parts_of_a_pixel(name: str) -> None:
    true = TRANSFORMS[name]
    uploads, candidates = uploads_and_candidates(true, 12)
    registration = register_from(uploads, candidates, roughened(true))
    assert np.median(errors_px(registration, true)) < (0.45 if name == "in a bigger picture" else 0.35)
    assert errors_px(registration, true).max() < 1
    assert registration.correlation.min() > 0.9
    assert registration.contained.min() > 0.8  # it is counted in steps


def test_of_several_starts_the_best_is_taken_wherever_it_stands() -> None:
    true = TRANSFORMS["mirrored zoom"]
    uploads, candidates = uploads_and_candidates(true, 4)
    starts = [roughened(true), IDENTITY, TRANSFORMS["quarter turn"]]
    for turn in range(3):
        registration = register_from(uploads, candidates, *starts[turn:], *starts[:turn])
        assert errors_px(registration, true).max() < 1


def test_a_start_that_stands_twice_changes_nothing() -> None:
    true = TRANSFORMS["zoom"]
    uploads, candidates = uploads_and_candidates(true, 3)
    once, twice = (
        register_from(uploads, candidates, *starts)
        for starts in ([roughened(true), IDENTITY], [roughened(true), roughened(true) + 1e-4, IDENTITY, IDENTITY])
    )
    for one, other in zip(once, twice, strict=True):
        np.testing.assert_array_equal(one, other)


def test_light_contrast_and_noise_change_little() -> None:
    rng = np.random.default_rng(2)
    zoomed, candidate = thumbnail(edited(drawing(3), TRANSFORMS["zoom"])), thumbnail(drawing(3))
    changed = [zoomed * 0.5 + 6, 15 - (15 - zoomed) * 0.7, zoomed + rng.normal(0, 1.5, zoomed.shape)]
    registration = register_from(
        np.stack(changed).astype(np.float32), np.stack([candidate] * 3), roughened(TRANSFORMS["zoom"])
    )
    assert registration.correlation.min() > 0.85
    assert errors_px(registration, TRANSFORMS["zoom"]).max() < 1


@pytest.mark.parametrize("name", ["the same frame", "zoom", "mirrored", "rotated"])
def test_what_covers_a_part_of_a_copy_does_not_drag_the_rest_along(name: str) -> None:
    uploads, candidates = uploads_and_candidates(TRANSFORMS[name], 12)
    uploads[:, 10:18, 12:36] = 15  # a sticker, brighter than all else
    registration = register_from(uploads, candidates, roughened(TRANSFORMS[name]))
    errors = errors_px(registration, TRANSFORMS[name])
    assert np.median(errors) < 0.4
    assert errors.max() < 1


def test_other_drawings_agree_less_wherever_they_are_laid() -> None:
    drawn = np.stack([thumbnail(drawing(seed)) for seed in range(60)])
    strangers = register_from(drawn[:30], drawn[30:], roughened(IDENTITY))
    copies = register_from(drawn, drawn, roughened(IDENTITY))
    assert strangers.correlation.max() < 0.7 < copies.correlation.min()


def test_what_overhangs_is_not_contained() -> None:
    half = [[1, 0, 0.5], [0, 1, 0]]
    candidate = thumbnail(drawing(6))[None]
    overhanging = register_from(thumbnail(edited(drawing(6), half))[None], candidate, half)
    assert overhanging.contained[0] == pytest.approx(0.5, abs=0.06)
    inset = TRANSFORMS["in a bigger picture"]
    assert register_from(thumbnail(edited(drawing(6), inset))[None], candidate, inset).contained[0] > 0.8


def test_neighbours_in_a_batch_change_nothing() -> None:
    starts = np.stack([[roughened(transform), IDENTITY] for transform in TRANSFORMS.values()])
    uploads = np.stack([thumbnail(edited(drawing(n), each)) for n, each in enumerate(TRANSFORMS.values())])
    candidates = np.stack([thumbnail(drawing(n)) for n in range(len(TRANSFORMS))])
    together = register(uploads, candidates, starts)
    for n in range(len(TRANSFORMS)):
        alone = register(uploads[n : n + 1], candidates[n : n + 1], starts[n : n + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[n])


pictures = hnp.arrays(np.float32, (2, SIDE, SIDE), elements=st.integers(0, 15))
transformations = hnp.arrays(np.float32, (2, 2, 2, 3), elements=st.floats(-4, 4, width=32))


@settings(deadline=None, max_examples=50)
@given(pictures, pictures, transformations)
def test_any_thumbnails_give_a_valid_result(uploads: Floats, candidates: Floats, starts: Floats) -> None:
    registration = register(uploads, candidates, starts)
    assert np.isfinite(registration.transforms).all()
    assert (np.abs(registration.correlation) <= 1 + 1e-5).all()
    assert ((registration.contained >= 0) & (registration.contained <= 1)).all()


def test_transformations_are_not_mirrored_nor_collapse() -> None:
    rng, count = np.random.default_rng(8), 200
    angle, size = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.2, 3, count)
    linear = size[:, None, None] * np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(
        -1, 2, 2
    )
    linear[::2, :, 0] *= -1
    shift = 0.5 - linear.sum(axis=2) / 2 + rng.uniform(-0.2, 0.2, (count, 2))
    starts = np.concatenate([linear, shift[..., None]], axis=2).astype(np.float32)
    drawn = np.stack([thumbnail(drawing(seed)) for seed in range(count + 1)])
    registration = register(drawn[1:], drawn[:-1], starts[:, None])
    before, after = (np.linalg.det(each[:, :, :2]) for each in (starts, registration.transforms))
    assert (before * after > 0).all()
    # The area may change by MAX_AREA_CHANGE in each of both stages.
    assert (np.maximum(after / before, before / after) < 4.02).all()
    assert (np.abs(after / before - 1) > 0.01).any()


def test_pictures_that_hardly_overlap_do_not_correlate() -> None:
    aside = [[1, 0, 0.97], [0, 1, 0.9]]
    registration = register_from(thumbnail(edited(drawing(9), aside))[None], thumbnail(drawing(9))[None], aside)
    assert registration.correlation[0] == -1
    assert registration.contained[0] < 0.05


def test_blurring_keeps_what_is_flat_and_spreads_what_is_not() -> None:
    flat = np.full((1, SIDE, SIDE), 7, np.float32)
    np.testing.assert_allclose(blurred(flat, 1.6), flat, rtol=1e-5)
    point = np.zeros((1, SIDE, SIDE), np.float32)
    point[0, 20, 30] = 1
    [spread] = blurred(point, 1.6)
    assert spread.sum() == pytest.approx(1, rel=1e-4)
    assert np.unravel_index(spread.argmax(), spread.shape) == (20, 30)
    assert spread[20, 28] == pytest.approx(spread[20, 30] * np.exp(-0.5 * (2 / 1.6) ** 2), rel=1e-3)


def test_areas_ignore_mirroring() -> None:
    assert areas(
        np.stack([IDENTITY, roughened(TRANSFORMS["mirrored"], 0.0), np.asarray(TRANSFORMS["zoom"], np.float32)])
    ) == pytest.approx([1, 1, 0.49])
