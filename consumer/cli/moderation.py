"""Commands for moderators: `seenit campaigns` and `feedback`."""

import getpass
import sys
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Column, Table

from consumer.cli.common import kafka_settings, open_window
from consumer.cli.console import err, out, plain
from consumer.errors import Misconfigured
from consumer.events import MatchFeedback
from consumer.kafka.clients import EventsProducer
from consumer.moderation.campaigns import newest_campaigns

_TIME = "%Y-%m-%d %H:%M:%S"


def campaigns(
    tenant: Annotated[str, typer.Option(help="Whose campaigns.")] = "default",
    top: Annotated[int, typer.Option(min=1, max=1000, help="So many of them, at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the campaigns of a tenant: what is uploaded again and again, the fastest first.

    A campaign has the name of its first picture. Looked at are the 1,000 with the newest uploads.
    """
    with open_window() as window:
        known = newest_campaigns(window, [tenant])
    listed = known[:top]
    if len(known) > top:
        err.print(f"the first {top} of {len(known)}; more of them: --top {len(known)}", highlight=False)
    if as_json:
        for each in listed:
            sys.stdout.write(each.campaign.model_dump_json() + "\n")
        return
    # Names often differ only at their end: they are folded, not cut.
    name = Column("campaign", overflow="fold", min_width=24)
    table = Table(name, "uploads", "last hour", "first seen (UTC)", "last seen (UTC)")
    for each in listed:
        campaign = each.campaign
        rate = f"[red]{campaign.uploads_per_hour}, a flood[/]" if each.in_flood else str(campaign.uploads_per_hour)
        times = (f"{time:{_TIME}}" for time in (campaign.first_seen, campaign.last_seen))
        table.add_row(plain(campaign.id), str(campaign.size), rate, *times)
    out.print(table if listed else f"tenant {plain(tenant)} has no campaigns")


def feedback(
    image_id: Annotated[str, typer.Argument(metavar="IMAGE", help="The duplicate's image id.")] = "",
    match_id: Annotated[str, typer.Argument(metavar="MATCH", help="The image id of its match.")] = "",
    verdict_id: Annotated[
        str, typer.Option("--verdict", help="Instead of both: the id of the verdict's event (`ce_id`).")
    ] = "",
    reject: Annotated[bool | None, typer.Option("--reject/--confirm", help="The match is wrong, or right.")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back what was decided about the match.")] = False,
    by: Annotated[str, typer.Option(help="Who decided; your user name, unless given.")] = "",
    note: Annotated[str, typer.Option(help="Why, in your own words.")] = "",
    to_bank: Annotated[
        str, typer.Option(help="Put a confirmed picture into this bank; --withdraw takes it out again.")
    ] = "",
    tenant: Annotated[str, typer.Option(help="Tenant the pictures belong to.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was sent as one JSON object.")] = False,
) -> None:
    """Send what you decided about a match: a rejected pair is not matched again.

    Nor are exact copies of the two with each other. The latest decision about a pair counts. What cannot be used, such
    as feedback on pictures that nobody knows any more, is found among the dead letters.
    """
    settings = kafka_settings()
    if not settings.feedback_topic:
        raise Misconfigured("SEENIT_KAFKA_FEEDBACK_TOPIC names no topic: set it here and for the service")
    if (reject is None) is not withdraw:
        raise Misconfigured("say whether the match is right: --confirm or --reject, or else --withdraw")
    try:
        event = MatchFeedback(
            image_id=image_id or None,
            match_id=match_id or None,
            verdict_id=verdict_id or None,
            tenant=tenant,
            decision="withdraw" if withdraw else "reject" if reject else "confirm",
            by=by or getpass.getuser(),
            note=note or None,
            to_bank=to_bank or None,
        )
    except ValidationError as error:
        raise Misconfigured("; ".join(each["msg"] for each in error.errors())) from None
    producer = EventsProducer(settings, settings.feedback_topic)
    producer.send(event)
    producer.flush()
    if as_json:
        sys.stdout.write(event.model_dump_json(exclude_none=True) + "\n")
    else:
        named = f"{image_id} = {match_id}" if image_id else f"verdict {verdict_id}"
        out.print(f"sent: {event.decision} {plain(named)}", highlight=False)
