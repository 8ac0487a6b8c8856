"""A tenant's window in this process: an exact index of the vectors that Redis holds.

Vectors are float16, in blocks in order of arrival. A search first counts the differing bits of short signatures, which
rules nearly all rows out at a fraction of the cost, then computes the distances of the rest. Where the radius is too
wide for that, as for candidates of a second look, products of matrices thin the rows out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import asin, exp, lgamma, log, log1p, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.rows import Position, Row

Float32 = NDArray[np.float32]
Indexes = NDArray[np.intp]

Bits = NDArray[np.uint64]

# Rows of a full block: enough to make up for a handful of numpy calls, few enough for their work to stay in the cache.
BLOCK_ROWS = 4096
FIRST_BLOCK_ROWS = 64
# Chance that the screen rules out a row exactly at the radius; nearer rows have less.
MISS_PROBABILITY = 1e-9
# Share of rows at right angles that the screen may let through. Real strangers are nearer, and pass more often.
STRANGERS_PASSING = 1e-5
MOST_WORDS = 16
# Rows that may stand under a query's own image id, and are not reported: one for each version the window keeps.
OWN_ROWS = 16
# Pairs whose distance is computed at once: a few MiB of differences.
RERANK_PAIRS = 4096
# Above this share of all pairs, products of matrices are faster than the distances of what passes the screen.
DENSE_SHARE = 0.01
DENSE_ROWS = 1024  # in float32 they fit into the cache
COSINE_MARGIN = 0.01  # stored vectors are rounded to float16, and their lengths with them


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
class Reach:
    """What a search reports: the `nearest` rows within `radius_l2`, and the earliest within `threshold_l2`."""

    radius_l2: float
    threshold_l2: float
    nearest: int


class Screen:
    """Rules out rows beyond a radius by signatures of a few 64-bit words.

    A bit says on which side of a random hyperplane a vector lies. Two unit vectors at an angle t are parted by a
    hyperplane with probability t/pi (Charikar, Similarity estimation techniques from rounding algorithms, 2002), each
    independently of the others, so the number of differing bits is binomial whatever the encoder's distribution.
    """

    def __init__(self, dim: int, radius_l2: float) -> None:
        # Stored vectors are rounded to float16, which moves them by less than the thousandth added here.
        differing = 2 * asin(min(0.999, radius_l2 / 2 + 0.001)) / pi
        for words in range(1, MOST_WORDS + 1):
            limit = _most(64 * words, differing, MISS_PROBABILITY)
            if _most(64 * words, 0.5, 1 - STRANGERS_PASSING) >= limit:
                break
        else:
            words, limit = 0, 0  # no signature tells so wide a radius from strangers
        self.words = words
        self.limit = limit
        self._planes = _planes(dim, 64 * words)

    def signatures(self, vectors: Float32) -> Bits:
        """float32 [N, D] -> uint64 [words, N]."""
        packed = np.packbits(vectors @ self._planes > 0, axis=1)
        return np.ascontiguousarray(packed.view(np.uint64).T)

    def passing(self, queries: Bits, rows: Bits) -> tuple[Indexes, Indexes]:
        """Pairs (query, row) that may be within the radius, of signatures [words, Q] and [words, N]."""
        different = np.empty((queries.shape[1], rows.shape[1]), np.uint64)
        ones = np.empty(different.shape, np.uint8)
        # 256 differing bits overflow to 0: such a pair passes, and its distance rules it out.
        total = np.zeros(different.shape, np.uint8 if self.words <= 4 else np.uint16)
        for of_query, of_row in zip(queries, rows, strict=True):
            np.bitwise_xor(of_query[:, np.newaxis], of_row, out=different)
            np.bitwise_count(different, out=ones)
            np.add(total, ones, out=total)
        query, row = np.divmod(np.flatnonzero(total <= self.limit), rows.shape[1])
        return query, row


class _Block:
    """Consecutive rows. Those before `first` have left the window; one deleted among the rest is dead."""

    def __init__(self, dim: int, words: int, capacity: int) -> None:
        self.first = 0
        self.count = 0
        self.ids: list[bytes] = []
        self._allocate(dim, words, capacity)

    def _allocate(self, dim: int, words: int, capacity: int) -> None:
        self.ms = np.empty(capacity, np.int64)
        self.serial = np.empty(capacity, np.int64)
        self.uploaded_us = np.empty(capacity, np.int64)
        self.vectors = np.empty((capacity, dim), np.float16)
        self.alive = np.zeros(capacity, np.bool_)
        self.signatures = np.empty((words, capacity), np.uint64)

    @property
    def capacity(self) -> int:
        return len(self.ms)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays())

    def grow(self, capacity: int) -> None:
        old = self._arrays()
        self._allocate(self.vectors.shape[1], len(self.signatures), capacity)
        for source, target in zip(old, self._arrays(), strict=True):
            target[: self.count] = source[: self.count]

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.ms, self.serial, self.uploaded_us, self.vectors, self.alive, self.signatures.T

    def extend(self, rows: Sequence[Row], screen: Screen) -> None:
        to = slice(self.count, self.count + len(rows))
        self.ms[to] = [row.position.ms for row in rows]
        self.serial[to] = [row.position.serial for row in rows]
        self.uploaded_us[to] = [row.uploaded_us for row in rows]
        self.vectors[to] = [row.vector for row in rows]
        self.signatures[:, to] = screen.signatures(self.vectors[to].astype(np.float32))
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
        self.signatures[:, start:end] = 0
        self.uploaded_us[start:end] = 0
        self.ids[start:end] = [b""] * (end - start)


class Mirror:
    """The living rows of one window, in order. Not thread-safe."""

    def __init__(self, dim: int, reach: Reach, retention_ms: int) -> None:
        self._dim = dim
        self._reach = reach
        self._retention_ms = retention_ms
        self._screen = Screen(dim, reach.radius_l2)
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

    def extend(self, rows: Sequence[Row]) -> None:
        """Append rows, which stand in order and after all that are here."""
        while rows:
            if not self._blocks or self._blocks[-1].count == BLOCK_ROWS:
                capacity = BLOCK_ROWS if self._blocks else FIRST_BLOCK_ROWS
                self._blocks.append(_Block(self._dim, self._screen.words, capacity))
            block = self._blocks[-1]
            wanted = min(block.count + len(rows), BLOCK_ROWS)
            if wanted > block.capacity:
                block.grow(min(max(wanted, 2 * block.capacity), BLOCK_ROWS))
            room = block.capacity - block.count
            block.extend(rows[:room], self._screen)
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
        if not queries or not self._blocks:
            return [[] for _ in queries]
        # The stored vector, not the one at hand: a repeated upload may be encoded a little differently.
        vectors = np.stack([self._vector(query) for query in queries]).astype(np.float32)
        signatures = self._screen.signatures(vectors)
        serials = np.array([query.position.serial for query in queries])
        since_ms = np.array([query.position.ms for query in queries]) - self._retention_ms
        found: list[list[Hit]] = [[] for _ in queries]
        for block in self._blocks:
            if block.serial[0] >= serials.max() or block.ms[block.count - 1] < since_ms.min():
                continue
            of_query, of_row = self._screened(block, vectors, signatures)
            eligible = block.alive[of_row]
            eligible &= (block.serial[of_row] < serials[of_query]) & (block.ms[of_row] >= since_ms[of_query])
            of_query, of_row, l2 = self._rerank(block, vectors, of_query[eligible], of_row[eligible])
            for query in np.unique(of_query):
                mine = of_query == query
                found[query] += self._choose(block, of_row[mine], l2[mine], queries[query].image_id)
        return [self._report(hits) for hits in found]

    def _find(self, serial: int) -> tuple[_Block, int] | None:
        for block in reversed(self._blocks):
            if block.serial[0] <= serial:
                index = block.find(serial)
                return None if index is None else (block, index)
        return None

    def _vector(self, query: Query) -> NDArray[np.float16]:
        found = self._find(query.position.serial) if query.stored else None
        return query.vector if found is None else np.asarray(found[0].vectors[found[1]])

    def _screened(self, block: _Block, vectors: Float32, signatures: Bits) -> tuple[Indexes, Indexes]:
        """Pairs (query, row) that may be within the radius."""
        pairs = len(vectors) * block.count
        if self._screen.words:
            passing = self._screen.passing(signatures, block.signatures[:, : block.count])
            if len(passing[0]) <= DENSE_SHARE * pairs:
                return passing
        least_cosine = 1 - self._reach.radius_l2**2 / 2 - COSINE_MARGIN
        rows = np.empty((min(DENSE_ROWS, block.count), vectors.shape[1]), np.float32)
        near = np.empty((block.count, len(vectors)), bool)
        for start in range(0, block.count, DENSE_ROWS):
            some = slice(start, min(start + DENSE_ROWS, block.count))
            these = rows[: some.stop - start]
            these[:] = block.vectors[some]
            np.greater_equal(these @ vectors.T, least_cosine, out=near[some])
        row, query = np.nonzero(near)
        return query, row

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

    def _choose(self, block: _Block, rows: Indexes, l2: NDArray[np.float64], own_id: bytes) -> Iterator[Hit]:
        """Those of a block's rows that may be reported: a flood of copies must not become a flood of objects."""
        reach = self._reach
        chosen = set(np.argsort(l2, kind="stable")[: reach.nearest + OWN_ROWS].tolist())
        for index in np.flatnonzero(l2 <= reach.threshold_l2).tolist():
            if block.ids[rows[index]] != own_id:
                chosen.add(index)
                break
        for index in chosen:
            row = int(rows[index])
            if block.ids[row] != own_id:
                position = Position(int(block.ms[row]), int(block.serial[row]))
                yield Hit(position, block.ids[row], int(block.uploaded_us[row]), float(l2[index]))

    def _report(self, hits: list[Hit]) -> list[Hit]:
        reach = self._reach
        nearest = sorted(hits, key=lambda hit: (hit.l2, hit.position))[: reach.nearest]
        within = [hit for hit in hits if hit.l2 <= reach.threshold_l2]
        return sorted({*nearest, min(within)} if within else nearest)


@lru_cache
def _most(trials: int, success: float, beyond: float) -> int:
    """The least number that successes in so many trials exceed with a probability of at most `beyond`."""
    chance = 0.0
    for successes in range(trials, 0, -1):
        ways = lgamma(trials + 1) - lgamma(successes + 1) - lgamma(trials - successes + 1)
        chance += exp(ways + successes * log(success) + (trials - successes) * log1p(-success))
        if chance > beyond:
            return successes
    return 0


@lru_cache
def _planes(dim: int, bits: int) -> Float32:
    """Normals of random hyperplanes, float32 [dim, bits]; the same in every process."""
    return np.random.default_rng(0).standard_normal((dim, bits), dtype=np.float32)
