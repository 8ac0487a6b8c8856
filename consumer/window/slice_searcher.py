"""Searches windows whose rows are in slices: the tail exactly, the slices by their graphs, what these find exactly.

    tail in this process ─┐
                          ├─> rows in Redis: exact distances ─> remember what was found ─> near matches
    slices on servers ────┘

A graph may miss a row, and find it when others have been added since. So what is found first is remembered beside the
record, and a repeat is told that, without what was deleted meanwhile.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from consumer.window.index import Hit, Query, SearchParams, select_hits
from consumer.window.records import IndexRow, NearMatch, Position, decode_index_row, decode_name, to_datetime
from consumer.window.replica import Replica
from consumer.window.replicas import Replicas
from consumer.window.slice_filler import SliceFiller
from consumer.window.slices import SliceLost, SliceQuery, Slices
from consumer.window.store import WindowStore
from consumer.window.tail import Tail, as_tail


class SliceSearcher:
    """Searches tails and slices. For one thread at a time."""

    def __init__(
        self, store: WindowStore, replicas: Replicas, slices: Slices, filler: SliceFiller, params: SearchParams
    ) -> None:
        self._store = store
        self._replicas = replicas
        self._slices = slices
        self._filler = filler
        self._params = params

    def search(
        self, tenant: str, replica: Replica, searches: Mapping[int, Sequence[Query]]
    ) -> Iterator[tuple[int, list[tuple[NearMatch, ...]]]]:
        """Run the queries of each search at once; yield the near matches of each query, by search, of those with any.

        What is found for an upload that is stored is remembered. Raises RowsGone where the tail has to be read again.
        """
        tail = as_tail(replica)
        all_hits = iter(self._hits(tenant, tail, [query for queries in searches.values() for query in queries]))
        hits = {search: [next(all_hits) for _ in queries] for search, queries in searches.items() if queries}
        stored = {search: searches[search][0].position for search in hits if searches[search][0].stored}
        hits |= self._remember(tenant, tail, stored, hits)
        for search, of_queries in hits.items():
            yield search, [tuple(map(_near_match, each)) for each in of_queries]

    def _hits(self, tenant: str, tail: Tail, queries: Sequence[Query]) -> list[list[Hit]]:
        hits = [set(of_query) for of_query in tail.index.search(queries)]
        if queries and tail.start > Position(0, 0):
            try:
                self._search_slices(tenant, tail, queries, hits)
            except SliceLost as lost:
                # A picture that is only looked up writes nothing.
                if not queries[0].stored:
                    self._filler.wait(tenant, tail)
                self._filler.reopen(tenant, tail, lost)
        return [select_hits(of_query, self._params) for of_query in hits]

    def _search_slices(self, tenant: str, tail: Tail, queries: Sequence[Query], hits: Sequence[set[Hit]]) -> None:
        """Add the hits in slices to those in the tail."""
        until, oldest_ms, retention_ms = tail.start, tail.oldest.ms, self._store.retention_ms
        asked = {
            index: SliceQuery(query.vector, max(query.position.ms - retention_ms, oldest_ms), query.position)
            for index, query in enumerate(queries)
        }
        while asked:
            filled, found = self._slices.search(tenant, tail.epoch, list(asked.values()), until)
            self._filler.check(tail, filled)
            rows = self._read_rows(tenant, {each for one in found for near in one.values() for each in near})
            asked_again = {}
            for (index, query), by_slice in zip(asked.items(), found, strict=True):
                near = {position for positions in by_slice.values() for position in positions if position in rows}
                new = self._exact(queries[index], [rows[position] for position in near])
                hits[index].update(new)
                earlier = [hit.position for hit in new if hit.l2 <= self._params.threshold_l2]
                # A slice tells of the nearest. Where it has more of them, the earliest may be among those.
                if earlier and any(len(positions) == self._slices.count for positions in by_slice.values()):
                    asked_again[index] = query._replace(before=min(earlier))
            asked = asked_again

    def _exact(self, query: Query, rows: Sequence[IndexRow]) -> list[Hit]:
        """The hits among rows, by the distances of their float16 vectors."""
        others = [row for row in rows if row.image_id != query.image_id]
        if not others:
            return []
        difference = query.vector.astype(np.float32) - np.stack([row.vector for row in others])
        # Rounded before it is compared with anything, so that what is reported is what was decided on.
        l2 = np.round(np.sqrt(np.einsum("nd,nd->n", difference, difference)).astype(np.float64), 6)
        return [
            Hit(row.position, row.image_id, row.uploaded_us, float(each))
            for row, each in zip(others, l2, strict=True)
            if each <= self._params.radius_l2
        ]

    def _remember(
        self, tenant: str, tail: Tail, stored: Mapping[int, Position], hits: Mapping[int, list[list[Hit]]]
    ) -> dict[int, list[list[Hit]]]:
        """Remember what was found near stored uploads. Returns what had been found before, where that is another."""
        if not stored:
            return {}
        arguments: list[bytes | str | int] = [tail.epoch]
        for search, position in stored.items():
            arguments += [str(position), _encode(hits[search])]
        [remembered] = self._replicas.run("remember", lambda: [(tenant, arguments)], [])
        earlier = {
            search: _decode(text)
            for search, text in zip(stored, remembered, strict=True)
            if text != _encode(hits[search])
        }
        rows = self._read_rows(tenant, {position for each in earlier.values() for found in each for position in found})
        return {
            search: [
                [
                    Hit(position, rows[position].image_id, rows[position].uploaded_us, l2)
                    for position, l2 in found.items()
                    if position in rows
                ]
                for found in each
            ]
            for search, each in earlier.items()
        }

    def _read_rows(self, tenant: str, positions: Iterable[Position]) -> dict[Position, IndexRow]:
        """Read the rows at positions, with their vectors, without those that are gone."""
        asked = list(positions)
        if not asked:
            return {}
        names = [str(position).encode() for position in asked]
        records = self._store.command("HMGET", self._store.key(tenant, "rows"), *names)
        return {
            position: decode_index_row(name, record)
            for position, name, record in zip(asked, names, records, strict=True)
            if record is not None
        }


def _encode(hits: Sequence[Sequence[Hit]]) -> bytes:
    """Write the hits of each query of an upload: a line for each query, of positions and distances, without names."""
    return "\n".join(" ".join(f"{hit.position} {hit.l2:.6f}" for hit in of_query) for of_query in hits).encode()


def _decode(text: bytes) -> list[dict[Position, float]]:
    """Read what `_encode` wrote."""
    lines = [line.split() for line in text.split(b"\n")]
    return [{Position.parse(name): float(l2) for name, l2 in zip(line[::2], line[1::2], strict=True)} for line in lines]


def _near_match(hit: Hit) -> NearMatch:
    return NearMatch(decode_name(hit.image_id), hit.position, hit.l2, to_datetime(hit.uploaded_us))
