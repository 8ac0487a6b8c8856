"""The copy of the banks in Redis: written by the one process that has the lease, read by all into their replicas.

It is made from `image-banks` and says up to which offset. Each encoder has a copy of its own, so a new version fills
its copy while the old one goes on with the other. What Redis loses is read from the topic again.
"""

import json
import struct
import uuid
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from consumer.encoder.contract import Strictness
from consumer.errors import Unavailable, Unprocessable
from consumer.verdicts import BankKind
from consumer.window.store import WindowStore

# A tenant cannot have the empty name, so that these keys are nobody's window.
_TAG = ""
_KINDS = ("bank-log", "bank-rows", "bank-features", "bank-meta", "bank-gone")
# Removals that replicas can follow; one that is further behind is read anew.
MAX_REMOVALS = 10_000
# Rows of a page: some 800 KB.
PAGE_ROWS = 1000
# How long a process that is gone keeps the lease.
LEASE_MS = 15_000

_LENGTH = struct.Struct(">I")
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Row(BaseModel):
    """What is stored of a bank or of an entry, beside vector and features; `at` is the message that says it."""

    model_config = ConfigDict(frozen=True)

    at: tuple[int, int]  # partition, offset


class BankRow(Row):
    """A bank."""

    kind: BankKind
    enabled: bool
    strictness: Strictness
    action: str | None = None
    silences: tuple[str, ...] = ()


class EntryRow(Row):
    """An entry. `digest` is the SHA-256 of its picture's bytes, `pdq` its PDQ hash, `of_image` the upload it is of."""

    digest: str | None = None
    pdq: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    source: str | None = None
    expires_us: int | None = None
    of_image: tuple[str, str] | None = None  # tenant, image id

    @property
    def content(self) -> str:
        """The hash that it goes by."""
        return self.digest or self.pdq or ""


class NewRow(NamedTuple):
    """A row to write under a name, which is a key of the topic; a `row` of None removes it."""

    name: bytes
    row: Row | None
    vector: bytes = b""  # float16, little endian
    features: bytes = b""


class ChangesPage(NamedTuple):
    """The reply of `lua/read.lua`; `changes` has name, serial and row of each, a row of b"" if it was removed."""

    epoch: bytes
    serial: int
    more: int
    anew: int
    changes: list[Any]
    meta: list[bytes]

    @property
    def floor(self) -> int:
        """The serial of the last removal that is forgotten."""
        return int(self._by_name.get(b"floor", 0))

    @property
    def is_remade(self) -> bool:
        """Whether the topic was made anew before this copy was begun: offsets of copies before mean nothing."""
        return self._by_name.get(b"remade") == b"1"

    @property
    def _by_name(self) -> dict[bytes, bytes]:
        return dict(zip(self.meta[::2], self.meta[1::2], strict=True))

    @property
    def offsets(self) -> dict[int, int]:
        """The next offset to be read of each partition of the topic."""
        pairs = zip(self.meta[::2], self.meta[1::2], strict=True)
        return {int(name[3:]): int(offset) for name, offset in pairs if name.startswith(b"at:")}


class BankStore:
    """The keys of one encoder's copy. Every method raises Unavailable("redis", ...) while Redis cannot be asked."""

    def __init__(self, store: WindowStore) -> None:
        self._store = store
        self._keys = [store.key(_TAG, kind) for kind in _KINDS]
        self._failures_key = store.key(_TAG, "bank-failures")
        self._searched_key = store.key(_TAG, "bank-searched")
        folder = files("consumer.moderation") / "lua"
        whole, begin, read, self._write_script = (
            (folder / f"{name}.lua").read_text() for name in ("whole", "begin", "read", "write")
        )
        self._begin_script, self._read_script = whole + begin, whole + read

    def lease(self) -> "Lease":
        """Make a claim, not yet held, to write this copy."""
        return Lease(self._store, self._store.key(_TAG, "bank-lease"))

    def begin(self, lease: "Lease", topic_id: str) -> tuple[str, dict[int, int]]:
        """Begin the copy if there is none of this topic.

        Returns its epoch, and the next offset of each partition that was read. Raises Unavailable when the lease is not
        held any more.
        """
        keys, epoch = [*self._keys, lease.key], uuid.uuid4().hex
        reply = self._store.evaluate(self._begin_script, keys, lease.holder, epoch, topic_id)
        meta = dict(zip(reply[::2], reply[1::2], strict=True))
        if not meta:
            raise Unavailable("redis", "another process fills the banks by now")
        return meta[b"epoch"].decode(), ChangesPage(b"", 0, 0, 0, [], reply).offsets

    def write(self, lease: "Lease", epoch: str, rows: Sequence[NewRow], next_offsets: Mapping[int, int]) -> None:
        """Write rows, and up to which offset of each partition the topic is read with them.

        Raises Unavailable when the lease is not held any more or the copy was lost.
        """
        arguments: list[bytes | str | int] = [lease.holder, epoch, MAX_REMOVALS, len(next_offsets)]
        for position in next_offsets.items():
            arguments += position
        for new in rows:
            arguments += [new.name, b"" if new.row is None else encode_row(new.row, new.vector), new.features]
        if not self._store.evaluate(self._write_script, [*self._keys, lease.key], *arguments):
            raise Unavailable("redis", "the banks were lost, or another process fills them by now")

    def read(self, epoch: bytes, serial: int, floor: int) -> ChangesPage:
        """Read a page of what changed since; `floor` is that of the page that began anew."""
        return ChangesPage(*self._store.evaluate(self._read_script, self._keys, epoch, serial, PAGE_ROWS, floor))

    def read_features(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Read the features stored under each name; None where there are none."""
        features: list[bytes | None] = self._store.command("HMGET", self._keys[2], *names) if names else []
        return features

    def read_entries(self, names: Sequence[bytes]) -> list[tuple[EntryRow, bytes] | None]:
        """Read row and vector, as bytes, stored under the name of each entry; None for one that is not there."""
        rows = self._store.command("HMGET", self._keys[1], *names) if names else []
        read = [None if row is None else decode_row(row) for row in rows]
        return [None if row is None else (EntryRow.model_validate_json(row[0]), row[1]) for row in read]

    def read_pictures(self, names: Sequence[bytes]) -> list[tuple[str | None, bytes] | None]:
        """Read digest and vector, as bytes, stored under the name of each entry; None for one that is gone."""
        rows = self._store.command("HMGET", self._keys[1], *names) if names else []
        read = [None if row is None else decode_row(row) for row in rows]
        return [None if row is None else (json.loads(row[0]).get("digest"), row[1]) for row in read]

    def note_failure(self, at: tuple[int, int], failure: Unprocessable) -> None:
        """Note why no entry could be made of a message, for whoever answers it."""
        self._store.command("HSET", self._failures_key, _field(at), json.dumps([failure.reason, failure.detail]))

    def read_failure(self, at: tuple[int, int]) -> Unprocessable | None:
        """Read why no entry could be made of a message."""
        noted = self._store.command("HGET", self._failures_key, _field(at))
        return None if noted is None else Unprocessable(*json.loads(noted))

    def read_searched(self, names: Sequence[bytes]) -> list[tuple[int, str] | None]:
        """Read for which content of each entry, and up to which message, earlier uploads are searched for."""
        notes = self._store.command("HMGET", self._searched_key, *names) if names else []
        parts = [None if note is None else note.decode().partition(":") for note in notes]
        return [None if part is None else (int(part[0]), part[2]) for part in parts]

    def note_searched(self, contents: Mapping[bytes, tuple[int, str]], removed: Sequence[bytes]) -> None:
        """Note for which content of entries, of the message at an offset, earlier uploads are searched.

        Before that, forgets entries that were removed.
        """
        if removed:
            self._store.command("HDEL", self._searched_key, *removed)
        for name, (offset, content) in contents.items():
            self._store.command("HSET", self._searched_key, name, f"{offset}:{content}")

    def forget_failures(self, messages: Sequence[tuple[int, int]]) -> None:
        """Forget the failures of messages that are answered."""
        if messages:
            self._store.command("HDEL", self._failures_key, *map(_field, messages))


class Lease:
    """The right to do what one process at a time may do, until it is not renewed for LEASE_MS."""

    def __init__(self, store: WindowStore, key: str) -> None:
        self.key, self.holder = key, uuid.uuid4().hex
        self._store = store

    def hold(self) -> bool:
        """Take or renew the lease; False while another process has it."""
        return bool(self._store.evaluate(_HOLD, [self.key], self.holder, LEASE_MS))

    def release(self) -> None:
        """Let another process have it."""
        self._store.evaluate(_RELEASE, [self.key], self.holder)


def _field(at: tuple[int, int]) -> str:
    return f"{at[0]}:{at[1]}"


def encode_row(row: Row, vector: bytes) -> bytes:
    """Encode a row and its vector."""
    text = row.model_dump_json(exclude_defaults=True).encode()
    return b"".join((_LENGTH.pack(len(text)), text, vector))


def decode_row(data: bytes) -> tuple[bytes, bytes]:
    """Decode what `encode_row` encoded: the row as JSON, and the vector."""
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    return data[_LENGTH.size : end], data[end:]
