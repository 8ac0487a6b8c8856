"""A picture in the window: what is stored of it, and where it stands."""

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


class NewRow(NamedTuple):
    """An upload to append. `vector` is float32 [D] of unit length, or None for a picture that matches only exactly.

    `digest` is the hash of its bytes, at most 255 long; `patches` the local features, for the second look.
    """

    tenant: str
    image_id: str
    digest: bytes
    vector: NDArray[np.float32] | None
    uploaded_at: datetime
    patches: bytes | None = None
    source: Source | None = None


class Row(NamedTuple):
    """A stored row; `vector` is float16 [D], or [0] for a picture that matches only exactly."""

    position: Position
    image_id: bytes
    uploaded_us: int
    vector: NDArray[np.float16]


def pack(image_id: str, digest: bytes, uploaded_at: datetime, vector: NDArray[np.float32] | None = None) -> bytes:
    """The record of a picture as `lua/window.lua` describes it."""
    name = encode_name(image_id)
    # The first and the last day of the calendar can lie outside of it in UTC.
    uploaded_us = min(max((uploaded_at - _EPOCH) // _MICROSECOND, _FIRST_US), _LAST_US)
    lengths = len(digest).to_bytes(1, "big") + len(name).to_bytes(2, "big")
    values = b"" if vector is None else vector.astype("<f2").tobytes()
    return b"".join((uploaded_us.to_bytes(8, "big", signed=True), lengths, digest, name, values))


def unpack(position: bytes, record: bytes) -> Row:
    start = HEADER_BYTES + record[8]
    end = start + int.from_bytes(record[9:11], "big")
    uploaded_us = int.from_bytes(record[:8], "big", signed=True)
    return Row(Position.parse(position), record[start:end], uploaded_us, np.frombuffer(record, "<f2", offset=end))


def to_datetime(uploaded_us: int) -> datetime:
    return _EPOCH + uploaded_us * _MICROSECOND


def encode_name(name: str) -> bytes:
    # JSON can carry halves of surrogate pairs, which plain UTF-8 refuses.
    return name.encode("utf-8", "surrogatepass")


def decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
