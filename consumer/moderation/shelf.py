"""The entries that count, of the banks of one tenant or of those for all tenants, to be searched by this process.

Entries of banks that are off, and such as have expired, are not on a shelf, so that they stand before no other. The
same picture in many banks is one row of the index.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.moderation.banks import EntryKey
from consumer.moderation.pdq_index import PdqIndex
from consumer.moderation.store import EntryRow
from consumer.window.index import Query, VectorIndex
from consumer.window.large_index import LargeIndex
from consumer.window.records import IndexRow, IndexRows, Position, to_us
from consumer.window.replica import moved

# More pictures than this are searched for by the code books of the model, if it has any.
MAX_EXACT = 16_384
# Behind all pictures; no time passes in an index of entries.
_END, RETENTION_MS = Position(0, 2**62), 1
_NOBODY = b"-"  # an image id that no row of such an index has


class Entry(NamedTuple):
    """An entry as a process holds it; `name` is its key as it stands on the topic."""

    name: bytes
    key: EntryKey
    serial: int
    row: EntryRow

    def counts(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.row.expires_us is None or to_us(now) < self.row.expires_us


class Near(NamedTuple):
    """A picture near a vector, and the entries that hold it."""

    digest: str
    l2: float
    entries: Collection[Entry]


class Shelf:
    """Searched by the digest of a picture, by its vector, and by its PDQ hash. Not thread-safe."""

    def __init__(self, new_index: Callable[[], VectorIndex], new_large_index: Callable[[], LargeIndex] | None) -> None:
        """More than MAX_EXACT pictures move to a large index, if there is one for the model."""
        self.entries: dict[bytes, Entry] = {}  # by name
        self._new_large_index = new_large_index
        self._index: VectorIndex | LargeIndex = new_index()
        self._by_digest: dict[str, dict[bytes, Entry]] = {}
        self._rows: dict[str, int] = {}  # the number of each picture that is in the index, by digest
        self._digests: dict[int, str] = {}
        self._vectors: dict[int, bytes] = {}  # of what is in a large index, which has codes of them alone
        self._numbers = count()
        self._is_tidy = True
        self._hashed: dict[bytes, Entry] = {}
        self._pdq_index: PdqIndex[Entry] | None = None

    def __len__(self) -> int:
        """How many pictures are in the index."""
        return len(self._index)

    def add(self, entries: Sequence[tuple[Entry, bytes]]) -> None:
        """Add entries with their vectors, as bytes, b"" for what has none."""
        rows = []
        for entry, vector in entries:
            self.entries[entry.name] = entry
            if entry.row.pdq is not None:
                self._hashed[entry.name], self._pdq_index = entry, None
            digest = entry.row.digest
            if digest is None:
                continue
            self._by_digest.setdefault(digest, {})[entry.name] = entry
            if vector and digest not in self._rows:
                number = self._rows[digest] = next(self._numbers)
                self._digests[number] = digest
                rows.append(_row(Position(0, number), vector))
        if rows:
            if isinstance(self._index, LargeIndex):
                self._keep_vectors(rows)
            self._index.extend(IndexRows.stack(rows))
        if self._new_large_index is not None and isinstance(self._index, VectorIndex) and len(self) > MAX_EXACT:
            for block in self._index.rows():
                self._keep_vectors(block)
            self._index = moved(self._index, self._new_large_index())

    def remove(self, name: bytes) -> None:
        """Remove an entry, if it is on the shelf."""
        entry = self.entries.pop(name, None)
        if entry is None:
            return
        if self._hashed.pop(name, None) is not None:
            self._pdq_index = None
        digest = entry.row.digest
        if digest is None:
            return
        del self._by_digest[digest][name]
        if not self._by_digest[digest]:
            del self._by_digest[digest]
            number = self._rows.pop(digest, None)
            if number is not None:
                del self._digests[number]
                self._vectors.pop(number, None)
                self._index.remove(Position(0, number))
                self._is_tidy = False

    def tidy(self) -> None:
        """Give back what removed pictures took."""
        if not self._is_tidy:
            self._index.drop_before(Position(0, next(iter(self._digests), 0)))
            self._is_tidy = True

    def exact(self, digest: str) -> Collection[Entry]:
        """The entries that hold the picture of these bytes."""
        return self._by_digest.get(digest, {}).values()

    @property
    def has_hashes(self) -> bool:
        """Whether any entry is a PDQ hash."""
        return bool(self._hashed)

    def hashes(self) -> PdqIndex[Entry]:
        """The PDQ hashes of entries, as they stand now."""
        if self._pdq_index is None:
            self._pdq_index = PdqIndex((each.row.pdq or "", each) for each in self._hashed.values())
        return self._pdq_index

    def near(self, vectors: Sequence[NDArray[np.float32]]) -> list[list[Near]]:
        """Find the pictures near each vector [D], of those that are nearest."""
        queries = [Query(_END, _NOBODY, vector.astype(np.float16), False) for vector in vectors]
        index = self._index
        found = index.search(queries) if isinstance(index, VectorIndex) else index.search(queries, self._read_rows)
        near = []
        for hits in found:
            digests = [self._digests[hit.position.serial] for hit in hits]
            pairs = zip(digests, hits, strict=True)
            near.append([Near(digest, hit.l2, self._by_digest[digest].values()) for digest, hit in pairs])
        return near

    def _keep_vectors(self, rows: Iterable[IndexRow]) -> None:
        for row in rows:
            self._vectors[row.position.serial] = row.vector.tobytes()

    def _read_rows(self, positions: Sequence[Position]) -> list[IndexRow]:
        return [_row(position, self._vectors[position.serial]) for position in positions]


def _row(position: Position, vector: bytes) -> IndexRow:
    return IndexRow(position, b"", 0, np.frombuffer(vector, "<f2"))
