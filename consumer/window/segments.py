"""The rows of a large window in this process: positions, and codes of one byte for each number of a vector.

Rows are known by their numbers, which count up in order of arrival and mean nothing outside of this process.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from consumer.window.codes import CodedVectors
from consumer.window.records import IndexRows, Position

Numbers = NDArray[np.int64]

SEGMENT_ROWS = 1 << 16


class Segment:
    """Consecutive rows."""

    def __init__(self, dim: int) -> None:
        self.count = self.living = 0
        self.ms = np.empty(SEGMENT_ROWS, np.int64)
        self.serial = np.empty(SEGMENT_ROWS, np.int64)
        self.alive = np.zeros(SEGMENT_ROWS, np.bool_)
        self.vectors = CodedVectors.allocate(SEGMENT_ROWS, dim)

    @property
    def nbytes(self) -> int:
        """Memory of the rows; what is allocated beyond them is not touched."""
        return sum(array[: self.count].nbytes for array in (self.ms, self.serial, self.alive, *self.vectors))

    def extend(self, rows: IndexRows, vectors: CodedVectors) -> None:
        """Append rows, for which there is room."""
        new = slice(self.count, self.count + len(rows))
        self.ms[new], self.serial[new] = rows.ms, rows.serial
        self.vectors.put(new, vectors)
        self.alive[new] = True
        self.count += len(rows)
        self.living += len(rows)

    def erase(self, start: int, end: int) -> None:
        """Overwrite rows, so that nothing of their vectors is left and no search finds them."""
        self.living -= int(np.count_nonzero(self.alive[start:end]))
        self.alive[start:end] = False
        self.vectors.erase(slice(start, end))

    def count_living(self, start: int, end: int) -> int:
        """Count the living rows in a range."""
        whole = start == 0 and end == self.count
        return self.living if whole else int(np.count_nonzero(self.alive[start:end]))

    def count_before(self, serial: int) -> int:
        """Count the rows that stand before a serial number."""
        count: int = np.searchsorted(self.serial[: self.count], serial).item()
        return count


class Segments:
    """All rows of a window, segment by segment."""

    def __init__(self, dim: int) -> None:
        self.expired = 0  # the number of the first row that has not expired
        self._dim = dim
        self._segments: list[Segment] = []
        self._dropped = 0  # the number of the first row of the first segment

    def __len__(self) -> int:
        return sum(segment.living for segment in self._segments)

    @property
    def nbytes(self) -> int:
        """Memory of the rows."""
        return sum(segment.nbytes for segment in self._segments)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest row came; None without rows."""
        segments = self._segments
        if not segments:
            return None
        return int(segments[0].ms[min(max(0, self.expired - self._dropped), segments[0].count - 1)])

    @property
    def end(self) -> int:
        """The number of the next row."""
        if not self._segments:
            return self._dropped
        return self._dropped + SEGMENT_ROWS * (len(self._segments) - 1) + self._segments[-1].count

    def extend(self, rows: IndexRows, vectors: CodedVectors) -> None:
        """Append rows with their vectors, [N]."""
        while rows:
            if not self._segments or self._segments[-1].count == SEGMENT_ROWS:
                self._segments.append(Segment(self._dim))
            room = SEGMENT_ROWS - self._segments[-1].count
            self._segments[-1].extend(rows.select(slice(room)), vectors.select(slice(room)))
            rows, vectors = rows.select(slice(room, None)), vectors.select(slice(room, None))

    def erase(self, number: int) -> None:
        """Erase one row."""
        segment, row = self.row(number)
        segment.erase(row, row + 1)

    def expire(self, number: int) -> None:
        """Erase all rows before one."""
        for segment, start, stop, _ in self.parts(self.expired, number):
            segment.erase(start, stop)
        self.expired = max(self.expired, number)
        while self._segments and self._dropped + SEGMENT_ROWS <= self.expired:
            del self._segments[0]
            self._dropped += SEGMENT_ROWS

    def row(self, number: int) -> tuple[Segment, int]:
        """The segment of a row, and its index there."""
        place, row = divmod(number - self._dropped, SEGMENT_ROWS)
        return self._segments[place], row

    def positions(self, numbers: Sequence[int]) -> list[Position]:
        """The positions of rows."""
        places = (self.row(number) for number in numbers)
        return [Position(segment.ms.item(row), segment.serial.item(row)) for segment, row in places]

    def number_from(self, serial: int) -> int:
        """Find the number of the first row at or after a serial number."""
        for place in range(len(self._segments) - 1, -1, -1):
            segment = self._segments[place]
            if place == 0 or segment.serial[0] < serial:
                return self._dropped + SEGMENT_ROWS * place + segment.count_before(serial)
        return self._dropped

    def locate(self, serial: int) -> int | None:
        """Find the number of a living row."""
        number = self.number_from(serial)
        if number >= self.end:
            return None
        segment, row = self.row(number)
        return number if segment.serial[row] == serial and segment.alive[row] else None

    def bounds(self, positions: Sequence[Position], retention_ms: int) -> tuple[Numbers, Numbers]:
        """Find the numbers between which rows stand before each position, by no more than the retention."""
        end = np.array([self.number_from(position.serial) for position in positions])
        since_ms = np.array([position.ms for position in positions]) - retention_ms
        first = np.full(len(positions), self._dropped)
        for segment in self._segments:
            first += np.searchsorted(segment.ms[: segment.count], since_ms)
        return np.minimum(np.maximum(first, self.expired), end), end

    def parts(self, first: int, end: int) -> Iterator[tuple[Segment, int, int, int]]:
        """Divide a range of numbers by segments: each with its first and last row, and the number of its row 0."""
        for place, segment in enumerate(self._segments):
            start = self._dropped + SEGMENT_ROWS * place
            if first < start + segment.count and end > start:
                yield segment, max(0, first - start), min(segment.count, end - start), start
