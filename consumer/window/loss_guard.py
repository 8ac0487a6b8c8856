"""Redis is a cache of the window, and may come back without it: who may begin a new window then, and when.

With the setting `continue` a window that is not there begins anew. With `rebuild` no process begins one before it is
known that there was none. A marker in Redis, one for all tenants, says so: a recovery sets it at its end, and a server
that loses the windows loses the marker with them. While there is no marker, windows that are there go on, all others
wait, and one process recovers them, under a lock.

The server may be emptied between any two calls. So a window that is begun counts as none until the marker by which it
was begun is seen again, and a recovery sets the marker only where it left its claim.
"""

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from consumer.errors import Unavailable
from consumer.window.store import WindowStore

log = logging.getLogger(__name__)

RECOVERY_PENDING = "the window is being rebuilt"
INTERRUPTED = "the rebuild stood still for too long, or Redis was emptied once more"
# A recovery that has not renewed its lock for this long is dead.
LOCK_MS = 30_000

_IF_MINE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return {} end return 0"
_RENEW = _IF_MINE.format("redis.call('PEXPIRE', KEYS[1], ARGV[2])")
_DELETE = _IF_MINE.format("redis.call('DEL', KEYS[1])")
_MARK = _IF_MINE.format("redis.call('SET', KEYS[2], ARGV[2])")
_CONFIRM = "if redis.call('HGET', KEYS[1], 'leave') == ARGV[1] then redis.call('HDEL', KEYS[1], 'leave') end"


class MarkerReading(NamedTuple):
    """The marker, and when it was asked for, by the monotonic clock."""

    marker: bytes | None
    read_at_s: float


class LossGuard:
    """The marker and the lock of one model's windows. Thread-safe.

    Every method raises Unavailable("redis", ...) when the server cannot be asked.
    """

    def __init__(self, store: WindowStore, on_loss: Literal["continue", "rebuild"]) -> None:
        self.recovers = on_loss == "rebuild"
        self.problem = ""  # why windows wait, in words for an operator; "" while they do not
        self.last_reading = MarkerReading(None, 0.0)
        self._store = store
        self._marker_key, self._lock_key = store.shared_key("marker"), store.shared_key("lock")
        self._claim_key = store.key_beside(self._marker_key, "claim")
        self._token = uuid.uuid4().hex

    def marker(self) -> bytes | None:
        """Read the marker of the last recovery; None when the windows were lost since, or none was recovered yet."""
        read_at_s = time.monotonic()
        marker: bytes | None = self._store.command("GET", self._marker_key)
        self.last_reading = MarkerReading(marker, read_at_s)
        self.problem = "" if marker else self.problem or RECOVERY_PENDING
        return marker

    def mark(self) -> None:
        """Set a new marker: a window that is not in Redis from now on was never there.

        Raises Unavailable when the server was emptied since `lock`, or another process recovers by now.
        """
        keys = (self._claim_key, self._marker_key)
        if self._store.evaluate(_MARK, keys, self._token, uuid.uuid4().hex) == 0:
            raise Unavailable("redis", INTERRUPTED)
        self.problem = ""

    def unmark(self, marker: bytes | None) -> None:
        """Ask for a recovery where only some windows were lost, unless there was one since `marker` was read."""
        if marker is not None:
            self._store.evaluate(_DELETE, [self._marker_key], marker)
        self.problem = RECOVERY_PENDING

    def check_begun(self, begun: Mapping[str, bytes]) -> None:
        """Confirm windows that were just begun, each by leave of a marker, which has to be there still.

        Raises Unavailable if one is not: a recovery takes the place of its window, or its next user confirms it.
        """
        marker = self.marker()
        if any(leave != marker for leave in begun.values()):
            raise Unavailable("redis", RECOVERY_PENDING)
        self.confirm(begun)

    def confirm(self, begun: Mapping[str, bytes]) -> None:
        """Confirm windows that are still there as they were begun."""
        pipeline = self._store.pipeline()
        for tenant, leave in begun.items():
            pipeline.execute_command("EVAL", _CONFIRM, 1, self._store.key(tenant, "meta"), leave)
        self._store.execute(pipeline)

    def handle_half_recovered(self, tenants: Sequence[str]) -> None:
        """Handle windows that are half recovered: raise Unavailable, or return when they are to begin anew."""
        if self._store.command("EXISTS", self._lock_key):
            raise Unavailable("redis", RECOVERY_PENDING)
        if self.recovers:
            self.unmark(self.marker())
            raise Unavailable("redis", RECOVERY_PENDING)
        log.warning("a rebuild ended halfway: the windows of %d tenants begin anew", len(tenants))
        self._store.delete_windows(tenants)

    def lock(self) -> bool:
        """Take the right to recover, for LOCK_MS; False when another process has it."""
        if not self._store.command("SET", self._lock_key, self._token, "NX", "PX", LOCK_MS):
            return False
        self._store.command("SET", self._claim_key, self._token)
        return True

    def renew(self) -> None:
        """Keep the right to recover. Raises Unavailable when it is another process's by now."""
        if not self._store.evaluate(_RENEW, [self._lock_key], self._token, LOCK_MS):
            raise Unavailable("redis", INTERRUPTED)

    def unlock(self) -> None:
        """Give the right to recover back."""
        for key in (self._claim_key, self._lock_key):
            self._store.evaluate(_DELETE, [key], self._token)
