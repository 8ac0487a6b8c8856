"""Duplicates for tests of moderation."""

import itertools
from collections.abc import Sequence

from consumer.moderation.campaigns import Duplicate, MatchDetails
from consumer.moderation.decisions import Partners
from consumer.window.records import AppendResult, NewRecord, Position, Source

_OFFSETS = itertools.count()


def duplicate(
    record: NewRecord, result: AppendResult, matches: list[Position], unverified: Sequence[Position] = ()
) -> Duplicate:
    """An appended upload that was directly verified with the pictures at these positions."""
    return Duplicate(
        record.tenant,
        record.image_id,
        record.digest,
        record.uploaded_at,
        record.source or Source(0, next(_OFFSETS)),
        f"verdict on {record.image_id}",
        result.position,
        matches,
        unverified,
        MatchDetails(matches[0], "near", 0.25, 0.9),
        Partners(),
    )
