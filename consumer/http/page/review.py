"""The pages Review and Campaigns: one decision for all uploads that show the same picture, or one for each.

Campaigns are sorted in other threads than that of the event loop: there may be thousands.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from consumer.events import NAME_LENGTH
from consumer.http.changes import not_set_up
from consumer.http.page.campaigns import Campaign, pair_of
from consumer.http.page.decisions import Decision, Pair, feedback_message
from consumer.http.page.desk import Desk, TheDesk, TheVisitor, check_form
from consumer.http.page.rendering import render, tenant_query
from consumer.http.page.sessions import Visitor
from consumer.http.page.standing import Standing, standing_of
from consumer.http.parts import Parts, ThePart
from consumer.http.problems import Refused
from consumer.moderation.pictures import KnownPictures, for_bank
from consumer.verdicts import BankKind, Verdict

router = APIRouter(include_in_schema=False)

MAX_LISTED = 200
Choice = Literal["confirm", "reject", "bank", "allow"]
ImageId = Annotated[str, Query(max_length=NAME_LENGTH)]
IdField = Annotated[str, Form(max_length=NAME_LENGTH)]
BankName = Annotated[str, Form(max_length=256)]


@router.get("/review")
def review(
    request: Request,
    desk: TheDesk,
    parts: ThePart,
    visitor: TheVisitor,
    campaign: ImageId = "",
    image_id: ImageId = "",
    after: ImageId = "",
    key: Annotated[str, Query(max_length=1)] = "",
) -> Response:
    """Show the campaign or the copy that is named, or else the next to decide; hint at the key to press, if any."""
    context = _context(desk, parts, visitor, campaign, image_id, after) | {"key": key}
    return _answer(request, visitor, context, request.url.query)


@router.post("/review", dependencies=[Depends(check_form)])
async def decide(
    request: Request,
    desk: TheDesk,
    parts: ThePart,
    visitor: TheVisitor,
    campaign: IdField,
    image_id: IdField,
    choice: Annotated[Choice, Form()],
    together: Annotated[bool, Form()] = False,
    bank: BankName = "",
    allow_bank: BankName = "",
    note: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Decide on a copy, or all copies of its campaign together, and show the next one."""
    topic, decided, shown = _decidable(desk, parts, visitor, campaign, image_id)
    to_bank = {"bank": bank, "allow": allow_bank}.get(choice)
    kind = None if to_bank is None else _own_banks(desk, visitor).get(to_bank)
    if to_bank is not None and (kind is None or (kind == "allow") is not (choice == "allow")):
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-bank", "There is no such bank any more; load the page again.")
    decision = Decision(
        "reject" if choice == "reject" else "confirm", visitor.caller.name, datetime.now(UTC), to_bank, note or None
    )
    added = None if to_bank is None else await asyncio.to_thread(_picture_to_add, parts, visitor.tenant, shown)
    # One picture of a campaign is enough for a bank.
    others = decision._replace(to_bank=None)
    pairs = dict.fromkeys(pair_of(each) for each in ([shown, *decided.copies] if together else [shown]))
    await _send(
        desk, parts, visitor, topic, [(pair, others if index else decision) for index, pair in enumerate(pairs)]
    )
    left = standing_of(decided, desk.decisions).open
    following = (decided.id, left[0].image_id, "") if left and not together else ("", "", decided.id)
    context = await asyncio.to_thread(_context, desk, parts, visitor, *following)
    context |= {"done": decision, "done_copy": shown, "done_others": len(pairs) - 1, "added": added}
    context |= {"undoable": (decided, shown, len(pairs)), "skipped": False, "bank": bank, "allow_bank": allow_bank}
    return _answer(request, visitor, context)


@router.post("/review/undo", dependencies=[Depends(check_form)])
async def undo(
    request: Request, desk: TheDesk, parts: ThePart, visitor: TheVisitor, campaign: IdField, image_id: IdField
) -> Response:
    """Take back the decision about a copy, with all that was decided together with it, and show it again."""
    topic, decided, shown = _decidable(desk, parts, visitor, campaign, image_id)
    [decision], now = desk.decisions.about(visitor.tenant, [pair_of(shown)]), datetime.now(UTC)
    withdrawn = [
        (pair, Decision("withdraw", visitor.caller.name, now, each.to_bank))
        for pair, each in ([] if decision is None else _decided_with(desk, decided, decision))
    ]
    await _send(desk, parts, visitor, topic, withdrawn)
    context = await asyncio.to_thread(_context, desk, parts, visitor, campaign, image_id, "")
    if withdrawn:  # and nobody else took it back before
        context |= {"undone": (shown, len(withdrawn))}
    return _answer(request, visitor, context)


@router.get("/campaigns")
def campaigns(request: Request, desk: TheDesk, visitor: TheVisitor) -> Response:
    """List the campaigns of a tenant."""
    listed = desk.campaigns.of_tenant(visitor.tenant)[:MAX_LISTED]
    rows = [standing_of(each, desk.decisions) for each in listed]
    return render(request, "campaigns.html", visitor, page="campaigns", rows=rows, banks=_own_banks(desk, visitor))


def _decidable(
    desk: Desk, parts: Parts, visitor: Visitor, campaign_id: str, image_id: str
) -> tuple[str, Campaign, Verdict]:
    """The topic of feedback, and a campaign with one of its copies that the visitor may decide. Raises Refused."""
    visitor.caller.require("review")
    topic = parts.settings.kafka.feedback_topic
    if not topic:
        raise not_set_up("SEENIT_KAFKA_FEEDBACK_TOPIC")
    campaign = desk.campaigns.find(visitor.tenant, campaign_id)
    copy = None if campaign is None else campaign.copy(image_id)
    if campaign is None or copy is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-campaign", "This campaign or copy is not known any more.")
    return topic, campaign, copy


def _decided_with(desk: Desk, campaign: Campaign, decision: Decision) -> list[tuple[Pair, Decision]]:
    """All of a campaign that was decided together, also copies that are too many to be shown since."""
    made = desk.decisions.made_with(campaign.tenant, decision)
    return [(pair, each) for pair, each in made if desk.campaigns.joined(campaign.tenant, pair[0]) is campaign]


def _picture_to_add(parts: Parts, tenant: str, copy: Verdict) -> str:
    """The image id of the picture that a bank gets of a match. Raises Refused where it can get none, or Unavailable."""
    pictures = KnownPictures(parts.ready().window)
    added = for_bank(*(pictures.find(tenant, each) for each in pair_of(copy)))
    if added is None:
        raise Refused(HTTPStatus.CONFLICT, "unknown-picture", "Neither picture is in the window any more, to be added.")
    return added.image_id


async def _send(
    desk: Desk, parts: Parts, visitor: Visitor, topic: str, decisions: Sequence[tuple[Pair, Decision]]
) -> None:
    for pair, decision in decisions:
        message = feedback_message(topic, visitor.tenant, pair, decision)
        await parts.changes.ask(visitor.caller, "match.feedback", visitor.tenant, pair[0], message)
        desk.decisions.add(visitor.tenant, pair, decision)


def _answer(request: Request, visitor: Visitor, context: dict[str, Any], query: str = "") -> Response:
    """Show what comes next: the part of the page that htmx asks for, under an address that names it, or the page."""
    is_part = "hx-request" in request.headers
    response = render(request, "_case.html" if is_part else "review.html", visitor, page="review", **context)
    response.headers["Vary"] = "HX-Request"
    if is_part:
        response.headers["HX-Replace-Url"] = f"/review?{query or tenant_query(visitor)}"
    return response


def _context(desk: Desk, parts: Parts, visitor: Visitor, campaign_id: str, image_id: str, after: str) -> dict[str, Any]:
    """What the part with one copy shows: the named one, or the next undecided one behind the campaign `after`."""
    tenant, campaigns = visitor.tenant, desk.campaigns
    standings = [standing_of(each, desk.decisions) for each in campaigns.of_tenant(tenant)]
    decided = [each for each in standings if not each.open]
    named = campaigns.find(tenant, campaign_id) if campaign_id else campaigns.joined(tenant, image_id)
    ids = [each.campaign.id for each in standings]
    standing = None if named is None else standing_of(named, desk.decisions)
    if standing is None:
        # Whether `after` was decided or skipped: what is skipped comes again behind all others.
        start = ids.index(after) + 1 if after in ids else 0
        standing = next((each for each in (*standings[start:], *standings[:start]) if each.open), None)
    decisions = [each.decision.decision for each in decided if each.decision]
    banks = _own_banks(desk, visitor)
    shown = _shown(standing, image_id)
    # What is shown is taken back, or else the visitor's last decision.
    made = [(each.campaign, each.about, each.decision) for each in standings if each.decision]
    own = [each for each in made if each[2].by == visitor.caller.name]
    last = max(own, key=lambda each: each[2].at, default=None)
    if shown["decision"]:
        last = shown["campaign"], shown["decided_copy"], shown["decision"]
    return {
        **shown,
        "decided": len(decided),
        "total": len(standings),
        "same": decisions.count("confirm"),
        "different": decisions.count("reject"),
        "undoable": last and (*last[:2], len(_decided_with(desk, last[0], last[2]))),
        "skipped": bool(after),
        "done": None,
        "added": None,
        "undone": None,
        "key": "",
        "banks": banks,
        "review_banks": [name for name, kind in banks.items() if kind != "allow"],
        "allow_banks": [name for name, kind in banks.items() if kind == "allow"],
        "bank": "",
        "allow_bank": "",
        "is_set_up": bool(parts.settings.kafka.feedback_topic),
        "has_banks": bool(parts.settings.kafka.banks_topic),
    }


def _shown(standing: Standing | None, image_id: str) -> dict[str, Any]:
    """What is shown of a campaign: the named copy, or that to look at; and the decision about it, if there is one."""
    if standing is None:
        return {"campaign": None, "decision": None, "decided_copy": None, "made": {}}
    campaign = standing.campaign
    copy = campaign.copy(image_id) or standing.to_show
    own = standing.made.get(copy.image_id)
    decision, about = (None, None) if standing.open else (standing.decision, standing.about)
    if own is not None:
        decision, about = own, copy
    return {"campaign": campaign, "copy": copy, "decision": decision, "decided_copy": about, "made": standing.made}


def _own_banks(desk: Desk, visitor: Visitor) -> dict[str, BankKind]:
    """The kind of each bank of the tenant's own: feedback fills no bank of all tenants."""
    own = (each for each in desk.banks.visible_to(visitor.tenant) if each.key.tenant is not None)
    return {each.key.bank: each.body.kind for each in own if each.body}
