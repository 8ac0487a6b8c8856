"""Searches the replica of a tenant's window, which reads again from Redis what it does not hold itself."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from consumer.errors import Unavailable
from consumer.window.index import Hit, Query
from consumer.window.large_index import RowsGone
from consumer.window.records import IndexRow, NearMatch, Position, decode_index_row, decode_name, to_datetime
from consumer.window.replica import Replica
from consumer.window.replicas import Replicas
from consumer.window.store import WindowStore

# Searches of a replica that is read on in between: others delete much, but not that fast.
MAX_SEARCHES = 16


class WindowSearcher:
    """Searches replicas of windows. For one thread at a time."""

    def __init__(self, store: WindowStore, replicas: Replicas) -> None:
        self._store = store
        self._replicas = replicas

    def search(
        self, tenant: str, replica: Replica, searches: Mapping[int, Sequence[Query]]
    ) -> Iterator[tuple[int, list[tuple[NearMatch, ...]]]]:
        """Run the queries of each search at once; yield the near matches of each query, by search, of those with any.

        Raises RowsGone when the window's log is another one by now.
        """
        hits = iter(self._hits(tenant, replica, [query for queries in searches.values() for query in queries]))
        for search, queries in searches.items():
            if queries:
                yield search, [tuple(map(_near_match, next(hits))) for _ in queries]

    def _hits(self, tenant: str, replica: Replica, queries: Sequence[Query]) -> list[list[Hit]]:
        """Search a replica, which is read on where others deleted what it holds."""
        epoch = replica.epoch
        for _ in range(MAX_SEARCHES):
            with suppress(RowsGone):
                return replica.search(queries, partial(self._read_rows, tenant))
            self._replicas.sync({tenant: replica}, {})
            if replica.epoch != epoch:
                raise RowsGone
        raise Unavailable("redis", f"rows of tenant {tenant!r} are in the log of its window, and nowhere else")

    def _read_rows(self, tenant: str, positions: Sequence[Position]) -> list[IndexRow | None]:
        """Read what an index holds of the rows at positions, with their vectors; None for rows that are gone."""
        if not positions:
            return []
        fields = [str(position).encode() for position in positions]
        records = self._store.command("HMGET", self._store.key(tenant, "rows"), *fields)
        return [
            None if record is None else decode_index_row(field, record)
            for field, record in zip(fields, records, strict=True)
        ]


def _near_match(hit: Hit) -> NearMatch:
    return NearMatch(decode_name(hit.image_id), hit.position, hit.l2, to_datetime(hit.uploaded_us))
