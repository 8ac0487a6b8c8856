"""Kafka messages as the service reads and writes them."""

from collections.abc import Callable
from dataclasses import dataclass

from cloudevents.core.bindings.kafka import KafkaMessage, to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import KafkaError, Message, Producer

from consumer.events import Event, Record, Verdict

Headers = tuple[tuple[str, bytes | None], ...]

SOURCE = "/seenit"
_JSON = JSONFormat()
# How long the client may work off its queue before a message that found it full is offered again.
_FULL_QUEUE_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to publish; one that `may_shrink` goes without its value if its topic does not take one so large, and
    without the headers it came with if that is not enough."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    may_shrink: bool = False

    def shrunk(self) -> "OutgoingMessage":
        """Without the value, of which a header tells how large it was; once that is gone, without foreign headers."""
        if self.value is None:
            own = tuple(header for header in self.headers if header[0].startswith("seenit-"))
            return OutgoingMessage(self.topic, None, None, own)
        size = ("seenit-omitted-bytes", str(len(self.value)).encode())
        return OutgoingMessage(self.topic, self.key, None, (*self.headers, size), may_shrink=True)

    @property
    def size_bytes(self) -> int:
        """About what it takes on the wire."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


def to_record(message: Message) -> Record:
    """The record of the input topic that a message is. What is wrong with its headers becomes a header of its own."""
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
    """Read the headers; None when a name among them is not UTF-8, on which the client fails."""
    try:
        return tuple(message.headers() or ())  # type: ignore[arg-type]
    except (SystemError, UnicodeDecodeError):
        return None


def verdict_message(verdict: Verdict, event: Event) -> KafkaMessage:
    """The verdict on an event as key, value and headers of a binary-mode CloudEvent."""
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


def produce(
    producer: Producer,
    topic: str,
    value: bytes | None,
    key: bytes | str | None,
    headers: Headers,
    on_delivery: Callable[[KafkaError | None, Message], None],
) -> None:
    """Hand a message to the client; wait while its queue is full. Raises KafkaException for what it does not take."""
    while True:
        try:
            producer.produce(topic, value, key, headers=list(headers), on_delivery=on_delivery)
            return
        except BufferError:
            producer.poll(_FULL_QUEUE_WAIT_S)
