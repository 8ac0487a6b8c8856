"""Which rows may be within a radius: sketches of vectors that rule most out at a fraction of the cost of distances.

What they let through wrongly, distances rule out. Products miss nothing, signatures one row in a billion.
"""

from functools import lru_cache
from math import asin, exp, lgamma, log, log1p, pi, sqrt
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Indexes = NDArray[np.intp]
Sketch = tuple[NDArray[Any], ...]  # arrays of a row for each vector

# Chance that the screen rules out a row exactly at the radius; nearer rows have less.
MISS_PROBABILITY = 1e-9
# Share of rows at right angles that the screen may let through. Real strangers are nearer, and pass more often.
STRANGERS_PASSING = 1e-5
MOST_WORDS = 16
COSINE_MARGIN = 0.025  # lengths may be a hundredth off one, and stored vectors are rounded to float16
PRODUCT_ROWS = 1024  # rows whose products are computed at once: in float32 they fit into the cache
# Above this share of all pairs, products of matrices are faster than the distances of what passes the screen.
DENSE_SHARE = 0.01


class QueryBatch(NamedTuple):
    """Vectors float32 [Q, D] to search for, and what a screen has to know of them."""

    vectors: Float32
    sketch: Sketch


class Prefilter(Protocol):
    """Keeps a sketch of each row, and says by it which may be within the radius."""

    def empty(self, capacity: int) -> Sketch:
        """Room for the sketches of so many rows."""
        ...

    def of(self, vectors: Float32) -> Sketch:
        """The sketches of float32 [N, D]."""
        ...

    def queries(self, vectors: Float32) -> QueryBatch:
        """Vectors float32 [Q, D], ready to be searched for in many blocks of rows."""
        ...

    def passing(self, queries: QueryBatch, sketch: Sketch, vectors: NDArray[np.number]) -> tuple[Indexes, Indexes]:
        """Pairs (query, row) that may be within the radius, of rows with these sketches and `vectors` [N, D]."""
        ...


def make_prefilter(dim: int, radius_l2: float) -> Prefilter:
    """The one that suits the radius."""
    signatures = SimHash(dim, radius_l2)
    return signatures if signatures.words else ScalarQuantizer(dim, radius_l2)


class SimHash:
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
            words, limit = 0, 0
        self.words = words  # 0 when no signature tells the radius from strangers
        self.limit = limit
        self._planes = _planes(dim, 64 * words)
        self._least_cosine = min_cosine(radius_l2)

    def empty(self, capacity: int) -> Sketch:
        # Word upon word in memory, which is how they are compared.
        return (np.empty((self.words, capacity), np.uint64).T,)

    def of(self, vectors: Float32) -> Sketch:
        return (np.packbits(vectors @ self._planes > 0, axis=1).view(np.uint64),)

    def queries(self, vectors: Float32) -> QueryBatch:
        return QueryBatch(vectors, self.of(vectors))

    def passing(self, queries: QueryBatch, sketch: Sketch, vectors: NDArray[np.number]) -> tuple[Indexes, Indexes]:
        query, row = self.alike(queries.sketch[0].T, sketch[0].T)
        if len(query) <= DENSE_SHARE * len(queries.vectors) * len(vectors):
            return query, row
        return exceeding_products(queries.vectors, vectors, np.full(len(vectors), self._least_cosine, np.float32))

    def alike(self, queries: NDArray[np.uint64], rows: NDArray[np.uint64]) -> tuple[Indexes, Indexes]:
        """Pairs (query, row) of which few enough bits differ, of signatures [words, Q] and [words, N]."""
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


class ScalarQuantizer:
    """Rules out rows beyond a radius, however wide, by products with rows that are rounded to eight bits."""

    def __init__(self, dim: int, radius_l2: float) -> None:
        self._dim = dim
        self._least_cosine = min_cosine(radius_l2)

    def empty(self, capacity: int) -> Sketch:
        return np.empty((capacity, self._dim), np.int8), np.empty(capacity, np.float32)

    def of(self, vectors: Float32) -> Sketch:
        """int8 [N, D], and the least product [N] of each with a unit vector that is near enough."""
        steps = 127 / np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-6)
        # Half a step in each of D places, and the places of a unit vector add up to at most the root of D.
        least: Float32 = self._least_cosine * steps[:, 0] - 0.51 * sqrt(self._dim)
        return np.rint(vectors * steps).astype(np.int8), least

    def queries(self, vectors: Float32) -> QueryBatch:
        return QueryBatch(vectors, ())

    def passing(self, queries: QueryBatch, sketch: Sketch, vectors: NDArray[np.number]) -> tuple[Indexes, Indexes]:
        return exceeding_products(queries.vectors, *sketch)


def min_cosine(radius_l2: float) -> float:
    """The product that vectors within a radius reach, of about unit length and as they are stored."""
    return 1 - radius_l2**2 / 2 - COSINE_MARGIN


def exceeding_products(queries: Float32, rows: NDArray[np.number], least: Float32) -> tuple[Indexes, Indexes]:
    """Pairs (query, row) of [Q, D] and [N, D] whose products are at least `least` [N], by row."""
    near = np.empty((len(rows), len(queries)), bool)
    buffer = np.empty((min(PRODUCT_ROWS, len(rows)), queries.shape[1]), np.float32)
    for start in range(0, len(rows), PRODUCT_ROWS):
        some = slice(start, min(start + PRODUCT_ROWS, len(rows)))
        these = buffer[: some.stop - start]
        these[:] = rows[some]
        np.greater_equal(these @ queries.T, least[some, np.newaxis], out=near[some])
    row, query = np.divmod(np.flatnonzero(near), len(queries))
    return query, row


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
