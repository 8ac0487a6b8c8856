"""Prefilters for a search within a radius: sketches of vectors, which rule most rows out at little cost.

A sketch is a compact stand-in for a vector. `SimHash` is locality-sensitive hashing by random hyperplanes, for narrow
radii; it misses one row in a billion at the radius. `ScalarQuantizer` rounds vectors to eight bits, for wide radii; it
misses none. Rows that pass wrongly are ruled out by their exact distance, in `consumer.window.index`.
"""

from functools import lru_cache
from math import asin, exp, lgamma, log, log1p, pi
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from consumer.window.codes import CodedQueries, CodedVectors, encode, pack, pairs_within

Float32 = NDArray[np.float32]
Indexes = NDArray[np.intp]
Sketch = tuple[NDArray[Any], ...]  # arrays with one row for each vector
Queries = TypeVar("Queries")

# Chance that SimHash rules out a row exactly at the radius; nearer rows have less.
MISS_PROBABILITY = 1e-9
# Share of vectors at right angles that SimHash may let pass. Real unrelated pictures are nearer, and pass more often.
UNRELATED_PASSING = 1e-5
MAX_WORDS = 16
COSINE_MARGIN = 0.025  # lengths may be a hundredth off one, and stored vectors are rounded to float16
PRODUCT_ROWS = 1024  # rows whose products are computed at once: in float32 they fit into the cache
# Above this share of all pairs, a matrix product is faster than the exact distances of the pairs that pass.
DENSE_SHARE = 0.01


class Prefilter(Protocol[Queries]):
    """Decides by sketches which rows may be within the radius of a query."""

    def allocate(self, capacity: int) -> Sketch:
        """Allocate room for the sketches of `capacity` rows."""
        ...

    def sketch(self, vectors: Float32) -> Sketch:
        """Compute the sketches of vectors, float32 [N, D]."""
        ...

    def prepare(self, vectors: Float32) -> Queries:
        """Prepare queries, float32 [Q, D], to be compared with many blocks of rows."""
        ...

    def candidates(self, queries: Queries, sketch: Sketch, vectors: NDArray[np.number]) -> tuple[Indexes, Indexes]:
        """Find the pairs (query, row) that may be within the radius, among rows with this sketch and these `vectors`.

        `vectors` are [N, D]; the pairs are two arrays [P] of indexes.
        """
        ...


def make_prefilter(dim: int, radius_l2: float) -> Prefilter[Any]:
    """Choose the prefilter for a radius: SimHash, unless it cannot tell the radius from unrelated vectors."""
    simhash = SimHash(dim, radius_l2)
    return simhash if simhash.words else ScalarQuantizer(dim, radius_l2)


class HashedQueries(NamedTuple):
    """Queries, float32 [Q, D], with their signatures."""

    vectors: Float32
    sketch: Sketch


class SimHash:
    """Rules out rows beyond a radius by signatures of a few 64-bit words.

    Each bit tells on which side of a random hyperplane a vector lies. A hyperplane separates two unit vectors at an
    angle t with probability t/pi (Charikar, Similarity estimation techniques from rounding algorithms, 2002), each one
    independently of the others, so the number of differing bits is binomial, whatever the encoder's distribution.
    """

    def __init__(self, dim: int, radius_l2: float) -> None:
        # Stored vectors are rounded to float16, which moves them by less than the thousandth added here.
        differing = 2 * asin(min(0.999, radius_l2 / 2 + 0.001)) / pi
        for words in range(1, MAX_WORDS + 1):
            limit = binomial_upper_quantile(64 * words, differing, MISS_PROBABILITY)
            if binomial_upper_quantile(64 * words, 0.5, 1 - UNRELATED_PASSING) >= limit:
                break
        else:
            words, limit = 0, 0
        self.words = words  # 0 when no signature tells the radius from unrelated vectors
        self.limit = limit  # bits in which signatures may differ
        self._hyperplanes = _random_hyperplanes(dim, 64 * words)
        self._min_cosine = min_cosine(radius_l2)

    def allocate(self, capacity: int) -> Sketch:
        # Transposed: a word of all rows lies together in memory, which is how words are compared.
        return (np.empty((self.words, capacity), np.uint64).T,)

    def sketch(self, vectors: Float32) -> Sketch:
        return (np.packbits(vectors @ self._hyperplanes > 0, axis=1).view(np.uint64),)

    def prepare(self, vectors: Float32) -> HashedQueries:
        return HashedQueries(vectors, self.sketch(vectors))

    def candidates(
        self, queries: HashedQueries, sketch: Sketch, vectors: NDArray[np.number]
    ) -> tuple[Indexes, Indexes]:
        query, row = self.similar_signatures(queries.sketch[0].T, sketch[0].T)
        if len(query) <= DENSE_SHARE * len(queries.vectors) * len(vectors):
            return query, row
        return pairs_by_product(queries.vectors, vectors, self._min_cosine)

    def similar_signatures(self, queries: NDArray[np.uint64], rows: NDArray[np.uint64]) -> tuple[Indexes, Indexes]:
        """Find the pairs (query, row) that differ in few enough bits, among signatures [words, Q] and [words, N]."""
        different = np.empty((queries.shape[1], rows.shape[1]), np.uint64)
        bits = np.empty(different.shape, np.uint8)
        # 256 differing bits overflow to 0: such a pair passes, and its distance rules it out.
        total_bits = np.zeros(different.shape, np.uint8 if self.words <= 4 else np.uint16)
        for query_word, row_word in zip(queries, rows, strict=True):
            np.bitwise_xor(query_word[:, np.newaxis], row_word, out=different)
            np.bitwise_count(different, out=bits)
            np.add(total_bits, bits, out=total_bits)
        query, row = np.divmod(np.flatnonzero(total_bits <= self.limit), rows.shape[1])
        return query, row


class ScalarQuantizer:
    """Rules out rows beyond a radius, however wide, by distances of vectors rounded to eight bits."""

    def __init__(self, dim: int, radius_l2: float) -> None:
        self._dim = dim
        self._radius_l2 = radius_l2

    def allocate(self, capacity: int) -> Sketch:
        return CodedVectors.allocate(capacity, self._dim)

    def sketch(self, vectors: Float32) -> Sketch:
        return encode(vectors)

    def prepare(self, vectors: Float32) -> CodedQueries:
        return pack(encode(vectors))

    def candidates(self, queries: CodedQueries, sketch: Sketch, vectors: NDArray[np.number]) -> tuple[Indexes, Indexes]:
        query, row, _ = pairs_within(queries, CodedVectors(*sketch), self._radius_l2)
        return query, row


def min_cosine(radius_l2: float) -> float:
    """Bound from below the product of two vectors within a radius, of about unit length and rounded to float16."""
    return 1 - radius_l2**2 / 2 - COSINE_MARGIN


def pairs_by_product(queries: Float32, rows: NDArray[np.number], min_product: float) -> tuple[Indexes, Indexes]:
    """Find the pairs (query, row) of [Q, D] and [N, D] whose product reaches `min_product`, in order of rows."""
    passing = np.empty((len(rows), len(queries)), bool)
    buffer = np.empty((min(PRODUCT_ROWS, len(rows)), queries.shape[1]), np.float32)
    for start in range(0, len(rows), PRODUCT_ROWS):
        chunk = slice(start, min(start + PRODUCT_ROWS, len(rows)))
        chunk_rows = buffer[: chunk.stop - start]
        chunk_rows[:] = rows[chunk]
        np.greater_equal(chunk_rows @ queries.T, min_product, out=passing[chunk])
    row, query = np.divmod(np.flatnonzero(passing), len(queries))
    return query, row


@lru_cache
def binomial_upper_quantile(trials: int, success: float, beyond: float) -> int:
    """The smallest number that a binomial count of successes exceeds with a probability of at most `beyond`."""
    chance = 0.0
    for successes in range(trials, 0, -1):
        ways = lgamma(trials + 1) - lgamma(successes + 1) - lgamma(trials - successes + 1)
        chance += exp(ways + successes * log(success) + (trials - successes) * log1p(-success))
        if chance > beyond:
            return successes
    return 0


@lru_cache
def _random_hyperplanes(dim: int, bits: int) -> Float32:
    """Draw the normals of random hyperplanes, float32 [dim, bits]; the same ones in every process."""
    return np.random.default_rng(0).standard_normal((dim, bits), dtype=np.float32)
