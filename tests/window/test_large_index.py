"""The index of large windows: exact among few rows, and the same again however and whenever it was filled."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.encoder.codebooks import Codebooks, to_codes
from consumer.window import large_index, segments
from consumer.window.index import Hit, Query, SearchParams, VectorIndex
from consumer.window.inverted_lists import Effort
from consumer.window.large_index import LargeIndex, RowsGone
from consumer.window.records import IndexRow, IndexRows, Position
from tests.window.examples import units

DIM = 32
RETENTION_MS = 4_000
PARAMS = SearchParams(radius_l2=1.2, threshold_l2=0.5, nearest=3)
# So little that a search leaves out much of what is there.
EFFORT = Effort(share=0.5, candidates=12)
CODEBOOKS = Codebooks(
    to_codes(units(np.random.default_rng(7), 8, DIM)),
    np.random.default_rng(8).integers(-60, 60, (DIM // 4, 16, 4), np.int8),
)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 64)
    monkeypatch.setattr(large_index, "SEGMENT_ROWS", 64)
    monkeypatch.setattr(large_index, "EXPIRED_ROWS", 16)
    monkeypatch.setattr(large_index, "SPREAD_ROWS", 20)


def rows_of(seed: int, count: int) -> list[IndexRow]:
    """Rows around few centres, some of them equal, some under one image id; one each 20 ms."""
    rng = np.random.default_rng(seed)
    centres = units(rng, 4, DIM).astype(np.float64)
    vectors = centres[rng.integers(0, 4, count)] + rng.normal(0, 0.08, (count, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors[1::5] = vectors[0::5][: len(vectors[1::5])]
    return [
        IndexRow(Position(20 * n, n + 1), b"%d" % rng.integers(count), 1_000 * n, vector)
        for n, vector in enumerate(vectors)
    ]


class Process:
    """An index with the rows that a window holds: what is not in it any more cannot be read."""

    def __init__(self, index: LargeIndex | VectorIndex) -> None:
        self.index = index
        self.rows: dict[Position, IndexRow] = {}

    def extend(self, rows: list[IndexRow], page: int) -> None:
        for start in range(0, len(rows), page):
            self.index.extend(IndexRows.stack(rows[start : start + page]))
        self.rows |= {row.position: row for row in rows}

    def remove(self, positions: list[Position]) -> None:
        for position in positions:
            self.index.remove(position)
            self.rows.pop(position, None)

    def drop_before(self, oldest: Position) -> None:
        self.index.drop_before(oldest)
        self.rows = {position: row for position, row in self.rows.items() if position.serial >= oldest.serial}

    def search(self, queries: list[Query]) -> list[list[Hit]]:
        if isinstance(self.index, VectorIndex):
            return self.index.search(queries)
        return self.index.search(queries, lambda positions: [self.rows.get(position) for position in positions])


def large(effort: Effort = EFFORT) -> Process:
    return Process(LargeIndex(CODEBOOKS, PARAMS, RETENTION_MS, effort))


def queries_of(rows: list[IndexRow]) -> list[Query]:
    other = units(np.random.default_rng(len(rows)), 1, DIM)[0]  # a repeat that is encoded otherwise
    return [Query(row.position, row.image_id, other) for row in rows] + [
        Query(row.position, row.image_id, row.vector, stored=False) for row in rows[::3]
    ]


removals = st.sets(st.integers(1, 300), max_size=40)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 300), removed=removals, oldest=st.integers(0, 200))
def test_among_few_rows_it_finds_what_the_exact_index_finds(
    seed: int, count: int, removed: set[int], oldest: int
) -> None:
    rows = rows_of(seed, count)
    found = []
    for one in (large(), Process(VectorIndex(DIM, PARAMS, RETENTION_MS))):
        one.extend(rows, 50)
        one.remove([rows[serial - 1].position for serial in removed if serial <= count])
        one.drop_before(Position(0, oldest))
        found.append((len(one.index), one.search(queries_of(rows[oldest:]))))
    assert found[0] == found[1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(20, 300),
    pages=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    before=removals,
    after=removals,
    chosen=st.integers(0, 10_000),
)
def test_a_search_finds_the_same_however_the_index_was_filled(
    seed: int, count: int, pages: tuple[int, int], before: set[int], after: set[int], chosen: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_index, "EXACT_ROWS", 0)
        rows = rows_of(seed, count)
        at = chosen % count
        query = queries_of(rows[at : at + 1])
        gone = [rows[serial - 1].position for serial in before if serial <= at]
        # One process searches when the upload comes; what is deleted leaves it before.
        first = large()
        first.extend(rows[: at + 1], pages[0])
        first.remove(gone)
        first.drop_before(Position(0, 1))
        # The other begins later, without what was deleted, or has expired, and holds what came after the upload.
        oldest = next(row.position for row in rows if row.position.ms >= rows[at].position.ms - RETENTION_MS)
        second = large()
        second.extend([row for row in rows if row.position >= oldest and row.position not in gone], pages[1])
        second.remove([rows[serial - 1].position for serial in after if at + 1 < serial <= count])
        second.drop_before(oldest)
        expected = first.search(query)
        assert second.search(query) == expected
        # Nor does it matter which other uploads are in the batch.
        assert second.search(query + queries_of(rows[-30:]))[: len(query)] == expected
        # Of what it found it finds again what was not deleted, or what is nearer: rows that were left out move up. Not
        # so where all rows were searched for a flood that the deletions end: lists find what they would have found.
        patch.setattr(LargeIndex, "_needs_all", noting(LargeIndex._needs_all, exhaustive := []))
        second.search(query)
        second.remove([rows[serial - 1].position for serial in after if serial <= at])
        second.drop_before(oldest)
        if rows[at].position in second.rows:
            found_again = second.search(query)
            before_and_after = zip(exhaustive[: len(query)], exhaustive[len(query) :], strict=True)
            for hits, again, (was, still) in zip(expected, found_again, before_and_after, strict=True):
                if still or not was:
                    assert all(is_found_again(hit, again) for hit in hits if hit.position in second.rows)


def noting(tell: Callable[..., bool], answers: list[bool]) -> Callable[..., bool]:
    """Answer as `tell` does, and note the answers."""

    def told(*arguments: object) -> bool:
        answers.append(tell(*arguments))
        return answers[-1]

    return told


def is_found_again(hit: Hit, hits: list[Hit]) -> bool:
    """Tell whether `hits` have this one, or nearer ones in its place and an earlier one within the threshold.

    Codes choose what is read, so that one may seem nearer by as much as they are rounded.
    """
    nearer = [other for other in hits if other.l2 <= hit.l2 + 0.02]
    is_earliest = not any(other.l2 <= PARAMS.threshold_l2 for other in hits if other.position < hit.position)
    return hit in hits or (len(nearer) >= PARAMS.nearest and not (hit.l2 <= PARAMS.threshold_l2 and is_earliest))


def test_nothing_is_found_that_the_exact_index_does_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_index, "EXACT_ROWS", 0)
    rows = rows_of(3, 300)
    wide = SearchParams(PARAMS.radius_l2, PARAMS.threshold_l2, 300)
    exact, index = Process(VectorIndex(DIM, wide, RETENTION_MS)), large()
    for one in (exact, index):
        one.extend(rows, 50)
    found, all_near = index.search(queries_of(rows)), exact.search(queries_of(rows))
    assert all(set(some) <= set(every) for some, every in zip(found, all_near, strict=True))
    assert sum(map(len, found)) > len(rows)


def test_a_flood_of_copies_names_the_earliest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_index, "EXACT_ROWS", 0)
    centre = units(np.random.default_rng(0), 1, DIM).astype(np.float64)
    vectors = (centre + np.random.default_rng(1).normal(0, 0.02, (190, DIM))).astype(np.float16)
    rows = [IndexRow(Position(n, n + 1), b"%d" % n, 0, vector) for n, vector in enumerate(vectors)]
    index = large()
    index.extend(rows, 60)
    [hits] = index.search(queries_of(rows)[-1:])
    assert hits[0].image_id == b"0"
    assert len(hits) == PARAMS.nearest + 1


def test_what_is_removed_is_overwritten() -> None:
    rows = rows_of(0, 10)
    process = large()
    process.extend(rows, 10)
    index = process.index
    assert isinstance(index, LargeIndex)
    process.remove([rows[3].position])
    process.drop_before(Position(0, 1))
    segment, _ = index._rows.row(0)
    assert segment.vectors.codes[:10].any(axis=1).tolist() == [n != 3 for n in range(10)]
    assert (len(index), len(index._lists)) == (9, 9)
    process.drop_before(Position(0, 6))
    assert not segment.vectors.codes[:5].any()


def test_expired_rows_leave_the_memory() -> None:
    process = large()
    rows = rows_of(0, 300)
    process.extend(rows, 30)
    full = process.index.nbytes
    process.drop_before(rows[290].position)
    assert len(process.index) == 10
    assert process.index.nbytes < full / 4
    assert process.index.oldest_ms == rows[290].position.ms


def test_a_row_that_is_gone_from_the_window_is_noticed() -> None:
    process = large()
    rows = rows_of(0, 50)
    process.extend(rows, 30)
    process.rows.clear()
    with pytest.raises(RowsGone):
        process.search(queries_of(rows))


def test_a_search_begins_no_threads_whichever_thread_it_is_in() -> None:
    rows = rows_of(3, 500)
    process = large()
    process.extend(rows, 50)
    tasks = Path("/proc/self/task")

    def threads_begun() -> set[str]:
        faiss.omp_set_num_threads(2)  # on whatever machine: what a thread has that loaded nothing itself
        before = {task.name for task in tasks.iterdir()}
        process.search(queries_of(rows))
        return {task.name for task in tasks.iterdir()} - before

    with ThreadPoolExecutor(1) as other:
        assert not other.submit(threads_begun).result()
