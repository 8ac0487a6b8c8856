"""Moderation where nobody has decided anything, and no duplicate is in a campaign."""

from collections.abc import Sequence
from typing import Any, cast

from consumer.moderation.campaigns import NOT_JOINED, Campaigns, Duplicate, Joined
from consumer.moderation.decisions import Decisions
from consumer.moderation.rejections import Rejections
from consumer.settings import KafkaSettings
from consumer.window.contract import Window


def no_rejections(window: Window) -> Rejections:
    """Nothing is left out."""
    return Rejections(Decisions(KafkaSettings()), window)


class _NoCampaigns:
    def join(self, duplicates: Sequence[Duplicate]) -> list[Joined]:
        return [NOT_JOINED] * len(duplicates)


def no_campaigns() -> Campaigns:
    """Campaigns that nobody joins."""
    return cast(Campaigns, cast(Any, _NoCampaigns()))
