"""Thresholds, recall and precision agree with a plain computation."""

import numpy as np
import pytest

from triton_models.training.measure import Measured, measure


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make(kinds: int = 3, count: int = 40, dim: int = 8) -> tuple[Measured, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    references = unit(rng, 100, dim)
    originals = np.arange(10, 10 + count)
    copies = references[originals] + 0.4 * unit(rng, kinds, count, dim)
    copies /= np.linalg.norm(copies, axis=-1, keepdims=True)
    mixed_in = np.full((kinds, count), -1)
    mixed_in[0, 0] = 99
    measured = measure(copies, originals, references, excluded=[(10, 11)], mixed_in=mixed_in, keep_rate=0.5)
    distances = np.linalg.norm(copies[:, :, None] - references[None, None], axis=-1)
    distances[0, 0, 99] = np.nan
    distances[:, 0, 11] = distances[:, 1, 10] = np.nan
    return measured, distances, originals


def test_distances_agree_with_a_plain_computation() -> None:
    measured, distances, originals = make()
    own = np.take_along_axis(distances, np.broadcast_to(originals, distances.shape[:2])[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(measured.copies, own, atol=1e-3)
    others = distances.copy()
    np.put_along_axis(others, np.broadcast_to(originals, others.shape[:2])[..., None], np.nan, axis=2)
    flat = np.sort(others[~np.isnan(others)])
    assert measured.pairs == len(flat)
    np.testing.assert_allclose(measured.others, flat[: len(measured.others)], atol=1e-3)
    np.testing.assert_array_equal(measured.ranked_first, own <= np.nanmin(others, axis=2))


def test_the_threshold_lets_through_the_rate_asked_for() -> None:
    measured, _, _ = make()
    threshold = measured.threshold(0.01)
    assert (measured.others <= threshold).sum() == int(0.01 * measured.pairs)
    assert ((measured.recall(threshold) > 0) & (measured.recall(threshold) <= 1)).all()
    (low, high), recalls = measured.interval(0.01)
    assert low <= threshold <= high
    assert recalls.shape == (4, 2)
    assert (recalls[:, 0] <= recalls[:, 1]).all()


def test_too_low_a_rate_is_refused_with_what_it_would_take() -> None:
    measured, _, _ = make()
    with pytest.raises(ValueError, match="more pictures"):
        measured.threshold(1e-7)


def test_average_precision_is_one_when_all_copies_are_nearest_and_falls_with_each_that_is_not() -> None:
    ordered = Measured(
        np.array([[0.1, 0.2]], np.float32), np.array([[True, True]]), np.array([0.3, 0.4], np.float32),
        np.zeros(2, np.int64), np.zeros(2, np.int64), 10,
    )  # fmt: skip
    assert ordered.average_precision() == 1.0
    mixed = Measured(
        np.array([[0.1, 0.35]], np.float32), np.array([[True, True]]), np.array([0.3, 0.4], np.float32),
        np.zeros(2, np.int64), np.zeros(2, np.int64), 10,
    )  # fmt: skip
    assert mixed.average_precision() == pytest.approx((1 + 2 / 3) / 2)
