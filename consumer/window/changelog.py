"""The embeddings topic: each row of the window as a message, and back.

The key is the JSON list of tenant and image id, so that all about one picture stands in one partition, in order. The
value is the vector, float16 little endian, or empty for a picture that matches only exactly; without a value the
message is a tombstone: all that was seen under this image id up to its `position` is deleted. The rest is in headers.
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

# Of one question to the brokers.
ASK_TIMEOUT_S = 15.0
# What the client holds of a partition beside what was taken from it.
QUEUE_KIB = 16 << 10


class Upsert(NamedTuple):
    """A row that was stored."""

    tenant: str
    row: StoredRecord


class Tombstone(NamedTuple):
    """All rows of an image at or before a position were deleted; `source` is the deletion's event, if it had one."""

    tenant: str
    image_id: bytes
    position: Position
    source: str


def upsert_message(topic: str, model: ModelInfo, tenant: str, row: StoredRecord) -> OutgoingMessage:
    """The message about a row that is stored in the window."""
    name, digest, uploaded_us, vector = decode_record(row.record)
    headers = _headers(model, tenant, name, row.position)
    headers += (("digest", digest), ("uploaded-us", str(uploaded_us).encode()), ("patches", row.patches))
    return OutgoingMessage(topic, _key(tenant, name), vector, headers)


def tombstone_message(
    topic: str, model: ModelInfo, tenant: str, image_id: str, position: Position, source: Source | None
) -> OutgoingMessage:
    """The tombstone of an image."""
    name = encode_name(image_id)
    event = b"" if source is None else b"%d %d" % source
    headers = (*_headers(model, tenant, name, position), ("source", event))
    return OutgoingMessage(topic, _key(tenant, name), None, headers)


def parse_change(model: ModelInfo, message: Message) -> Upsert | Tombstone | None:
    """What a message says; None if it is of another model. Raises ValueError for what this module did not write."""
    headers, value = dict(read_headers(message) or ()), message.value()
    try:
        if any(headers[name] != wanted for name, wanted in _model(model)):
            return None
        told = {name: content for name, content in headers.items() if content is not None}
        tenant, name = decode_name(told["tenant"]), told["image-id"]
        position = Position.parse(told["position"])
        if value is None:
            return Tombstone(tenant, name, position, told["source"].decode("ascii"))
        if len(value) not in (0, 2 * model.dim):
            raise ValueError(f"{len(value)} bytes are no vector of {model.dim} numbers")
        record = encode_record(RecordContent(name, told["digest"], int(told["uploaded-us"]), value))
        return Upsert(tenant, StoredRecord(position, record, told["patches"]))
    except KeyError as missing:
        raise ValueError(f"the header {missing} is missing") from None
    except OverflowError as error:
        raise ValueError(f"a header does not fit: {error}") from None


class ChangelogReader:
    """The embeddings topic, from a time on to where it ends now, `most` messages at a time."""

    def __init__(self, settings: KafkaSettings, from_ms: int, most: int) -> None:
        """Raises Unavailable when the brokers or the topic cannot be asked."""
        self._most = most
        self._name = settings.embeddings_topic
        self._patience_s = settings.transaction_timeout_ms / 1000 + 2 * ASK_TIMEOUT_S
        options = {**client_options(settings), "group.id": settings.group_id, "enable.auto.commit": False}
        self._consumer = Consumer(
            {
                **options,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": QUEUE_KIB,
            }
        )
        # Transactions that are open now may commit what this rebuild is about: their end is waited for.
        asker = Consumer({**options, "isolation.level": "read_uncommitted"})
        try:
            self._ends = self._find_ends(asker)
            wanted = [TopicPartition(self._name, partition, from_ms) for partition in self._ends]
            starts = self._consumer.offsets_for_times(wanted, ASK_TIMEOUT_S)
            starts = [at for at in starts if 0 <= at.offset < self._ends[at.partition]]
            self._ends = {at.partition: self._ends[at.partition] for at in starts}
            self.messages = sum(self._ends[at.partition] - at.offset for at in starts)
            self._consumer.assign(starts)
        except KafkaException as error:
            raise Unavailable("kafka", f"topic {self._name!r}: {error.args[0].str()}") from None
        finally:
            asker.close()

    def _find_ends(self, asker: Consumer) -> dict[int, int]:
        topic = asker.list_topics(self._name, ASK_TIMEOUT_S).topics[self._name]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return {
            partition: asker.get_watermark_offsets(TopicPartition(self._name, partition), ASK_TIMEOUT_S)[1]
            for partition in topic.partitions
        }

    def read(self) -> Iterator[list[Message]]:
        """The messages, some at a time. Raises Unavailable when no more come though there should be some."""
        heard_s = time.monotonic()
        while self._ends:
            messages = []
            for message in self._consumer.consume(self._most, 0.5):
                error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
                end = self._ends.get(partition, 0)
                if error is None and offset < end:
                    messages.append(message)
                elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if not error.retriable():
                        raise Unavailable("kafka", f"topic {self._name!r}: {error.str()}")
                    continue
                if offset >= end - (error is None):
                    self._ends.pop(partition, None)
            if messages:
                heard_s = time.monotonic()
                yield messages
            elif time.monotonic() - heard_s > self._patience_s:
                raise Unavailable(
                    "kafka", f"topic {self._name!r} cannot be read to its end: a transaction is left open"
                )

    def close(self) -> None:
        """Let go of the topic."""
        self._consumer.close()


def _model(model: ModelInfo) -> tuple[tuple[str, bytes], ...]:
    """What has to be equal for vectors to be compared."""
    return ("model", model.name.encode()), ("model-version", model.version.encode()), ("dim", str(model.dim).encode())


def _headers(model: ModelInfo, tenant: str, name: bytes, position: Position) -> tuple[tuple[str, bytes | None], ...]:
    own = (("tenant", encode_name(tenant)), ("image-id", name), ("position", str(position).encode()))
    return (*_model(model), *own)


def _key(tenant: str, name: bytes) -> bytes:
    return json.dumps([tenant, decode_name(name)]).encode()
