"""The pages Review and Campaigns: one decision for all uploads that show the same picture.

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
from consumer.http.page.campaigns import Campaign
from consumer.http.page.decisions import Decision, Pair, feedback_message
from consumer.http.page.desk import Desk, TheDesk, TheVisitor, check_form
from consumer.http.page.rendering import render
from consumer.http.page.sessions import Visitor
from consumer.http.parts import Parts, ThePart
from consumer.http.problems import Refused
from consumer.verdicts import BankKind

router = APIRouter(include_in_schema=False)

MAX_LISTED = 200
Choice = Literal["confirm", "reject", "bank", "allow"]
CampaignId = Annotated[str, Query(max_length=NAME_LENGTH)]
CampaignField = Annotated[str, Form(max_length=NAME_LENGTH)]
BankName = Annotated[str, Form(max_length=256)]


@router.get("/review")
def review(
    request: Request,
    desk: TheDesk,
    parts: ThePart,
    visitor: TheVisitor,
    campaign: CampaignId = "",
    after: CampaignId = "",
) -> Response:
    """Show the campaign that is named, or else the next one to decide."""
    context = _context(desk, parts, visitor, campaign, after)
    return render(request, "review.html", visitor, page="review", **context)


@router.get("/review/case")
def case(
    request: Request,
    desk: TheDesk,
    parts: ThePart,
    visitor: TheVisitor,
    campaign: CampaignId = "",
    after: CampaignId = "",
) -> Response:
    """Show the same as a part of the page."""
    return render(request, "_case.html", visitor, **_context(desk, parts, visitor, campaign, after))


@router.post("/review", dependencies=[Depends(check_form)])
async def decide(
    request: Request,
    desk: TheDesk,
    parts: ThePart,
    visitor: TheVisitor,
    campaign: CampaignField,
    choice: Annotated[Choice, Form()],
    bank: BankName = "",
    allow_bank: BankName = "",
    note: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Decide a campaign, and show the next one."""
    topic, decided = _decidable(desk, parts, visitor, campaign)
    to_bank = {"bank": bank, "allow": allow_bank}.get(choice)
    kind = None if to_bank is None else _own_banks(desk, visitor).get(to_bank)
    if to_bank is not None and (kind is None or (kind == "allow") is not (choice == "allow")):
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-bank", "There is no such bank any more; load the page again.")
    decision = Decision(
        "reject" if choice == "reject" else "confirm", visitor.caller.name, datetime.now(UTC), to_bank, note or None
    )
    # One picture of a campaign is enough for a bank.
    others = decision._replace(to_bank=None)
    pairs = decided.pairs()
    await _send(desk, parts, visitor, topic, [(pairs[0], decision), *((pair, others) for pair in pairs[1:])])
    context = await asyncio.to_thread(_context, desk, parts, visitor, "", campaign)
    context |= {"done": decision, "done_id": decided.shown.image_id, "bank": bank, "allow_bank": allow_bank}
    return _answer(request, visitor, context)


@router.post("/review/undo", dependencies=[Depends(check_form)])
async def undo(
    request: Request, desk: TheDesk, parts: ThePart, visitor: TheVisitor, campaign: CampaignField
) -> Response:
    """Take back the decision about a campaign, and show it as one to decide."""
    topic, decided = _decidable(desk, parts, visitor, campaign)
    decision, now = _decision(desk, decided), datetime.now(UTC)
    # Copies that were decided on too may have been too many to be shown since.
    withdrawn = [
        (pair, Decision("withdraw", visitor.caller.name, now, each.to_bank))
        for pair, each in ([] if decision is None else desk.decisions.made_with(visitor.tenant, decision))
        if desk.campaigns.find(visitor.tenant, pair[0]) is decided
    ]
    await _send(desk, parts, visitor, topic, withdrawn)
    context = await asyncio.to_thread(_context, desk, parts, visitor, campaign, "")
    if withdrawn:  # and nobody else took it back before
        context |= {"undone_id": decided.shown.image_id}
    return _answer(request, visitor, context)


@router.get("/campaigns")
def campaigns(request: Request, desk: TheDesk, visitor: TheVisitor) -> Response:
    """List the campaigns of a tenant."""
    listed = desk.campaigns.of_tenant(visitor.tenant)[:MAX_LISTED]
    rows = [(each, _decision(desk, each)) for each in listed]
    return render(request, "campaigns.html", visitor, page="campaigns", rows=rows, banks=_own_banks(desk, visitor))


def _decidable(desk: Desk, parts: Parts, visitor: Visitor, campaign_id: str) -> tuple[str, Campaign]:
    """The topic of feedback, and a campaign that the visitor may decide. Raises Refused."""
    visitor.caller.require("review")
    topic = parts.settings.kafka.feedback_topic
    if not topic:
        raise not_set_up("SEENIT_KAFKA_FEEDBACK_TOPIC")
    campaign = desk.campaigns.find(visitor.tenant, campaign_id)
    if campaign is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-campaign", "This campaign is not known any more.")
    return topic, campaign


async def _send(
    desk: Desk, parts: Parts, visitor: Visitor, topic: str, decisions: Sequence[tuple[Pair, Decision]]
) -> None:
    for pair, decision in decisions:
        message = feedback_message(topic, visitor.tenant, pair, decision)
        await parts.changes.ask(visitor.caller, "match.feedback", visitor.tenant, pair[0], message)
        desk.decisions.add(visitor.tenant, pair, decision)


def _answer(request: Request, visitor: Visitor, context: dict[str, Any]) -> Response:
    template = "_case.html" if "hx-request" in request.headers else "review.html"
    return render(request, template, visitor, page="review", **context)


def _context(desk: Desk, parts: Parts, visitor: Visitor, campaign_id: str, after: str) -> dict[str, Any]:
    """What the part with one campaign shows: the named one, or the next undecided one behind `after`."""
    decisions = [(each, _decision(desk, each)) for each in desk.campaigns.of_tenant(visitor.tenant)]
    undecided = [each for each, decision in decisions if decision is None]
    campaign = desk.campaigns.find(visitor.tenant, campaign_id) if campaign_id else None
    if campaign is None and undecided:
        ids = [each.id for each in undecided]
        campaign = undecided[(ids.index(after) + 1) % len(ids) if after in ids else 0]
    shown = None if campaign is None else _decision(desk, campaign)
    banks = _own_banks(desk, visitor)
    own = [(each.at, decided.id) for decided, each in decisions if each and each.by == visitor.caller.name]
    return {
        "campaign": campaign,
        "decision": shown,
        "decided": len(decisions) - len(undecided),
        "total": len(decisions),
        # The decision that is shown is taken back, or else the visitor's last one.
        "undoable": campaign.id if campaign and shown else max(own)[1] if own else None,
        "done": None,
        "undone_id": None,
        "banks": banks,
        "review_banks": [name for name, kind in banks.items() if kind != "allow"],
        "allow_banks": [name for name, kind in banks.items() if kind == "allow"],
        "bank": "",
        "allow_bank": "",
        "is_set_up": bool(parts.settings.kafka.feedback_topic),
        "has_banks": bool(parts.settings.kafka.banks_topic),
    }


def _decision(desk: Desk, campaign: Campaign) -> Decision | None:
    return desk.decisions.latest(campaign.tenant, campaign.pairs())


def _own_banks(desk: Desk, visitor: Visitor) -> dict[str, BankKind]:
    """The kind of each bank of the tenant's own: feedback fills no bank of all tenants."""
    own = (each for each in desk.banks.visible_to(visitor.tenant) if each.key.tenant is not None)
    return {each.key.bank: each.body.kind for each in own if each.body}
