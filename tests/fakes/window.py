"""A window without Redis."""

from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace

from consumer.window.records import AppendResult, ExactMatch, NewRecord, Position


class FakeWindow:
    """Remembers the `records` that are appended, and has those in `known` as exact matches by their content."""

    loss_guard = SimpleNamespace(recovers=False)

    def __init__(self) -> None:
        self.known: dict[bytes, ExactMatch] = {}
        self.records: list[NewRecord] = []

    def find_exact(self, uploads: Sequence[tuple[str, str, bytes, datetime]]) -> list[ExactMatch | None]:
        return [self.known.get(digest) for _, _, digest, _ in uploads]

    def append(self, records: Sequence[NewRecord]) -> list[AppendResult]:
        self.records += records
        return [
            AppendResult(Position(1, len(self.records)), region_matches=((),) * len(record.region_vectors))
            for record in records
        ]

    def read_records(self, positions: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        return [None] * len(positions)

    def read_patches(self, positions: Sequence[tuple[str, Position]]) -> list[bytes | None]:
        return [None] * len(positions)
