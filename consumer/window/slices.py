"""Slices of windows: vector sets of Redis 8, each with the rows of one span of time, on any server of a cluster.

A slice is two keys in a slot of its own: `vectors`, and `slice`, which says how far it was filled and what was deleted
from it. Rows are added and removed by scripts, in any order, by any process, any number of times: a row that was
removed is never added again. A slice that a server lost, or the end of it, is known by the serial of its last row.

Servers are lost at any moment, also within a round trip: what was not answered, the client sends again, to whichever
server has the slot by then. So slices are asked for that serial before and after they are searched. Where it is too
small, or the slice was filled again in between, what was found counts for nothing, also if others have seen to it.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.errors import Misconfigured, SeenitError, Unavailable
from consumer.window.index import MAX_OWN_ROWS, SearchParams
from consumer.window.records import IndexRow, Position
from consumer.window.store import WindowStore

# Slices in a window. With more of them less is kept of what has expired, and a search has more to ask.
SLICES = 6
# Candidates while a row's neighbours are looked for, when it is added, and while a query's are.
ADD_EFFORT, SEARCH_EFFORT = 200, 200
# Rows added in one round trip: each takes a server up to a millisecond, in which it does nothing else.
ADD_ROWS = 16
# Queries in one round trip.
QUERIES = 64
# How far similarities, from 0 to 1, of vectors in a set, of one byte a number, may be from those of float16. Measured
# among 240,000 pairs of vectors of pictures, of 256 numbers: at most 0.0015.
SIMILARITY_ERROR = 0.002


class SliceLost(SeenitError):
    """Slices are not there as they were."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(f"{len(numbers)} slices were lost")
        self.numbers = numbers


class Filled(NamedTuple):
    """How far a tenant's log is in slices, and the serial of the last row in each of these, by number."""

    position: Position
    last: Mapping[int, int]


class SliceQuery(NamedTuple):
    """A search for rows before a position, from a time on, near a vector float16 [D]."""

    vector: NDArray[np.float16]
    since_ms: int
    before: Position


# Positions of rows near a query, by the number of the slice.
Found = dict[int, list[Position]]


class Slices:
    """The slices of all tenants for one model. Thread-safe; every method may raise Unavailable("redis", ...)."""

    def __init__(self, store: WindowStore, params: SearchParams) -> None:
        self.ms = -(-store.retention_ms // SLICES)
        self.count = params.nearest + MAX_OWN_ROWS  # rows that a search finds in a slice, at most
        self._store = store
        # Vectors are of unit length: a similarity of 1 - d is at a distance of 2 * sqrt(d).
        self._epsilon = min(params.radius_l2**2 / 4 + SIMILARITY_ERROR, 1.0)
        # Whatever stands in a slice has left the window before the slice is gone.
        self._lifetime_ms = store.retention_ms + store.grace_ms + self.ms
        self._add, self._remove, self._state = map(_read_script, ("add", "remove", "state"))

    def check(self) -> None:
        """Use a slice once. Raises Misconfigured where the server has no vector sets."""
        tenant, epoch = f"seenit-check-{uuid.uuid4()}", b"check"
        row = IndexRow(Position(0, 1), b"", 0, np.eye(1, 8, dtype=np.float16)[0])
        try:
            self.add(tenant, epoch, [row], Filled(Position(0, 0), {}))
            self.search(tenant, epoch, [SliceQuery(row.vector, 0, Position(0, 2))], row.position)
            self.remove(tenant, epoch, [row.position])
            self.drop(tenant, epoch, [0])
        except Unavailable as error:
            if "unknown" not in error.detail.lower():
                raise
            raise Misconfigured(
                "Redis has no vector sets, which SEENIT_WINDOW_BACKEND=redis-vectors needs: take Redis 8.2 or newer"
            ) from None

    def number(self, ms: int) -> int:
        """The number of the slice that a time is in."""
        return ms // self.ms

    def parse_filled(self, fields: Mapping[bytes, bytes]) -> Filled:
        """Parse the tenant's key `slices`."""
        own = b"%d" % self.ms
        last = {int(field.split()[1]): int(value) for field, value in fields.items() if field.startswith(own + b" ")}
        return Filled(parse_cursor(fields.get(own, b"-")), last)

    def add(self, tenant: str, epoch: bytes, rows: Sequence[IndexRow], filled: Filled) -> dict[int, int]:
        """Add rows, in order. Returns the serial of the last row of each slice. Raises SliceLost."""
        last: dict[int, int] = {}
        for start in range(0, len(rows), ADD_ROWS):
            chunk = rows[start : start + ADD_ROWS]
            pipeline = self._store.pipeline()
            for row in chunk:
                position, number = row.position, self.number(row.position.ms)
                previous = last.get(number, filled.last.get(number, 0))
                attributes = f'{{"m":{position.ms},"n":{position.serial}}}'
                row_arguments = (str(position), position.serial, attributes, row.vector.astype("<f4").tobytes())
                keys = self._keys(tenant, epoch, number)
                arguments = (self._lifetime_ms, previous, *row_arguments, ADD_EFFORT)
                pipeline.execute_command("EVAL", self._add, 2, *keys, *arguments)
                last[number] = max(previous, position.serial)
            for row, added in zip(chunk, self._store.execute(pipeline), strict=True):
                if not added:
                    raise SliceLost([self.number(row.position.ms)])
        return last

    def remove(self, tenant: str, epoch: bytes, positions: Iterable[Position]) -> None:
        """Remove the rows at positions, for good."""
        by_slice: dict[int, list[str]] = {}
        for position in positions:
            by_slice.setdefault(self.number(position.ms), []).append(str(position))
        if not by_slice:
            return
        pipeline = self._store.pipeline()
        for number, names in by_slice.items():
            keys = self._keys(tenant, epoch, number)
            pipeline.execute_command("EVAL", self._remove, 2, *keys, self._lifetime_ms, *names)
        self._store.execute(pipeline)

    def drop(self, tenant: str, epoch: bytes, numbers: Iterable[int]) -> None:
        """Drop whole slices."""
        pipeline = self._store.pipeline()
        for key in [key for number in numbers for key in self._keys(tenant, epoch, number)]:
            pipeline.execute_command("UNLINK", key)
        self._store.execute(pipeline)

    def read_filled(self, tenant: str) -> Filled:
        """Read how far a tenant's log is in slices."""
        return self.parse_filled(self._store.command("HGETALL", self._store.key(tenant, "slices")))

    def search(
        self, tenant: str, epoch: bytes, queries: Sequence[SliceQuery], until: Position
    ) -> tuple[Filled, list[Found]]:
        """Find rows near each query in the slices up to a position, and how far the log was in slices meanwhile.

        Raises SliceLost where one of these is not as the tenant's own keys say it is.
        """
        fills: list[Filled] = []
        found: list[Found] = []
        for start in range(0, len(queries), QUERIES):
            filled, more = self._search(tenant, epoch, queries[start : start + QUERIES], until)
            fills.append(filled)
            found += more
        return min(fills, key=lambda filled: filled.position), found

    def _search(
        self, tenant: str, epoch: bytes, queries: Sequence[SliceQuery], until: Position
    ) -> tuple[Filled, list[Found]]:
        while True:
            filled, found, doubtful = self._try_search(tenant, epoch, queries, until)
            if doubtful:
                # Slices that have left the window may be gone.
                oldest = self.number(self._store.oldest_ms())
                doubtful = [number for number in doubtful if number >= oldest]
            if not doubtful:
                return filled, found
            self._check_lost(tenant, epoch, doubtful)

    def _try_search(
        self, tenant: str, epoch: bytes, queries: Sequence[SliceQuery], until: Position
    ) -> tuple[Filled, list[Found], list[int]]:
        """Search once. Tells also which slices seem not to have been whole, as where others fill them just now."""
        pipeline = self._store.pipeline()
        pipeline.execute_command("HGETALL", self._store.key(tenant, "slices"))
        numbers = [
            range(self.number(query.since_ms), self.number(min(query.before.ms, until.ms)) + 1) for query in queries
        ]
        asked = sorted({number for each in numbers for number in each})
        for number in asked:
            own_keys = self._keys(tenant, epoch, number)
            pipeline.execute_command("EVAL", self._state, 2, *own_keys)
            for query, own in zip(queries, numbers, strict=True):
                if number in own:
                    pipeline.execute_command("VSIM", own_keys[0], *self._vsim(query, number))
            pipeline.execute_command("EVAL", self._state, 2, *own_keys)
        fields, *replies = self._store.execute(pipeline)
        filled, remaining = self.parse_filled(fields), iter(replies)
        found: list[Found] = [{} for _ in queries]
        doubtful = []
        for number in asked:
            last, begun = next(remaining)
            for query_found, own in zip(found, numbers, strict=True):
                if number in own:
                    query_found[number] = [Position.parse(name) for name in next(remaining)]
            last_after, begun_after = next(remaining)
            if begun != begun_after or min(last, last_after) < filled.last.get(number, 0):
                doubtful.append(number)
        return filled, found, doubtful

    def _check_lost(self, tenant: str, epoch: bytes, numbers: Sequence[int]) -> None:
        """Raise SliceLost for slices that still have to be filled again, and that nobody has seen to yet."""
        filled = self.read_filled(tenant)
        pipeline = self._store.pipeline()
        for number in numbers:
            pipeline.execute_command("EVAL", self._state, 2, *self._keys(tenant, epoch, number))
        lost = [
            number
            for number, (last, _) in zip(numbers, self._store.execute(pipeline), strict=True)
            if last < filled.last.get(number, 0)
        ]
        if lost:
            raise SliceLost(lost)

    def _vsim(self, query: SliceQuery, number: int) -> list[bytes | str | int | float]:
        """The words of a search of one slice behind its key."""
        vector = query.vector.astype("<f4").tobytes()
        words: list[bytes | str | int | float] = ["FP32", vector, "COUNT", self.count, "EPSILON", self._epsilon]
        words += ["EF", SEARCH_EFFORT]
        conditions = []
        if number == self.number(query.before.ms):
            conditions.append(f".n < {query.before.serial}")
        if number == self.number(query.since_ms):
            conditions.append(f".m >= {query.since_ms}")
        return [*words, "FILTER", " and ".join(conditions)] if conditions else words

    def _keys(self, tenant: str, epoch: bytes, number: int) -> tuple[str, str]:
        """Name the keys of a slice: of this log, and of slices of this length."""
        kinds = (f"{kind}:{epoch.decode()}:{self.ms}" for kind in ("vectors", "slice"))
        vectors, state = (self._store.slice_key(tenant, number, kind) for kind in kinds)
        return vectors, state


def parse_cursor(cursor: bytes) -> Position:
    """Parse a position in a log, where `-` stands for its beginning."""
    return Position(0, 0) if cursor == b"-" else Position.parse(cursor)


def _read_script(name: str) -> str:
    """Read a script, behind the code that it shares with others."""
    folder = files("consumer.window") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text() for part in ("slice", f"slice_{name}"))
