"""Sketches of vectors miss nothing within a radius, and rule most others out."""

import math
from typing import Any

import numpy as np
import pytest

from consumer.window.prefilter import (
    Prefilter,
    ScalarQuantizer,
    SimHash,
    binomial_upper_quantile,
)
from tests.window.examples import units


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
    simhash, quantizer = SimHash(dim, radius_l2), ScalarQuantizer(dim, radius_l2)
    prefilters: list[Prefilter[Any]] = [simhash, quantizer] if simhash.words else [quantizer]
    if simhash.words:  # by themselves as well: where many pass, products take their place
        query, row = simhash.similar_signatures(simhash.sketch(queries)[0].T, simhash.sketch(stored)[0].T)
        assert set(range(2_000)) <= set(query[query == row].tolist())
    for prefilter in prefilters:
        for n in range(0, 2_000, 500):
            chunk = slice(n, n + 500)
            query, row = prefilter.candidates(
                prefilter.prepare(queries[chunk]), prefilter.sketch(stored[chunk]), stored[chunk]
            )
            assert set(range(500)) <= {int(q) for q, r in zip(query, row, strict=True) if q == r}


def test_signatures_rule_unrelated_vectors_out() -> None:
    rng = np.random.default_rng(0)
    simhash = SimHash(256, 0.6)
    vectors = units(rng, 3_000, 256).astype(np.float32)
    query, _ = simhash.similar_signatures(simhash.sketch(vectors[:1_000])[0].T, simhash.sketch(vectors[1_000:])[0].T)
    assert len(query) < 2_000_000 * 1e-4


@pytest.mark.parametrize(("trials", "success"), [(10, 0.3), (64, 0.1), (64, 0.5)])
def test_the_limit_is_the_binomial_quantile(trials: int, success: float) -> None:
    chances = [math.comb(trials, n) * success**n * (1 - success) ** (trials - n) for n in range(trials + 1)]
    for beyond in (1e-9, 1e-3, 0.5):
        limit = binomial_upper_quantile(trials, success, beyond)
        assert sum(chances[limit + 1 :]) <= beyond * (1 + 1e-9)
        assert limit == 0 or sum(chances[limit:]) > beyond
