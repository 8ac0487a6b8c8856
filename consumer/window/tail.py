"""The end of a tenant's log in this process: the rows that are not in slices yet, exactly as in any other replica."""

from collections.abc import Callable, Iterator
from itertools import chain, islice

from consumer.window.index import VectorIndex
from consumer.window.records import IndexRow, Position
from consumer.window.replica import Page, Replica
from consumer.window.slices import parse_cursor


class Tail(Replica):
    """The rows behind `start`, and which rows were deleted there. All rows up to `start` are in slices."""

    index: VectorIndex
    reads_ahead = False  # its rows are moved while it is read

    def __init__(self, new_index: Callable[[], VectorIndex], dim: int, slice_ms: int) -> None:
        super().__init__(new_index, dim, start=b"@%d" % slice_ms)

    def reset(self) -> None:
        """Forget all that was read."""
        super().reset()
        self.start = Position(0, 0)
        self.oldest = Position(0, 0)  # the first position in the log
        self._deleted: list[tuple[Position, Position]] = []  # rows, each with where the log was read to by then

    @property
    def deleted(self) -> list[Position]:
        """Rows that were deleted behind `start`, and have to be removed from slices."""
        return [position for position, _ in self._deleted]

    def apply(self, page: Page) -> None:
        """Follow a page. The first one says where the tail begins."""
        is_first = self.cursor == self._start
        super().apply(page)
        if not page.epoch:
            self.reset()
        elif is_first:
            self.start = parse_cursor(page.cursor)
        else:
            # Others may have moved more than this process has read.
            self._drop_moved()
        self.oldest = Position.parse(page.oldest) if page.oldest else parse_cursor(page.cursor)
        end = parse_cursor(self.cursor) if page.epoch else Position(0, 0)
        self._deleted += [(Position.parse(position), end) for position in page.deleted]
        self._deleted = [deleted for deleted in self._deleted if deleted[1] >= self.oldest]

    def first_rows(self, count: int) -> list[IndexRow]:
        """The first rows, at most `count` of them."""
        rows: Iterator[IndexRow] = chain.from_iterable(self.index.rows())
        return list(islice(rows, count))

    def move_start(self, position: Position) -> None:
        """Drop all up to a position: it is in slices."""
        if position > self.start:
            self.start = position
            self._drop_moved()
            # Whoever moved them has removed what was deleted up to there.
            self._deleted = [deleted for deleted in self._deleted if deleted[1] > position]

    def _drop_moved(self) -> None:
        self.index.drop_before(Position(self.start.ms, self.start.serial + 1))

    def forget_deleted(self) -> None:
        """Note that the rows that were deleted are removed from slices."""
        self._deleted = []


def as_tail(replica: Replica) -> Tail:
    """The same replica: all of a back end with slices are tails."""
    assert isinstance(replica, Tail)  # noqa: S101 (narrows the type)
    return replica
