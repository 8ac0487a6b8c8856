"""An upload's record in the window: what is appended, the bytes that are stored, and the matches that are reported."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

# A record begins with the time of upload in microseconds since 1970, the length of the digest and the length of the
# image id, big endian. Digest, image id and vector follow. `lua/window.lua` reads the same layout.
_HEADER = struct.Struct(">qBH")
HEADER_BYTES = _HEADER.size

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Position(NamedTuple):
    """Where a record stands in its tenant's log. Orders by arrival: along the log `serial` rises, and `ms` never falls.

    `ms` is by the Redis server's clock.
    """

    ms: int
    serial: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.serial}"

    @classmethod
    def parse(cls, text: bytes) -> "Position":
        """Parse `ms-serial`. Raises ValueError for anything else."""
        ms, serial = text.split(b"-")
        return cls(int(ms), int(serial))


class Source(NamedTuple):
    """Where an event stands in the input topic.

    Of a deletion that tells its time `deleted_us` is that, in microseconds since 1970: what was uploaded later stays.
    """

    partition: int
    offset: int
    deleted_us: int | None = None

    def __str__(self) -> str:
        time = "" if self.deleted_us is None else f" {self.deleted_us}"
        return f"{self.partition} {self.offset}{time}"


class NewRecord(NamedTuple):
    """An upload to append. `vector` is float32 [D] of unit length, or None for a picture that matches only exactly.

    `digest` is the hash of the picture's bytes, at most 255 bytes long. `patches` are its local features and thumbnail,
    as bytes, with which near matches are verified. `region_vectors`, float32 [D] each, belong to pictures within this
    one: near matches of them are searched for too, and they are not stored.
    """

    tenant: str
    image_id: str
    digest: bytes
    vector: NDArray[np.float32] | None
    uploaded_at: datetime
    patches: bytes | None = None
    source: Source | None = None
    region_vectors: tuple[NDArray[np.float32], ...] = ()


class Lookup(NamedTuple):
    """A picture to look up, which is not stored: the hash of its bytes and the vectors, float32 [D], of its views.

    The vector of the whole picture comes first, then those of the pictures within it; a picture that matches only
    exactly has none.
    """

    tenant: str
    digest: bytes
    vectors: tuple[NDArray[np.float32], ...]


class StoredRecord(NamedTuple):
    """A record as Redis holds it: its position, its bytes, and its patches or b""."""

    position: Position
    record: bytes
    patches: bytes


class RecordContent(NamedTuple):
    """The fields of a record; `vector` is float16 [D] as bytes, little endian, or b""."""

    image_id: bytes
    digest: bytes
    uploaded_us: int
    vector: bytes


class IndexRow(NamedTuple):
    """The part of a stored record that an index holds; `vector` is float16 [D], or [0] for one that has none."""

    position: Position
    image_id: bytes
    uploaded_us: int
    vector: NDArray[np.float16]


@dataclass(frozen=True, eq=False, slots=True)
class IndexRows:
    """Rows for an index, by column: positions and times int64 [N], vectors float16 [N, D]. Iterates over its rows."""

    ms: NDArray[np.int64]
    serial: NDArray[np.int64]
    uploaded_us: NDArray[np.int64]
    image_ids: list[bytes]
    vectors: NDArray[np.float16]

    @classmethod
    def stack(cls, rows: Sequence[IndexRow]) -> Self:
        """Put rows together, at least one, whose vectors have the same length."""
        ms, serial, uploaded_us = np.array([(*row.position, row.uploaded_us) for row in rows], np.int64).T
        return cls(ms, serial, uploaded_us, [row.image_id for row in rows], np.stack([row.vector for row in rows]))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[IndexRow]:
        positions = map(Position, self.ms.tolist(), self.serial.tolist())
        return map(IndexRow, positions, self.image_ids, self.uploaded_us.tolist(), self.vectors)

    def select(self, rows: slice) -> Self:
        """Select rows, without copying their vectors."""
        return type(self)(
            self.ms[rows], self.serial[rows], self.uploaded_us[rows], self.image_ids[rows], self.vectors[rows]
        )


@dataclass(frozen=True, slots=True)
class NearMatch:
    """An earlier picture at Euclidean distance `l2`."""

    image_id: str
    position: Position
    l2: float
    uploaded_at: datetime


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """The earliest other picture of the same bytes; `own_record` is the upload's own record, where it is stored too."""

    image_id: str
    position: Position
    uploaded_at: datetime
    l2: float = 0.0
    own_record: StoredRecord | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Where an upload stands and what stands before it.

    `position` is None for an exact copy that is not stored, and for a picture that was only looked up.
    `own_record` is what is stored of the upload; it is None as well for one that was deleted before it came.
    `region_matches` has the near matches of each of its regions.
    """

    position: Position | None = None
    exact: ExactMatch | None = None
    near: tuple[NearMatch, ...] = ()
    own_record: StoredRecord | None = field(default=None, compare=False)
    region_matches: tuple[tuple[NearMatch, ...], ...] = ()


class DeleteResult(NamedTuple):
    """How many records were deleted; all of them stood at or before `position`."""

    records: int
    position: Position


def pack_record(
    image_id: str, digest: bytes, uploaded_at: datetime, vector: NDArray[np.float32] | None = None
) -> bytes:
    """Encode the record of a picture; `vector` is float32 [D], and is rounded to float16."""
    values = b"" if vector is None else vector.astype("<f2").tobytes()
    return encode_record(RecordContent(encode_name(image_id), digest, to_us(uploaded_at), values))


def encode_record(content: RecordContent) -> bytes:
    """Encode a record. Raises OverflowError for a time or a length that its header has no room for."""
    name, digest, uploaded_us, vector = content
    try:
        header = _HEADER.pack(uploaded_us, len(digest), len(name))
    except struct.error:
        raise OverflowError("int too big to convert") from None
    return b"".join((header, digest, name, vector))


def decode_record(record: bytes) -> RecordContent:
    """Decode what `encode_record` encoded."""
    uploaded_us, digest_end, name_end = _decode_header(record)
    return RecordContent(record[digest_end:name_end], record[HEADER_BYTES:digest_end], uploaded_us, record[name_end:])


def decode_index_row(position: bytes, record: bytes) -> IndexRow:
    """Decode a record for an index, without a copy of its vector."""
    uploaded_us, digest_end, name_end = _decode_header(record)
    vector = np.frombuffer(record, "<f2", offset=name_end)
    return IndexRow(Position.parse(position), record[digest_end:name_end], uploaded_us, vector)


def decode_index_rows(positions: Sequence[bytes], records: Sequence[bytes], dim: int) -> IndexRows:
    """Decode the records at some positions for an index, but those without a vector of `dim` numbers."""
    kept, times_us, names, vectors = [], [], [], []
    for position, record in zip(positions, records, strict=True):
        uploaded_us, digest_end, name_end = _decode_header(record)
        if len(record) - name_end == 2 * dim:
            kept.append(position)
            times_us.append(uploaded_us)
            names.append(record[digest_end:name_end])
            vectors.append(record[name_end:])
    numbers = list(map(int, b"-".join(kept).split(b"-"))) if kept else []
    ms, serial = np.array(numbers, np.int64).reshape(-1, 2).T
    columns = np.frombuffer(b"".join(vectors), "<f2").reshape(-1, dim)
    return IndexRows(ms, serial, np.array(times_us, np.int64), names, columns)


def _decode_header(record: bytes) -> tuple[int, int, int]:
    """The time of upload in microseconds, and where digest and image id end."""
    uploaded_us, digest_bytes, name_bytes = _HEADER.unpack_from(record)
    digest_end = HEADER_BYTES + digest_bytes
    return uploaded_us, digest_end, digest_end + name_bytes


def to_us(time: datetime) -> int:
    """Convert a time to microseconds since 1970."""
    # The first and the last day of the calendar can lie outside of it in UTC.
    return min(max((time - _EPOCH) // _MICROSECOND, _FIRST_US), _LAST_US)


def to_datetime(uploaded_us: int) -> datetime:
    """Convert microseconds since 1970 to a time in UTC."""
    return _EPOCH + uploaded_us * _MICROSECOND


def encode_name(name: str) -> bytes:
    """Encode the name of a tenant or an image as UTF-8."""
    # JSON can carry halves of surrogate pairs, which plain UTF-8 refuses.
    return name.encode("utf-8", "surrogatepass")


def decode_name(name: bytes) -> str:
    """Decode what `encode_name` encoded."""
    return name.decode("utf-8", "surrogatepass")
