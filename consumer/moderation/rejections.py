"""Leaves out of what the window reports those pictures that people said are no copies of an upload."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from consumer.kafka.messages import OutgoingMessage
from consumer.moderation.decisions import Decisions, Partners
from consumer.window.contract import Window
from consumer.window.records import AppendResult, NearMatch, decode_record


class Rejections:
    """Applies what was rejected to the matches of uploads."""

    def __init__(self, decisions: Decisions, window: Window) -> None:
        self._decisions = decisions
        self._window = window

    def partners(self, tenant: str, image_id: str, digest: bytes) -> Partners:
        """What this upload must not be matched with."""
        return self._decisions.partners(tenant, image_id, digest)

    def tombstones(self, deletions: Sequence[tuple[str, str, datetime | None]]) -> list[tuple[OutgoingMessage, ...]]:
        """The messages that delete what was decided about pictures: of each the tenant, the id and when it was deleted.

        To be called when they are deleted from the window. All decisions that stand on the topic by then are read
        first: whoever makes one later sees the deletion. Raises Unavailable("kafka", ...).
        """
        self._decisions.catch_up()
        return [tuple(self._decisions.tombstones(*deletion)) for deletion in deletions]

    def leave_out(
        self, uploads: Sequence[tuple[str, str, bytes]], results: Sequence[AppendResult]
    ) -> list[AppendResult]:
        """Leave the rejected partners of each upload (tenant, image id, digest) out of its result.

        Before any second look, so that none is spent on them. Raises Unavailable("redis", ...).
        """
        partners = [self.partners(*upload) for upload in uploads]
        positions = {
            (upload[0], match.position): None
            for upload, those, result in zip(uploads, partners, results, strict=True)
            if those
            for match in _near_matches(result)
        }
        records = dict(zip(positions, self._window.read_records(list(positions)), strict=True))

        def keep(tenant: str, those: Partners, matches: Sequence[NearMatch]) -> tuple[NearMatch, ...]:
            return tuple(match for match in matches if not _is_among(those, match, records[tenant, match.position]))

        return [
            replace(
                result,
                exact=None if result.exact and those.include(result.exact.image_id, digest) else result.exact,
                near=keep(tenant, those, result.near),
                region_matches=tuple(keep(tenant, those, matches) for matches in result.region_matches),
            )
            if those
            else result
            for (tenant, _, digest), those, result in zip(uploads, partners, results, strict=True)
        ]


def _near_matches(result: AppendResult) -> list[NearMatch]:
    return [*result.near, *(match for matches in result.region_matches for match in matches)]


def _is_among(partners: Partners, match: NearMatch, record: bytes | None) -> bool:
    """Whether a match is among the partners; one that was deleted meanwhile counts as such."""
    return record is None or partners.include(match.image_id, decode_record(record).digest)
