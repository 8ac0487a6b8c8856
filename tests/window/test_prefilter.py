"""Sketches of vectors miss nothing within a radius, and rule most strangers out."""

import math

import numpy as np
import pytest

from consumer.window.prefilter import Prefilter, ScalarQuantizer, SimHash, _most, exceeding_products, min_cosine
from tests.window.test_index import units


@pytest.mark.parametrize("dim", [16, 96, 256])
@pytest.mark.parametrize("radius_l2", [0.05, 0.3, 0.6, 0.9, 1.3, 2.0])
def test_sketches_miss_nothing_at_the_radius(dim: int, radius_l2: float) -> None:
    rng = np.random.default_rng(dim)
    ours = units(rng, 2_000, dim).astype(np.float64)
    aside = rng.standard_normal(ours.shape)
    aside -= np.sum(aside * ours, axis=1, keepdims=True) * ours
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    angle = 2 * math.asin(radius_l2 / 2)
    theirs = math.cos(angle) * ours + math.sin(angle) * aside
    queries, stored = (vectors.astype(np.float16).astype(np.float32) for vectors in (ours, theirs))
    signatures, rounded = SimHash(dim, radius_l2), ScalarQuantizer(dim, radius_l2)
    screens: list[Prefilter] = [signatures, rounded] if signatures.words else [rounded]
    if signatures.words:  # by themselves as well: where many pass, products take their place
        of_query, of_row = signatures.alike(signatures.of(queries)[0].T, signatures.of(stored)[0].T)
        assert set(range(2_000)) <= set(of_query[of_query == of_row].tolist())
    for screen in screens:
        for n in range(0, 2_000, 500):
            some = slice(n, n + 500)
            of_query, of_row = screen.passing(screen.queries(queries[some]), screen.of(stored[some]), stored[some])
            assert set(range(500)) <= {int(q) for q, r in zip(of_query, of_row, strict=True) if q == r}


def test_signatures_rule_strangers_out() -> None:
    rng = np.random.default_rng(0)
    screen = SimHash(256, 0.6)
    vectors = units(rng, 3_000, 256).astype(np.float32)
    of_query, _ = screen.alike(screen.of(vectors[:1_000])[0].T, screen.of(vectors[1_000:])[0].T)
    assert len(of_query) < 2_000_000 * 1e-4


@pytest.mark.parametrize(("trials", "success"), [(10, 0.3), (64, 0.1), (64, 0.5)])
def test_the_limit_is_the_binomial_quantile(trials: int, success: float) -> None:
    chances = [math.comb(trials, n) * success**n * (1 - success) ** (trials - n) for n in range(trials + 1)]
    for beyond in (1e-9, 1e-3, 0.5):
        limit = _most(trials, success, beyond)
        assert sum(chances[limit + 1 :]) <= beyond * (1 + 1e-9)
        assert limit == 0 or sum(chances[limit:]) > beyond


def test_products_with_rounded_rows_let_little_through_beyond_the_radius() -> None:
    rng = np.random.default_rng(0)
    vectors = units(rng, 3_000, 256).astype(np.float32)
    screen = ScalarQuantizer(256, 1.2)
    rows = vectors[1_000:]
    of_query, of_row = screen.passing(screen.queries(vectors[:1_000]), screen.of(rows), rows)
    exact_query, exact_row = exceeding_products(
        vectors[:1_000], rows, np.full(2_000, min_cosine(1.2 + 0.04), np.float32)
    )
    assert len(of_query) > 0
    assert set(zip(of_query.tolist(), of_row.tolist(), strict=True)) <= set(
        zip(exact_query.tolist(), exact_row.tolist(), strict=True)
    )


def test_zeros_are_near_to_nothing() -> None:
    codes, least = ScalarQuantizer(8, 0.5).of(np.zeros((2, 8), np.float32))
    assert not codes.any()
    assert exceeding_products(np.full((1, 8), 8**-0.5, np.float32), codes, least)[0].size == 0
