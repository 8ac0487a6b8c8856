"""Takes in what people decide about matches.

    image-feedback ─> parse ─> look both pictures up ─> image-decisions, image-banks or a dead letter ─> commit

Members of a group of its own share the feedback topic, and each batch is one transaction, as with uploads. A picture
that is deleted while a decision about it is on its way takes the decision with it: whoever deletes the picture reads
the decisions to their end after it, and whoever publishes one looks once more, before the commit, whether the picture
is still there.
"""

import json
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, NamedTuple

from confluent_kafka import TopicPartition

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable, Unprocessable
from consumer.events import MatchFeedback, Record, decode_base64
from consumer.json_values import cut, parse_json
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.dead_letters import dead_letter
from consumer.kafka.leases import Leased
from consumer.kafka.member_loop import MemberLoop
from consumer.kafka.messages import OutgoingMessage, event_message
from consumer.kafka.publisher import Publisher
from consumer.moderation.banks import BANK_ENTRY, NOTE_LENGTH, BankEntry, EntryKey, encode_key, removal_message
from consumer.moderation.decisions import Decision, decision_key, decision_message, withdrawal_message
from consumer.moderation.pictures import KnownPictures, Pair, for_bank
from consumer.notifications import to_time
from consumer.parse import identity_of, refusal
from consumer.settings import KafkaSettings
from consumer.verdicts import Model
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

EVENT_TYPE = "match.feedback"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "seenit:match.feedback")
_BATCH, _POLL_S = 100, 0.5


class Received(NamedTuple):
    """Feedback as it came in, or why it cannot be taken."""

    record: Record
    feedback: MatchFeedback | Unprocessable
    time: datetime


class FeedbackWorker:
    """Reads the feedback topic as a member of a group, until `run` is told to stop."""

    def __init__(
        self,
        settings: KafkaSettings,
        window: RedisWindow,
        model: ModelInfo,
        count: Callable[[str], None],
        is_for_all: Callable[[str, str], bool],
    ) -> None:
        """`count` is called with confirm, reject, withdraw or refused for each event that was answered.

        `is_for_all` tells whether what a tenant knows by a name is a bank of all tenants.
        """
        self._settings = settings
        self._pictures = KnownPictures(window)
        self._model = Model(name=model.name, version=model.version)
        self._count = count
        self._is_for_all = is_for_all
        self._loop = MemberLoop("feedback waits")

    @property
    def problem(self) -> str:
        """Why feedback waits, in words for an operator; "" while it does not."""
        return self._loop.problem

    def run(self, stop: threading.Event) -> None:
        """Take in feedback. Raises Misconfigured when the brokers refuse this member for good."""
        group = f"{self._settings.group_id}-feedback"
        own = self._settings.model_copy(update={"input_topic": self._settings.feedback_topic, "group_id": group})
        with ExitStack() as stack:
            # Nothing is in flight while the client is polled, which is when partitions are taken away.
            consumer = UploadsConsumer(own, lambda: None)
            stack.callback(consumer.close)
            publisher = Publisher(own, consumer)
            stack.callback(publisher.close)
            leased: list[Leased] = []

            def step() -> None:
                nonlocal leased
                publisher.prepare()
                leased = leased or consumer.poll(_BATCH, _POLL_S, 0.0)
                if leased:
                    self._take_in(leased, consumer, publisher)
                leased = []

            self._loop.run(step, consumer, stop)

    def _take_in(self, leased: Sequence[Leased], consumer: UploadsConsumer, publisher: Publisher) -> None:
        """Publish what follows from these records and commit them, where their partitions are still held."""
        with consumer.commit_lock:
            received = [receive(record) for record, lease in leased if consumer.holds(lease)]
            if not received:
                return
            valid = [each.feedback for each in received if isinstance(each.feedback, MatchFeedback)]
            pairs = self._pictures.look_up(valid)

            def check() -> None:
                if [pair[:2] for pair in self._pictures.look_up(valid)] != [pair[:2] for pair in pairs]:
                    raise Unavailable("redis", "a picture changed while feedback on it was taken in")

            answers = iter(pairs)
            messages: list[OutgoingMessage] = []
            counted = []
            for each in received:
                pair = next(answers) if isinstance(each.feedback, MatchFeedback) else None
                outcome, its_messages = self._answer(each, pair)
                counted.append(outcome)
                messages += its_messages
            offsets = {each.record.partition: each.record.offset + 1 for each in received}
            topic = self._settings.feedback_topic
            publisher.publish(messages, [TopicPartition(topic, *position) for position in offsets.items()], check)
        for outcome in counted:
            self._count(outcome)

    def _answer(self, received: Received, pair: Pair | None) -> tuple[str, list[OutgoingMessage]]:
        """What is counted and published for one piece of feedback."""
        feedback, problem = received.feedback, None if pair is None else pair.problem
        if isinstance(feedback, MatchFeedback) and pair is not None and problem is None:
            if feedback.decision == "withdraw":
                return feedback.decision, self._withdrawal(feedback, pair)
            decision = self._decision(feedback, pair, received.time)
            messages = [decision_message(self._settings.decisions_topic, decision)]
            try:
                if feedback.to_bank is not None:
                    messages.append(self._bank_entry(feedback, pair, received.time))
                return feedback.decision, messages
            except Unprocessable as error:
                problem = error
        refused = feedback if isinstance(feedback, Unprocessable) else problem
        assert refused is not None  # noqa: S101 (narrows the type)
        name = "" if isinstance(feedback, Unprocessable) else feedback.image_id or feedback.verdict_id or ""
        log.info("feedback refused: %s", refused, extra={"image_id": name, "reason": refused.reason})
        letters = [dead_letter(received.record, refused, name, self._settings.dead_letter_topic)]
        if pair is not None and pair.is_deleted and isinstance(feedback, MatchFeedback):
            # Outside of transactions the decision may have been published before the picture was deleted.
            letters.append(self._undecided(feedback, pair))
        return "refused", letters

    def _decision(self, feedback: MatchFeedback, pair: Pair, time: datetime) -> Decision:
        image, match, named = pair.image, pair.match, pair.named
        digests = (image.digest.hex(), match.digest.hex()) if image.digest and match.digest else (None, None)
        return Decision(
            tenant=feedback.tenant,
            image_id=image.image_id,
            match_id=match.image_id,
            image_digest=digests[0],
            match_digest=digests[1],
            decision="reject" if feedback.decision == "reject" else "confirm",
            by=feedback.by,
            note=feedback.note,
            decided_at=time,
            match_kind=None if named is None else named.kind,
            l2=None if named is None else named.l2,
            score=None if named is None else named.score,
            model=None if named is None else self._model,
        )

    def _withdrawal(self, feedback: MatchFeedback, pair: Pair) -> list[OutgoingMessage]:
        """What takes back a decision, and the entry that it made, whichever of the two pictures that was of."""
        entries = []
        if feedback.to_bank is not None and self._settings.banks_topic:
            keys = [_entry_key(feedback.tenant, feedback.to_bank, each.image_id) for each in (pair.image, pair.match)]
            entries = [removal_message(self._settings.banks_topic, key) for key in keys]
        return [self._undecided(feedback, pair), *entries]

    def _undecided(self, feedback: MatchFeedback, pair: Pair) -> OutgoingMessage:
        key = decision_key(feedback.tenant, pair.image.image_id, pair.match.image_id)
        return withdrawal_message(self._settings.decisions_topic, key)

    def _bank_entry(self, feedback: MatchFeedback, pair: Pair, time: datetime) -> OutgoingMessage:
        """The entry of a bank for a confirmed match."""
        if not self._settings.banks_topic:
            raise Unprocessable("malformed-event", "to_bank: this service has no banks (SEENIT_KAFKA_BANKS_TOPIC)")
        stored = for_bank(pair.image, pair.match)
        if stored is None:
            raise Unprocessable("unknown-picture", "to_bank: neither picture is in the window any more")
        bank, tenant = feedback.to_bank or "", feedback.tenant
        if self._is_for_all(tenant, bank):
            raise Unprocessable(
                "unknown-bank",
                f"to_bank: the bank {cut(bank, 80)!r} is for all tenants, and feedback is one tenant's: name a bank of "
                f"{cut(tenant, 80)!r}, or let who keeps that bank add the picture to it",
            )
        key = _entry_key(tenant, bank, stored.image_id)
        note = None if feedback.note is None else cut(feedback.note, NOTE_LENGTH - 1)
        entry = BankEntry(**key._asdict(), image_id=stored.image_id, note=note, source="feedback")
        return event_message(
            self._settings.banks_topic, BANK_ENTRY, entry.entry_id, encode_key(key).decode(), time, entry
        )


def _entry_key(tenant: str, bank: str, image_id: str) -> EntryKey:
    """Name the entry that feedback makes of a picture: the same one however often it is confirmed."""
    return EntryKey(tenant, bank, str(uuid.uuid5(_NAMESPACE, json.dumps([tenant, bank, image_id]))))


def receive(record: Record) -> Received:
    """Parse a record of the feedback topic; whatever is wrong with it is what it is answered with."""
    time = record.time
    try:
        attributes, data = _read(record)
        identity_of(attributes)
        if attributes.get("type") != EVENT_TYPE:
            raise Unprocessable("unknown-event", f"event type {str(attributes.get('type'))[:80]!r} is not {EVENT_TYPE}")
        # Nobody decides in the future: a deletion of the picture would leave the decision behind.
        time = min(to_time(attributes.get("time")) or time, datetime.now(UTC))
        return Received(record, MatchFeedback.model_validate(data), time)
    except Exception as error:
        return Received(record, refusal(error), time)


def _read(record: Record) -> tuple[dict[str, Any], Any]:
    """Attributes and data of a CloudEvent, binary or structured. Raises Unprocessable, or ValueError for base64."""
    headers = {name.lower(): value.decode("utf-8", "replace") for name, value in record.headers if value is not None}
    document = parse_json(record.value or b"")
    if "ce_type" in headers:
        return {name[3:]: text for name, text in headers.items() if name.startswith("ce_")}, document
    if not isinstance(document, dict):
        raise Unprocessable("malformed-event", f"a CloudEvent is wanted, not {type(document).__name__}")
    data = document.get("data")
    if data is None and isinstance(document.get("data_base64"), str):
        data = parse_json(decode_base64(document["data_base64"]))
    return {name: value for name, value in document.items() if value is not None}, data
