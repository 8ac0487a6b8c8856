"""A picture in the window: what is stored of it, where it stands, and what stands before it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Before the content hash: `uploaded_us` int64, length of the hash uint8, length of the image id uint16, big endian.
HEADER_BYTES = 11

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Position(NamedTuple):
    """Where a row stands in its tenant's log. Orders by arrival; `ms` is the Redis server's clock."""

    ms: int
    serial: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.serial}"

    @classmethod
    def parse(cls, text: bytes) -> "Position":
        ms, serial = text.split(b"-")
        return cls(int(ms), int(serial))


class Source(NamedTuple):
    """Where an event stands in its topic."""

    partition: int
    offset: int


class NewRecord(NamedTuple):
    """An upload to append. `vector` is float32 [D] of unit length, or None for a picture that matches only exactly.

    `digest` is the hash of its bytes, at most 255 long; `patches` the local features and thumbnail, for second looks.
    `region_matches` are the vectors of pictures within it, which are looked for like its own, and not stored.
    """

    tenant: str
    image_id: str
    digest: bytes
    vector: NDArray[np.float32] | None
    uploaded_at: datetime
    patches: bytes | None = None
    source: Source | None = None
    region_vectors: tuple[NDArray[np.float32], ...] = ()


class StoredRecord(NamedTuple):
    """A row as Redis keeps it: where, its record, and its `patches` or b""."""

    position: Position
    record: bytes
    patches: bytes


class RecordContent(NamedTuple):
    """What a record holds; `vector` is float16 [D] as bytes, little endian, or b""."""

    image_id: bytes
    digest: bytes
    uploaded_us: int
    vector: bytes


class IndexRow(NamedTuple):
    """A stored row; `vector` is float16 [D], or [0] for a picture that matches only exactly."""

    position: Position
    image_id: bytes
    uploaded_us: int
    vector: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class NearMatch:
    """An earlier picture at Euclidean distance `l2`."""

    image_id: str
    position: Position
    l2: float
    uploaded_at: datetime


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """The earliest other picture of the same bytes; `own_record` is the upload's own, when it is stored as well."""

    image_id: str
    position: Position
    uploaded_at: datetime
    l2: float = 0.0
    own_record: StoredRecord | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Where an upload stands and what stands before it. `position` is None for an exact copy that is not stored.

    `own_record` is what is stored of it; None also for an upload that was deleted before it came. `region_matches` has
    the near matches of each region of the upload.
    """

    position: Position | None = None
    exact: ExactMatch | None = None
    near: tuple[NearMatch, ...] = ()
    own_record: StoredRecord | None = field(default=None, compare=False)
    region_matches: tuple[tuple[NearMatch, ...], ...] = ()


class DeleteResult(NamedTuple):
    """How many rows were forgotten, and the position at or before which they stood."""

    rows: int
    position: Position


def pack_record(
    image_id: str, digest: bytes, uploaded_at: datetime, vector: NDArray[np.float32] | None = None
) -> bytes:
    """The record of a picture as `lua/window.lua` describes it."""
    # The first and the last day of the calendar can lie outside of it in UTC.
    uploaded_us = min(max((uploaded_at - _EPOCH) // _MICROSECOND, _FIRST_US), _LAST_US)
    values = b"" if vector is None else vector.astype("<f2").tobytes()
    return encode_record(RecordContent(encode_name(image_id), digest, uploaded_us, values))


def encode_record(content: RecordContent) -> bytes:
    """The record of a picture. Raises OverflowError for what has no room in one."""
    name, digest, uploaded_us, values = content
    lengths = len(digest).to_bytes(1, "big") + len(name).to_bytes(2, "big")
    return b"".join((uploaded_us.to_bytes(8, "big", signed=True), lengths, digest, name, values))


def decode_record(record: bytes) -> RecordContent:
    """The inverse of `encode_record`."""
    start = HEADER_BYTES + record[8]
    end = start + int.from_bytes(record[9:11], "big")
    uploaded_us = int.from_bytes(record[:8], "big", signed=True)
    return RecordContent(record[start:end], record[HEADER_BYTES:start], uploaded_us, record[end:])


def decode_index_row(position: bytes, record: bytes) -> IndexRow:
    start = HEADER_BYTES + record[8]
    end = start + int.from_bytes(record[9:11], "big")
    uploaded_us = int.from_bytes(record[:8], "big", signed=True)
    return IndexRow(Position.parse(position), record[start:end], uploaded_us, np.frombuffer(record, "<f2", offset=end))


def to_datetime(uploaded_us: int) -> datetime:
    return _EPOCH + uploaded_us * _MICROSECOND


def encode_name(name: str) -> bytes:
    # JSON can carry halves of surrogate pairs, which plain UTF-8 refuses.
    return name.encode("utf-8", "surrogatepass")


def decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
