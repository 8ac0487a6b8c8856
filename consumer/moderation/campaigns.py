"""Campaigns: uploads of a tenant that show the same picture, and whether they come in floods.

`join` asks a script of the window, `lua/join.lua`, which also says what a campaign is. It is idempotent by image id:
a repeated upload is counted once, gets the answer that it got at first, and tells the flood that it told. Since a flood
begins with an upload that the script has not seen before, that is told in the transaction that answers this upload, by
whichever process commits it. What tells that it is over is in `flood_ends`.

What Redis holds of campaigns is not recovered where it is lost: they begin again with the window that is there then.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from consumer.errors import Unavailable
from consumer.moderation.decisions import Partners
from consumer.settings import CampaignsSettings
from consumer.verdicts import Campaign, Flood
from consumer.verification.rerank import Verifier
from consumer.window.loss_guard import RECOVERY_PENDING
from consumer.window.records import Position, Source, decode_name, encode_name, pack_record
from consumer.window.store import Call, WindowGone, WindowRecovering
from consumer.window.window import RedisWindow

# Ids of floods are UUIDs under this namespace: a flood that is told again has the same id.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "seenit:image.flood")
_FLOOD_PARTS = 5
# Campaigns of a tenant that are listed at most, those with the newest uploads.
MAX_LISTED = 1000


class Duplicate(NamedTuple):
    """A duplicate that joins a campaign.

    `matches` are the pictures that it was directly verified with, the earliest first; `unverified` those that were
    looked at in vain. `match` is what the verdict names, `partners` what it must not be matched with.
    """

    tenant: str
    image_id: str
    digest: bytes
    uploaded_at: datetime
    source: Source
    verdict_id: str
    position: Position | None
    matches: Sequence[Position]
    unverified: Iterable[Position]
    match: "MatchDetails"
    partners: Partners


class MatchDetails(NamedTuple):
    """The match that a verdict names, as far as feedback on it asks for that."""

    position: Position
    kind: str
    l2: float
    score: float | None = None

    def to_json(self) -> str:
        """Encode it for Redis. By its position, not by its name: a picture that is deleted is nowhere else."""
        return json.dumps([str(self.position), self.kind, self.l2, self.score])

    @classmethod
    def from_json(cls, text: bytes) -> "MatchDetails":
        """Decode what `to_json` encoded."""
        position, kind, l2, score = json.loads(text)
        return cls(Position.parse(position.encode()), kind, l2, score)


class ToldFlood(NamedTuple):
    """A flood to be told; the same one has the same id, whoever tells it."""

    id: str
    flood: Flood
    time: datetime


class Joined(NamedTuple):
    """The campaign that a duplicate has joined, None if its matches are gone by now; and the floods that it tells."""

    campaign: Campaign | None = None
    floods: tuple[ToldFlood, ...] = ()


NOT_JOINED = Joined()


class ListedCampaign(NamedTuple):
    """A campaign of a tenant as it is now."""

    tenant: str
    campaign: Campaign
    in_flood: bool


class _Question(NamedTuple):
    """Whether a duplicate may join a campaign, which the script does not know."""

    number: bytes
    position: Position
    image_id: str
    digest: bytes
    same_bytes: bool


class Campaigns:
    """The campaigns of one model's windows. Methods raise Unavailable("redis", ...)."""

    def __init__(self, window: RedisWindow, verifier: Verifier, settings: CampaignsSettings) -> None:
        self._window = window
        self._verifier = verifier
        self._settings = settings

    def join(self, duplicates: Sequence[Duplicate]) -> list[Joined]:
        """Put duplicates into campaigns, in this order. One round trip, unless something has to be looked at first."""
        results = [NOT_JOINED] * len(duplicates)
        answers = [""] * len(duplicates)
        unanswered = list(range(len(duplicates)))
        while unanswered:
            questions: dict[int, _Question] = {}
            for index, reply in zip(unanswered, self._run(duplicates, answers, unanswered), strict=True):
                if reply and reply[0] == 0:
                    number, position, image_id, digest, same_bytes = reply[1:]
                    name = decode_name(image_id)
                    questions[index] = _Question(number, Position.parse(position), name, digest, bool(same_bytes))
                elif reply:
                    results[index] = _joined(duplicates[index].tenant, reply)
            for index, may in self._answer(duplicates, questions).items():
                answers[index] += f" {questions[index].number.decode()}:{may:d}"
            unanswered = list(questions)
        return results

    def _run(self, duplicates: Sequence[Duplicate], answers: Sequence[str], indexes: Sequence[int]) -> list[Any]:
        """Run the script for some of the duplicates, and return its replies in their order."""
        by_tenant: dict[str, list[int]] = {}
        for index in indexes:
            by_tenant.setdefault(duplicates[index].tenant, []).append(index)
        calls: list[Call] = []
        for tenant, those in by_tenant.items():
            bound = bound_of(self._settings, tenant)
            arguments = [argument for index in those for argument in _arguments(duplicates[index], answers[index])]
            calls.append((tenant, ["1" if self._window.loss_guard.recovers else "", str(bound), *arguments]))
        replies = dict(zip(by_tenant, map(iter, call(self._window, "join", calls)), strict=True))
        return [next(replies[duplicates[index].tenant]) for index in indexes]

    def _answer(self, duplicates: Sequence[Duplicate], questions: Mapping[int, _Question]) -> dict[int, bool]:
        """Answer questions: by what was rejected, by the same bytes, or else by a further look."""
        answers, looks = {}, {}
        for index, question in questions.items():
            duplicate = duplicates[index]
            if duplicate.partners.include(question.image_id, question.digest):
                answers[index] = False
            elif question.same_bytes:
                answers[index] = True
            else:
                looks[index] = (duplicate.tenant, duplicate.position, question.position)
        return answers | dict(zip(looks, self._verifier.confirm(list(looks.values())), strict=True))


def newest_campaigns(window: RedisWindow, tenants: Iterable[str], limit: int = MAX_LISTED) -> list[ListedCampaign]:
    """List the campaigns of these tenants with the newest uploads, at most `limit` of each; the fastest come first.

    Raises Unavailable("redis", ...).
    """
    calls: list[Call] = [(tenant, ["", limit]) for tenant in tenants]
    listed = [
        ListedCampaign(tenant, _campaign(*reply[:5]), bool(reply[5]))
        for (tenant, _), replies in zip(calls, call(window, "list", calls), strict=True)
        for reply in replies
    ]
    return sorted(listed, key=lambda each: (-each.campaign.uploads_per_hour, -each.campaign.size))


def bound_of(settings: CampaignsSettings, tenant: str) -> float:
    """More uploads of one campaign in an hour than this are a flood."""
    return settings.tenant_flood_uploads_per_hour.get(tenant, settings.flood_uploads_per_hour)


def call(window: RedisWindow, name: str, calls: Sequence[Call]) -> list[Any]:
    """Run a script, and return its replies. Raises Unavailable while the window is to be recovered."""
    while True:
        try:
            return window.store.run(name, calls)
        except WindowGone:
            raise Unavailable("redis", RECOVERY_PENDING) from None
        except WindowRecovering as half:
            window.loss_guard.handle_half_recovered(half.tenants)


def _arguments(duplicate: Duplicate, answers: str) -> list[bytes | str]:
    """What `lua/join.lua` takes for a duplicate."""
    return [
        pack_record(duplicate.image_id, duplicate.digest, duplicate.uploaded_at),
        str(duplicate.source),
        encode_name(duplicate.verdict_id),
        " ".join(map(str, duplicate.matches)),
        " ".join(map(str, duplicate.unverified)),
        answers,
        "1" if duplicate.partners else "",
        duplicate.match.to_json(),
    ]


def _joined(tenant: str, reply: Sequence[Any]) -> Joined:
    floods = []
    for start in range(6, len(reply), _FLOOD_PARTS):
        name, state, rate, bound, ms = reply[start : start + _FLOOD_PARTS]
        floods.append(told_flood(tenant, name, state.decode(), rate, float(bound), ms))
    return Joined(_campaign(*reply[1:6]), tuple(floods))


def told_flood(
    tenant: str, name: bytes, state: Literal["began", "ended"], rate: int, bound: float, ms: int
) -> ToldFlood:
    """Say that a flood of a campaign has begun or ended."""
    campaign = decode_name(name)
    flood = Flood(campaign=campaign, tenant=tenant, uploads_per_hour=rate, bound=bound, state=state)
    identity = json.dumps([tenant, campaign, state, ms])
    return ToldFlood(str(uuid.uuid5(_NAMESPACE, identity)), flood, _time(ms))


def _campaign(image_id: bytes, size: int, first_ms: int, last_ms: int, rate: int) -> Campaign:
    return Campaign(
        id=decode_name(image_id),
        size=size,
        first_seen=_time(first_ms),
        last_seen=_time(last_ms),
        uploads_per_hour=rate,
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
