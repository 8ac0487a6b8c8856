"""A tenant's window in this process: an exact index of the vectors that Redis holds.

Vectors are float16, in blocks in order of arrival. A search first rules nearly all rows out at a fraction of the cost
(`consumer.window.prefilter`), then computes the distances of the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.window.prefilter import Prefilter, make_prefilter
from consumer.window.records import IndexRow, Position

Float32 = NDArray[np.float32]
Indexes = NDArray[np.intp]

# Rows of a full block: enough to make up for a handful of numpy calls, few enough for their work to stay in the cache.
BLOCK_ROWS = 4096
FIRST_BLOCK_ROWS = 64
# Rows that may stand under a query's own image id, and are not reported: one for each version the window keeps.
OWN_ROWS = 16
# Queries that are searched for at once: one message may hold a hundred uploads, and each of these several pictures.
QUERIES = 256
# Pairs whose distance is computed at once: a few MiB of differences.
RERANK_PAIRS = 4096


class Query(NamedTuple):
    """A search for rows before `position`, near what is stored there.

    `vector` stands in when the row is no longer in the mirror, and is what counts when it is no stored one.
    """

    position: Position
    image_id: bytes
    vector: NDArray[np.float16]
    stored: bool = True


class Hit(NamedTuple):
    """A row found, at Euclidean distance `l2`, to six decimals."""

    position: Position
    image_id: bytes
    uploaded_us: int
    l2: float


@dataclass(frozen=True, slots=True)
class SearchParams:
    """What a search reports: the `nearest` rows within `radius_l2`, and the earliest within `threshold_l2`."""

    radius_l2: float
    threshold_l2: float
    nearest: int


class _Pairs(NamedTuple):
    """Queries and rows within the radius of them, block by block and row by row for each query."""

    query: Indexes
    block: Indexes
    row: Indexes
    l2: NDArray[np.float64]

    def of(self, chosen: Indexes) -> "_Pairs":
        return _Pairs(self.query[chosen], self.block[chosen], self.row[chosen], self.l2[chosen])


class _Block:
    """Consecutive rows. Those before `first` have left the window; one deleted among the rest is dead."""

    def __init__(self, dim: int, prefilter: Prefilter, capacity: int) -> None:
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
        self.sketch = self._prefilter.empty(capacity)

    @property
    def capacity(self) -> int:
        return len(self.ms)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays())

    def grow(self, capacity: int) -> None:
        old = self._arrays()
        self._allocate(capacity)
        for source, target in zip(old, self._arrays(), strict=True):
            target[: self.count] = source[: self.count]

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.ms, self.serial, self.uploaded_us, self.vectors, self.alive, *self.sketch

    def extend(self, rows: Sequence[IndexRow]) -> None:
        to = slice(self.count, self.count + len(rows))
        self.ms[to] = [row.position.ms for row in rows]
        self.serial[to] = [row.position.serial for row in rows]
        self.uploaded_us[to] = [row.uploaded_us for row in rows]
        self.vectors[to] = [row.vector for row in rows]
        for kept, new in zip(self.sketch, self._prefilter.of(self.vectors[to].astype(np.float32)), strict=True):
            kept[to] = new
        self.alive[to] = True
        self.ids += [row.image_id for row in rows]
        self.count += len(rows)

    def before(self, serial: int) -> int:
        """How many rows stand before a serial number."""
        return int(np.searchsorted(self.serial[: self.count], serial))

    @property
    def living(self) -> int:
        return int(np.count_nonzero(self.alive))

    def find(self, serial: int) -> int | None:
        index = self.before(serial)
        return index if index < self.count and self.serial[index] == serial and self.alive[index] else None

    def erase(self, start: int, end: int) -> None:
        """Overwrite rows, so that nothing of them is left and no search finds them."""
        self.alive[start:end] = False
        self.vectors[start:end] = 0
        for kept in self.sketch:
            kept[start:end] = 0
        self.uploaded_us[start:end] = 0
        self.ids[start:end] = [b""] * (end - start)


class VectorIndex:
    """The living rows of one window, in order. Not thread-safe."""

    def __init__(self, dim: int, reach: SearchParams, retention_ms: int) -> None:
        self._reach = reach
        self._retention_ms = retention_ms
        self._dim = dim
        self._prefilter = make_prefilter(dim, reach.radius_l2)
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
        first = blocks[0]
        return int(first.ms[min(first.first, first.capacity - 1)])

    def extend(self, rows: Sequence[IndexRow]) -> None:
        """Append rows, which stand in order and after all that are here."""
        while rows:
            if not self._blocks or self._blocks[-1].count == BLOCK_ROWS:
                capacity = BLOCK_ROWS if self._blocks else FIRST_BLOCK_ROWS
                self._blocks.append(_Block(self._dim, self._prefilter, capacity))
            block = self._blocks[-1]
            wanted = min(block.count + len(rows), BLOCK_ROWS)
            if wanted > block.capacity:
                block.grow(min(max(wanted, 2 * block.capacity), BLOCK_ROWS))
            room = block.capacity - block.count
            block.extend(rows[:room])
            rows = rows[room:]

    def remove(self, position: Position) -> None:
        """Forget a row, if it is here."""
        found = self._find(position.serial)
        if found is not None:
            block, index = found
            block.erase(index, index + 1)

    def drop_before(self, oldest: Position) -> None:
        """Forget rows that stand before `oldest`."""
        for block in self._blocks:
            end = block.before(oldest.serial)
            if end > block.first:
                block.erase(block.first, end)
                block.first = end
            if end < block.count:
                break
        while self._blocks and not self._blocks[0].living:
            del self._blocks[0]

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """For each query the rows within reach, in order of arrival.

        A row counts when it stands before the query's position, by no more than the retention, under another image id.
        """
        found: list[list[Hit]] = []
        for start in range(0, len(queries), QUERIES):
            found += self._search(queries[start : start + QUERIES])
        return found

    def _search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        if not self._blocks:
            return [[] for _ in queries]
        # The stored vector, not the one at hand: a repeated upload may be encoded a little differently.
        vectors = np.stack([self._vector(query) for query in queries]).astype(np.float32)
        sought = self._prefilter.queries(vectors)
        serials = np.array([query.position.serial for query in queries])
        since_ms = np.array([query.position.ms for query in queries]) - self._retention_ms
        found: list[_Pairs] = []
        for number, block in enumerate(self._blocks):
            if block.serial[0] >= serials.max() or block.ms[block.count - 1] < since_ms.min():
                continue
            rows = slice(block.count)
            sketch = tuple(kept[rows] for kept in block.sketch)
            of_query, of_row = self._prefilter.passing(sought, sketch, block.vectors[rows])
            eligible = block.alive[of_row]
            eligible &= (block.serial[of_row] < serials[of_query]) & (block.ms[of_row] >= since_ms[of_query])
            of_query, of_row, l2 = self._rerank(block, vectors, of_query[eligible], of_row[eligible])
            found.append(self._thinned(_Pairs(of_query, np.full(len(of_row), number), of_row, l2)))
        if not found:
            return [[] for _ in queries]
        pairs = _Pairs(*map(np.concatenate, zip(*found, strict=True)))
        order = np.argsort(pairs.query, kind="stable")
        bounds = np.searchsorted(pairs.query[order], np.arange(len(queries) + 1)).tolist()
        return [
            self._choose(pairs.of(order[start:end]), query.image_id)
            for query, start, end in zip(queries, bounds, bounds[1:], strict=False)
        ]

    def _find(self, serial: int) -> tuple[_Block, int] | None:
        for block in reversed(self._blocks):
            if block.serial[0] <= serial:
                index = block.find(serial)
                return None if index is None else (block, index)
        return None

    def _vector(self, query: Query) -> NDArray[np.float16]:
        found = self._find(query.position.serial) if query.stored else None
        return query.vector if found is None else np.asarray(found[0].vectors[found[1]])

    def _rerank(
        self, block: _Block, vectors: Float32, of_query: Indexes, of_row: Indexes
    ) -> tuple[Indexes, Indexes, NDArray[np.float64]]:
        """The pairs within the radius, with their distances."""
        l2 = np.empty(len(of_row))
        for start in range(0, len(of_row), RERANK_PAIRS):
            pairs = slice(start, start + RERANK_PAIRS)
            difference = vectors[of_query[pairs]] - block.vectors[of_row[pairs]]
            l2[pairs] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
        # Rounded before it is compared with anything, so that what is reported is what was decided on.
        l2 = np.round(l2, 6)
        within = l2 <= self._reach.radius_l2
        return of_query[within], of_row[within], l2[within]

    def _thinned(self, pairs: _Pairs) -> _Pairs:
        """What of a block may be reported: a flood of copies must not become a flood of pairs, block after block."""
        nearest = np.lexsort((pairs.l2, pairs.query))
        within = np.flatnonzero(pairs.l2 <= self._reach.threshold_l2)
        earliest = within[np.argsort(pairs.query[within], kind="stable")]
        kept = np.union1d(
            nearest[_ranks(pairs.query[nearest]) < self._reach.nearest + OWN_ROWS],
            earliest[_ranks(pairs.query[earliest]) <= OWN_ROWS],
        )
        return pairs.of(kept)

    def _choose(self, pairs: _Pairs, own_id: bytes) -> list[Hit]:
        """Those of a query's rows that are reported, in order of arrival, as the rows are."""

        def others(order: Indexes) -> Iterator[tuple[_Block, int, float]]:
            for place in order:
                block, row = self._blocks[pairs.block[place]], int(pairs.row[place])
                if block.ids[row] != own_id:
                    yield block, row, float(pairs.l2[place])

        nearest = islice(others(np.argsort(pairs.l2, kind="stable")), self._reach.nearest)
        earliest = islice(others(np.flatnonzero(pairs.l2 <= self._reach.threshold_l2)), 1)
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


def _ranks(grouped: Indexes) -> Indexes:
    """How many of the same value stand before each, of values that stand together."""
    return np.arange(len(grouped)) - np.searchsorted(grouped, grouped)
