"""Codes of vectors miss nothing within a radius, whatever the vectors, and tell how far they may be off."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumer.encoder.codebooks import code_scale
from consumer.window.codes import encode, pack, pairs_within
from tests.window.examples import units


def test_codes_are_as_near_as_they_say() -> None:
    vectors = units(np.random.default_rng(0), 500, 256)
    vectors[0] = np.eye(256)[0]  # beyond the reach of a code
    vectors[1] = 0
    codes, squared_length, error_l2 = encode(vectors)
    off: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64) - codes / code_scale(256), axis=1)
    assert (off <= error_l2).all()
    assert np.median(error_l2) < 0.01
    assert squared_length.tolist() == (codes.astype(int) ** 2).sum(axis=1).tolist()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dim=st.integers(1, 300),
    queries=st.integers(1, 40),
    rows=st.integers(1, 80),
    radius_l2=st.one_of(st.sampled_from([0.0, 1e-3, 0.3, 1.26, 2.0]), st.floats(0, 2)),
    peaked=st.booleans(),
)
def test_no_pair_within_the_radius_is_missed(
    seed: int, dim: int, queries: int, rows: int, radius_l2: float, peaked: bool
) -> None:
    rng = np.random.default_rng(seed)

    def vectors(count: int) -> NDArray[np.float64]:
        drawn = rng.standard_normal((count, dim)) ** (9 if peaked else 1)  # to odd powers: far beyond the codes' reach
        lengths = rng.uniform(0.99, 1.01, (count, 1)) * (rng.random((count, 1)) > 0.05)
        return np.asarray(lengths * drawn / np.linalg.norm(drawn, axis=1, keepdims=True))

    asked = vectors(queries).astype(np.float16)
    stored = vectors(rows)
    # Every other row lies at the radius of a query, as nearly as float16 can say.
    stored[::2] = asked[rng.integers(0, queries, len(stored[::2]))] + radius_l2 * vectors(len(stored[::2]))
    stored = stored.astype(np.float16)
    exact: NDArray[np.float64] = np.linalg.norm(asked[:, np.newaxis].astype(np.float64) - stored, axis=2)
    query, row, l2 = pairs_within(pack(encode(asked)), encode(stored), radius_l2)
    found = set(zip(query.tolist(), row.tolist(), strict=True))
    assert set(zip(*(each.tolist() for each in np.nonzero(exact <= radius_l2)), strict=True)) <= found
    assert row.tolist() == sorted(row.tolist())
    # The distances are those of the codes, to the last bit, and no farther from the exact ones than the errors say.
    one, other = encode(asked), encode(stored)
    difference = one.codes[query].astype(np.int64) - other.codes[row]
    assert l2.tolist() == (np.sqrt((difference**2).sum(axis=1)) / code_scale(dim)).tolist()
    assert (np.abs(l2 - exact[query, row]) <= one.error_l2[query].astype(float) + other.error_l2[row]).all()


def test_errors_that_add_up_are_allowed_for() -> None:
    rng, scale = np.random.default_rng(0), code_scale(64)
    for _ in range(100):
        ours, theirs = rng.integers(-40, 41, (2, 64)) / scale
        step = (theirs - ours) * 0.49 / scale / np.abs(theirs - ours).max()
        # Both are rounded away from each other, and another query is not rounded at all.
        queries, rows = np.stack([ours + step, ours]), (theirs - step)[np.newaxis]
        radius_l2 = float(np.linalg.norm(queries[0] - rows[0]))
        query, _, _ = pairs_within(pack(encode(queries)), encode(rows), radius_l2)
        assert 0 in query


def test_little_passes_beyond_the_radius() -> None:
    rng = np.random.default_rng(0)
    queries, rows = units(rng, 1_000, 256), units(rng, 2_000, 256)
    query, row, _ = pairs_within(pack(encode(queries)), encode(rows), 1.2)
    exact: NDArray[np.float32] = np.linalg.norm(queries[query].astype(np.float32) - rows[row], axis=1)
    assert len(query) > 0
    assert exact.max() < 1.26


def test_products_begin_no_threads_whichever_thread_they_are_in() -> None:
    vectors = units(np.random.default_rng(0), 4_096, 64)
    tasks = Path("/proc/self/task")

    def threads_begun() -> set[str]:
        before = {task.name for task in tasks.iterdir()}
        pairs_within(pack(encode(vectors[:256])), encode(vectors), 0.5)
        return {task.name for task in tasks.iterdir()} - before

    with ThreadPoolExecutor(1) as other:
        assert not other.submit(threads_begun).result()
