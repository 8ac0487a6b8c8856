"""Views have one form, repeat by their seed, and have the geometry that they say."""

import numpy as np
import pytest

from triton_models.training import augment
from triton_models.training.augment import Pixels, Rng, View, light_view, strong_view

SIZE = 64


def picture() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)


def other(rng: Rng) -> Pixels:
    return rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("make", [light_view, strong_view])
def test_views_have_one_form_and_follow_their_seed(make: object) -> None:
    assert callable(make)
    for seed in range(150):
        first, again = (make(np.random.default_rng(seed), picture(), 1.3, other, SIZE) for _ in range(2))
        assert first.pixels.shape == (SIZE, SIZE, 3)
        assert first.pixels.dtype == np.uint8
        assert np.isfinite(first.to_source).all()
        np.testing.assert_array_equal(first.pixels, again.pixels)
        np.testing.assert_array_equal(first.to_source, again.to_source)


@pytest.mark.parametrize("name", [edit.__name__ for edit, _ in augment.EDITS])
def test_edits_keep_the_form_and_change_something(name: str) -> None:
    edit = getattr(augment, name)
    smooth = np.ascontiguousarray(picture()[:SIZE, :SIZE])
    changed = False
    for seed in range(12):
        edited = edit(np.random.default_rng(seed), smooth.copy(), other)
        assert edited.shape == smooth.shape
        assert edited.dtype == np.uint8
        changed |= bool((edited != smooth).any())
    assert changed


def test_the_homography_leads_back_to_the_spot_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture holds its own coordinates as colours, so that each pixel of a view tells where it came from."""
    monkeypatch.setattr(augment, "EDITS", ((_untouched, 1.0),) * 5)
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    charted = np.stack((*np.meshgrid(ramp, ramp), np.full((256, 256), 77, np.uint8)), axis=-1)
    checked = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        if (
            rng.random() < augment.COMBINED_SHARE
        ):  # the branch with lighting and noise, which would change the coordinates
            continue
        view = strong_view(np.random.default_rng(seed), charted, 1.0, lambda rng: np.zeros_like(charted), SIZE)
        checked += _check(view)
    assert checked > 2000


def _untouched(rng: Rng, pixels: Pixels, other: augment.Other) -> Pixels:
    return pixels


def _check(view: View) -> int:
    """Compare pixels inside the picture with their places by the homography. Return how many were compared."""
    centres = (np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).reshape(-1, 2) + 0.5) / SIZE
    mapped = np.c_[centres, np.ones(len(centres))] @ view.to_source.T
    expected = mapped[:, :2] / mapped[:, 2:]
    pixels = view.pixels.reshape(-1, 3)
    inside = ((expected > 0.08) & (expected < 0.92)).all(axis=1) & (np.abs(pixels[:, 2].astype(int) - 77) < 2)
    error = np.abs(pixels[inside, :2] / 255 - expected[inside]).max(axis=1)
    if inside.sum() > 50:
        assert np.quantile(error, 0.9) < 0.06
    return int(inside.sum())
