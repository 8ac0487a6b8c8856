"""Registration of thumbnails: drawn scenes under known transformations and other changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from consumer.encoder.patches import split_features, thumbnail_bytes, unpack_thumbnails
from consumer.verification.consensus import areas
from consumer.verification.registration import register

SIDE = 24
Floats = NDArray[np.float32]
IDENTITY = np.eye(2, 3, dtype=np.float32)
# From places in the upload to places in the match.
TRANSFORMS = {
    "the same frame": IDENTITY,
    "zoom": [[0.7, 0, 0.2], [0, 0.7, 0.1]],
    "mirrored": [[-1, 0, 1], [0, 1, 0]],
    "quarter turn": [[0, 1, 0], [-1, 0, 1]],
    "rotated": [[0.94, 0.34, -0.14], [-0.34, 0.94, 0.2]],
    "in a bigger picture": [[1.6, 0, -0.2], [0, 1.6, -0.3]],
}


def scene(seed: int, transform: object = IDENTITY) -> Floats:
    """Draw a thumbnail of a scene as detailed as thumbnails can be, float32 [SIDE, SIDE] in 0..15."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2)
    places = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.asarray(transform, np.float64).T
    waves = np.zeros((SIDE, SIDE))
    for _ in range(14):
        frequency, phase = rng.normal(0, 14, 2), rng.uniform(0, 2 * np.pi)
        waves += np.sin(places @ frequency + phase)
    outside = ((places < 0) | (places > 1)).any(axis=-1)
    return np.where(outside, 0, np.clip(waves * 2 + 7.5, 0, 15)).round().astype(np.float32)


def roughened(transform: object, error: float = 0.03) -> Floats:
    """Make the transformation slightly wrong, as local features give it."""
    rough = np.array(transform, np.float32)
    rough[:, :2] *= 1 + error
    rough[:, 2] -= error
    return rough


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_rough_transformation_is_refined(name: str) -> None:
    true = np.asarray(TRANSFORMS[name], np.float32)
    uploads, candidates = (np.stack([scene(seed, transform) for seed in range(20)]) for transform in (true, IDENTITY))
    registration = register(uploads, candidates, np.stack([roughened(true)] * 20))
    before, after = np.abs(roughened(true) - true).max(), np.abs(registration.transforms - true).max(axis=(1, 2))
    assert np.median(after) < before * 0.6
    assert np.median(registration.correlation) > 0.8
    assert registration.contained.min() > 0.8


def test_light_contrast_and_noise_change_little() -> None:
    rng = np.random.default_rng(2)
    zoomed = scene(3, TRANSFORMS["zoom"])
    edited = [zoomed * 0.5 + 6, 15 - (15 - zoomed) * 0.7, zoomed + rng.normal(0, 1.5, zoomed.shape)]
    uploads = np.stack(edited).astype(np.float32)
    registration = register(uploads, np.stack([scene(3)] * 3), np.stack([roughened(TRANSFORMS["zoom"])] * 3))
    assert registration.correlation.min() > 0.75


def test_other_scenes_do_not_agree_wherever_they_are_laid() -> None:
    uploads, candidates = (np.stack([scene(seed) for seed in range(first, first + 40)]) for first in (100, 200))
    strangers = register(uploads, candidates, np.stack([roughened(IDENTITY)] * 40))
    copies = register(uploads, uploads, np.stack([roughened(IDENTITY)] * 40))
    assert strangers.correlation.max() < 0.6 < copies.correlation.min()


def test_a_ball_on_a_lawn_is_no_ball_on_another_lawn() -> None:
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    ball = np.where((x - 12) ** 2 + (y - 12) ** 2 < 14, 14.0, 3.0)
    one, other = (ball + rng.normal(0, 1.0, ball.shape) for _ in range(2))
    plain = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    registration = register(one[None].astype(np.float32), other[None].astype(np.float32), IDENTITY[None])
    assert plain > 0.8
    assert registration.correlation[0] < plain - 0.1


def test_what_overhangs_is_not_contained() -> None:
    half = np.array([[1, 0, 0.5], [0, 1, 0]], np.float32)
    registration = register(scene(6, half)[None], scene(6)[None], half[None])
    assert registration.contained[0] == pytest.approx(0.5, abs=0.06)
    inset = np.asarray(TRANSFORMS["in a bigger picture"], np.float32)
    assert register(scene(6, inset)[None], scene(6)[None], inset[None]).contained[0] > 0.9


def test_neighbours_in_a_batch_change_nothing() -> None:
    transforms = np.stack([roughened(transform) for transform in TRANSFORMS.values()])
    uploads = np.stack([scene(n, transform) for n, transform in enumerate(TRANSFORMS.values())])
    candidates = np.stack([scene(n) for n in range(len(TRANSFORMS))])
    together = register(uploads, candidates, transforms)
    for n in range(len(TRANSFORMS)):
        alone = register(uploads[n : n + 1], candidates[n : n + 1], transforms[n : n + 1])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[n])


pictures = hnp.arrays(np.float32, (2, SIDE, SIDE), elements=st.integers(0, 15))
transformations = hnp.arrays(np.float32, (2, 2, 3), elements=st.floats(-4, 4, width=32))


@settings(deadline=None, max_examples=50)
@given(pictures, pictures, transformations)
def test_any_thumbnails_give_a_valid_result(uploads: Floats, candidates: Floats, transforms: Floats) -> None:
    registration = register(uploads, candidates, transforms)
    assert np.isfinite(registration.transforms).all()
    assert (np.abs(registration.correlation) <= 1 + 1e-5).all()
    assert ((registration.contained >= 0) & (registration.contained <= 1)).all()


def test_transformations_are_not_mirrored_nor_collapse() -> None:
    rng = np.random.default_rng(8)
    angle, size = rng.uniform(0, 2 * np.pi, 300), rng.uniform(0.2, 3, 300)
    linear = size[:, None, None] * np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(
        -1, 2, 2
    )
    linear[::2, :, 0] *= -1
    shift = 0.5 - linear.sum(axis=2) / 2 + rng.uniform(-0.2, 0.2, (300, 2))
    starts = np.concatenate([linear, shift[..., None]], axis=2).astype(np.float32)
    uploads, candidates = (np.stack([scene(seed) for seed in range(first, first + 300)]) for first in (1000, 2000))
    registration = register(uploads, candidates, starts)
    before, after = (np.linalg.det(each[:, :, :2]) for each in (starts, registration.transforms))
    assert (before * after > 0).all()
    assert (np.maximum(after / before, before / after) < 2.01).all()
    assert (np.abs(after / before - 1) > 0.01).any()


def test_pictures_that_hardly_overlap_do_not_correlate() -> None:
    aside = np.array([[1, 0, 0.97], [0, 1, 0.9]], np.float32)
    registration = register(scene(9, aside)[None], scene(9)[None], aside[None])
    assert registration.correlation[0] == 0
    assert registration.contained[0] < 0.05


def test_patches_hold_features_and_then_the_thumbnail() -> None:
    rng = np.random.default_rng(7)
    levels = rng.integers(0, 16, (3, SIDE, SIDE))
    pairs = levels.reshape(3, -1, 2)
    packed = (pairs[..., 0] * 16 + pairs[..., 1] - 128).astype(np.int8).reshape(3, -1, 24)
    features = rng.integers(-128, 128, (3, 10, 24)).astype(np.int8)
    patches = np.concatenate([features, packed], axis=1)
    np.testing.assert_array_equal(split_features(patches, SIDE), features)
    np.testing.assert_array_equal(unpack_thumbnails(patches, SIDE), levels)
    assert packed[0].nbytes == thumbnail_bytes(SIDE)
    np.testing.assert_array_equal(split_features(features, 0), features)


def test_areas_ignore_mirroring() -> None:
    assert areas(
        np.stack([IDENTITY, roughened(TRANSFORMS["mirrored"], 0.0), np.asarray(TRANSFORMS["zoom"], np.float32)])
    ) == pytest.approx([1, 1, 0.49])
