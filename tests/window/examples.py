"""A model, uploads and vectors to test the window with, and what is read back of it from Redis."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from consumer.encoder.codebooks import Codebooks
from consumer.encoder.contract import ModelInfo
from consumer.window.records import AppendResult, ExactMatch, NewRecord, decode_index_row
from consumer.window.store import KEY_KINDS
from consumer.window.window import RedisWindow

DIM = 64
THRESHOLD_L2 = 0.5
MODEL = ModelInfo("encoder", "1", 160, DIM, THRESHOLD_L2, 32, None)
UPLOADED_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
# For small examples any code books do: a search looks at more rows than there are.
_numbers = np.random.default_rng(0).integers(-60, 60, 17 * DIM + 16 * DIM, np.int8)
LARGE_MODEL = replace(MODEL, codebooks=Codebooks.from_bytes(_numbers.tobytes(), DIM))
PREFIX = "seenit"
# Tenants that a careless key would mix up.
NAMES = ("", "%", "{", "}", "{}", "}{", "a:b", "%7B", "{t}", "t}x", "日本", "\ud800", "\x00\n", "🖼", "x" * 256)


def units(rng: np.random.Generator, count: int, dim: int) -> NDArray[np.float16]:
    """Random unit vectors, float16 [count, dim]."""
    vectors = rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def vector(picture: int, variant: int = 0) -> NDArray[np.float32]:
    """The vector of a picture; pictures lie far apart, variants of one near each other."""
    values = np.random.default_rng(picture).standard_normal(DIM)
    values = values / np.linalg.norm(values) + 0.02 * np.random.default_rng([picture, variant]).standard_normal(DIM)
    return (values / np.linalg.norm(values)).astype(np.float32)


def upload(image_id: str, picture: int, variant: int = 0, tenant: str = "t", patches: bytes | None = None) -> NewRecord:
    digest = sha256(b"%d/%d" % (picture, variant)).digest()
    return NewRecord(tenant, image_id, digest, vector(picture, variant), UPLOADED_AT, patches)


def look_up(window: RedisWindow, record: NewRecord) -> ExactMatch | None:
    """Find the exact match of one upload."""
    return window.find_exact([(record.tenant, record.image_id, record.digest, record.uploaded_at)])[0]


def near(result: AppendResult) -> list[str]:
    """The image ids of the near matches."""
    return [match.image_id for match in result.near]


def keys(tenant: str = "t") -> dict[str, str]:
    """A tenant's keys by kind; `tenant` is as it stands between the braces of a key."""
    return {kind: f"{PREFIX}:{{{tenant}}}:encoder@1x{DIM}:{kind}" for kind in KEY_KINDS}


def pass_s(redis: Redis, seconds: float, tenant: str = "t") -> None:
    """Let the clock of a tenant's window, which never falls, go ahead by so much; its keys expire no sooner."""
    meta = keys(tenant)["meta"]
    redis.hset(meta, "ms", int(redis.hget(meta, "ms") or 0) + round(seconds * 1000))


def assert_coherent(redis: Redis) -> None:
    """Check that all keys of a tenant agree about its records, for every tenant."""
    for meta in redis.keys("*:meta"):
        key = {kind: meta[: -len(b"meta")] + kind.encode() for kind in KEY_KINDS}
        log = {position for position, fields in redis.xrange(key["log"]) if b"row" in fields}
        records = redis.hgetall(key["rows"])
        ids, digests = (redis.hgetall(key[kind]) for kind in ("ids", "digests"))
        # Under the image id of an object its versions are listed once more.
        objects = {name[1:]: ids.pop(name) for name in list(ids) if name[:1] == b"\xff"}
        assert log == set(records)
        for listed in (ids, digests):
            positions = [position for value in listed.values() for position in value.split(b" ")]
            assert sorted(positions) == sorted(records)
        for position, record in records.items():
            row = decode_index_row(position, record)
            digest = record[11 : 11 + record[8]]
            assert position in ids[row.image_id].split(b" ")
            parent, _, version = row.image_id.rpartition(b"?versionId=")
            listed = [name for name, value in objects.items() if position in value.split(b" ")]
            assert listed == ([parent] if parent.startswith((b"s3://", b"gs://")) and version else [])
            assert position in digests[digest].split(b" ")
        patches = redis.hgetall(key["patches"])
        assert set(patches) <= set(records)
        accounted = int(redis.hget(meta, "bytes") or 0) - 200 * sum(
            b"deleted" in fields for _, fields in redis.xrange(key["log"])
        )
        assert redis.hlen(key["deleted"]) <= redis.xlen(key["log"])
        assert (
            accounted == 0
            if not records
            else accounted > sum(map(len, records.values())) + sum(map(len, patches.values()))
        )
