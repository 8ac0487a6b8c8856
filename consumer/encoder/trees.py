"""Boosted decision trees as data: a rule that was learned elsewhere, evaluated in numpy.

All trees are complete and of one depth, so that T trees are walked for M rows at once, level by level: the children of
node n are 2 n + 1 and 2 n + 2 (Friedman, Greedy function approximation: a gradient boosting machine, 2001).
"""

import math
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MAX_DEPTH, MAX_TREES = 8, 4096
_HEADER = struct.Struct("<HBf")  # trees, depth, sum to begin with


@dataclass(frozen=True, eq=False)  # without slots, which a cached property cannot live with
class BoostedTrees:
    """T trees of depth D. Their sum over all trees is the log odds of what they were fitted to tell.

    `columns` uint8 and `thresholds` float16 [T, 2^D - 1] say which number is compared with what at each inner node: to
    the right go rows in which it is greater. `leaves` float16 [T, 2^D] are the values at the ends.
    """

    columns: NDArray[np.uint8]
    thresholds: NDArray[np.float16]
    leaves: NDArray[np.float16]
    base: float

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same trees, so that a model served anew can be told from the one before."""
        return (
            isinstance(other, BoostedTrees)
            and self.base == other.base
            and np.array_equal(self.columns, other.columns)
            and np.array_equal(self.thresholds, other.thresholds)
            and np.array_equal(self.leaves, other.leaves)
        )

    def __hash__(self) -> int:
        return hash((self.base, self.leaves.tobytes()))

    @cached_property
    def _widened(self) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Columns, thresholds and leaves as they are computed with, made once: to do so costs as much as to walk."""
        return (
            self.columns.ravel().astype(np.intp),
            self.thresholds.ravel().astype(np.float32),
            self.leaves.ravel().astype(np.float32),
        )

    def log_odds(self, rows: Floats) -> Floats:
        """Sum up the trees' values for `rows` [M, F]: [M]."""
        (count, inner), (columns, thresholds, leaves) = self.columns.shape, self._widened
        numbers, first = rows.ravel(), np.arange(len(rows))[:, None] * rows.shape[1]
        root = np.arange(count) * inner
        place = np.broadcast_to(root, (len(rows), count))  # of the nodes, among those of all trees
        for _ in range(inner.bit_length()):
            place = 2 * place - root + 1 + (numbers.take(columns.take(place) + first) > thresholds.take(place))
        total: Floats = leaves.take(place - inner + np.arange(count)).sum(axis=1)
        total += np.float32(self.base)
        return total

    def scores(self, rows: Floats) -> Floats:
        """Turn the log odds of `rows` [M, F] into scores [M], 0 to 1."""
        scores: Floats = np.reciprocal(1 + np.exp(-np.clip(self.log_odds(rows), -30, 30)))
        return scores

    def to_bytes(self) -> bytes:
        """Pack the trees, compressed."""
        parts = (self.columns, self.thresholds, self.leaves)
        header = _HEADER.pack(len(self.columns), self.columns.shape[1].bit_length(), self.base)
        return zlib.compress(header + b"".join(part.tobytes() for part in parts), 9)

    @classmethod
    def from_bytes(cls, data: bytes, column_count: int) -> "BoostedTrees":
        """Unpack what `to_bytes` made, for rows of `column_count` numbers. Raises ValueError for anything else."""
        try:
            content = zlib.decompress(data)
            count, depth, base = _HEADER.unpack_from(content)
        except (zlib.error, struct.error) as error:
            raise ValueError(f"no packed trees: {error}") from None
        if not 1 <= depth <= MAX_DEPTH or not 1 <= count <= MAX_TREES:
            raise ValueError(f"{count} trees of depth {depth}; at most {MAX_TREES} of depth 1 to {MAX_DEPTH} are taken")
        inner, offset = count * (2**depth - 1), _HEADER.size
        if len(content) != offset + inner * 3 + count * 2 ** (depth + 1):
            raise ValueError(f"{len(content)} bytes are not the length of {count} trees of depth {depth}")
        columns = np.frombuffer(content, np.uint8, inner, offset).reshape(count, -1)
        thresholds = np.frombuffer(content, "<f2", inner, offset + inner).reshape(count, -1)
        leaves = np.frombuffer(content, "<f2", count * 2**depth, offset + 3 * inner).reshape(count, -1)
        if columns.max() >= column_count:
            raise ValueError(f"the trees ask for number {columns.max() + 1} of {column_count}")
        if not (np.isfinite(leaves).all() and math.isfinite(base)) or np.isnan(thresholds).any():
            raise ValueError("the trees hold values that are not finite")
        return cls(columns, thresholds, leaves, base)
