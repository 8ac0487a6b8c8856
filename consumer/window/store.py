"""The window's keys on a server, and the Lua scripts that work on them: one call a tenant, all in one round trip."""

import re
import uuid
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import quote, unquote

from redis.exceptions import NoScriptError, RedisError

from consumer.encoder.contract import ModelInfo
from consumer.errors import SeenitError, Unavailable
from consumer.settings import GRACE_SHARE, WindowSettings
from consumer.window.connection import REDIS_FAILURES, AnyRedis

# A tenant's keys, in the order in which the scripts take them.
KEY_KINDS = (
    *("log", "rows", "ids", "digests", "patches", "deleted", "meta"),
    *("contents", "campaigns", "members", "joins", "activity", "floods"),
    *("near", "slices"),
)

# What Redis 7.0 spends on a record beside its bytes and its patches, and beside what `cost` in lua/window.lua counts:
# log and hash entries, and what its allocator rounds up. Measured by tests/benchmarks/bench_window.py; Valkey 9 needs
# 140 less.
ROW_OVERHEAD_BYTES = 350

# Each script by name, and the files that it consists of.
_SCRIPTS = {
    **{name: ("window", name) for name in ("sync", "read", "exact", "stage", "restore")},
    **{name: ("window", name) for name in ("claim", "advance", "reopen", "remember")},
    **{name: ("window", "campaigns", name) for name in ("forget", "join", "ends", "member", "list")},
}
# The first word of the errors that the scripts themselves return.
_GONE, _RECOVERING = "WINDOWGONE", "WINDOWREBUILDING"

# Stands for any tenant's name, and how many keys a server looks at before it answers.
_ANY_TENANT, SCAN_KEYS = "ANY-TENANT", 1000

# A tenant, and the arguments of its call after those that all scripts share.
Call = tuple[str, Sequence[bytes | str | int]]


class WindowGone(SeenitError):
    """These tenants have no window, or another one than the call expected."""

    def __init__(self, tenants: Sequence[str]) -> None:
        super().__init__(f"{len(tenants)} tenants have no window")
        self.tenants = tenants


class WindowRecovering(SeenitError):
    """The windows of these tenants are only half recovered, by another process."""

    def __init__(self, tenants: Sequence[str]) -> None:
        super().__init__(f"the windows of {len(tenants)} tenants are being rebuilt")
        self.tenants = tenants


class WindowStore:
    """The windows of one model on a Redis server or cluster. Thread-safe.

    Every method that asks the server raises Unavailable("redis", ...) when it cannot be asked.
    """

    def __init__(self, redis: AnyRedis, model: ModelInfo, settings: WindowSettings, prefix: str) -> None:
        self.redis = redis
        self.max_bytes = settings.max_bytes
        self.retention_ms = max(1, round(settings.retention_s * 1000))
        self.grace_ms = round(self.retention_ms * GRACE_SHARE)
        self._model = quote(f"{model.name}@{model.version}x{model.dim}", safe="@")
        self._prefix = prefix
        self._lua_scripts = {name: _read_script(name) for name in _SCRIPTS}

    def key(self, tenant: str, kind: str) -> str:
        """Name a tenant's key of one of the KEY_KINDS."""
        return f"{self._prefix}:{{{_tag(tenant)}}}:{self._model}:{kind}"

    def slice_key(self, tenant: str, number: int, kind: str) -> str:
        """Name a key of one of a tenant's slices, which a cluster keeps in a slot of its own."""
        # No tag of a tenant has a slash.
        return f"{self._prefix}:{{{_tag(tenant)}/{number}}}:{self._model}:{kind}"

    def shared_key(self, kind: str) -> str:
        """Name a key that all tenants of the model share."""
        return f"{self._prefix}:{self._model}:{kind}"

    def key_beside(self, key: str, kind: str) -> str:
        """Name a key that a cluster keeps on the same server as a shared key."""
        # A name with a hash tag goes by that, any other by the whole of it.
        return f"{key}:{kind}" if re.search(r"\{[^}]+\}", key) else f"{self._prefix}:{{{key}}}:{kind}"

    def evaluate(self, script: str, keys: Sequence[str], *arguments: bytes | str | int) -> Any:
        """Run a script of a line or two, and return its reply."""
        return self.command("EVAL", script, len(keys), *keys, *arguments)

    def run(self, name: str, calls: Sequence[Call], epoch: str = "") -> list[Any]:
        """Call one script for each tenant, in one round trip, and return the replies.

        `epoch` is given to windows that the script begins; without it each call gets a new one. Raises WindowGone or
        WindowRecovering for the tenants where that is so; for the others the script has run.
        """
        if not calls:
            return []
        script = self._lua_scripts[name]
        try:
            digest = sha1(script, usedforsecurity=False).hexdigest()
            replies = self.execute(self._script_calls("EVALSHA", digest, calls, epoch), (_GONE, _RECOVERING))
        except NoScriptError:
            # A server that does not have the script yet. Where others of a cluster have run it, a repeat is harmless.
            replies = self.execute(self._script_calls("EVAL", script, calls, epoch), (_GONE, _RECOVERING))
        for code, error in ((_RECOVERING, WindowRecovering), (_GONE, WindowGone)):
            tenants = [call[0] for call, reply in zip(calls, replies, strict=True) if _is_error(reply, code)]
            if tenants:
                raise error(tenants)
        return replies

    def command(self, *words: bytes | str | int) -> Any:
        """Run one command and return its reply."""
        pipeline = self.pipeline()
        pipeline.execute_command(*words)
        return self.execute(pipeline)[0]

    def oldest_ms(self) -> int:
        """Return the time before which a record no longer counts, by the server's clock, as positions are."""
        # By way of a key, so that it is one server of a cluster that is asked.
        seconds, microseconds = self.command("EVAL", "return redis.call('TIME')", 1, self.shared_key("time"))
        return int(seconds) * 1000 + int(microseconds) // 1000 - self.retention_ms - self.grace_ms

    def tenants(self) -> list[str]:
        """List the tenants that have a window."""
        before, after = self.key(_ANY_TENANT, "meta").split(quote(_ANY_TENANT))
        pattern = "*".join(re.sub(r"([*?\[\]\\])", r"\\\1", part) for part in (before, after))
        try:
            keys = [key.decode() for key in self.redis.scan_iter(match=pattern, count=SCAN_KEYS)]
        except REDIS_FAILURES as error:
            raise Unavailable("redis", str(error) or type(error).__name__) from error
        return [unquote(key[len(before) : len(key) - len(after)], errors="surrogatepass") for key in keys]

    def delete_windows(self, tenants: Sequence[str]) -> None:
        """Delete all keys of these tenants."""
        pipeline = self.pipeline()
        for tenant in tenants:
            pipeline.execute_command("DEL", *(self.key(tenant, kind) for kind in KEY_KINDS))
        self.execute(pipeline)

    def pipeline(self) -> Any:
        """Begin a pipeline, to be handed to `execute`."""
        # Not a transaction: each script is atomic by itself, and a cluster keeps tenants on different servers.
        return self.redis.pipeline(transaction=False)

    def execute(self, pipeline: Any, expected: Sequence[str] = ()) -> list[Any]:
        """Execute a pipeline and return its replies, among them errors that begin with one of the `expected` words."""
        try:
            replies: list[Any] = pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception) and not any(_is_error(reply, code) for code in expected):
                    raise reply
        except NoScriptError:
            raise
        except REDIS_FAILURES as error:
            raise Unavailable("redis", str(error) or type(error).__name__) from error
        return replies

    def _script_calls(self, command: str, script: str | bytes, calls: Sequence[Call], epoch: str) -> Any:
        """A pipeline with a call of the script for each tenant."""
        limits = (self.retention_ms, self.grace_ms, self.max_bytes)
        pipeline = self.pipeline()
        for tenant, arguments in calls:
            keys = [self.key(tenant, kind) for kind in KEY_KINDS]
            new_epoch = epoch or uuid.uuid4().hex
            pipeline.execute_command(command, script, len(keys), *keys, *limits, new_epoch, *arguments)
        return pipeline


def _tag(tenant: str) -> str:
    """What a cluster goes by in the names of a tenant's keys."""
    # Tenants have any Unicode for a name, braces and colons among it. Quoting never gives a `%` alone, so that can
    # stand for the empty name, which a cluster would take for no hash tag at all.
    return quote(tenant, safe="", errors="surrogatepass") or "%"


def _is_error(reply: Any, code: str) -> bool:
    return isinstance(reply, RedisError) and code in str(reply)


def _read_script(name: str) -> bytes:
    """Read a script, behind the code that it shares with others."""
    folder = files("consumer.window") / "lua"
    parts = ((folder / f"{part}.lua").read_bytes() for part in _SCRIPTS[name])
    return b"local ROW_OVERHEAD_BYTES = %d\n%b" % (ROW_OVERHEAD_BYTES, b"\n".join(parts))
