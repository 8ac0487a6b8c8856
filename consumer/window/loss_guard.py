"""Redis is a cache of the window: what is done when it comes back without it.

With `continue` a window that is not there begins anew. With `rebuild` nobody begins one before it is known that there
was none. A marker in Redis, one for all tenants, says so: a rebuild sets it when it is done, and it is lost with all
the rest. While it is not there, windows that are go on, others wait, and one process rebuilds, under a lock.
"""

import logging
import time
import uuid
from collections.abc import Sequence
from typing import Literal, NamedTuple

from consumer.errors import Unavailable
from consumer.window.store import WindowStore

log = logging.getLogger(__name__)

RECOVERY_PENDING = "the window is being rebuilt"
# A rebuild that has not been heard of for this long is dead.
LOCK_MS = 30_000

_IF_MINE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return {} end return 0"
_RENEW = _IF_MINE.format("redis.call('PEXPIRE', KEYS[1], ARGV[2])")
_DELETE = _IF_MINE.format("redis.call('DEL', KEYS[1])")


class MarkerReading(NamedTuple):
    """The marker, and when it was asked for."""

    marker: bytes | None
    read_at_s: float


class LossGuard:
    """Marker and lock of one model's windows. Thread-safe; what asks Redis raises Unavailable when it cannot."""

    def __init__(self, store: WindowStore, on_loss: Literal["continue", "rebuild"]) -> None:
        self.recovers = on_loss == "rebuild"
        self.problem = ""  # what the rebuild is about or waits for, for whoever asks why nothing goes on
        self.last_reading = MarkerReading(None, 0.0)
        self._store = store
        self._marker_key, self._lock_key = store.shared_key("marker"), store.shared_key("lock")
        self._token = uuid.uuid4().hex

    def marker(self) -> bytes | None:
        """What the last rebuild left; None when the window has been lost since, or there was no rebuild yet."""
        asked_s = time.monotonic()
        marker: bytes | None = self._store.command("GET", self._marker_key)
        self.last_reading, self.problem = (
            MarkerReading(marker, asked_s),
            "" if marker else self.problem or RECOVERY_PENDING,
        )
        return marker

    def mark(self) -> None:
        """What is not in Redis now never was."""
        self._store.command("SET", self._marker_key, uuid.uuid4().hex)
        self.problem = ""

    def unmark(self, marker: bytes | None) -> None:
        """Call for a rebuild, unless there was one since `marker` was read. For when only a part was lost."""
        if marker is not None:
            self._store.command("EVAL", _DELETE, 1, self._marker_key, marker)
        self.problem = RECOVERY_PENDING

    def check(self, begun: Sequence[str]) -> None:
        """To be called after windows were begun by leave of the marker: all may have been lost in between.

        Then they are taken back before Unavailable is raised.
        """
        if self.marker() is None:
            self._store.delete_windows(begun)
            raise Unavailable("redis", RECOVERY_PENDING)

    def half_rebuilt(self, tenants: Sequence[str]) -> None:
        """To be called when windows are half rebuilt. Raises Unavailable; returns when they are to begin anew."""
        if self._store.command("EXISTS", self._lock_key):
            raise Unavailable("redis", RECOVERY_PENDING)
        if self.recovers:
            self.unmark(self.marker())
            raise Unavailable("redis", RECOVERY_PENDING)
        log.warning("a rebuild ended halfway: the windows of %d tenants begin anew", len(tenants))
        self._store.delete_windows(tenants)

    def lock(self) -> bool:
        """Take the right to rebuild, for LOCK_MS; False when another process has it."""
        return bool(self._store.command("SET", self._lock_key, self._token, "NX", "PX", LOCK_MS))

    def renew(self) -> None:
        """Keep the right to rebuild. Raises Unavailable when it is another's by now."""
        if not self._store.command("EVAL", _RENEW, 1, self._lock_key, self._token, LOCK_MS):
            raise Unavailable("redis", "the rebuild stood still for too long, or Redis was emptied once more")

    def unlock(self) -> None:
        """Let others rebuild."""
        self._store.command("EVAL", _DELETE, 1, self._lock_key, self._token)
