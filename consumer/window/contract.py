"""What any window of recent pictures promises the pipeline."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from consumer.window.records import AppendResult, DeleteResult, ExactMatch, NewRecord, Position, Source


class WindowStats(NamedTuple):
    """What this process mirrors, and how often and when Redis came back without what it had."""

    tenants: int
    rows: int
    bytes: int
    resets: int
    lost_at: datetime | None


class TenantStats(NamedTuple):
    """One tenant's window as this process mirrors it; `oldest_ms` is None for an empty one."""

    tenant: str
    rows: int
    bytes: int
    oldest_ms: int | None


class Window(Protocol):
    """The recent pictures of all tenants, for one model. Thread-safe.

    Every method raises Unavailable("redis", ...) while the window cannot be asked. Calling again with the same
    arguments is then safe, and answers as the first call would have.
    """

    def find_exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[ExactMatch | None]:
        """Find the earliest other picture of the same bytes for each (tenant, image id, digest, uploaded_at)."""
        ...

    def append(self, records: Sequence[NewRecord]) -> list[AppendResult]:
        """Append uploads as if one by one in this order, and find what stands before each."""
        ...

    def delete(self, tenant: str, image_id: str, source: Source | None = None) -> DeleteResult:
        """Delete all that was stored under an image id; `source` is the event that asks for it."""
        ...

    def read_patches(self, rows: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        """Read the local features stored for each (tenant, position); None where there are none."""
        ...

    def refresh(self) -> None:
        """Follow what other processes appended and deleted. For idle moments."""
        ...

    def stats(self) -> WindowStats:
        """Count what this process holds."""
        ...

    def tenant_stats(self) -> list[TenantStats]:
        """Count what this process holds, by tenant."""
        ...
