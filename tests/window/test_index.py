"""The index against brute force: growth, removal, expiry, limits of a search, and what the prefilter may miss."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumer.window.index import BLOCK_ROWS, Hit, Query, SearchParams, VectorIndex
from consumer.window.records import IndexRow, IndexRows, Position
from tests.window.examples import units

DIM = 32
RETENTION_MS = 1_000
PARAMS = SearchParams(radius_l2=0.8, threshold_l2=0.5, nearest=3)
# With a radius beyond the one up to which signatures tell near vectors from unrelated ones.
WIDE_PARAMS = SearchParams(radius_l2=1.2, threshold_l2=0.5, nearest=3)


def row(serial: int, vector: NDArray[np.float16], ms: int = 0, image_id: bytes | None = None) -> IndexRow:
    return IndexRow(Position(ms, serial), image_id or b"%d" % serial, 1_000_000 * serial, vector)


def query(serial: int, vector: NDArray[np.float16], ms: int = 0, image_id: bytes = b"query") -> Query:
    return Query(Position(ms, serial), image_id, vector)


def expected(rows: list[IndexRow], one: Query, params: SearchParams = PARAMS) -> list[Hit]:
    """Search by brute force."""
    hits = []
    # In float32, and rounded, as it is reported: rows at the same distance and rows at a limit are told apart by that.
    differences = np.array([row.vector for row in rows], np.float32).reshape(len(rows), DIM) - one.vector
    distances = np.round(np.sqrt(np.einsum("nd,nd->n", differences, differences)).astype(np.float64), 6)
    for row, l2 in zip(rows, distances.tolist(), strict=True):
        before = row.position.serial < one.position.serial and row.position.ms >= one.position.ms - RETENTION_MS
        if before and row.image_id != one.image_id and l2 <= params.radius_l2:
            hits.append(Hit(row.position, row.image_id, row.uploaded_us, l2))
    within = [hit for hit in hits if hit.l2 <= params.threshold_l2]
    nearest = sorted(hits, key=lambda hit: (hit.l2, hit.position))[: params.nearest]
    return sorted({*nearest, *within[:1]}, key=lambda hit: hit.position)


def assert_same(hits: list[Hit], expected_hits: list[Hit]) -> None:
    assert [hit[:3] for hit in hits] == [hit[:3] for hit in expected_hits]
    assert [hit.l2 for hit in hits] == pytest.approx([hit.l2 for hit in expected_hits], abs=2e-6)


@pytest.mark.parametrize("params", [PARAMS, WIDE_PARAMS], ids=["simhash", "scalar-quantizer"])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pages=st.lists(st.integers(0, 90), min_size=1, max_size=6),
    removed=st.sets(st.integers(1, 300), max_size=30),
    oldest=st.integers(0, 200),
)
def test_a_search_finds_what_brute_force_finds(
    params: SearchParams, seed: int, pages: list[int], removed: set[int], oldest: int
) -> None:
    rng = np.random.default_rng(seed)
    index = VectorIndex(DIM, params, RETENTION_MS)
    # Few centres, so that rows have near ones; few names, so that some stand under one image id.
    centres = units(rng, 4, DIM).astype(np.float64)
    rows: list[IndexRow] = []
    for page in pages:
        vectors = centres[rng.integers(0, 4, page)] + rng.normal(0, 0.06, (page, DIM))
        fresh = [
            row(
                len(rows) + n + 1, vector.astype(np.float16), ms=20 * (len(rows) + n), image_id=b"%d" % rng.integers(60)
            )
            for n, vector in enumerate(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        ]
        if fresh:
            index.extend(IndexRows.stack(fresh))
        rows += fresh
    for serial in removed:
        index.remove(Position(0, serial))
    index.drop_before(Position(0, oldest))
    living = [one for one in rows if one.position.serial not in removed and one.position.serial >= oldest]
    assert len(index) == len(living)
    queries = [Query(one.position, one.image_id, one.vector) for one in living[-20:]]
    queries.append(query(10_000, centres[0].astype(np.float16), ms=20 * len(rows)))
    for one, hits in zip(queries, index.search(queries), strict=True):
        assert_same(hits, expected(living, one, params))


def test_rows_fill_block_after_block() -> None:
    rng = np.random.default_rng(0)
    vectors = units(rng, 2 * BLOCK_ROWS + 10, DIM)
    rows = [row(n + 1, vector) for n, vector in enumerate(vectors)]
    index = VectorIndex(DIM, PARAMS, RETENTION_MS)
    for start in range(0, len(rows), 500):
        index.extend(IndexRows.stack(rows[start : start + 500]))
    assert len(index) == len(rows)
    chosen = (0, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 9)
    results = index.search([query(10**6, vectors[n]) for n in chosen])
    assert all(
        rows[n].position in [hit.position for hit in hits if hit.l2 == 0]
        for n, hits in zip(chosen, results, strict=True)
    )
    index.drop_before(rows[BLOCK_ROWS + 5].position)
    assert len(index) == BLOCK_ROWS + 5
    one_block = VectorIndex(DIM, PARAMS, RETENTION_MS)
    one_block.extend(IndexRows.stack(rows[:BLOCK_ROWS]))
    assert index.nbytes == 2 * one_block.nbytes


def test_a_flood_of_copies_takes_no_flood_of_memory() -> None:
    rng = np.random.default_rng(0)
    vectors = (units(rng, 1, DIM).astype(np.float64) + rng.normal(0, 0.02, (8 * BLOCK_ROWS, DIM))).astype(np.float16)
    index = VectorIndex(DIM, WIDE_PARAMS, RETENTION_MS)
    index.extend(IndexRows.stack([row(n + 1, vector) for n, vector in enumerate(vectors)]))
    queries = [query(10**6, vector) for vector in vectors[:100]]
    peaks = []
    for count in (10, 100):
        tracemalloc.start()
        index.search(queries[:count])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # All pairs of one block at once, some forty bytes each; not those of all blocks, which would be 130 MB more.
    assert peaks[1] < 100 * BLOCK_ROWS * 120
    assert peaks[1] < 11 * peaks[0]


@pytest.mark.parametrize("params", [PARAMS, WIDE_PARAMS], ids=["simhash", "scalar-quantizer"])
def test_what_is_removed_is_overwritten(params: SearchParams) -> None:
    rng = np.random.default_rng(0)
    vectors = units(rng, 3, DIM)
    index = VectorIndex(DIM, params, RETENTION_MS)
    index.extend(IndexRows.stack([row(n + 1, vector, image_id=b"secret-%d" % n) for n, vector in enumerate(vectors)]))
    index.remove(Position(0, 2))
    [block] = index._blocks
    assert vectors[1].tobytes() not in block.vectors.tobytes()
    assert block.ids == [b"secret-0", b"", b"secret-2"]
    assert not any(array[1].any() for array in block.sketch)
    index.remove(Position(0, 2))
    index.remove(Position(0, 77))
    assert len(index) == 2


def test_the_stored_vector_is_searched_with() -> None:
    first, second, other = units(np.random.default_rng(0), 3, DIM)
    index = VectorIndex(DIM, PARAMS, RETENTION_MS)
    index.extend(IndexRows.stack([row(1, first), row(2, first), row(3, second)]))
    [hits] = index.search([query(2, other, image_id=b"2")])
    assert [(hit.image_id, hit.l2) for hit in hits] == [(b"1", 0.0)]


def test_a_flood_of_copies_reports_the_earliest_and_the_nearest() -> None:
    rng = np.random.default_rng(0)
    centre = units(rng, 1, DIM).astype(np.float64)
    vectors = (centre + rng.normal(0, 0.02, (3 * BLOCK_ROWS, DIM))).astype(np.float16)
    rows = [row(n + 1, vector) for n, vector in enumerate(vectors)]
    index = VectorIndex(DIM, PARAMS, RETENTION_MS)
    index.extend(IndexRows.stack(rows))
    [hits] = index.search([query(10**6, vectors[-1])])
    assert len(hits) == PARAMS.nearest + 1
    assert hits[0].image_id == b"1"
    assert_same(hits, expected(rows, query(10**6, vectors[-1])))


def test_a_part_of_a_row_is_searched_for_by_itself() -> None:
    one, other = np.eye(DIM, dtype=np.float16)[:2]
    index = VectorIndex(DIM, PARAMS, RETENTION_MS)
    index.extend(IndexRows.stack([row(1, one), row(2, other), row(3, one, image_id=b"query")]))
    whole, part = index.search([query(3, other), query(3, other)._replace(stored=False)])
    assert [hit.position.serial for hit in whole] == [1]
    assert [hit.position.serial for hit in part] == [2]
