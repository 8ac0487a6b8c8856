"""The mirror against brute force: growth, removal, expiry, limits of a search, and what the screen may miss."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumer.window.index import BLOCK_ROWS, Hit, Query, SearchParams, VectorIndex
from consumer.window.records import IndexRow, Position

DIM = 32
RETENTION_MS = 1_000
REACH = SearchParams(radius_l2=0.8, threshold_l2=0.5, nearest=3)
WIDE = SearchParams(radius_l2=1.2, threshold_l2=0.5, nearest=3)  # beyond what signatures tell from strangers


def units(rng: np.random.Generator, count: int, dim: int = DIM) -> NDArray[np.float16]:
    vectors = rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def row(serial: int, vector: NDArray[np.float16], ms: int = 0, image_id: bytes | None = None) -> IndexRow:
    return IndexRow(Position(ms, serial), image_id or b"%d" % serial, 1_000_000 * serial, vector)


def query(serial: int, vector: NDArray[np.float16], ms: int = 0, image_id: bytes = b"query") -> Query:
    return Query(Position(ms, serial), image_id, vector)


def expected(rows: list[IndexRow], one: Query, reach: SearchParams = REACH) -> list[Hit]:
    """What a search has to find, by the book."""
    hits = []
    for row in rows:
        before = row.position.serial < one.position.serial and row.position.ms >= one.position.ms - RETENTION_MS
        l2 = math.dist(row.vector.tolist(), one.vector.tolist())
        if before and row.image_id != one.image_id and l2 <= reach.radius_l2:
            hits.append(Hit(row.position, row.image_id, row.uploaded_us, l2))
    within = [hit for hit in hits if hit.l2 <= reach.threshold_l2]
    nearest = sorted(hits, key=lambda hit: (round(hit.l2, 6), hit.position))[: reach.nearest]
    return sorted({*nearest, *within[:1]}, key=lambda hit: hit.position)


def assert_same(found: list[Hit], wanted: list[Hit]) -> None:
    assert [hit[:3] for hit in found] == [hit[:3] for hit in wanted]
    assert [hit.l2 for hit in found] == pytest.approx([hit.l2 for hit in wanted], abs=2e-6)


@pytest.mark.parametrize("reach", [REACH, WIDE], ids=["signatures", "products"])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pages=st.lists(st.integers(0, 90), min_size=1, max_size=6),
    removed=st.sets(st.integers(1, 300), max_size=30),
    oldest=st.integers(0, 200),
)
def test_a_search_finds_what_brute_force_finds(
    reach: SearchParams, seed: int, pages: list[int], removed: set[int], oldest: int
) -> None:
    rng = np.random.default_rng(seed)
    mirror = VectorIndex(DIM, reach, RETENTION_MS)
    # Few centres, so that rows have near ones; few names, so that some stand under one image id.
    centres = units(rng, 4).astype(np.float64)
    rows: list[IndexRow] = []
    for page in pages:
        vectors = centres[rng.integers(0, 4, page)] + rng.normal(0, 0.06, (page, DIM))
        fresh = [
            row(
                len(rows) + n + 1, vector.astype(np.float16), ms=20 * (len(rows) + n), image_id=b"%d" % rng.integers(60)
            )
            for n, vector in enumerate(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        ]
        mirror.extend(fresh)
        rows += fresh
    for serial in removed:
        mirror.remove(Position(0, serial))
    mirror.drop_before(Position(0, oldest))
    living = [one for one in rows if one.position.serial not in removed and one.position.serial >= oldest]
    assert len(mirror) == len(living)
    queries = [Query(one.position, one.image_id, one.vector) for one in living[-20:]]
    queries.append(query(10_000, centres[0].astype(np.float16), ms=20 * len(rows)))
    for one, found in zip(queries, mirror.search(queries), strict=True):
        assert_same(found, expected(living, one, reach))


def test_rows_fill_block_after_block() -> None:
    rng = np.random.default_rng(0)
    vectors = units(rng, 2 * BLOCK_ROWS + 10)
    rows = [row(n + 1, vector) for n, vector in enumerate(vectors)]
    mirror = VectorIndex(DIM, REACH, RETENTION_MS)
    for start in range(0, len(rows), 500):
        mirror.extend(rows[start : start + 500])
    assert len(mirror) == len(rows)
    wanted = (0, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 9)
    found = mirror.search([query(10**6, vectors[n]) for n in wanted])
    assert all(
        rows[n].position in [hit.position for hit in hits if hit.l2 == 0] for n, hits in zip(wanted, found, strict=True)
    )
    mirror.drop_before(rows[BLOCK_ROWS + 5].position)
    assert len(mirror) == BLOCK_ROWS + 5
    one_block = VectorIndex(DIM, REACH, RETENTION_MS)
    one_block.extend(rows[:BLOCK_ROWS])
    assert mirror.nbytes == 2 * one_block.nbytes


def test_a_flood_of_copies_takes_no_flood_of_memory() -> None:
    rng = np.random.default_rng(0)
    vectors = (units(rng, 1).astype(np.float64) + rng.normal(0, 0.02, (8 * BLOCK_ROWS, DIM))).astype(np.float16)
    mirror = VectorIndex(DIM, WIDE, RETENTION_MS)
    mirror.extend([row(n + 1, vector) for n, vector in enumerate(vectors)])
    queries = [query(10**6, vector) for vector in vectors[:100]]
    peaks = []
    for count in (10, 100):
        tracemalloc.start()
        mirror.search(queries[:count])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # All pairs of one block at once, some forty bytes each; not those of all blocks, which would be 130 MB more.
    assert peaks[1] < 100 * BLOCK_ROWS * 120
    assert peaks[1] < 11 * peaks[0]


@pytest.mark.parametrize("reach", [REACH, WIDE], ids=["signatures", "products"])
def test_what_is_removed_is_overwritten(reach: SearchParams) -> None:
    rng = np.random.default_rng(0)
    vectors = units(rng, 3)
    mirror = VectorIndex(DIM, reach, RETENTION_MS)
    mirror.extend([row(n + 1, vector, image_id=b"secret-%d" % n) for n, vector in enumerate(vectors)])
    mirror.remove(Position(0, 2))
    [block] = mirror._blocks
    assert vectors[1].tobytes() not in block.vectors.tobytes()
    assert block.ids == [b"secret-0", b"", b"secret-2"]
    assert not any(kept[1].any() for kept in block.sketch)
    mirror.remove(Position(0, 2))
    mirror.remove(Position(0, 77))
    assert len(mirror) == 2


def test_the_stored_vector_is_searched_with() -> None:
    first, second, other = units(np.random.default_rng(0), 3)
    mirror = VectorIndex(DIM, REACH, RETENTION_MS)
    mirror.extend([row(1, first), row(2, first), row(3, second)])
    [hits] = mirror.search([query(2, other, image_id=b"2")])
    assert [(hit.image_id, hit.l2) for hit in hits] == [(b"1", 0.0)]


def test_a_flood_of_copies_reports_the_earliest_and_the_nearest() -> None:
    rng = np.random.default_rng(0)
    centre = units(rng, 1).astype(np.float64)
    vectors = (centre + rng.normal(0, 0.02, (3 * BLOCK_ROWS, DIM))).astype(np.float16)
    rows = [row(n + 1, vector) for n, vector in enumerate(vectors)]
    mirror = VectorIndex(DIM, REACH, RETENTION_MS)
    mirror.extend(rows)
    [hits] = mirror.search([query(10**6, vectors[-1])])
    assert len(hits) == REACH.nearest + 1
    assert hits[0].image_id == b"1"
    assert_same(hits, expected(rows, query(10**6, vectors[-1])))


def test_a_part_of_a_row_is_searched_for_by_itself() -> None:
    one, other = np.eye(DIM, dtype=np.float16)[:2]
    mirror = VectorIndex(DIM, REACH, RETENTION_MS)
    mirror.extend([row(1, one), row(2, other), row(3, one, image_id=b"query")])
    whole, part = mirror.search([query(3, other), query(3, other)._replace(stored=False)])
    assert [hit.position.serial for hit in whole] == [1]
    assert [hit.position.serial for hit in part] == [2]
