"""Uploads that show the same picture, as they are reviewed: together, by one decision."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from consumer.verdicts import Verdict

MAX_CAMPAIGNS = 5000
# Uploads of a campaign that are kept, the newest.
MAX_MEMBERS = 50
# Uploads whose campaign is remembered.
MAX_UPLOADS = 50_000
HOUR = timedelta(hours=1)

Value = TypeVar("Value")


@dataclass(slots=True)
class Campaign:
    """A campaign: `id` is the image id of its first picture; `members` are the verdicts on its latest duplicates.

    The members are replaced and never changed, since they are shown while others come.
    """

    tenant: str
    id: str
    first_seen: datetime
    last_seen: datetime
    size: int = 1
    members: tuple[Verdict, ...] = ()

    @property
    def listed(self) -> list[Verdict]:
        """All copies that are kept: edited ones first, of these the newest first."""
        newest_first = self.members[::-1]
        return sorted(newest_first, key=lambda each: each.kind != "near")

    @property
    def copies(self) -> list[Verdict]:
        """The copies to decide on, each with its match: the edited ones, or the newest where all are exact."""
        listed = self.listed
        return [each for each in listed if each.kind == "near"] or listed[:1]

    def copy(self, image_id: str) -> Verdict | None:
        """Find a copy by its image id."""
        return next((each for each in self.members if each.image_id == image_id), None)

    @property
    def uploads_per_hour(self) -> int:
        """How many of the kept uploads came within an hour before the last."""
        return sum(each.decided_at > self.last_seen - HOUR for each in self.members)

    def join(self, other: "Campaign") -> None:
        """Take in the duplicates of another campaign, whose first picture turned out to be a copy as well."""
        self.members = (*other.members, *self.members)[-MAX_MEMBERS:]
        self.size += other.size - 1
        self.last_seen = max(self.last_seen, other.last_seen)


def pair_of(copy: Verdict) -> tuple[str, str]:
    """The image ids of a duplicate and its match."""
    assert copy.match is not None  # noqa: S101 (narrows the type)
    return copy.image_id, copy.match.image_id


class CampaignLog:
    """Groups duplicates as they come. Thread-safe."""

    def __init__(self) -> None:
        self._campaigns: OrderedDict[tuple[str, str], Campaign] = OrderedDict()
        self._of_upload: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, verdict: Verdict) -> None:
        """Put a duplicate into its campaign, or its match's if none was told; a repeated verdict is counted once."""
        match = verdict.match
        if match is None:
            return
        tenant, image_id = verdict.tenant, verdict.image_id
        with self._lock:
            told = verdict.campaign
            first = self._first(tenant, match.image_id) if told is None else told.id
            campaign = self._campaigns.get((tenant, first))
            if campaign is None:
                campaign = Campaign(tenant, first, match.uploaded_at, verdict.decided_at)
            if any(each.image_id == image_id for each in campaign.members):
                return
            if told is None and (early := self._campaigns.pop((tenant, image_id), None)) is not None:
                campaign.join(early)  # its copies were heard of before it
            campaign.members = (*campaign.members, verdict)[-MAX_MEMBERS:]
            campaign.size = campaign.size + 1 if told is None else max(campaign.size, told.size)
            campaign.last_seen = max(campaign.last_seen, verdict.decided_at)
            _put(self._campaigns, (tenant, first), campaign, MAX_CAMPAIGNS)
            _put(self._of_upload, (tenant, image_id), first, MAX_UPLOADS)

    def find(self, tenant: str, campaign_id: str) -> Campaign | None:
        """Find a campaign by its id, or by one of its uploads."""
        with self._lock:
            named = self._campaigns.get((tenant, campaign_id))
        return named or self.joined(tenant, campaign_id)

    def joined(self, tenant: str, image_id: str) -> Campaign | None:
        """Find the campaign that an upload joined, whether or not a campaign is named after it."""
        with self._lock:
            earlier = self._earlier(tenant, image_id)
            return next((found for each in earlier if (found := self._campaigns.get((tenant, each)))), None)

    def of_tenant(self, tenant: str) -> list[Campaign]:
        """A tenant's campaigns, those with the most uploads in the last hour first, then the newest."""
        with self._lock:
            campaigns = [each for (whose, _), each in self._campaigns.items() if whose == tenant]
        return sorted(campaigns, key=lambda each: (-each.uploads_per_hour, -each.last_seen.timestamp()))

    def _first(self, tenant: str, image_id: str) -> str:
        """The first picture of an upload's campaign, as far as is known."""
        return [image_id, *self._earlier(tenant, image_id)][-1]

    def _earlier(self, tenant: str, image_id: str) -> list[str]:
        """The first picture of the campaign that an upload joined, the first of that one's campaign, and so on."""
        seen = [image_id]
        while (earlier := self._of_upload.get((tenant, seen[-1]), image_id)) not in seen:
            seen.append(earlier)
        return seen[1:]


def _put(known: OrderedDict[tuple[str, str], Value], key: tuple[str, str], value: Value, limit: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > limit:
        known.popitem(last=False)
