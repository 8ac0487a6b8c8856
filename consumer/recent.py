"""The window of recent pictures: Redis holds it, and each process mirrors the vectors it compares with.

    add ─> append in Redis ─> read back all that is new ─> search the mirror for what stands before

Append first, then compare: Redis puts uploads in order, and of two copies at the same moment exactly one has the other
before it. An upload is known by image id and content together, so a repeat finds its own position again and is compared
with what stood before it then. The Lua scripts in `lua/` do what has to be atomic; `lua/window.lua` describes the keys.
"""

import heapq
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from consumer.encode import ModelInfo
from consumer.errors import Unavailable
from consumer.mirror import Hit, Mirror, Query, Reach
from consumer.rows import NewRow, Position, Source, decode_name, encode_name, pack, to_datetime, unpack
from consumer.settings import WindowSettings

__all__ = ["Earlier", "Near", "NewRow", "Placed", "Position", "RecentWindow", "Source", "Stats"]

# A tenant's keys, in the order that the scripts take them in.
KEYS = ("log", "rows", "ids", "digests", "patches", "deleted", "meta")
# Entries read from the log at once: 500 rows are about 300 KB, which keeps Redis from others for about a millisecond.
PAGE_ENTRIES = 500
# Rows stay this share of the retention longer than they are compared with, so that an upload repeated within that time
# gets the same verdict. An exact copy is stored again only when the newest of its bytes is older than this.
GRACE = 1 / 24
# Rows reported for an upload, beside the earliest within the threshold.
NEAREST = 32
# Tenants mirrored in this process; the one idle the longest makes room, and is read again when it comes back.
MIRRORS = 1000
# Windows not read for this long are read along with others, some at a time: what is deleted has to leave every process
# within seconds, also one that is busy with other tenants.
STALE_S = 1.0
STALE_WITH_ADD = 8
STALE_WITH_REFRESH = 64

_Call = tuple[str, Sequence[bytes | str | int]]


@dataclass(frozen=True, slots=True)
class Near:
    """An earlier picture at Euclidean distance `l2`."""

    image_id: str
    position: Position
    l2: float
    uploaded_at: datetime


@dataclass(frozen=True, slots=True)
class Earlier:
    """The earliest other picture of the same bytes."""

    image_id: str
    position: Position
    uploaded_at: datetime
    l2: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an upload stands and what stands before it. `position` is None for an exact copy that is not stored."""

    position: Position | None = None
    exact: Earlier | None = None
    near: tuple[Near, ...] = ()


class Stats(NamedTuple):
    """What this process mirrors, and how often Redis came back without what it had."""

    tenants: int
    rows: int
    bytes: int
    resets: int


class WindowStats(NamedTuple):
    """One tenant's window as this process mirrors it; `oldest_ms` is None for an empty one."""

    tenant: str
    rows: int
    bytes: int
    oldest_ms: int | None


class _Page(NamedTuple):
    """What `sync.lua` replies."""

    epoch: bytes
    newest_serial: int
    oldest: bytes
    cursor: bytes
    more: int
    outcomes: list[list[bytes]]
    rows: list[bytes]
    gone: list[bytes]


class _Window:
    """One tenant's mirror, and how far it has been read in which log."""

    def __init__(self, new_mirror: Callable[[], Mirror]) -> None:
        self._new_mirror = new_mirror
        self.read_at_s = 0.0
        self.reset()

    def reset(self) -> None:
        self.mirror = self._new_mirror()
        self.epoch = b""
        self.cursor = b"-"

    def is_of(self, page: _Page) -> bool:
        """Whether a page goes on where the last one ended; if not, Redis lost the log, or the end of it."""
        if self.cursor == b"-":
            return True
        read = Position.parse(self.cursor).serial
        first = Position.parse(page.rows[0]).serial if page.rows else page.newest_serial
        return page.epoch == self.epoch and read <= first and read <= page.newest_serial

    def take(self, page: _Page, dim: int) -> None:
        rows = [unpack(*pair) for pair in zip(page.rows[::2], page.rows[1::2], strict=True)]
        self.mirror.extend([row for row in rows if len(row.vector) == dim])
        for position in page.gone:
            self.mirror.remove(Position.parse(position))
        if page.oldest:
            self.mirror.drop_before(Position.parse(page.oldest))
        else:
            self.mirror = self._new_mirror()
        self.epoch, self.cursor = page.epoch, page.cursor


class RecentWindow:
    """The windows of all tenants for one model. Thread-safe.

    Every method that asks Redis raises Unavailable("redis", ...) when it cannot be asked; calling again with the same
    arguments is then safe, and answers as the first call would have.
    """

    def __init__(
        self,
        redis: Redis | RedisCluster,
        model: ModelInfo,
        settings: WindowSettings,
        prefix: str,
        *,
        radius_l2: float | None = None,
        progress: Callable[[str, int], None] | None = None,
    ) -> None:
        """`radius_l2` is how near rows have to be for `add` to report them: the model's threshold, unless given.

        `progress(tenant, rows)` is called after each page while a tenant's window is read into its mirror.
        """
        self._redis = redis
        self._dim = model.dim
        self._model = quote(f"{model.name}@{model.version}x{model.dim}", safe="@")
        self._prefix = prefix
        self._max_bytes = settings.max_bytes
        self._retention_ms = max(1, round(settings.retention_s * 1000))
        radius_l2 = model.threshold_l2 if radius_l2 is None else radius_l2
        self._reach = Reach(radius_l2, model.threshold_l2, max(NEAREST, settings.others + 1))
        self._progress = progress
        self._scripts = {name: _script(name) for name in ("sync", "exact", "forget")}
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._resets = 0
        self._lock = threading.Lock()

    def exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[Earlier | None]:
        """Find the earliest other picture of the same bytes for each (tenant, image id, digest, uploaded_at).

        One round trip. Needs no vector, so it can be asked before inference.
        """
        by_tenant = _group(upload[0] for upload in uploads)
        calls: list[_Call] = [(t, [pack(*uploads[index][1:]) for index in indexes]) for t, indexes in by_tenant.items()]
        found: list[Earlier | None] = [None] * len(uploads)
        for indexes, replies in zip(by_tenant.values(), self._run("exact", calls), strict=True):
            for index, reply in zip(indexes, replies, strict=True):
                found[index] = _earlier(*reply) if reply else None
        return found

    def add(self, rows: Sequence[NewRow]) -> list[Placed]:
        """Append uploads, as if one by one in this order, and find what stands before each.

        `near` has the earliest row within the threshold and the nearest ones within the radius, in order of arrival;
        exact copies are not searched for near ones. One round trip for all tenants, unless the mirror is far behind.
        """
        by_tenant = _group(row.tenant for row in rows)
        placed: list[Placed] = [Placed()] * len(rows)
        with self._lock:
            windows = {tenant: self._window(tenant) for tenant in by_tenant}
            windows |= self._stale(STALE_WITH_ADD)
            outcomes = self._sync(windows, {t: [rows[index] for index in indexes] for t, indexes in by_tenant.items()})
            for tenant, indexes in by_tenant.items():
                queries: dict[int, Query] = {}
                for index, (own, *exact) in zip(indexes, outcomes[tenant], strict=True):
                    position = Position.parse(own) if own else None
                    placed[index] = Placed(position, _earlier(*exact) if exact[0] else None)
                    row = rows[index]
                    if position is not None and not exact[0] and row.vector is not None:
                        queries[index] = Query(position, encode_name(row.image_id), row.vector.astype(np.float16))
                hits = windows[tenant].mirror.search(list(queries.values()))
                for (index, query), near in zip(queries.items(), hits, strict=True):
                    placed[index] = Placed(query.position, None, tuple(map(_near, near)))
            while len(self._windows) > MIRRORS:
                self._windows.popitem(last=False)
        return placed

    def forget(self, tenant: str, image_id: str, source: Source | None = None) -> int:
        """Delete all that was seen under an image id, everywhere. Returns how many rows that were.

        With the `source` of the deletion, uploads of the same partition before it are not stored any more: a process
        that was frozen in mid-flight cannot bring back what others have deleted meanwhile.
        """
        with self._lock:
            [count] = self._run("forget", [(tenant, [encode_name(image_id), _order(source)])])
            if tenant in self._windows:
                self._sync({tenant: self._windows[tenant]}, {})
        return int(count)

    def patches(self, rows: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        """The local features stored with each (tenant, position), in one round trip; None where there are none."""
        if not rows:
            return []
        pipeline = self._pipeline()
        for tenant, position in rows:
            pipeline.execute_command("HGET", self._key(tenant, "patches"), str(position))
        return self._execute(pipeline)

    def refresh(self) -> None:
        """Follow what other processes appended and deleted. For idle moments; `add` does so for its own tenants."""
        with self._lock:
            self._sync(self._stale(STALE_WITH_REFRESH), {})

    def windows(self) -> list[WindowStats]:
        """The window of each tenant mirrored here."""
        mirrors = [(tenant, window.mirror) for tenant, window in list(self._windows.items())]
        return [WindowStats(tenant, len(each), each.nbytes, each.oldest_ms) for tenant, each in mirrors]

    def stats(self) -> Stats:
        mirrors = [window.mirror for window in list(self._windows.values())]
        return Stats(len(mirrors), sum(map(len, mirrors)), sum(m.nbytes for m in mirrors), self._resets)

    def _sync(self, windows: dict[str, _Window], appends: dict[str, list[NewRow]]) -> dict[str, list[list[bytes]]]:
        """Append, and read each window to its end. Returns the outcome of each append."""
        records = {tenant: [part for row in rows for part in _parts(row)] for tenant, rows in appends.items()}
        outcomes: dict[str, list[list[bytes]]] = {}
        unread = dict.fromkeys(windows, True)  # and whether its rows are still to be placed
        while unread:
            calls: list[_Call] = [
                (tenant, [windows[tenant].cursor, PAGE_ENTRIES, *(records.get(tenant, ()) if to_place else ())])
                for tenant, to_place in unread.items()
            ]
            still_unread: dict[str, bool] = {}
            for (tenant, placing), reply in zip(unread.items(), self._run("sync", calls), strict=True):
                window, page = windows[tenant], _Page(*reply)
                if not window.is_of(page):
                    self._resets += 1 if len(window.mirror) else 0
                    window.reset()
                    # Rows placed in the log that is no more have to be placed in this one; where they stand, they stay.
                    still_unread[tenant] = True
                    continue
                window.take(page, self._dim)
                window.read_at_s = time.monotonic()
                if placing:
                    outcomes[tenant] = page.outcomes
                if page.more:
                    still_unread[tenant] = False
                    if self._progress is not None:
                        self._progress(tenant, len(window.mirror))
            unread = still_unread
        return outcomes

    def _window(self, tenant: str) -> _Window:
        if tenant not in self._windows:
            self._windows[tenant] = _Window(lambda: Mirror(self._dim, self._reach, self._retention_ms))
        self._windows.move_to_end(tenant)
        return self._windows[tenant]

    def _stale(self, most: int) -> dict[str, _Window]:
        before_s = time.monotonic() - STALE_S
        stale = ((tenant, window) for tenant, window in self._windows.items() if window.read_at_s < before_s)
        return dict(heapq.nsmallest(most, stale, key=lambda entry: entry[1].read_at_s))

    def _key(self, tenant: str, kind: str) -> str:
        # Names are any Unicode, braces and colons among them. `%` alone is nothing that quoting gives, so it can stand
        # for the empty name, which a cluster would take for no hash tag at all.
        tag = quote(tenant, safe="", errors="surrogatepass") or "%"
        return f"{self._prefix}:{{{tag}}}:{self._model}:{kind}"

    def _run(self, name: str, calls: Sequence[_Call]) -> list[Any]:
        """The replies of one script to a call for each tenant, in one round trip."""
        if not calls:
            return []
        script = self._scripts[name]
        try:
            return self._execute(self._scripted("EVALSHA", sha1(script, usedforsecurity=False).hexdigest(), calls))
        except NoScriptError:
            # A server that has not seen the script yet. What others of a cluster did already is harmless to repeat.
            return self._execute(self._scripted("EVAL", script, calls))

    def _scripted(self, command: str, script: str | bytes, calls: Sequence[_Call]) -> Any:
        common = (self._retention_ms, round(self._retention_ms * GRACE), self._max_bytes)
        pipeline = self._pipeline()
        for tenant, arguments in calls:
            keys = [self._key(tenant, kind) for kind in KEYS]
            pipeline.execute_command(command, script, len(keys), *keys, *common, uuid.uuid4().hex, *arguments)
        return pipeline

    def _pipeline(self) -> Any:
        # Not a transaction: each script is atomic by itself, and a cluster keeps tenants on different servers.
        return self._redis.pipeline(transaction=False)

    def _execute(self, pipeline: Any) -> list[Any]:
        try:
            replies: list[Any] = pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            raise Unavailable("redis", str(error) or type(error).__name__) from error
        return replies


def _script(name: str) -> bytes:
    folder = files("consumer") / "lua"
    return b"\n".join((folder / f"{part}.lua").read_bytes() for part in ("window", name))


def _group(tenants: Iterable[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, tenant in enumerate(tenants):
        groups.setdefault(tenant, []).append(index)
    return groups


def _parts(row: NewRow) -> tuple[bytes, bytes, str]:
    record = pack(row.image_id, row.digest, row.uploaded_at, row.vector)
    return record, row.patches or b"", _order(row.source)


def _order(source: Source | None) -> str:
    return "" if source is None else f"{source.partition} {source.offset}"


def _earlier(position: bytes, record: bytes) -> Earlier:
    row = unpack(position, record)
    return Earlier(decode_name(row.image_id), row.position, to_datetime(row.uploaded_us))


def _near(hit: Hit) -> Near:
    return Near(decode_name(hit.image_id), hit.position, hit.l2, to_datetime(hit.uploaded_us))
