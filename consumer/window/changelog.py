"""The embeddings topic as a changelog of the window: a message for each record stored and each image deleted.

The key is the JSON list of tenant and image id, so that all messages about one picture stand in one partition, in
order. The value of an upsert is the vector, float16 little endian, or empty for a picture that matches only exactly. A
message without a value is a tombstone: all records of this image id at or before its position are deleted. That of an
object also deletes the records of its versions, whose messages may stand in other partitions. If it tells a time,
records of later uploads stay. The rest is in headers.

A record is published with the verdict on it, and before that with the first verdict that names it: see `originals`.
"""

import json
import time
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable
from consumer.kafka.config import client_options
from consumer.kafka.messages import OutgoingMessage, read_headers
from consumer.settings import KafkaSettings
from consumer.window.records import (
    Position,
    RecordContent,
    Source,
    StoredRecord,
    decode_name,
    decode_record,
    encode_name,
    encode_record,
)

# For one request to the brokers.
REQUEST_TIMEOUT_S = 15.0
# What the client buffers of a partition.
QUEUE_KIB = 16 << 10


class Upsert(NamedTuple):
    """A record was stored."""

    tenant: str
    stored: StoredRecord

    @property
    def position(self) -> Position:
        return self.stored.position


class Tombstone(NamedTuple):
    """All records of an image, and of its versions if it is an object, at or before a position were deleted.

    `source` is the partition, the offset and perhaps the time of the deletion's event, or "" where it had none. With a
    time only what was uploaded until then was deleted.
    """

    tenant: str
    image_id: bytes
    position: Position
    source: str


def upsert_message(topic: str, model: ModelInfo, tenant: str, stored: StoredRecord) -> OutgoingMessage:
    """Write the message about a record that is stored in the window."""
    name, digest, uploaded_us, vector = decode_record(stored.record)
    headers = _headers(model, tenant, name, stored.position)
    headers += (("digest", digest), ("uploaded-us", str(uploaded_us).encode()), ("patches", stored.patches))
    return OutgoingMessage(topic, _key(tenant, name), vector, headers)


def tombstone_message(
    topic: str, model: ModelInfo, tenant: str, image_id: str, position: Position, source: Source | None
) -> OutgoingMessage:
    """Write the tombstone of an image."""
    name = encode_name(image_id)
    event = b"" if source is None else str(source).encode()
    headers = (*_headers(model, tenant, name, position), ("source", event))
    return OutgoingMessage(topic, _key(tenant, name), None, headers)


def parse_change(model: ModelInfo, message: Message) -> Upsert | Tombstone | None:
    """Parse a message; None if it is about another model. Raises ValueError for one that this module did not write."""
    headers, value = dict(read_headers(message) or ()), message.value()
    try:
        if any(headers[name] != content for name, content in _model_headers(model)):
            return None
        present = {name: content for name, content in headers.items() if content is not None}
        tenant, name = decode_name(present["tenant"]), present["image-id"]
        position = Position.parse(present["position"])
        if value is None:
            return Tombstone(tenant, name, position, present["source"].decode("ascii"))
        if len(value) not in (0, 2 * model.dim):
            raise ValueError(f"{len(value)} bytes are no vector of {model.dim} numbers")
        record = encode_record(RecordContent(name, present["digest"], int(present["uploaded-us"]), value))
        return Upsert(tenant, StoredRecord(position, record, present["patches"]))
    except KeyError as missing:
        raise ValueError(f"the header {missing} is missing") from None
    except OverflowError as error:
        raise ValueError(f"a header does not fit: {error}") from None


class ChangelogReader:
    """Reads the changelog, from a time on, to where it ended when the reader was opened."""

    def __init__(self, settings: KafkaSettings, from_ms: int, batch_messages: int) -> None:
        """`read` yields up to `batch_messages` at once. Raises Unavailable when brokers or topic cannot be asked."""
        self._batch_messages = batch_messages
        self._topic = settings.embeddings_topic
        self._patience_s = settings.transaction_timeout_ms / 1000 + 2 * REQUEST_TIMEOUT_S
        options = {**client_options(settings), "group.id": settings.group_id, "enable.auto.commit": False}
        self._consumer = Consumer(
            {
                **options,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": QUEUE_KIB,
            }
        )
        # Transactions that are open now may commit messages that the recovery needs, so that their end is waited for.
        # Only a client that reads uncommitted messages is told where they begin and where a partition ends behind them.
        uncommitted = Consumer({**options, "isolation.level": "read_uncommitted"})
        try:
            ends = self._query_ends(uncommitted)
            times = [TopicPartition(self._topic, partition, from_ms) for partition in ends]
            starts = uncommitted.offsets_for_times(times, REQUEST_TIMEOUT_S)
            starts = [start for start in starts if 0 <= start.offset < ends[start.partition]]
            self._ends = {start.partition: ends[start.partition] for start in starts}  # of partitions still to be read
            self.messages = sum(self._ends[start.partition] - start.offset for start in starts)
            self._consumer.assign(starts)
        except KafkaException as error:
            raise Unavailable("kafka", f"topic {self._topic!r}: {error.args[0].str()}") from None
        finally:
            uncommitted.close()

    def _query_ends(self, consumer: Consumer) -> dict[int, int]:
        """Ask for the offset at which each partition ends. Raises KafkaException."""
        topic = consumer.list_topics(self._topic, REQUEST_TIMEOUT_S).topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(self._topic, partition), REQUEST_TIMEOUT_S)[1]
            for partition in topic.partitions
        }

    def read(self) -> Iterator[list[Message]]:
        """Read the messages, a batch at a time. Raises Unavailable when no more come though there should be some."""
        last_message_s = time.monotonic()
        while self._ends:
            messages = []
            for message in self._consumer.consume(self._batch_messages, 0.5):
                error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
                end = self._ends.get(partition, 0)
                if error is None and offset < end:
                    messages.append(message)
                elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if not error.retriable():
                        raise Unavailable("kafka", f"topic {self._topic!r}: {error.str()}")
                    continue
                # A partition ends with its last message, or, where a transaction's marker stands last, where the client
                # says so.
                if offset >= end - (error is None):
                    self._ends.pop(partition, None)
            if messages:
                last_message_s = time.monotonic()
                yield messages
            elif time.monotonic() - last_message_s > self._patience_s:
                raise Unavailable(
                    "kafka", f"topic {self._topic!r} cannot be read to its end: a transaction is left open"
                )

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()


def _model_headers(model: ModelInfo) -> tuple[tuple[str, bytes], ...]:
    """The headers of a model; vectors are only compared where these are equal."""
    return ("model", model.name.encode()), ("model-version", model.version.encode()), ("dim", str(model.dim).encode())


def _headers(model: ModelInfo, tenant: str, name: bytes, position: Position) -> tuple[tuple[str, bytes | None], ...]:
    """The headers that upserts and tombstones share."""
    own = (("tenant", encode_name(tenant)), ("image-id", name), ("position", str(position).encode()))
    return (*_model_headers(model), *own)


def _key(tenant: str, name: bytes) -> bytes:
    return json.dumps([tenant, decode_name(name)]).encode()
