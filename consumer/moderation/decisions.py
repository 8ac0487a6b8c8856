"""What people decided about matches: a compacted topic, and this process's replica of it.

The topic has the latest decision about each pair of pictures, keyed by the JSON list of tenant and both image ids in
order; a message without a value deletes it. Its one partition puts all decisions in order. A decision holds for the
contents of both pictures where they were known when it was made, so for exact copies too, and else for their names.
"""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, Field, ValidationError

from consumer.events import Body, Record
from consumer.kafka.messages import OutgoingMessage
from consumer.kafka.topic_replica import TopicReplica
from consumer.settings import KafkaSettings
from consumer.verdicts import Model

log = logging.getLogger(__name__)

# A picture as decisions name it: the hash of its bytes, or its image id.
_Name = bytes | str
_Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]
_Edge = tuple[str, frozenset[_Name]]


class Decision(Body):
    """A decision as it is kept: whose match, what was decided, and the numbers that the match rested on.

    The digests, in hexadecimal, are None where they were not known. `match_kind`, `l2`, `score` and `model` are those
    of the verdict, where the pair was the one that it named.
    """

    tenant: str
    image_id: str
    match_id: str
    image_digest: _Hex | None = None
    match_digest: _Hex | None = None
    decision: Literal["confirm", "reject"]
    by: str
    note: str | None = None
    decided_at: AwareDatetime
    match_kind: str | None = None
    l2: float | None = None
    score: float | None = None
    model: Model | None = None

    @property
    def key(self) -> bytes:
        """The key of its message: the same for a pair, whichever of the two came first."""
        return decision_key(self.tenant, self.image_id, self.match_id)


class Partners(NamedTuple):
    """What an upload must not be matched with: image ids, and hashes of contents."""

    image_ids: frozenset[str] = frozenset()
    digests: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.image_ids or self.digests)

    def include(self, image_id: str, digest: bytes) -> bool:
        """Whether a picture is among them."""
        return image_id in self.image_ids or digest in self.digests


class _Known(NamedTuple):
    """What the replica keeps of a decision."""

    edge: _Edge
    rejected: bool
    decided_at: datetime
    images: tuple[tuple[str, str], tuple[str, str]]  # tenant and image id


class Decisions:
    """The decisions on a topic; all of them once `catch_up` has returned. Thread-safe.

    Takes some 2.5 KB of memory for each. Without a feedback topic there are none.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.decisions_topic
        self._lock = threading.Lock()
        self._known: dict[bytes, _Known] = {}  # by key; of one pair of contents the latest last
        self._keys_of_edge: dict[_Edge, dict[bytes, None]] = {}
        self._keys_of_image: dict[tuple[str, str], set[bytes]] = {}
        self._rejected: dict[tuple[str, _Name], set[_Name]] = {}
        self._replica = TopicReplica(settings, self._topic, self.apply) if settings.feedback_topic else None

    def __len__(self) -> int:
        return len(self._known)

    def start(self) -> None:
        """Begin to read, and go on until `close`."""
        if self._replica is not None:
            self._replica.start()

    def close(self) -> None:
        """Stop reading."""
        if self._replica is not None:
            self._replica.close()

    def catch_up(self) -> None:
        """Read on to what is the topic's end now. Raises Unavailable when that takes too long."""
        if self._replica is not None:
            self._replica.catch_up()

    def partners(self, tenant: str, image_id: str, digest: bytes) -> Partners:
        """What this picture must not be matched with."""
        with self._lock:
            rejected = self._rejected.get((tenant, digest), set()) | self._rejected.get((tenant, image_id), set())
        if not rejected:
            return Partners()
        image_ids = frozenset(name for name in rejected if isinstance(name, str))
        return Partners(image_ids, frozenset(name for name in rejected if isinstance(name, bytes)))

    def tombstones(self, tenant: str, image_id: str, until: datetime | None) -> Iterator[OutgoingMessage]:
        """The messages that delete the decisions about a picture, made until then, as it is deleted itself."""
        with self._lock:
            keys = sorted(self._keys_of_image.get((tenant, image_id), ()))
            keys = [key for key in keys if until is None or self._known[key].decided_at <= until]
        for key in keys:
            yield withdrawal_message(self._topic, key)

    def apply(self, record: Record) -> None:
        """Follow one message of the topic."""
        key, value = record.key, record.value
        if key is None:
            return
        decision = None if value is None else _read_decision(key, value)
        with self._lock:
            self._forget(key)
            if decision is not None:
                self._learn(key, decision)

    def _learn(self, key: bytes, decision: Decision) -> None:
        tenant = decision.tenant
        images = (tenant, decision.image_id), (tenant, decision.match_id)
        edge: _Edge = tenant, frozenset((decision.image_id, decision.match_id))
        if decision.image_digest is not None and decision.match_digest is not None:
            edge = tenant, frozenset(map(bytes.fromhex, (decision.image_digest, decision.match_digest)))
        self._known[key] = _Known(edge, decision.decision == "reject", decision.decided_at, images)
        self._keys_of_edge.setdefault(edge, {})[key] = None
        for image in _with_objects(images):
            self._keys_of_image.setdefault(image, set()).add(key)
        self._settle(edge)

    def _forget(self, key: bytes) -> None:
        known = self._known.pop(key, None)
        if known is None:
            return
        del self._keys_of_edge[known.edge][key]
        for image in _with_objects(known.images):
            keys = self._keys_of_image[image]
            keys.discard(key)
            if not keys:
                del self._keys_of_image[image]
        self._settle(known.edge)

    def _settle(self, edge: _Edge) -> None:
        """Let the latest decision about a pair count."""
        tenant, names = edge
        keys = self._keys_of_edge[edge]
        rejected = bool(keys) and self._known[next(reversed(keys))].rejected
        if not keys:
            del self._keys_of_edge[edge]
        one, other = (*names, *names)[0], (*names, *names)[len(names) - 1]  # the same bytes are one name
        for name, partner in ((one, other), (other, one)):
            partners = self._rejected.setdefault((tenant, name), set())
            partners.add(partner) if rejected else partners.discard(partner)
            if not partners:
                del self._rejected[tenant, name]


def read_decisions(settings: KafkaSettings) -> list[Decision]:
    """Read all decisions that stand on the topic, the latest about each pair. Raises Unavailable("kafka", ...)."""
    latest: dict[bytes | None, bytes | None] = {}
    replica = TopicReplica(
        settings, settings.decisions_topic, lambda record: latest.__setitem__(record.key, record.value)
    )
    replica.start()
    try:
        replica.catch_up()
    finally:
        replica.close()
    read = (_read_decision(key, value) for key, value in latest.items() if value is not None)
    return [decision for decision in read if decision is not None]


def _read_decision(key: bytes | None, value: bytes) -> Decision | None:
    try:
        return Decision.model_validate_json(value)
    except ValidationError as error:
        log.warning("cannot read the decision %.200r: %s", key, error.title)
        return None


def decision_key(tenant: str, image_id: str, match_id: str) -> bytes:
    """Write the key of a decision about a pair."""
    return json.dumps([tenant, *sorted((image_id, match_id))]).encode()


def decision_message(topic: str, decision: Decision) -> OutgoingMessage:
    """Write a decision for the topic."""
    return OutgoingMessage(topic, decision.key, decision.model_dump_json().encode(), ())


def withdrawal_message(topic: str, key: bytes) -> OutgoingMessage:
    """Write the message that takes a decision off the topic."""
    return OutgoingMessage(topic, key, None, ())


def _with_objects(images: tuple[tuple[str, str], ...]) -> set[tuple[str, str]]:
    """The pictures, and the objects that they are versions of: a deletion may name either."""
    objects = {
        (tenant, image_id.partition("?versionId=")[0])
        for tenant, image_id in images
        if image_id.startswith(("s3://", "gs://"))
    }
    return {*images, *objects}
