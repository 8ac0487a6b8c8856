"""The index of a window that has outgrown `window.index`: less memory, a fifth of the time, nearly as exact.

    lists: likely rows ─> products of codes of one byte: the nearest ─> their records in Redis: exact distances

Each step leaves rows out by a rule on the query and the rows before it alone, so a search finds the same again in any
process, whatever came after it. Where rows were deleted or have expired, it finds what it found of the rest, or nearer
rows that move up. Searches among few rows, or in a flood of copies, skip the first step and allow for the rounding of
codes: these are as exact as in `window.index`. A flood that loses rows until it is none is searched by lists again, and
so may lose a match.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.codebooks import Codebooks, code_scale
from consumer.window.codes import CodedVectors, encode, pack, pairs_within
from consumer.window.index import MAX_OWN_ROWS, SEARCH_QUERIES, Hit, Query, SearchParams, select_hits
from consumer.window.inverted_lists import Effort, InvertedLists
from consumer.window.records import IndexRow, IndexRows, Position
from consumer.window.segments import SEGMENT_ROWS, Numbers, Segments

Float64 = NDArray[np.float64]
Indexes = NDArray[np.intp]
# Reads the rows at positions; None for one that is not in the window any more.
ReadRows = Callable[[Sequence[Position]], Sequence[IndexRow | None]]

# Windows of up to so many rows are exact.
EXACT_ROWS = 100_000
# Expired rows whose codes are removed at once: each time all lists are gone through.
EXPIRED_ROWS = 4096
# Rows that may lie between the bounds of queries that are searched for together.
SPREAD_ROWS = 512
PAIRS = 1024  # of a query and a row, whose distance is computed at once: what they take stays in the cache
PRODUCT_ROWS = 4096  # that are multiplied with all queries at once


class RowsGone(Exception):
    """Rows of the index are not in the window any more: it has to be read on, and searched again."""


class _Candidates(NamedTuple):
    """Rows that may be near one query, by number, with their distances by codes and how far these may be off; [N]."""

    number: Numbers
    l2: Float64
    error: Float64

    def select(self, keep: NDArray[np.bool_] | Indexes) -> "_Candidates":
        return _Candidates(self.number[keep], self.l2[keep], self.error[keep])

    def join(self, more: "_Candidates") -> "_Candidates":
        return _Candidates(
            np.concatenate((self.number, more.number)),
            np.concatenate((self.l2, more.l2)),
            np.concatenate((self.error, more.error)),
        )


class _Search(NamedTuple):
    """A query with the number of its own row, if it is stored, and its candidates: of all rows, or of likely ones."""

    query: Query
    own: int | None
    candidates: _Candidates
    exhaustive: bool


class LargeIndex:
    """The living rows of one large window, in order of arrival. Not thread-safe, as `VectorIndex` is not."""

    def __init__(
        self,
        codebooks: Codebooks,
        params: SearchParams,
        retention_ms: int,
        effort: Effort,
        exact_rows: int | None = None,
    ) -> None:
        """Searches among up to `exact_rows` rows, by default EXACT_ROWS, are exact."""
        self._params = params
        self._exact_rows = EXACT_ROWS if exact_rows is None else exact_rows
        self._retention_ms = retention_ms
        self._effort = effort
        self._dim = codebooks.centres.shape[1]
        self._scale = code_scale(self._dim)
        self._lists = InvertedLists(codebooks)
        self._rows = Segments(self._dim)
        self._removed: list[int] = []  # rows to be removed from the lists
        self._listed = 0  # the number of the first row that the lists still hold

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Memory of the rows, with what the lists hold of them."""
        return self._rows.nbytes + len(self._lists) * self._lists.row_bytes

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest row came, in milliseconds of the Redis server's clock; None without rows."""
        return self._rows.oldest_ms

    def extend(self, rows: IndexRows) -> None:
        """Append rows, in order, which stand after all rows of the index."""
        if rows:
            vectors = encode(rows.vectors)
            self._lists.extend(vectors.codes, np.arange(self._rows.end, self._rows.end + len(rows)))
            self._rows.extend(rows, vectors)

    def remove(self, position: Position) -> None:
        """Erase the row at a position, if there is one."""
        number = self._rows.locate(position.serial)
        if number is not None:
            self._rows.erase(number)
            self._removed.append(number)

    def drop_before(self, oldest: Position) -> None:
        """Erase all rows that stand before `oldest`. Rows removed before this leave the lists as well."""
        self._rows.expire(self._rows.number_from(oldest.serial))
        if self._removed:
            self._lists.remove(self._removed)
            self._removed = []
        if self._rows.expired - self._listed >= EXPIRED_ROWS:
            self._lists.remove_before(self._rows.expired)
            self._listed = self._rows.expired

    def search(self, queries: Sequence[Query], read: ReadRows) -> list[list[Hit]]:
        """Find the rows near each query that SearchParams asks for, in order of arrival.

        Raises RowsGone when the window has changed.
        """
        if not queries:
            return []
        first, end = self._rows.bounds([query.position for query in queries], self._retention_ms)
        own = [self._rows.locate(query.position.serial) if query.stored else None for query in queries]
        vectors = encode(np.stack([query.vector for query in queries]))
        for index, number in enumerate(own):
            if number is not None:
                segment, row = self._rows.row(number)
                vectors.put(index, segment.vectors.select(row))
        candidates: dict[int, _Candidates] = {}
        for group in _groups(first, end):
            chosen = np.array(group)
            found = self._likely(vectors.select(chosen), first[chosen], end[chosen])
            candidates |= zip(group, found, strict=True)
        exhaustive = [i for i in candidates if self._needs_all(candidates[i], int(first[i]), int(end[i]))]
        if exhaustive:
            chosen = np.array(exhaustive)
            found = self._all(vectors.select(chosen), first[chosen], end[chosen])
            candidates |= zip(exhaustive, found, strict=True)
        searches = [
            _Search(query, number, candidates[index], index in exhaustive)
            for index, (query, number) in enumerate(zip(queries, own, strict=True))
        ]
        return self._report(searches, read)

    def _needs_all(self, found: _Candidates, first: int, end: int) -> bool:
        """Tell whether a query has few rows to find, or so many near ones that the likeliest are a part of these.

        Of a flood of copies the earliest is looked for. Copies whose words are the same are all left out as ties.
        """
        near = np.count_nonzero(found.l2 <= self._params.threshold_l2)
        if 4 * near >= 3 * len(found.l2) or 2 * len(found.l2) < self._effort.candidates:
            return True
        rows = end - first
        if rows > self._exact_rows:
            rows = sum(segment.count_living(start, stop) for segment, start, stop, _ in self._rows.parts(first, end))
        return rows <= self._exact_rows

    def _likely(self, vectors: CodedVectors, first: Numbers, end: Numbers) -> list[_Candidates]:
        """Find candidates of each query by the lists."""
        query, number = self._lists.search(vectors.codes, first, end, self._effort)
        order = np.argsort(number)
        query, number = query[order], number[order]
        queries, squared = vectors.codes.astype(np.float32), np.empty(len(number))
        row_error, alive = np.empty(len(number)), np.empty(len(number), np.bool_)
        # Segments begin at multiples of their length.
        place, row = np.divmod(number, SEGMENT_ROWS)
        for start, stop in _runs(place):
            (segment, _), rows = self._rows.row(int(number[start])), row[start:stop]
            difference = segment.vectors.codes.take(rows, axis=0).astype(np.float32)
            difference -= queries.take(query[start:stop], axis=0)
            squared[start:stop] = np.einsum("nd,nd->n", difference, difference)
            row_error[start:stop], alive[start:stop] = segment.vectors.error_l2[rows], segment.alive[rows]
        pairs = _Candidates(number, np.sqrt(squared) / self._scale, row_error + vectors.error_l2[query])
        return _by_query(query[alive], pairs.select(alive), len(first))

    def _all(self, vectors: CodedVectors, first: Numbers, end: Numbers) -> list[_Candidates]:
        """Find candidates of each query among all rows that it may find."""
        queries = pack(vectors)
        found = [_Candidates(np.empty(0, np.int64), np.empty(0), np.empty(0)) for _ in first]
        for segment, start, stop, offset in self._rows.parts(int(first.min()), int(end.max())):
            for low in range(start, stop, PRODUCT_ROWS):
                rows = segment.vectors.select(slice(low, min(low + PRODUCT_ROWS, stop)))
                query, row, l2 = pairs_within(queries, rows, self._params.radius_l2)
                number = row + (low + offset)
                eligible = segment.alive[row + low] & (number >= first[query]) & (number < end[query])
                error = vectors.error_l2[query].astype(np.float64) + rows.error_l2[row]
                pairs = _Candidates(number, l2, error).select(eligible)
                for index, more in enumerate(_by_query(query[eligible], pairs, len(first))):
                    if len(more.number):
                        merged = found[index].join(more)
                        found[index] = merged.select(self._reportable(merged, True, MAX_OWN_ROWS))
        return found

    def _reportable(self, found: _Candidates, exhaustive: bool, own_rows: int) -> NDArray[np.bool_]:
        """Choose candidates that may be reported where `own_rows` are the query's own; if exhaustive, all that may."""
        nearest = self._params.nearest + own_rows
        slack = found.error if exhaustive else np.zeros(len(found.error))
        bound = np.inf if len(found.l2) <= nearest else np.partition(found.l2 + slack, nearest - 1)[nearest - 1]
        chosen: NDArray[np.bool_] = (found.l2 - slack <= bound) & (found.l2 - found.error <= self._params.radius_l2)
        # The earliest within the threshold is one of these: up to the first that is within it for certain.
        certain = np.flatnonzero(found.l2 + found.error <= self._params.threshold_l2)[: own_rows + 1]
        end = certain[-1] + 1 if len(certain) > own_rows else len(found.l2)
        chosen[:end] |= (found.l2 - found.error)[:end] <= self._params.threshold_l2
        return chosen

    def _report(self, searches: Sequence[_Search], read: ReadRows, own_rows: int = 0) -> list[list[Hit]]:
        """Compute the exact distances of each query's candidates, and choose the rows to report."""
        kept = [self._reportable(one.candidates, one.exhaustive, own_rows) for one in searches]
        chosen = [one.candidates.number[keep].tolist() for one, keep in zip(searches, kept, strict=True)]
        numbers = list(dict.fromkeys([*chain(*chosen), *(one.own for one in searches if one.own is not None)]))
        rows: dict[int, IndexRow] = {}
        for number, row in zip(numbers, read(self._rows.positions(numbers)), strict=True):
            if row is None:
                raise RowsGone
            rows[number] = row
        reports: list[list[Hit]] = [[] for _ in searches]
        compared: list[tuple[int, IndexRow]] = []
        for index, (one, near) in enumerate(zip(searches, chosen, strict=True)):
            others = [rows[number] for number in near if rows[number].image_id != one.query.image_id]
            if len(others) < len(near) and own_rows == 0:
                [reports[index]] = self._report([one], read, MAX_OWN_ROWS)
            else:
                compared += [(index, row) for row in others]
        # The stored vector, not the one at hand: a repeated upload may be encoded a little differently.
        vectors = [one.query.vector if one.own is None else rows[one.own].vector for one in searches]
        hits = _within_radius(vectors, compared, self._params.radius_l2)
        for index, of_query in groupby(hits, lambda each: each[0]):
            reports[index] = select_hits((hit for _, hit in of_query), self._params)
        return reports


def _within_radius(
    vectors: Sequence[NDArray[np.float16]], pairs: Sequence[tuple[int, IndexRow]], radius_l2: float
) -> list[tuple[int, Hit]]:
    """Compute the exact distances of pairs of a query, by its index in `vectors`, and a row; keep the near ones."""
    if not pairs:
        return []
    difference = np.stack([row.vector for _, row in pairs]).astype(np.float32)
    difference -= np.stack(vectors).astype(np.float32)[[index for index, _ in pairs]]
    exact = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    distances = np.round(exact.astype(np.float64), 6).tolist()  # as in `window.index`, to the last decimal
    return [
        (index, Hit(row.position, row.image_id, row.uploaded_us, l2))
        for (index, row), l2 in zip(pairs, distances, strict=True)
        if l2 <= radius_l2
    ]


def _groups(first: Numbers, end: Numbers) -> list[list[int]]:
    """Group queries whose bounds lie near each other, by their indexes."""
    groups: list[list[int]] = []
    for index in np.argsort(end, kind="stable").tolist():
        if groups:
            leader = groups[-1][0]
            spread = int(end[index] - end[leader]) + abs(int(first[index] - first[leader]))
        if groups and spread <= SPREAD_ROWS and len(groups[-1]) < SEARCH_QUERIES:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _runs(values: Indexes) -> Iterator[tuple[int, int]]:
    """Divide sorted values into runs of the same value, of at most PAIRS."""
    bounds = np.flatnonzero(np.diff(values, prepend=-1, append=-1)).tolist() if len(values) else []
    for start, end in pairwise(bounds):
        for low in range(start, end, PAIRS):
            yield low, min(low + PAIRS, end)


def _by_query(query: Indexes, pairs: _Candidates, queries: int) -> list[_Candidates]:
    """Divide pairs, which are in order of row numbers, by their query."""
    order = np.argsort(query, kind="stable")
    ends = np.searchsorted(query[order], np.arange(queries + 1)).tolist()
    return [pairs.select(order[start:end]) for start, end in pairwise(ends)]
