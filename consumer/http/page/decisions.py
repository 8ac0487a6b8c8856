"""What people decided about matches: the latest decision about each pair counts."""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from consumer.events import DEFAULT_TENANT, Body
from consumer.kafka.messages import OutgoingMessage, event_message

MAX_DECISIONS = 50_000


class Decision(NamedTuple):
    """A decision, who made it and when; `to_bank` is the bank that the picture goes into."""

    decision: Literal["confirm", "reject"]
    by: str
    at: datetime
    to_bank: str | None = None
    note: str | None = None


class DecisionLog:
    """Decisions by pair. Thread-safe."""

    def __init__(self) -> None:
        self._decisions: OrderedDict[tuple[str, frozenset[str]], Decision] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, tenant: str, pair: Iterable[str], decision: Decision) -> None:
        """Keep a decision about a pair of image ids, in place of an earlier one."""
        key = tenant, frozenset(pair)
        with self._lock:
            known = self._decisions.get(key)
            if known is None or known.at <= decision.at:
                self._decisions[key] = decision
            self._decisions.move_to_end(key)
            if len(self._decisions) > MAX_DECISIONS:
                self._decisions.popitem(last=False)

    def apply(self, _: bytes, data: dict[str, Any] | None, time: datetime) -> None:
        """Take in a message of the topic `image-feedback`; one that names no pair of pictures is left out."""
        try:
            feedback = MatchFeedback.model_validate(data)
        except ValidationError:
            return
        decision = Decision(feedback.decision, feedback.by, time, feedback.to_bank, feedback.note)
        self.add(feedback.tenant, (feedback.image_id, feedback.match_id), decision)

    def latest(self, tenant: str, pairs: Iterable[Iterable[str]]) -> Decision | None:
        """The latest decision about any of these pairs."""
        with self._lock:
            found = [self._decisions.get((tenant, frozenset(pair))) for pair in pairs]
        return max((each for each in found if each is not None), key=lambda each: each.at, default=None)


class MatchFeedback(Body):
    """Data of `match.feedback`: what a person decided about a match."""

    image_id: str
    match_id: str
    tenant: str = DEFAULT_TENANT
    decision: Literal["confirm", "reject"]
    by: str
    note: str | None = None
    to_bank: str | None = None


def feedback_message(topic: str, tenant: str, pair: tuple[str, str], decision: Decision) -> OutgoingMessage:
    """Make the message that tells a decision about an upload and its match."""
    image_id, match_id = pair
    feedback = MatchFeedback(
        image_id=image_id,
        match_id=match_id,
        tenant=tenant,
        decision=decision.decision,
        by=decision.by,
        note=decision.note,
        to_bank=decision.to_bank,
    )
    return event_message(topic, "match.feedback", str(uuid.uuid4()), image_id, decision.at, feedback)
