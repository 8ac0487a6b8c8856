"""What is changed over HTTP: events to the topics, each told to the audit topic before."""

import asyncio
import json
import logging
import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import NamedTuple

from pydantic import AwareDatetime

from consumer.events import Body
from consumer.http.problems import Refused
from consumer.http.scopes import Caller
from consumer.kafka.messages import OutgoingMessage, binary_message
from consumer.kafka.sender import Sender, Sent
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

SOURCE = "/seenit/http"


class AuditedChange(Body):
    """Data of `audit.change`: who asked for which change. The event that makes it, `event_id`, follows.

    `action` is the type of that event, or `bank.deleted`, `entry.deleted`; `subject` what it is about: an image, a
    bank, an entry of one. `tenant` is null for what holds for all.
    """

    action: str
    tenant: str | None
    subject: str
    by: str
    event_id: str
    at: AwareDatetime


class Asked(NamedTuple):
    """The id of an event that asks for a change, and where it stands on its topic."""

    id: str
    sent: Sent


class Changes:
    """Asks for changes, by events."""

    def __init__(self, settings: KafkaSettings, sender: Sender) -> None:
        self._audit_topic = settings.audit_topic
        self._sender = sender

    async def ask(
        self, caller: Caller, action: str, tenant: str | None, subject: str, message: OutgoingMessage
    ) -> Asked:
        """Send the message that changes something, after the audit topic has it.

        Raises Refused where nothing can be changed, Unavailable, or Unprocessable for a message that is too large.
        """
        if not self._audit_topic:
            raise not_set_up("SEENIT_KAFKA_AUDIT_TOPIC")
        event_id = next((value.decode() for name, value in message.headers if name == "ce_id" and value), "")
        event_id = event_id or str(uuid.uuid4())
        change = AuditedChange(
            action=action, tenant=tenant, subject=subject, by=caller.name, event_id=event_id, at=datetime.now(UTC)
        )
        await asyncio.wrap_future(self._sender.send(self._audit_message(change)))
        sent = await asyncio.wrap_future(self._sender.send(message))
        log.info("%s", action, extra={"tenant": tenant, "subject": subject, "by": caller.name, "event": event_id})
        return Asked(event_id, sent)

    def _audit_message(self, change: AuditedChange) -> OutgoingMessage:
        attributes = {"id": str(uuid.uuid4()), "source": SOURCE, "type": "audit.change", "time": change.at}
        return binary_message(self._audit_topic, json.dumps(change.tenant), attributes, change.model_dump_json())


def not_set_up(setting: str) -> Refused:
    """Make the refusal of what the operator has not set up."""
    return Refused(HTTPStatus.NOT_IMPLEMENTED, "not-set-up", f"The operator has not set {setting}.")
