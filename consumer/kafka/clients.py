"""Clients at the other ends of the topics, for tools: one sends uploads, one follows verdicts."""

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from pydantic import ValidationError

from consumer.errors import Unavailable
from consumer.events import ImageDeleted, ImageUpload, MatchFeedback, Record
from consumer.kafka.config import MAX_MESSAGE_BYTES, client_options
from consumer.kafka.messages import (
    RECORD_HEADER,
    OutgoingMessage,
    RecordAddress,
    incoming_message,
    produce,
    read_headers,
    to_record,
)
from consumer.settings import KafkaSettings
from consumer.verdicts import Verdict

log = logging.getLogger(__name__)

# Limit of one exchange with the brokers.
SEND_TIMEOUT_S = 15.0
# And of reading one message, for which somebody waits.
READ_TIMEOUT_S = 5.0


class MessageProducer:
    """Sends messages to their topics."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._producer = Producer({**client_options(settings), "message.max.bytes": MAX_MESSAGE_BYTES})
        self._failures: list[KafkaError] = []

    def send(self, message: OutgoingMessage) -> None:
        """Queue one message; `flush` waits until the brokers have it."""
        try:
            produce(self._producer, message.topic, message.value, message.key, message.headers, self._delivered)
        except KafkaException as error:  # larger than any broker takes
            self._failures.append(error.args[0])
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all events are on the topic. Raises Unavailable when they are not within SEND_TIMEOUT_S."""
        unsent = self._producer.flush(SEND_TIMEOUT_S)
        if self._failures:
            raise Unavailable("kafka", f"{len(self._failures)} events were refused: {self._failures[0].str()}")
        if unsent:
            raise Unavailable("kafka", f"{unsent} events were not taken within {SEND_TIMEOUT_S:.0f} s")

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failures.append(error)


class EventsProducer:
    """Sends upload and deletion events to the input topic, or feedback to its own: to the `topic`, if one is given."""

    def __init__(self, settings: KafkaSettings, topic: str = "") -> None:
        self._topic = topic or settings.input_topic
        self._messages = MessageProducer(settings)

    def send(self, event: ImageUpload | ImageDeleted | MatchFeedback) -> None:
        """Queue one event; `flush` waits until the brokers have it."""
        self._messages.send(incoming_message(self._topic, event, "/seenit/upload"))

    def flush(self) -> None:
        """Wait until all events are on the topic. Raises Unavailable when they are not within SEND_TIMEOUT_S."""
        self._messages.flush()


@dataclass(frozen=True, slots=True)
class PublishedVerdict:
    """A verdict on the output topic: parsed and as bytes, the id of its event, and when it was published.

    `source` is the message of the upload that it answers.
    """

    verdict: Verdict
    value: bytes
    id: str
    timestamp_ms: int
    source: RecordAddress | None = None


class VerdictsReader:
    """Follows the output topic from its end, or from its beginning, without being a member of any group.

    With `last` it begins about so many verdicts before the end of each partition. Messages that are no verdicts are
    left out.

    Raises Unavailable when the brokers do not answer or there is no such topic.
    """

    def __init__(self, settings: KafkaSettings, *, from_beginning: bool = False, last: int = 0) -> None:
        self._consumer = Consumer(
            {
                **client_options(settings),
                # A name is required, but nothing is ever committed under it.
                "group.id": f"seenit-watch-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        try:
            topic = self._consumer.list_topics(settings.output_topic, timeout=SEND_TIMEOUT_S).topics[
                settings.output_topic
            ]
            if topic.error is not None:
                raise Unavailable("kafka", f"topic {settings.output_topic!r}: {topic.error.str()}")
            positions = [TopicPartition(settings.output_topic, partition) for partition in topic.partitions]
            # The end is fixed now: verdicts published after this line are read, however long the first poll takes.
            for position in positions:
                low, high = self._consumer.get_watermark_offsets(position, timeout=SEND_TIMEOUT_S)
                position.offset = low if from_beginning else max(low, high - last)
            self._consumer.assign(positions)
        except KafkaException as error:
            raise Unavailable("kafka", f"{settings.bootstrap_servers}: {error.args[0].str()}") from None

    def poll(self, wait_s: float) -> Iterator[PublishedVerdict]:
        """Read the verdicts that arrive within `wait_s`."""
        messages = self._consumer.consume(1, wait_s)
        if messages:
            messages += self._consumer.consume(500, 0)
        for message in messages:
            value = message.value()
            if message.error() is None and value is not None:
                try:
                    verdict = Verdict.model_validate_json(value)
                except ValidationError:
                    log.warning("partition %s has no verdict at offset %s", message.partition(), message.offset())
                    continue
                headers = dict(read_headers(message) or ())
                event_id = (headers.get("ce_id") or b"").decode("utf-8", "replace")
                source = RecordAddress.parse(headers.get(RECORD_HEADER) or b"")
                yield PublishedVerdict(verdict, value, event_id, message.timestamp()[1], source)

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()


class RecordReader:
    """Reads single messages of the input topic again. For one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.input_topic
        self._consumer = Consumer(
            {
                **client_options(settings),
                "group.id": f"seenit-look-{uuid.uuid4()}",  # required; nothing is ever committed under it
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 10,
            }
        )

    def read(self, address: RecordAddress) -> Record | None:
        """Read a message; None if it is of another topic, or not there any more. Raises Unavailable."""
        if address.topic != self._topic:
            return None
        try:
            self._consumer.assign([TopicPartition(*address)])
            [*messages] = self._consumer.consume(1, READ_TIMEOUT_S)
        except KafkaException as error:
            raise Unavailable("kafka", error.args[0].str()) from None
        if not messages:
            raise Unavailable("kafka", f"topic {self._topic!r}: no answer within {READ_TIMEOUT_S:.0f} s")
        message = messages[0]
        return None if message.error() is not None or message.offset() != address.offset else to_record(message)

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()
