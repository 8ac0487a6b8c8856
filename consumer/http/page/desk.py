"""What the pages work with, put together once for each process; and who visits."""

import hmac
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request

from consumer.http.access import ANYBODY
from consumer.http.page.activity import Activity
from consumer.http.page.bank_directory import BankDirectory
from consumer.http.page.campaigns import CampaignLog
from consumer.http.page.decisions import DecisionLog
from consumer.http.page.monitor import Monitor
from consumer.http.page.originals import Originals
from consumer.http.page.provider_sign_in import ProviderSignIn
from consumer.http.page.sessions import ID_COOKIE, SESSION_COOKIE, TOKEN_FIELD, TOKEN_HEADER, Sessions, Visitor
from consumer.http.parts import Parts, ThePart
from consumer.http.problems import Refused
from consumer.http.scopes import Caller
from consumer.kafka.topic_replica import TopicReplica
from consumer.verdicts import Verdict

MIN_ID_LENGTH = 32


class SignInNeeded(Exception):
    """Nobody is signed in, and the page is not for everybody."""


@dataclass(slots=True)
class Desk:
    """What the pages work with, beside the parts of the service."""

    sessions: Sessions
    provider_sign_in: ProviderSignIn | None
    activity: Activity
    campaigns: CampaignLog
    decisions: DecisionLog
    originals: Originals
    monitor: Monitor
    banks: BankDirectory
    replicas: dict[str, TopicReplica]  # by topic
    streams: int = 0  # visitors who are sent events
    is_closing: bool = False

    @classmethod
    def of(cls, parts: Parts) -> "Desk":
        """Put it together, and follow the verdicts."""
        serve = parts.settings.serve
        # Without a secret, sessions are known to this process alone.
        secret = serve.session_secret.get_secret_value().encode() or secrets.token_bytes(32)
        kafka, banks, decisions = parts.settings.kafka, BankDirectory(), DecisionLog()
        applied = (kafka.banks_topic, banks.apply), (kafka.feedback_topic, decisions.apply)
        replicas = {topic: TopicReplica(kafka, topic, apply) for topic, apply in applied if topic}
        known = Activity(), CampaignLog(), decisions, Originals(parts), Monitor(parts), banks, replicas
        sessions = Sessions(secret, parts.redis_command, parts.settings.redis.key_prefix)
        sign_in = ProviderSignIn(serve, parts.access, secret) if serve.oidc_client_id else None
        desk = cls(sessions, sign_in, *known)
        for replica in replicas.values():
            replica.start()
        parts.verdicts.listen(desk.follow)
        return desk

    def follow(self, verdict: Verdict) -> None:
        """Take in a verdict."""
        self.activity.add(verdict)
        self.campaigns.add(verdict)

    def end_streams(self) -> None:
        """Send no more events, so that the process can end."""
        self.is_closing = True

    def close(self) -> None:
        """Let go of the brokers."""
        for replica in self.replicas.values():
            replica.close()
        self.originals.close()
        self.monitor.close()


def desk_of(request: Request) -> Desk:
    """The desk of the application that answers a request."""
    desk: Desk = request.app.state.desk
    return desk


async def visit(request: Request, parts: ThePart, tenant: str | None = None) -> Visitor:
    """Tell who visits. Raises SignInNeeded, or Refused for a tenant that is not the visitor's or without `read`."""
    sessions = desk_of(request).sessions
    known_id, is_new = visitor_id(request)
    caller: Caller | None = ANYBODY
    if not parts.access.is_open:
        caller = await sessions.recognise(request.cookies.get(SESSION_COOKIE, ""), parts.access)
    if caller is None:
        raise SignInNeeded
    parts.access.count(caller)
    caller.require("read")
    visitor = Visitor(
        caller,
        caller.tenant(tenant or None),
        sessions.token(known_id),
        not parts.access.is_open,
        known_id if is_new else None,
    )
    known = desk_of(request).activity.tenants() | (caller.tenants or frozenset()) | {visitor.tenant}
    visitor.tenants = sorted(each for each in known if caller.tenants is None or each in caller.tenants)
    return visitor


def visitor_id(request: Request) -> tuple[str, bool]:
    """The random id of a visitor, and whether it is new."""
    known_id = request.cookies.get(ID_COOKIE, "")
    return (known_id, False) if len(known_id) >= MIN_ID_LENGTH else (secrets.token_urlsafe(MIN_ID_LENGTH), True)


async def check_form(request: Request) -> None:
    """Raise Refused for a request that changes something and was not sent by the visitor's own page."""
    known_id, is_new = visitor_id(request)
    sent = request.headers.get(TOKEN_HEADER) or str((await request.form()).get(TOKEN_FIELD, ""))
    expected = desk_of(request).sessions.token(known_id)
    site = request.headers.get("sec-fetch-site")
    if is_new or site not in {None, "same-origin"} or not hmac.compare_digest(sent.encode(), expected.encode()):
        raise Refused(
            HTTPStatus.FORBIDDEN, "no-token", "This was not sent by the page, or its session has ended: load it again."
        )


TheDesk = Annotated[Desk, Depends(desk_of)]
TheVisitor = Annotated[Visitor, Depends(visit)]
