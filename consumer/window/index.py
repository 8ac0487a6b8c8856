"""The exact index of a tenant's vectors in this process, and what a search asks and answers.

Vectors are float16, in blocks in order of arrival. A search first rules nearly all rows out at a fraction of the cost
(`consumer.window.prefilter`), then computes the distances of the rest.

To swap the index for another one: `consumer.window.replica` fills it, and `consumer.window.backends` constructs it.
They use the public methods of `VectorIndex`, its length, and of this module otherwise the types of a search alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.window.prefilter import Prefilter, make_prefilter
from consumer.window.records import IndexRows, Position

Float32 = NDArray[np.float32]
Indexes = NDArray[np.intp]

# Rows of a full block: enough to make up for a handful of numpy calls, few enough for their work to stay in the cache.
BLOCK_ROWS = 4096
FIRST_BLOCK_ROWS = 64
# Rows that may stand under a query's own image id, and are not reported: one for each of the VERSIONS that
# lua/window.lua keeps under one id.
MAX_OWN_ROWS = 16
# Queries that are searched for at once: one message may hold a hundred uploads, and each of these several pictures.
SEARCH_QUERIES = 256
# Pairs whose distance is computed at once: a few MiB of differences.
RERANK_PAIRS = 4096
# Pairs of a block that are kept without asking which of them may be reported: 32 KiB beside the 2 MiB of its vectors.
PAIRS_WITHOUT_PRUNING = 1024


class Query(NamedTuple):
    """A search for rows that stand before `position`, near the vector that is stored there.

    `vector` takes its place when that row is no longer in the index. A picture within an upload has no row of its own:
    then `stored` is False, and `vector` is what counts.
    """

    position: Position
    image_id: bytes
    vector: NDArray[np.float16]
    stored: bool = True


class Hit(NamedTuple):
    """A row near a query, at Euclidean distance `l2`, to six decimals."""

    position: Position
    image_id: bytes
    uploaded_us: int
    l2: float


@dataclass(frozen=True, slots=True)
class SearchParams:
    """The rows that a search reports: the `nearest` within `radius_l2`, and the earliest within `threshold_l2`."""

    radius_l2: float
    threshold_l2: float
    nearest: int


def select_hits(hits: Iterable[Hit], params: SearchParams) -> list[Hit]:
    """Choose the hits of one query that are reported, in order of arrival."""
    in_order = sorted(hits)
    nearest = sorted(in_order, key=lambda hit: hit.l2)[: params.nearest]
    earliest = [hit for hit in in_order if hit.l2 <= params.threshold_l2][:1]
    return sorted({*nearest, *earliest})


class _Pairs(NamedTuple):
    """Pairs of a query and a row within its radius, for each query in the rows' order of arrival; four arrays [P]."""

    query: Indexes
    block: Indexes
    row: Indexes
    l2: NDArray[np.float64]

    def select(self, indexes: Indexes) -> "_Pairs":
        return _Pairs(self.query[indexes], self.block[indexes], self.row[indexes], self.l2[indexes])


class _Block:
    """Consecutive rows. Those before `first` have left the window; a row deleted among the rest is not alive."""

    def __init__(self, dim: int, prefilter: Prefilter[Any], capacity: int) -> None:
        self.first = 0
        self.count = 0
        self.ids: list[bytes] = []
        self._dim = dim
        self._prefilter = prefilter
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.ms = np.empty(capacity, np.int64)
        self.serial = np.empty(capacity, np.int64)
        self.uploaded_us = np.empty(capacity, np.int64)
        self.vectors = np.empty((capacity, self._dim), np.float16)
        self.alive = np.zeros(capacity, np.bool_)
        self.sketch = self._prefilter.allocate(capacity)

    @property
    def capacity(self) -> int:
        return len(self.ms)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays())

    @property
    def living(self) -> int:
        """How many rows are alive."""
        return int(np.count_nonzero(self.alive))

    def grow(self, capacity: int) -> None:
        old = self._arrays()
        self._allocate(capacity)
        for source, target in zip(old, self._arrays(), strict=True):
            target[: self.count] = source[: self.count]

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.ms, self.serial, self.uploaded_us, self.vectors, self.alive, *self.sketch

    def extend(self, rows: IndexRows) -> None:
        """Append rows, for which there is room."""
        new = slice(self.count, self.count + len(rows))
        self.ms[new], self.serial[new], self.uploaded_us[new] = rows.ms, rows.serial, rows.uploaded_us
        self.vectors[new] = rows.vectors
        sketches = self._prefilter.sketch(self.vectors[new].astype(np.float32))
        for array, values in zip(self.sketch, sketches, strict=True):
            array[new] = values
        self.alive[new] = True
        self.ids += rows.image_ids
        self.count += len(rows)

    def count_before(self, serial: int) -> int:
        """Count the rows that stand before a serial number."""
        return int(np.searchsorted(self.serial[: self.count], serial))

    def find(self, serial: int) -> int | None:
        """Find the index of a living row by its serial number."""
        index = self.count_before(serial)
        return index if index < self.count and self.serial[index] == serial and self.alive[index] else None

    def erase(self, start: int, end: int) -> None:
        """Overwrite rows, so that nothing of them is left and no search finds them."""
        self.alive[start:end] = False
        self.vectors[start:end] = 0
        for array in self.sketch:
            array[start:end] = 0
        self.uploaded_us[start:end] = 0
        self.ids[start:end] = [b""] * (end - start)


class VectorIndex:
    """The living rows of one window, in order of arrival.

    Not thread-safe, but for its length, `nbytes` and `oldest_ms`, which other threads read for statistics.
    """

    def __init__(self, dim: int, params: SearchParams, retention_ms: int) -> None:
        self._params = params
        self._retention_ms = retention_ms
        self._dim = dim
        self._prefilter = make_prefilter(dim, params.radius_l2)
        self._blocks: list[_Block] = []

    def __len__(self) -> int:
        return sum(block.living for block in self._blocks)

    @property
    def nbytes(self) -> int:
        """Memory of the vectors and what belongs to them, without the image ids."""
        return sum(block.nbytes for block in self._blocks)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest row came, in milliseconds of the Redis server's clock; None without rows."""
        blocks = self._blocks
        if not blocks:
            return None
        block = blocks[0]
        return int(block.ms[min(block.first, block.capacity - 1)])

    def extend(self, rows: IndexRows) -> None:
        """Append rows, in order, which stand after all rows of the index."""
        while rows:
            if not self._blocks or self._blocks[-1].count == BLOCK_ROWS:
                capacity = BLOCK_ROWS if self._blocks else FIRST_BLOCK_ROWS
                self._blocks.append(_Block(self._dim, self._prefilter, capacity))
            block = self._blocks[-1]
            count = min(block.count + len(rows), BLOCK_ROWS)
            if count > block.capacity:
                block.grow(min(max(count, 2 * block.capacity), BLOCK_ROWS))
            room = block.capacity - block.count
            block.extend(rows.select(slice(room)))
            rows = rows.select(slice(room, None))

    def rows(self) -> Iterator[IndexRows]:
        """Read the living rows, in order, block by block."""
        for block in self._blocks:
            alive = np.flatnonzero(block.alive)
            columns = (block.ms[alive], block.serial[alive], block.uploaded_us[alive])
            yield IndexRows(*columns, [block.ids[row] for row in alive.tolist()], block.vectors[alive])

    def remove(self, position: Position) -> None:
        """Erase the row at a position, if there is one."""
        location = self._locate(position.serial)
        if location is not None:
            block, index = location
            block.erase(index, index + 1)

    def drop_before(self, oldest: Position) -> None:
        """Erase all rows that stand before `oldest`."""
        for block in self._blocks:
            end = block.count_before(oldest.serial)
            if end > block.first:
                block.erase(block.first, end)
                block.first = end
            if end < block.count:
                break
        while self._blocks and not self._blocks[0].living:
            del self._blocks[0]

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Find the rows near each query that SearchParams asks for, in order of arrival.

        A row counts when it stands before the query's position, by no more than the retention, under another image id.
        """
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), SEARCH_QUERIES):
            hits += self._search(queries[start : start + SEARCH_QUERIES])
        return hits

    def _search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        if not self._blocks:
            return [[] for _ in queries]
        # The stored vector, not the one at hand: a repeated upload may be encoded a little differently.
        vectors = np.stack([self._query_vector(query) for query in queries]).astype(np.float32)
        batch = self._prefilter.prepare(vectors)
        serials = np.array([query.position.serial for query in queries])
        since_ms = np.array([query.position.ms for query in queries]) - self._retention_ms
        end, start_ms = serials.max(), since_ms.min()
        pairs_of_blocks: list[_Pairs] = []
        for number, block in enumerate(self._blocks):
            if block.serial[0] >= end or block.ms[block.count - 1] < start_ms:
                continue
            filled = slice(block.first, block.count)
            sketch = tuple(array[filled] for array in block.sketch)
            query, row = self._prefilter.candidates(batch, sketch, block.vectors[filled])
            row = row + block.first
            eligible = block.alive[row]
            eligible &= (block.serial[row] < serials[query]) & (block.ms[row] >= since_ms[query])
            query, row, l2 = self._rerank(block, vectors, query[eligible], row[eligible])
            pairs_of_blocks.append(self._prune(_Pairs(query, np.full(len(row), number), row, l2)))
        if not pairs_of_blocks:
            return [[] for _ in queries]
        pairs = _Pairs(*map(np.concatenate, zip(*pairs_of_blocks, strict=True)))
        order = np.argsort(pairs.query, kind="stable")
        bounds = np.searchsorted(pairs.query[order], np.arange(len(queries) + 1)).tolist()
        return [
            self._report(pairs.select(order[start:end]), one.image_id)
            for one, start, end in zip(queries, bounds, bounds[1:], strict=False)
        ]

    def _locate(self, serial: int) -> tuple[_Block, int] | None:
        """Find the block of a living row, and its index there."""
        for block in reversed(self._blocks):
            if block.serial[0] <= serial:
                index = block.find(serial)
                return None if index is None else (block, index)
        return None

    def _query_vector(self, query: Query) -> NDArray[np.float16]:
        location = self._locate(query.position.serial) if query.stored else None
        if location is None:
            return query.vector
        block, index = location
        return np.asarray(block.vectors[index])

    def _rerank(
        self, block: _Block, vectors: Float32, query: Indexes, row: Indexes
    ) -> tuple[Indexes, Indexes, NDArray[np.float64]]:
        """Select the pairs within the radius, by their exact distances, which are returned with them."""
        l2 = np.empty(len(row))
        for start in range(0, len(row), RERANK_PAIRS):
            chunk = slice(start, start + RERANK_PAIRS)
            difference = vectors[query[chunk]] - block.vectors[row[chunk]]
            l2[chunk] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
        # Rounded before it is compared with anything, so that what is reported is what was decided on.
        l2 = np.round(l2, 6)
        within = l2 <= self._params.radius_l2
        return query[within], row[within], l2[within]

    def _prune(self, pairs: _Pairs) -> _Pairs:
        """Select the pairs of a block that may be reported: a flood of copies must not fill the memory with pairs."""
        if len(pairs.l2) <= PAIRS_WITHOUT_PRUNING:
            return pairs
        nearest = np.lexsort((pairs.l2, pairs.query))
        within = np.flatnonzero(pairs.l2 <= self._params.threshold_l2)
        earliest = within[np.argsort(pairs.query[within], kind="stable")]
        reportable = np.union1d(
            nearest[_rank_in_group(pairs.query[nearest]) < self._params.nearest + MAX_OWN_ROWS],
            earliest[_rank_in_group(pairs.query[earliest]) <= MAX_OWN_ROWS],
        )
        return pairs.select(reportable)

    def _report(self, pairs: _Pairs, own_id: bytes) -> list[Hit]:
        """Choose the rows to report from the pairs of one query, in order of arrival as the pairs are."""

        def others(order: Indexes) -> Iterator[tuple[_Block, int, float]]:
            for pair in order:
                block, row = self._blocks[pairs.block[pair]], int(pairs.row[pair])
                if block.ids[row] != own_id:
                    yield block, row, float(pairs.l2[pair])

        nearest = islice(others(np.argsort(pairs.l2, kind="stable")), self._params.nearest)
        earliest = islice(others(np.flatnonzero(pairs.l2 <= self._params.threshold_l2)), 1)
        return sorted(
            {
                Hit(
                    Position(int(block.ms[row]), int(block.serial[row])),
                    block.ids[row],
                    int(block.uploaded_us[row]),
                    l2,
                )
                for block, row, l2 in chain(nearest, earliest)
            }
        )


def _rank_in_group(groups: Indexes) -> Indexes:
    """Rank each element within its group, from 0, where elements of a group stand together; both are [N]."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)
