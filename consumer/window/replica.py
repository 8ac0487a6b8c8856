"""This process's copy of a tenant's window in Redis, read page by page from its log.

A replica knows how far it has been read in which log. It begins anew when Redis comes back with another log, or without
the end of the one that was read. `lua/sync.lua` appends records and replies with a page of the log.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from consumer.window.index import Hit, Query, VectorIndex
from consumer.window.large_index import EXACT_ROWS, LargeIndex, ReadRows
from consumer.window.records import Position, decode_index_rows

# Entries of the log in a page: 500 records are about 300 KB, for which Redis keeps others waiting for 1 to 3 ms.
PAGE_ENTRIES = 500


class Page(NamedTuple):
    """The reply of `lua/sync.lua`: the outcome of each append, then what stands in the log after the cursor.

    `records` has the position and then the record of each row, `deleted` the positions of rows that were deleted.
    `oldest` is the first position in the log, or b"". `more` is 1 when the log goes on after the new `cursor`.
    """

    epoch: bytes
    newest_serial: int
    oldest: bytes
    cursor: bytes
    more: int
    outcomes: list[list[Any]]
    records: list[bytes]
    deleted: list[bytes]

    @property
    def entries_left(self) -> int:
        """How many entries the log has after the page, at most: some were deleted."""
        if not self.more:
            return 0
        return self.newest_serial - (0 if self.cursor == b"-" else Position.parse(self.cursor).serial)

    def follows(self, epoch: bytes, cursor: bytes) -> bool:
        """Whether it goes on at a cursor into the log of an epoch. If not, Redis lost that log, or the end of it."""
        read = Position.parse(cursor).serial
        first = Position.parse(self.records[0]).serial if self.records else self.newest_serial
        return self.epoch == epoch and read <= first and read <= self.newest_serial


def join(pages: Sequence[Page]) -> Page:
    """Join pages, at least one, that follow one another."""
    records = [part for page in pages for part in page.records]
    return pages[-1]._replace(records=records, deleted=[position for page in pages for position in page.deleted])


def page_after(cursor: bytes) -> tuple[bytes, int]:
    """The arguments of a script that reads a page."""
    return cursor, PAGE_ENTRIES


class Replica:
    """One tenant's window in this process: the index of its vectors, and a cursor into its log."""

    reads_ahead = True  # whether pages may be read before those ahead of them are dealt with

    def __init__(
        self,
        new_index: Callable[[], VectorIndex],
        dim: int,
        new_large_index: Callable[[], LargeIndex] | None = None,
        start: bytes = b"-",
    ) -> None:
        """Windows of more than EXACT_ROWS move to a large index, if there is one for the model.

        `start` is the cursor that the log is first read with.
        """
        self._new_index = new_index
        self._new_large_index = new_large_index
        self._dim = dim
        self._start = start
        self.read_at_s = 0.0
        self.marker: bytes | None = None  # the loss guard's when the log was last read
        self.reset()

    def reset(self) -> None:
        """Forget all that was read."""
        self.index: VectorIndex | LargeIndex = self._new_index()
        self.epoch = b""
        self.cursor = self._start
        self.entries_left = 0  # when the log was last read

    @property
    def _has_begun(self) -> bool:
        return self.cursor not in (b"-", self._start)

    def is_newer_than(self, ms: int) -> bool:
        """Whether the last entry that was read came after a time by the Redis server's clock."""
        return self._has_begun and Position.parse(self.cursor).ms > ms

    def precedes(self, page: Page) -> bool:
        """Whether a page goes on where the last one ended."""
        return not self._has_begun or page.follows(self.epoch, self.cursor)

    def apply(self, page: Page) -> None:
        """Follow the appends and deletions of a page, and move the cursor behind it."""
        self.index.extend(decode_index_rows(page.records[::2], page.records[1::2], self._dim))
        # A large window is not read into the exact index first.
        is_large = len(self.index) + page.entries_left > EXACT_ROWS
        if is_large and self._new_large_index is not None and isinstance(self.index, VectorIndex):
            self.index = moved(self.index, self._new_large_index())
        for position in page.deleted:
            self.index.remove(Position.parse(position))
        if page.oldest:
            self.index.drop_before(Position.parse(page.oldest))
        else:
            self.index = self._new_index()
        self.epoch, self.cursor, self.entries_left = page.epoch, page.cursor, page.entries_left

    def search(self, queries: Sequence[Query], read: ReadRows) -> list[list[Hit]]:
        """Search the index; a large one reads rows of the window. Raises RowsGone when the window has changed."""
        if isinstance(self.index, VectorIndex):
            return self.index.search(queries)
        return self.index.search(queries, read)


def moved(small: VectorIndex, large: LargeIndex) -> LargeIndex:
    """Fill a large index with the rows of a small one."""
    for rows in small.rows():
        large.extend(rows)
    return large
