"""The pages Review and Campaigns: one decision for all uploads that show the same picture.

Campaigns are sorted in other threads than that of the event loop: there may be thousands.
"""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from consumer.events import NAME_LENGTH
from consumer.http.changes import not_set_up
from consumer.http.page.campaigns import Campaign
from consumer.http.page.decisions import Decision, feedback_message
from consumer.http.page.desk import Desk, TheDesk, TheVisitor, check_form
from consumer.http.page.rendering import render
from consumer.http.page.sessions import Visitor
from consumer.http.parts import Parts, ThePart
from consumer.http.problems import Refused

router = APIRouter(include_in_schema=False)

MAX_LISTED = 200
Choice = Literal["confirm", "reject", "bank", "allow"]
CampaignId = Annotated[str, Query(max_length=NAME_LENGTH)]
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
    campaign: Annotated[str, Form(max_length=NAME_LENGTH)],
    choice: Annotated[Choice, Form()],
    bank: BankName = "",
    allow_bank: BankName = "",
    note: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Decide a campaign, and show the next one."""
    visitor.caller.require("review")
    topic = parts.settings.kafka.feedback_topic
    if not topic:
        raise not_set_up("SEENIT_KAFKA_FEEDBACK_TOPIC")
    decided = desk.campaigns.find(visitor.tenant, campaign)
    if decided is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-campaign", "This campaign is not known any more.")
    to_bank = {"bank": bank, "allow": allow_bank}.get(choice)
    if to_bank is not None and to_bank not in _banks(desk, visitor, allow=choice == "allow"):
        raise Refused(HTTPStatus.NOT_FOUND, "unknown-bank", "There is no such bank any more; load the page again.")
    decision = Decision(
        "reject" if choice == "reject" else "confirm", visitor.caller.name, datetime.now(UTC), to_bank, note or None
    )
    for number, pair in enumerate(decided.pairs()):
        # One picture of a campaign is enough for a bank.
        each = decision if number == 0 else decision._replace(to_bank=None)
        message = feedback_message(topic, visitor.tenant, pair, each)
        await parts.changes.ask(visitor.caller, "match.feedback", visitor.tenant, pair[0], message)
        desk.decisions.add(visitor.tenant, pair, each)
    context = await asyncio.to_thread(_context, desk, parts, visitor, "", campaign)
    context |= {"done": decision, "done_id": decided.shown.image_id, "bank": bank, "allow_bank": allow_bank}
    template = "_case.html" if "hx-request" in request.headers else "review.html"
    return render(request, template, visitor, page="review", **context)


@router.get("/campaigns")
def campaigns(request: Request, desk: TheDesk, visitor: TheVisitor) -> Response:
    """List the campaigns of a tenant."""
    listed = desk.campaigns.of_tenant(visitor.tenant)[:MAX_LISTED]
    rows = [(each, _decision(desk, each)) for each in listed]
    return render(request, "campaigns.html", visitor, page="campaigns", rows=rows)


def _context(desk: Desk, parts: Parts, visitor: Visitor, campaign_id: str, after: str) -> dict[str, Any]:
    """What the part with one campaign shows: the named one, or the next undecided one behind `after`."""
    decisions = [(each, _decision(desk, each)) for each in desk.campaigns.of_tenant(visitor.tenant)]
    undecided = [each for each, decision in decisions if decision is None]
    campaign = desk.campaigns.find(visitor.tenant, campaign_id) if campaign_id else None
    if campaign is None and undecided:
        ids = [each.id for each in undecided]
        campaign = undecided[(ids.index(after) + 1) % len(ids) if after in ids else 0]
    shown = None if campaign is None else _decision(desk, campaign)
    # What the visitor decided before the decision that is shown, or else last.
    earlier = [
        (each.at, decided.id)
        for decided, each in decisions
        if each is not None and each.by == visitor.caller.name and (shown is None or each.at < shown.at)
    ]
    return {
        "campaign": campaign,
        "decision": shown,
        "left": len(undecided),
        "previous": max(earlier)[1] if earlier else None,
        "done": None,
        "review_banks": _banks(desk, visitor, allow=False),
        "allow_banks": _banks(desk, visitor, allow=True),
        "bank": "",
        "allow_bank": "",
        "is_set_up": bool(parts.settings.kafka.feedback_topic),
    }


def _decision(desk: Desk, campaign: Campaign) -> Decision | None:
    return desk.decisions.latest(campaign.tenant, campaign.pairs())


def _banks(desk: Desk, visitor: Visitor, *, allow: bool) -> list[str]:
    """The tenant's own banks of allowed pictures, or those of others: feedback is a tenant's."""
    own = [each for each in desk.banks.visible_to(visitor.tenant) if each.key.tenant is not None]
    return [each.key.bank for each in own if each.body and (each.body.kind == "allow") == allow]
