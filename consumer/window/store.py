"""The window's keys and Lua scripts on a server: one call for each tenant, all in one round trip."""

import uuid
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from redis.exceptions import NoScriptError, RedisError

from consumer.encoder.contract import ModelInfo
from consumer.errors import SeenitError, Unavailable
from consumer.settings import GRACE_SHARE, WindowSettings
from consumer.window.connection import REDIS_FAILURES, AnyRedis

# A tenant's keys, in the order that the scripts take them in.
KEY_KINDS = ("log", "rows", "ids", "digests", "patches", "deleted", "meta")


# What Redis 7.0 spends on a row beside its record and patches, and beside what `cost` in lua/window.lua counts: log and
# hash entries, and what its allocator rounds up. Measured by tests/benchmarks/bench_window.py; Valkey 9 needs 140 less.
ROW_OVERHEAD_BYTES = 350

# How the scripts' own errors begin.
_GONE, _REBUILDING = "WINDOWGONE", "WINDOWREBUILDING"
_NAMES = ("sync", "exact", "forget", "stage", "restore")

# A tenant, and what its call is given after the arguments that all scripts share.
Call = tuple[str, Sequence[bytes | str | int]]


class WindowGone(SeenitError):
    """These tenants have no window, or another than the call expected."""

    def __init__(self, tenants: Sequence[str]) -> None:
        super().__init__(f"{len(tenants)} tenants have no window")
        self.tenants = tenants


class WindowRecovering(SeenitError):
    """The windows of these tenants are half rebuilt, by somebody else."""

    def __init__(self, tenants: Sequence[str]) -> None:
        super().__init__(f"the windows of {len(tenants)} tenants are being rebuilt")
        self.tenants = tenants


class WindowStore:
    """What `lua/` holds, for one model. Thread-safe.

    Every method that asks the server raises Unavailable("redis", ...) when it cannot be asked.
    """

    def __init__(self, redis: AnyRedis, model: ModelInfo, settings: WindowSettings, prefix: str) -> None:
        self.redis = redis
        self.max_bytes = settings.max_bytes
        self.retention_ms = max(1, round(settings.retention_s * 1000))
        self.grace_ms = round(self.retention_ms * GRACE_SHARE)
        self._model = quote(f"{model.name}@{model.version}x{model.dim}", safe="@")
        self._prefix = prefix
        self._texts = {name: _text(name) for name in _NAMES}

    def key(self, tenant: str, kind: str) -> str:
        """The key of a tenant's own, one of KEYS."""
        # Names are any Unicode, braces and colons among them. `%` alone is nothing that quoting gives, so it can stand
        # for the empty name, which a cluster would take for no hash tag at all.
        tag = quote(tenant, safe="", errors="surrogatepass") or "%"
        return f"{self._prefix}:{{{tag}}}:{self._model}:{kind}"

    def shared_key(self, kind: str) -> str:
        """A key that belongs to all tenants of the model."""
        return f"{self._prefix}:{self._model}:{kind}"

    def run(self, name: str, calls: Sequence[Call], epoch: str = "") -> list[Any]:
        """The replies of one script to a call for each tenant, in one round trip.

        `epoch` is that of windows begun by it, new for each call unless given. Raises WindowGone or WindowRebuilding
        when that is so for some of the tenants; for the others the script has run.
        """
        if not calls:
            return []
        text = self._texts[name]
        try:
            digest = sha1(text, usedforsecurity=False).hexdigest()
            replies = self.execute(self._scripted("EVALSHA", digest, calls, epoch), (_GONE, _REBUILDING))
        except NoScriptError:
            # A server that has not seen the script yet. What others of a cluster did already is harmless to repeat.
            replies = self.execute(self._scripted("EVAL", text, calls, epoch), (_GONE, _REBUILDING))
        for word, kind in ((_REBUILDING, WindowRecovering), (_GONE, WindowGone)):
            tenants = [call[0] for call, reply in zip(calls, replies, strict=True) if _says(reply, word)]
            if tenants:
                raise kind(tenants)
        return replies

    def command(self, *words: bytes | str | int) -> Any:
        """The reply to one command."""
        pipeline = self.pipeline()
        pipeline.execute_command(*words)
        return self.execute(pipeline)[0]

    def delete_windows(self, tenants: Sequence[str]) -> None:
        """Delete all keys of these tenants."""
        pipeline = self.pipeline()
        for tenant in tenants:
            pipeline.execute_command("DEL", *(self.key(tenant, kind) for kind in KEY_KINDS))
        self.execute(pipeline)

    def pipeline(self) -> Any:
        # Not a transaction: each script is atomic by itself, and a cluster keeps tenants on different servers.
        return self.redis.pipeline(transaction=False)

    def execute(self, pipeline: Any, expected: Sequence[str] = ()) -> list[Any]:
        """The replies to a pipeline; errors with one of the `expected` words are such."""
        try:
            replies: list[Any] = pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception) and not any(_says(reply, word) for word in expected):
                    raise reply
        except NoScriptError:
            raise
        except REDIS_FAILURES as error:
            raise Unavailable("redis", str(error) or type(error).__name__) from error
        return replies

    def _scripted(self, command: str, script: str | bytes, calls: Sequence[Call], epoch: str) -> Any:
        common = (self.retention_ms, self.grace_ms, self.max_bytes)
        pipeline = self.pipeline()
        for tenant, arguments in calls:
            keys = [self.key(tenant, kind) for kind in KEY_KINDS]
            fresh = epoch or uuid.uuid4().hex
            pipeline.execute_command(command, script, len(keys), *keys, *common, fresh, *arguments)
        return pipeline


def _says(reply: Any, word: str) -> bool:
    return isinstance(reply, RedisError) and word in str(reply)


def _text(name: str) -> bytes:
    """A script behind the code that all scripts share."""
    folder = files("consumer.window") / "lua"
    shared, script = ((folder / f"{part}.lua").read_bytes() for part in ("window", name))
    return b"local ROW_OVERHEAD_BYTES = %d\n%b\n%b" % (ROW_OVERHEAD_BYTES, shared, script)
