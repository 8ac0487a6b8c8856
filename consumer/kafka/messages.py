"""Kafka messages that the service reads and writes."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from cloudevents.core.bindings.kafka import KafkaMessage, to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import KafkaError, Message, Producer
from pydantic import BaseModel

from consumer.events import Body, Event, ImageDeleted, ImageUpload, MatchFeedback, Record
from consumer.verdicts import Verdict

Headers = tuple[tuple[str, bytes | None], ...]

SOURCE = "/seenit"
_JSON = JSONFormat()
# Of a verdict, a CloudEvents extension attribute: the message that it answers, as `topic/partition/offset`.
RECORD_HEADER = "ce_record"
INCOMING_TYPES: dict[type[Body], str] = {
    ImageUpload: "image.uploaded",
    ImageDeleted: "image.deleted",
    MatchFeedback: "match.feedback",
}
# How long the client may empty its full queue before the message is offered to it again.
_FULL_QUEUE_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to publish.

    A message that `may_shrink` is published without its value if its topic does not take one so large. If that is not
    enough, its key and its headers are left out too, but for those that the service `added`.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    may_shrink: bool = False
    added: Headers = ()

    def shrink(self) -> "OutgoingMessage":
        """Make a smaller message: without the value, whose size becomes a header, or else without key and headers."""
        if self.value is None:
            return OutgoingMessage(self.topic, None, None, self.added)
        size = ("seenit-omitted-bytes", str(len(self.value)).encode())
        return OutgoingMessage(self.topic, self.key, None, (*self.headers, size), True, (*self.added, size))

    @property
    def size_bytes(self) -> int:
        """Approximate size on the wire."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


def to_record(message: Message) -> Record:
    """Make a record of a message of the input topic; headers that cannot be read are replaced by one that says so."""
    headers = read_headers(message)
    return Record(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        (("seenit-omitted-headers", b"a name is not UTF-8"),) if headers is None else headers,
        message.timestamp()[1],
    )


def read_headers(message: Message) -> Headers | None:
    """Read a message's headers; None when the name of one is not UTF-8, on which the client fails."""
    try:
        return tuple(message.headers() or ())  # type: ignore[arg-type]
    except (SystemError, UnicodeDecodeError):
        return None


class RecordAddress(NamedTuple):
    """Where a message stands."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: bytes) -> "RecordAddress | None":
        """Parse what `record_header` wrote; None for anything else."""
        match text.decode("utf-8", "replace").rsplit("/", 2):
            case [topic, partition, offset] if partition.isdecimal() and offset.isdecimal() and len(text) < 300:
                return cls(topic, int(partition), int(offset))
        return None


def record_header(record: Record) -> tuple[str, bytes]:
    """Make the header of a verdict that says which message it answers, so that its picture can be shown again."""
    return RECORD_HEADER, f"{record.topic}/{record.partition}/{record.offset}".encode()


def event_message(topic: str, kind: str, event_id: str, key: str, time: datetime, data: BaseModel) -> OutgoingMessage:
    """Write an event for a topic: a CloudEvent in binary mode, about what its key names."""
    attributes = {"id": event_id, "source": SOURCE, "type": kind, "subject": key, "time": time}
    return binary_message(topic, key, attributes, data.model_dump_json(exclude_none=True))


def binary_message(topic: str, key: str, attributes: Mapping[str, object], data: str) -> OutgoingMessage:
    """Write a CloudEvent in binary mode, whose data is JSON."""
    event = CloudEvent({**attributes, "datacontenttype": "application/json"}, data.encode())
    message = to_binary(event, _JSON)
    return OutgoingMessage(topic, key.encode(), message.value, tuple(message.headers.items()))


def verdict_message(verdict: Verdict, event: Event) -> KafkaMessage:
    """Make key, value and headers of the verdict on an event: a CloudEvent in binary mode."""
    return to_binary(
        CloudEvent(
            {
                "id": event.id,
                "source": SOURCE,
                "type": "image.verdict",
                "subject": verdict.image_id,
                "time": verdict.decided_at,
                "datacontenttype": "application/json",
            },
            verdict.model_dump_json().encode(),
        ),
        _JSON,
        key_mapper=lambda _: verdict.image_id.encode(),
    )


def incoming_message(topic: str, body: ImageUpload | ImageDeleted | MatchFeedback, source: str) -> OutgoingMessage:
    """Make a message for one of the topics that the service reads: a CloudEvent in binary mode, with a new id."""
    attributes = {
        "id": str(uuid.uuid4()),
        "source": source,
        "type": INCOMING_TYPES[type(body)],
        "time": datetime.now(UTC),
    }
    return binary_message(topic, body.image_id or "", attributes, body.model_dump_json(exclude_none=True))


def produce(
    producer: Producer,
    topic: str,
    value: bytes | None,
    key: bytes | str | None,
    headers: Headers,
    on_delivery: Callable[[KafkaError | None, Message], None],
) -> None:
    """Hand a message to the client; wait while its queue is full. Raises KafkaException when the client refuses it."""
    while True:
        try:
            producer.produce(topic, value, key, headers=list(headers), on_delivery=on_delivery)
            return
        except BufferError:
            producer.poll(_FULL_QUEUE_WAIT_S)
