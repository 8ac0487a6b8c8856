"""Tries Redis: connection, version, limits, and the scripts of the window."""

import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import numpy as np
import redis
from redis.cluster import RedisCluster

from consumer.cli.preflight.finding import Finding, one_line
from consumer.encoder.contract import ModelInfo
from consumer.errors import Misconfigured, Unavailable
from consumer.moderation.campaigns import newest_campaigns
from consumer.moderation.pictures import KnownPictures
from consumer.settings import RedisSettings, WindowBackend, WindowSettings
from consumer.window.connection import REDIS_FAILURES, connect
from consumer.window.records import Lookup, NewRecord
from consumer.window.window import RedisWindow

# The scripts are tested from here on.
OLDEST_REDIS = (7, 0)
# The window that is written to Redis to try it; its keys expire by themselves, soon after this.
TRIAL_RETENTION_S = 60.0
TRIAL_MODEL = ModelInfo("check", "0", size=8, dim=8, threshold_l2=0.5, max_batch_size=1, patches=None)


def check_redis(settings: RedisSettings, backend: WindowBackend = "replica") -> Iterator[Finding]:
    """Try connection, server, limits, and the scripts."""
    client = yield from _connection(settings)
    if client is not None:
        with closing(client):
            yield from _server(client)
            yield _window(client, settings.key_prefix, backend)


def check_serving(settings: RedisSettings) -> Iterator[Finding]:
    """Try what `seenit serve` asks Redis for: it reads windows, and keeps who is signed in to the page."""
    client = yield from _connection(settings)
    if client is not None:
        with closing(client):
            yield _reading(client, settings.key_prefix)


def _connection(settings: RedisSettings) -> Generator[Finding, None, Any]:
    """Connect, and return the client; None if that fails."""
    try:
        client = connect(settings)
        client.ping()
    except Misconfigured:
        form = "SEENIT_REDIS_URL: redis[s]://[user:password@]host:port/0, with user and password percent-encoded"
        yield Finding("redis: connection", "failed", "the address has not the form of one", form)
        return None
    except redis.AuthenticationError as error:
        yield Finding("redis: connection", "failed", one_line(error), "user and password in SEENIT_REDIS_URL")
        return None
    except (*REDIS_FAILURES, Unavailable) as error:
        yield Finding(
            "redis: connection",
            "failed",
            one_line(error),
            "SEENIT_REDIS_URL must name a Redis that this machine reaches; rediss:// for TLS, with "
            "SEENIT_REDIS_SSL_CA_FILE for an authority of your own; SEENIT_REDIS_CLUSTER for a cluster",
        )
        return None
    return client


def _server(client: Any) -> Iterator[Finding]:
    """Ask the server for its version, and whether it keeps what it is given."""
    options = {"target_nodes": RedisCluster.RANDOM} if isinstance(client, RedisCluster) else {}
    try:
        info = client.info(**options)
    except REDIS_FAILURES as error:
        detail = f"cannot be asked for its version and limits: {one_line(error)}"
        yield Finding("redis: server", "warning", detail, "allow this user +info, or look yourself")
        return
    version = str(info["redis_version"])
    name = f"{info.get('server_name', 'redis')} {info.get('valkey_version', version)}"
    if tuple(map(int, version.split(".")[:2])) < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        yield Finding("redis: server", "failed", f"{name} is too old", f"Redis {oldest} or newer")
    else:
        yield Finding("redis: server", "ok", name)
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding(
            "redis: eviction",
            "failed",
            f"maxmemory-policy is {policy}: whole windows would vanish when memory is short",
            "CONFIG SET maxmemory-policy noeviction, and bound the windows by SEENIT_WINDOW_MAX_BYTES",
        )
    if not info.get("aof_enabled"):
        yield Finding(
            "redis: persistence",
            "warning",
            "no append-only file: a restart forgets what was seen since the last snapshot",
            "appendonly yes, appendfsync everysec",
        )


def _window(client: Any, prefix: str, backend: WindowBackend) -> Finding:
    """Append an upload, find its copy, forget it: every script, under the service's own keys."""
    what = "redis: window"
    tenant, digest = f"seenit-check-{uuid.uuid4()}", sha256(b"seenit check").digest()
    now = datetime.now(UTC)
    window = RedisWindow(client, TRIAL_MODEL, WindowSettings(retention_s=TRIAL_RETENTION_S, backend=backend), prefix)
    began_s = time.perf_counter()
    try:
        window.check()
        window.append([NewRecord(tenant, "first", digest, np.eye(1, TRIAL_MODEL.dim, dtype=np.float32)[0], now)])
        match = window.find_exact([(tenant, "copy", digest, now)])[0]
        window.delete(tenant, "first")
    except Misconfigured as error:
        return Finding(what, "failed", str(error), "Redis 8.2 or newer, or SEENIT_WINDOW_BACKEND=replica")
    except Unavailable as error:
        return Finding(what, "failed", error.detail, _needs(prefix))
    took_ms = (time.perf_counter() - began_s) * 1000
    if match is None or match.image_id != "first":
        return Finding(what, "failed", "an upload just written was not found", "ask for help: this should not happen")
    return Finding(what, "ok", f"written, found and forgotten in {took_ms:.1f} ms")


def _reading(client: Any, prefix: str) -> Finding:
    """Look a picture up, ask what is known of it and of campaigns, and sign somebody in and out."""
    what, tenant = "redis: window", f"seenit-check-{uuid.uuid4()}"
    began_s = time.perf_counter()
    try:
        window = RedisWindow(client, TRIAL_MODEL, WindowSettings(), prefix)
        window.look_up([Lookup(tenant, b"digest", ())])
        KnownPictures(window).find(tenant, "a")
        newest_campaigns(window, [tenant])
        what, session = "redis: sessions", f"{prefix}:session:{tenant}"
        for words in (("SET", session, "", "EX", 1), ("GET", session), ("DEL", session)):
            window.store.command(*words)
    except Unavailable as error:
        return Finding(what, "failed", error.detail, _needs(prefix))
    took_ms = (time.perf_counter() - began_s) * 1000
    return Finding("redis: window", "ok", f"read in {took_ms:.1f} ms; sessions can be kept")


def _needs(prefix: str) -> str:
    return f"the user needs the keys {prefix}:* and the commands of the scripts: see deploy/README.md"
