"""`/v1/campaigns` and `/v1/feedback`: what is uploaded again and again, and what people decide about matches."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from consumer.events import MatchFeedback
from consumer.http.bodies import valid
from consumer.http.changes import SOURCE, not_set_up
from consumer.http.models import Accepted, CampaignAnswer, FeedbackBody
from consumer.http.parts import Reader, Reviewer, Tenant, ThePart
from consumer.kafka.messages import incoming_message
from consumer.moderation.campaigns import newest_campaigns

router = APIRouter(prefix="/v1", tags=["moderation"])


@router.get("/campaigns", operation_id="listCampaigns", summary="What is uploaded again and again")
async def list_campaigns(
    parts: ThePart,
    caller: Reader,
    tenant: Tenant = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Campaigns to answer, at most.")] = 100,
) -> list[CampaignAnswer]:
    """List the campaigns of a tenant with the newest uploads, the one with the most in the last hour first."""
    window = parts.ready().window
    listed = await asyncio.to_thread(newest_campaigns, window, [caller.tenant(tenant)])
    return [CampaignAnswer(**each.campaign.model_dump(), in_flood=each.in_flood) for each in listed[:limit]]


@router.post("/feedback", status_code=202, operation_id="giveFeedback", summary="Decide about a match")
async def give_feedback(body: FeedbackBody, parts: ThePart, caller: Reviewer, tenant: Tenant = None) -> Accepted:
    """Confirm or reject a match; a rejected pair is not matched again. Who decided is whose key it is."""
    topic = parts.settings.kafka.feedback_topic
    if not topic:
        raise not_set_up("SEENIT_KAFKA_FEEDBACK_TOPIC")
    whose = caller.tenant(tenant or body.tenant)
    feedback = valid(MatchFeedback, **{**body.model_dump(), "tenant": whose, "by": caller.name})
    subject = feedback.image_id or feedback.verdict_id or ""
    message = incoming_message(topic, feedback, SOURCE)
    asked = await parts.changes.ask(caller, "match.feedback", whose, subject, message)
    return Accepted(id=asked.id)
