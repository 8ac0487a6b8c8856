"""What people decided about matches: the latest decision about each pair counts, if it was not withdrawn."""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from consumer.errors import Unprocessable
from consumer.events import FeedbackDecision, MatchFeedback, Record
from consumer.http.bodies import valid
from consumer.kafka.messages import OutgoingMessage, event_message
from consumer.moderation.feedback import EVENT_TYPE, receive

MAX_DECISIONS = 50_000

Pair = tuple[str, str]  # the image ids of an upload and its match


class Decision(NamedTuple):
    """A decision, who made it and when; `to_bank` is the bank that the picture goes into, or is taken out of."""

    decision: FeedbackDecision
    by: str
    at: datetime
    to_bank: str | None = None
    note: str | None = None

    @property
    def stands(self) -> bool:
        """Whether it is a decision, and not the taking back of one."""
        return self.decision != "withdraw"


class DecisionLog:
    """Decisions by pair. Thread-safe."""

    def __init__(self) -> None:
        self._decisions: OrderedDict[tuple[str, frozenset[str]], tuple[Pair, Decision]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, tenant: str, pair: Pair, decision: Decision) -> None:
        """Keep a decision about a pair of image ids, in place of an earlier one."""
        key = tenant, frozenset(pair)
        with self._lock:
            known = self._decisions.get(key)
            if known is None or known[1].at <= decision.at:
                self._decisions[key] = pair, decision
            self._decisions.move_to_end(key)
            if len(self._decisions) > MAX_DECISIONS:
                self._decisions.popitem(last=False)

    def apply(self, record: Record) -> None:
        """Take in a message of the topic `image-feedback`; one that names no pair of pictures is left out."""
        _, feedback, time = receive(record)
        if isinstance(feedback, Unprocessable) or feedback.image_id is None or feedback.match_id is None:
            return
        decision = Decision(feedback.decision, feedback.by, time, feedback.to_bank, feedback.note)
        self.add(feedback.tenant, (feedback.image_id, feedback.match_id), decision)

    def about(self, tenant: str, pairs: Iterable[Pair]) -> list[Decision | None]:
        """The latest decision about each of these pairs, taken back or not."""
        with self._lock:
            found = [self._decisions.get((tenant, frozenset(pair))) for pair in pairs]
        return [None if each is None else each[1] for each in found]

    def made_with(self, tenant: str, decision: Decision) -> list[tuple[Pair, Decision]]:
        """All that a person decided at the same moment as this, and that still stands."""
        with self._lock:
            known = [each for (whose, _), each in self._decisions.items() if whose == tenant]
        return [
            (pair, each) for pair, each in known if (each.by, each.at) == (decision.by, decision.at) and each.stands
        ]


def feedback_message(topic: str, tenant: str, pair: Pair, decision: Decision) -> OutgoingMessage:
    """Make the message that tells a decision about an upload and its match. Raises Refused."""
    image_id, match_id = pair
    feedback = valid(
        MatchFeedback,
        image_id=image_id,
        match_id=match_id,
        tenant=tenant,
        decision=decision.decision,
        by=decision.by,
        note=decision.note,
        to_bank=decision.to_bank,
    )
    return event_message(topic, EVENT_TYPE, str(uuid.uuid4()), image_id, decision.at, feedback)
