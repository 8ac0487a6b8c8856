"""Duplicates for tests of moderation, and processes in which they join campaigns."""

import itertools
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from consumer.moderation.campaigns import Campaigns, Duplicate, Joined, MatchDetails, call
from consumer.moderation.decisions import Partners
from consumer.settings import CampaignsSettings, WindowSettings
from consumer.window.records import AppendResult, NewRecord, Position, Source
from consumer.window.window import RedisWindow
from tests.window.examples import MODEL, PREFIX, upload

# Uploads of one campaign in an hour that are no flood yet.
BOUND = 3.0
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


class Looks:
    """Stands in for the second look: confirms the pairs that are in `alike`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.alike: set[tuple[Position | None, Position]] = set()
        self.asked: list[tuple[Position | None, Position]] = []

    def confirm(self, pairs: Sequence[tuple[str, Position | None, Position]]) -> list[bool]:
        self.asked += [(upload, match) for _, upload, match in pairs]
        return [(upload, match) in self.alike for _, upload, match in pairs]


class Process:
    """Appends uploads and lets them join campaigns, as a process of the service does."""

    def __init__(self, redis: Redis, window: WindowSettings, bound: float) -> None:
        self.looks = Looks()
        self.window = RedisWindow(redis, MODEL, window, PREFIX)
        settings = CampaignsSettings(flood_uploads_per_hour=bound, tenant_flood_uploads_per_hour={"strict": 1.0})
        self.campaigns = Campaigns(self.window, cast(Any, self.looks), settings)
        self.positions: dict[str, Position] = {}

    def original(self, image_id: str, picture: int, variant: int = 0, tenant: str = "t") -> Position:
        """Upload a picture that nothing stands before."""
        [result] = self.window.append([upload(image_id, picture, variant, tenant)])
        assert result.position is not None
        self.positions[image_id] = result.position
        return result.position

    def near(self, image_id: str, picture: int, variant: int, *verified: str, unverified: Sequence[str] = ()) -> Joined:
        """Upload a picture that the second look verified with these."""
        record = upload(image_id, picture, variant)
        [result] = self.window.append([record])
        assert result.position is not None
        self.positions[image_id] = result.position
        matches = [self.positions[name] for name in verified]
        others = [self.positions[name] for name in unverified]
        return self.join([duplicate(record, result, matches, others)])[0]

    def copy(self, image_id: str, picture: int, variant: int = 0, tenant: str = "t") -> Joined:
        """Upload a picture with the bytes of an earlier one."""
        record = upload(image_id, picture, variant, tenant)
        return self.join([self.exact(record)])[0]

    def exact(self, record: NewRecord, **more: Any) -> Duplicate:
        """The exact copy of what stands before it."""
        [match] = self.window.find_exact([(record.tenant, record.image_id, record.digest, record.uploaded_at)])
        assert match is not None
        return duplicate(record, AppendResult(exact=match), [match.position])._replace(**more)

    def join(self, duplicates: list[Duplicate]) -> list[Joined]:
        return self.campaigns.join(duplicates)

    def ends(self, *told: bytes) -> list[list[Any]]:
        """The floods that are over and were not told: number, image id, rate and ms of each."""
        [over] = call(self.window, "ends", [("t", ["", str(BOUND), *told])])
        return cast(list[list[Any]], over)


def pass_hours(redis: Redis, process: Process, hours: float) -> None:
    """Let the window's clock, which never falls, go ahead by so much."""
    meta = process.window.store.key("t", "meta")
    redis.hset(meta, "ms", int(redis.hget(meta, "ms") or 0) + round(hours * 3_600_000))
