"""A window and a changelog as an earlier version wrote them are read, and written, as they are.

`recorded/window.json` was recorded on 2026-11-27 from a real server, and from the messages for the embeddings topic,
with the code as it was before its modules were sorted into wings (commit 25af75e). `keys` has the keys of MODEL's
windows by name, with `type` and `value`: a hash as pairs of field and value, a stream as pairs of position and fields.
`changelog` has messages as key, value and headers; `placed` the positions that the appends were answered with, and
`deleted_at` that of the deletion. All bytes are base64.

Picture n, below, has a vector from `default_rng(n)`, patches from `default_rng(100 + n)` and the SHA-256 of b"picture
n" as its digest. In this order the two tenants got:

    default     "first", picture 1, source (0, 1)        other       "first", picture 1, source (0, 3)
                "second", picture 2, source (0, 2)
                "blank", without vector and patches, source (0, 4)
                "deleted", picture 3, source (0, 5), and its deletion, source (0, 8)
                "second", picture 4, source (0, 6)
                "copy of first", picture 1: exact, so it was not stored
"""

import json
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from confluent_kafka import Message
from numpy.typing import NDArray
from redis import Redis

from consumer.encoder.contract import ModelInfo
from consumer.settings import WindowSettings
from consumer.window.changelog import Tombstone, Upsert, parse_change, tombstone_message, upsert_message
from consumer.window.records import (
    NewRecord,
    Position,
    Source,
    StoredRecord,
    decode_record,
    encode_record,
    pack_record,
)
from consumer.window.window import RedisWindow
from tests.window.examples import look_up

RECORDED = json.loads((Path(__file__).parent / "recorded" / "window.json").read_text())
MODEL = ModelInfo("image_encoder", "6", 192, 16, 0.9162, 32, (4, 6))
PREFIX = "seenit"
RADIUS_L2 = 1.2216
UPLOADED_AT = datetime(2026, 11, 27, 8, 30, 15, 123456, tzinfo=UTC)
OTHER = "a:b{c}日本"
CENTURY_S = 100 * 365.25 * 86_400

FIRST, SECOND, BLANK, OTHER_FIRST = (
    Position.parse(RECORDED["placed"][name].encode())
    for name in ("default/first", "default/second", "default/blank", "other/first")
)
SECOND_AGAIN = Position(1795773115577, 5)
DELETED_AT = Position.parse(RECORDED["deleted_at"].encode())


def key(tenant: str, kind: str) -> str:
    tag = {"default": "default", OTHER: "a%3Ab%7Bc%7D%E6%97%A5%E6%9C%AC"}[tenant]
    return f"{PREFIX}:{{{tag}}}:image_encoder@6x16:{kind}"


def vector(picture: int) -> NDArray[np.float32]:
    values = np.random.default_rng(picture).standard_normal(16)
    return (values / np.linalg.norm(values)).astype(np.float32)


def upload(image_id: str, picture: int, source: Source | None = None, tenant: str = "default") -> NewRecord:
    digest = sha256(b"picture %d" % picture).digest()
    patches = np.random.default_rng(100 + picture).integers(-128, 128, 24).astype(np.int8).tobytes()
    return NewRecord(tenant, image_id, digest, vector(picture), UPLOADED_AT, patches, source)


def blank(image_id: str, source: Source | None = None) -> NewRecord:
    return NewRecord("default", image_id, sha256(b"blank").digest(), None, UPLOADED_AT, None, source)


UPLOADS = {
    FIRST: upload("first", 1, Source(0, 1)),
    SECOND: upload("second", 2, Source(0, 2)),
    BLANK: blank("blank", Source(0, 4)),
    SECOND_AGAIN: upload("second", 4, Source(0, 6)),
    OTHER_FIRST: upload("first", 1, Source(0, 3), OTHER),
}


def recorded_hash(name: str) -> dict[bytes, bytes]:
    return {b64decode(field): b64decode(value) for field, value in RECORDED["keys"][name]["value"]}


def stored(position: Position) -> StoredRecord:
    """The recorded record, as the window hands it to the changelog."""
    tenant, field = UPLOADS[position].tenant, str(position).encode()
    patches = recorded_hash(key(tenant, "patches")).get(field, b"")
    return StoredRecord(position, recorded_hash(key(tenant, "rows"))[field], patches)


def load(redis: Redis) -> None:
    """Write the recorded keys as they were."""
    for name, content in RECORDED["keys"].items():
        if content["type"] == "hash":
            redis.hset(name, mapping=recorded_hash(name))  # type: ignore[arg-type]
            continue
        for position, pairs in content["value"]:
            fields = [b64decode(part) for pair in pairs for part in pair]
            redis.execute_command("XADD", name, position, *fields)  # type: ignore[no-untyped-call]


@pytest.fixture
def window(redis: Redis) -> RedisWindow:
    """The window of a process that begins with what an earlier version wrote."""
    load(redis)
    return open_window(redis)


def open_window(redis: Redis) -> RedisWindow:
    return RedisWindow(redis, MODEL, WindowSettings(retention_s=CENTURY_S), PREFIX, radius_l2=RADIUS_L2)


class TestWindow:
    def test_exact_copies_match_the_recorded_pictures(self, window: RedisWindow) -> None:
        for position, original in UPLOADS.items():
            match = look_up(window, original._replace(image_id="copy"))
            assert match is not None
            assert (match.image_id, match.position) == (original.image_id, position)
            assert match.uploaded_at == UPLOADED_AT
            assert match.own_record is None
        assert look_up(window, upload("copy", 3)) is None  # deleted
        assert look_up(window, upload("copy", 2, tenant=OTHER)) is None
        [result] = window.append([upload("copy", 1)])
        assert result.exact is not None
        assert (result.exact.image_id, result.exact.position) == ("first", FIRST)
        assert (result.position, result.own_record) == (None, None)

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
    @pytest.mark.parametrize("position", [FIRST, SECOND, SECOND_AGAIN, OTHER_FIRST], ids=str)
    def test_near_copies_match_at_the_distance_of_the_recorded_vector(
        self, window: RedisWindow, position: Position, share: float
    ) -> None:
        original = UPLOADS[position]
        assert original.vector is not None
        values = original.vector + np.float32(share) * vector(9)
        values /= np.linalg.norm(values)
        [result] = window.append([original._replace(image_id="copy", digest=b"another file", vector=values)])
        [match] = [match for match in result.near if match.position == position]
        recorded = np.frombuffer(decode_record(stored(position).record).vector, "<f2").astype(np.float64)
        l2 = np.linalg.norm(values.astype(np.float16).astype(np.float64) - recorded)
        assert 0 < l2 < RADIUS_L2
        assert match.l2 == pytest.approx(l2, abs=2e-6)
        assert (match.image_id, match.uploaded_at) == (original.image_id, UPLOADED_AT)
        assert (result.exact, match.position.serial < (result.position or position).serial) == (None, True)

    def test_repeats_get_their_own_positions_and_records(self, window: RedisWindow, redis: Redis) -> None:
        before = redis.hgetall(key("default", "rows"))
        for _ in range(2):
            results = window.append(list(UPLOADS.values()))
            assert [result.position for result in results] == list(UPLOADS)
            assert [result.own_record for result in results] == [stored(position) for position in UPLOADS]
            assert all(result.exact is None for result in results)
            # Nothing stands before the first of a tenant, and the versions of one image do not match each other.
            assert results[0].near == results[4].near == ()
            assert "second" not in [match.image_id for match in results[3].near]
        assert redis.hgetall(key("default", "rows")) == before
        assert {tenant.tenant: tenant.rows for tenant in window.tenant_stats()} == {"default": 3, OTHER: 1}

    def test_the_recorded_patches_are_read(self, window: RedisWindow) -> None:
        positions = [*((upload.tenant, position) for position, upload in UPLOADS.items()), ("default", DELETED_AT)]
        assert window.read_patches(positions) == [*(upload.patches for upload in UPLOADS.values()), None]

    def test_the_mark_of_the_deletion_holds_back_an_upload_from_before_it(
        self, window: RedisWindow, redis: Redis
    ) -> None:
        late = upload("deleted", 3, Source(0, 5))
        [result] = window.append([late])
        assert result.position is not None
        assert result.own_record is None
        assert b"deleted" not in redis.hkeys(key("default", "ids"))
        # The deletion, carried out again, deletes nothing and keeps its position.
        deleted = window.delete("default", "deleted", Source(0, 8))
        assert (deleted.records, deleted.position) == (0, DELETED_AT)
        [result] = window.append([late._replace(source=Source(0, 9))])
        assert result.own_record is not None
        assert b"deleted" in redis.hkeys(key("default", "ids"))

    def test_a_recorded_blank_matches_only_exactly(self, window: RedisWindow) -> None:
        [result] = window.append([blank("another blank")])
        assert result.exact is not None
        assert (result.exact.image_id, result.exact.position) == ("blank", BLANK)
        assert (result.position, result.near) == (None, ())

    def test_recorded_pictures_are_deleted(self, window: RedisWindow, redis: Redis) -> None:
        assert window.delete("default", "second", Source(0, 20)).records == 2
        assert set(redis.hkeys(key("default", "rows"))) == {str(FIRST).encode(), str(BLANK).encode()}
        assert look_up(window, upload("copy", 4)) is None

    def test_what_is_appended_is_written_under_the_recorded_keys(self, window: RedisWindow, redis: Redis) -> None:
        types = {name: content["type"] for name, content in RECORDED["keys"].items()}
        new = [upload(f"new {picture}", picture, tenant=tenant) for picture in (5, 6) for tenant in ("default", OTHER)]
        assert all(result.own_record for result in window.append(new))
        assert self._types(redis) == types
        assert self._shape(redis) == self._recorded_shape()
        window.delete(OTHER, "new 5", Source(0, 21))
        types[key(OTHER, "deleted")] = "hash"
        assert self._types(redis) == types

    def test_a_window_written_anew_is_as_the_recorded_one(self, redis: Redis) -> None:
        window = open_window(redis)
        for position in (FIRST, SECOND, BLANK):
            window.append([UPLOADS[position]])
        window.append([upload("deleted", 3, Source(0, 5))])
        window.append([UPLOADS[SECOND_AGAIN], UPLOADS[OTHER_FIRST]])
        window.delete("default", "deleted", Source(0, 8))
        window.append([upload("copy of first", 1)])
        assert self._types(redis) == {name: content["type"] for name, content in RECORDED["keys"].items()}
        assert self._shape(redis) == self._recorded_shape()
        for tenant in ("default", OTHER):
            assert self._without_positions(redis.hgetall(key(tenant, "rows"))) == self._without_positions(
                recorded_hash(key(tenant, "rows"))
            )
            assert self._without_positions(redis.hgetall(key(tenant, "patches"))) == self._without_positions(
                recorded_hash(key(tenant, "patches"))
            )
            assert int(redis.hget(key(tenant, "meta"), "bytes")) == int(recorded_hash(key(tenant, "meta"))[b"bytes"])  # type: ignore[arg-type]
            serials = [int(position.split(b"-")[1]) for position, _ in redis.xrange(key(tenant, "log"))]  # type: ignore[union-attr, arg-type]
            recorded_log = RECORDED["keys"][key(tenant, "log")]["value"]
            assert serials == [int(position.split("-")[1]) for position, _ in recorded_log]

    @staticmethod
    def _types(redis: Redis) -> dict[str, str]:
        names = [str(name, "utf-8") for name in redis.keys("*")]  # type: ignore[arg-type]
        return {name: str(redis.type(name), "ascii") for name in names}  # type: ignore[arg-type]

    @staticmethod
    def _without_positions(hashed: Any) -> list[bytes]:
        return [value for _, value in sorted(hashed.items())]

    @staticmethod
    def _shape(redis: Redis) -> set[tuple[str, ...]]:
        """The fields of all `meta` hashes, and the fields of the entries of all logs."""
        client: Any = redis  # typed for clients of all kinds
        metas = {tuple(sorted(field.decode() for field in client.hkeys(name))) for name in client.keys("*:meta")}
        entries = [fields for name in client.keys("*:log") for _, fields in client.xrange(name)]
        return metas | {tuple(field.decode() for field in fields) for fields in entries}

    @staticmethod
    def _recorded_shape() -> set[tuple[str, ...]]:
        keys = RECORDED["keys"]
        metas = {
            tuple(sorted(field.decode() for field in recorded_hash(name))) for name in keys if name.endswith(":meta")
        }
        entries = [pairs for name in keys if name.endswith(":log") for _, pairs in keys[name]["value"]]
        return metas | {tuple(b64decode(field).decode() for field, _ in pairs) for pairs in entries}


@pytest.mark.parametrize("position", UPLOADS, ids=str)
def test_records_are_encoded_as_they_were(position: Position) -> None:
    original, recorded = UPLOADS[position], stored(position)
    assert pack_record(original.image_id, original.digest, original.uploaded_at, original.vector) == recorded.record
    content = decode_record(recorded.record)
    assert encode_record(content) == recorded.record
    assert (content.image_id.decode(), content.digest) == (original.image_id, original.digest)


class TestChangelog:
    MESSAGES = RECORDED["changelog"]
    WRITE: tuple[Callable[[], Any], ...] = (
        lambda: upsert_message("t", MODEL, "default", stored(FIRST)),
        lambda: upsert_message("t", MODEL, "default", stored(BLANK)),
        lambda: upsert_message("t", MODEL, OTHER, stored(OTHER_FIRST)),
        lambda: tombstone_message("t", MODEL, "default", "deleted", DELETED_AT, Source(0, 8)),
    )
    CHANGES = (
        Upsert("default", stored(FIRST)),
        Upsert("default", stored(BLANK)),
        Upsert(OTHER, stored(OTHER_FIRST)),
        Tombstone("default", b"deleted", DELETED_AT, "0 8"),
    )

    @staticmethod
    def _decode(recorded: dict[str, Any]) -> tuple[bytes, bytes | None, tuple[tuple[str, bytes], ...]]:
        value = None if recorded["value"] is None else b64decode(recorded["value"])
        headers = tuple((name, b64decode(content)) for name, content in recorded["headers"])
        return b64decode(recorded["key"]), value, headers

    @pytest.mark.parametrize(("recorded", "write"), list(zip(MESSAGES, WRITE, strict=True)))
    def test_messages_are_written_as_they_were(self, recorded: dict[str, Any], write: Callable[[], Any]) -> None:
        message = write()
        assert (message.key, message.value, message.headers) == self._decode(recorded)

    @pytest.mark.parametrize(("recorded", "change"), list(zip(MESSAGES, CHANGES, strict=True)))
    def test_recorded_messages_are_parsed(self, recorded: dict[str, Any], change: Upsert | Tombstone) -> None:
        _, value, headers = self._decode(recorded)
        message = SimpleNamespace(headers=lambda: list(headers), value=lambda: value)
        assert parse_change(MODEL, cast(Message, message)) == change
