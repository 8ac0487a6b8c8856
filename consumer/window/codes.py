"""Vectors rounded to one byte a number, and which pairs of them may be near (numkong, in the calling thread).

Products of codes are whole numbers: the same ones on every machine, in whatever order they are added.
"""

from typing import NamedTuple, Self

import numkong
import numpy as np
from numpy.typing import NDArray

from consumer.encoder.codebooks import code_scale, round_scaled

Codes = NDArray[np.int8]
Indexes = NDArray[np.intp]

# Added to errors, so that no rounding of the arithmetic with them counts.
ERROR_MARGIN_L2 = 1e-4
# Vectors that are rounded at once, always in the same memory: fresh pages cost more than the arithmetic.
ENCODED_AT_ONCE = 128


class CodedVectors(NamedTuple):
    """Codes, int8 [N, D], their squared lengths [N], and how far each vector is from its codes, or a little more [N].

    Lengths are in units of the codes, errors in those of the vectors.
    """

    codes: Codes
    squared_length: NDArray[np.int32]
    error_l2: NDArray[np.float16]

    @classmethod
    def allocate(cls, capacity: int, dim: int) -> Self:
        """Allocate room for vectors; what is not filled yet takes no memory."""
        codes = np.empty((capacity, dim), np.int8)
        return cls(codes, np.empty(capacity, np.int32), np.empty(capacity, np.float16))

    def select(self, rows: int | slice | Indexes) -> Self:
        """Select vectors; by an index or a slice, without copying them."""
        return type(self)(self.codes[rows], self.squared_length[rows], self.error_l2[rows])

    def put(self, rows: int | slice, vectors: "CodedVectors") -> None:
        """Overwrite vectors with others."""
        self.codes[rows], self.squared_length[rows], self.error_l2[rows] = vectors

    def erase(self, rows: slice) -> None:
        """Overwrite vectors with zeros."""
        for array in self:
            array[rows] = 0


class CodedQueries(NamedTuple):
    """Queries, and their codes laid out for products with many blocks of rows."""

    vectors: CodedVectors
    packed: numkong.PackedMatrix


def encode(vectors: NDArray[np.floating]) -> CodedVectors:
    """Round vectors [N, D] to codes, with errors float16 [N]. Rows of other lengths than one are as good."""
    count, dim = vectors.shape
    scale = np.float32(code_scale(dim))
    codes, squared_length = np.empty((count, dim), np.int8), np.empty(count, np.int32)
    squared_error = np.empty(count, np.float32)
    scaled, rounded = np.empty((2, min(count, ENCODED_AT_ONCE), dim), np.float32)
    for start in range(0, count, ENCODED_AT_ONCE):
        chunk = slice(start, min(start + ENCODED_AT_ONCE, count))
        exact, values = scaled[: chunk.stop - start], rounded[: chunk.stop - start]
        np.multiply(vectors[chunk], scale, out=exact, dtype=np.float32)
        codes[chunk] = round_scaled(exact, out=values)
        squared_length[chunk] = np.einsum("nd,nd->n", values, values)
        exact -= values
        squared_error[chunk] = np.einsum("nd,nd->n", exact, exact)
    error_l2 = np.sqrt(squared_error) / scale + np.float32(ERROR_MARGIN_L2)
    return CodedVectors(codes, squared_length, np.nextafter(error_l2.astype(np.float16), np.float16(np.inf)))


def pack(vectors: CodedVectors) -> CodedQueries:
    """Lay queries out for products."""
    return CodedQueries(vectors, numkong.dots_pack(vectors.codes, dtype="int8"))


def pairs_within(
    queries: CodedQueries, rows: CodedVectors, radius_l2: float
) -> tuple[Indexes, Indexes, NDArray[np.float64]]:
    """Find the pairs (query, row) that may be within a radius, and the distances of their codes; three arrays [P].

    By the triangle inequality, codes of vectors within the radius are no farther from each other than the radius and
    the errors of both. The pairs are in the order of rows.
    """
    (codes, squared_length, error_l2), scale = queries.vectors, code_scale(rows.codes.shape[1])
    # |q - r|^2 = |q|^2 + |r|^2 - 2 qr: first by products alone, which have to reach one number for each row. There the
    # shortest query and the worst rounded one stand for all of them. A whole number that reaches a fraction reaches it
    # cut off, too.
    reach = scale * (rows.error_l2.astype(np.float32) + (radius_l2 + float(error_l2.max())))
    min_products = ((rows.squared_length + squared_length.min() - reach * reach) / 2).astype(np.int32)
    products = np.asarray(numkong.dots_packed(rows.codes, queries.packed))
    passing = np.flatnonzero(products >= min_products[:, np.newaxis])
    row, query = np.divmod(passing, len(codes))
    squared = squared_length[query] + rows.squared_length[row] - 2 * products.ravel()[passing]
    l2 = np.sqrt(squared) / scale
    within = l2 <= radius_l2 + (error_l2[query].astype(np.float64) + rows.error_l2[row])
    return query[within], row[within], l2[within]
