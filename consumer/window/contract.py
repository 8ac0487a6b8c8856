"""The contract between the pipeline and a window of recent pictures, wherever it is kept."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from consumer.window.records import (
    AppendResult,
    DeleteResult,
    ExactMatch,
    Lookup,
    NewRecord,
    Position,
    Source,
    StoredRecord,
)


class WindowStats(NamedTuple):
    """What this process holds of all windows, and how often, and when last, the server had lost what was read from it.

    `rows` counts vectors, `bytes` is the memory that they and their index take.
    """

    tenants: int
    rows: int
    bytes: int
    resets: int
    lost_at: datetime | None


class TenantStats(NamedTuple):
    """What this process holds of one tenant's window; `oldest_ms` is when its oldest vector came, None without any."""

    tenant: str
    rows: int
    bytes: int
    oldest_ms: int | None


class Window(Protocol):
    """The recent pictures of all tenants, for one model. Thread-safe.

    Every method but `stats` and `tenant_stats` raises Unavailable("redis", ...) while the window cannot be asked. It is
    then safe to call it again with the same arguments: the answer is that of the first call.
    """

    def find_exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[ExactMatch | None]:
        """Find the earliest other picture of the same bytes for each (tenant, image id, digest, uploaded_at).

        Needs no vector, so it can be asked before inference.
        """
        ...

    def append(self, records: Sequence[NewRecord]) -> list[AppendResult]:
        """Append uploads, as if one by one in this order, and find the exact and near matches before each.

        An upload that is known already, by image id and content together, keeps its position and is compared with what
        stood before it then.
        """
        ...

    def look_up(self, lookups: Sequence[Lookup]) -> list[AppendResult]:
        """Find the exact and near matches of pictures among all that stand in the window; write nothing."""
        ...

    def delete(self, tenant: str, image_id: str, source: Source | None = None) -> DeleteResult:
        """Delete all records of an image id, and of the versions of an object (s3, gs): `image_id?versionId=version`.

        `source` is where the event stands that asks for it: uploads of this image id from before it in the same
        partition are not stored any more, even when they are appended later. If it tells its time, that counts.
        """
        ...

    def read_patches(self, positions: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        """Read the patches stored at each (tenant, position); None where there are none."""
        ...

    def read_records(self, positions: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        """Read the record stored at each (tenant, position); None where there is none."""
        ...

    def find_record(self, tenant: str, image_id: str) -> StoredRecord | None:
        """Read the newest record under an image id; None if there is none, as of an exact copy that is not stored."""
        ...

    def refresh(self) -> None:
        """Read what other processes appended and deleted meanwhile. To be called in idle moments."""
        ...

    def stats(self) -> WindowStats:
        """Count what this process holds."""
        ...

    def tenant_stats(self) -> list[TenantStats]:
        """Count what this process holds, by tenant."""
        ...
