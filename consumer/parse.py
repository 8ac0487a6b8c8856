"""Parse a record of the input topic into the events it holds.

Three forms are told apart by headers and shape:

1. CloudEvents 1.0, structured or binary: `image.uploaded` and `image.deleted`;
2. notifications of object stores: see `consumer.notifications`;
3. the picture itself as the value, with a `content-type: image/*` header and the key as its id.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from cloudevents.core.bindings.common import get_event_factory_for_version
from pydantic import ValidationError

from consumer.errors import Unprocessable
from consumer.events import (
    DEFAULT_TENANT,
    NAME_LENGTH,
    Event,
    Ignored,
    ImageDeleted,
    ImageUpload,
    Record,
    decode_base64,
    read_tenant,
)
from consumer.filer_events import read_filer_event
from consumer.json_values import cut, parse_json, parse_json_or_none, short
from consumer.notifications import Change, find_entries, to_time

# Verdict ids are UUIDs of the input event's identity under this namespace: the same event always gives the same id.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "seenit:image.verdict")
# Events of one message, however it wraps them. Stores put one into each; many would be many pictures in memory at once.
MAX_ENTRIES = 100
# Of these attributes of a CloudEvent any makes a message one, in binary mode; others may be there for traces.
BINARY_ATTRIBUTES = frozenset({"ce_specversion", "ce_id", "ce_source", "ce_type"})
REQUIRED_ATTRIBUTES = ("specversion", "id", "source", "type")
BODIES: dict[str, type[ImageUpload] | type[ImageDeleted]] = {
    "image.uploaded": ImageUpload,
    "image.deleted": ImageDeleted,
}


@dataclass(frozen=True, slots=True)
class _Message:
    """A record, and what stands in for what its events do not say."""

    value: bytes | None
    headers: dict[str, bytes]
    content_type: str
    time: datetime
    position: str
    whole_key: str

    @classmethod
    def of(cls, record: Record) -> "_Message":
        headers = {name.lower(): value for name, value in record.headers if value is not None}
        position = f"{record.topic}/{record.partition}/{record.offset}"
        content_type = headers.get("content-type", b"").decode("ascii", "replace").strip().lower()
        return cls(record.value, headers, content_type, record.time, position, _text(record.key) or position)

    def part(self, index: int) -> "_Message":
        """One of several events in this message."""
        return replace(self, position=f"{self.position}#{index}", whole_key=f"{self.key}#{index}")

    @property
    def key(self) -> str:
        """A name for what cannot be understood; a whole key could make the verdict larger than its topic takes."""
        return self.whole_key[:NAME_LENGTH]

    def event(
        self,
        body: ImageUpload | ImageDeleted | Ignored | Unprocessable,
        image_id: str = "",
        tenant: str = DEFAULT_TENANT,
        identity: tuple[str, ...] = (),
        time: datetime | None = None,
    ) -> Event:
        """Make an event; without an identity of its own it is named by the message's position."""
        return Event(_event_id(*(identity or (self.position,))), image_id or self.key, tenant, body, time or self.time)


def parse(record: Record) -> list[Event]:
    """Parse a record into events, at least one. What cannot be understood is an event whose body says why."""
    message = _Message.of(record)
    try:
        events = list(islice(_events(message), MAX_ENTRIES + 1))
        if len(events) > MAX_ENTRIES:
            raise Unprocessable("malformed-event", f"too many events in one message; at most {MAX_ENTRIES}")
        return events or [message.event(Ignored())]
    except Exception as error:
        return [message.event(refusal(error))]


def _events(message: _Message) -> Iterator[Event]:
    """Choose the form by the content type, then by headers, then by the value. Raises Unprocessable."""
    attributes = {name: _text(value) for name, value in message.headers.items()}
    if "bucketid" in attributes and "objectid" in attributes:  # Pub/Sub's connector passes attributes on as headers
        names = ("eventType", "bucketId", "objectId", "objectGeneration", "overwrittenByGeneration", "eventTime")
        document = {name: attributes[name.lower()] for name in names if name.lower() in attributes}
        yield from _notification(document, message)
    elif message.value is None:
        raise Unprocessable("malformed-event", "the message has no value")
    elif message.content_type.startswith("application/cloudevents"):
        yield from _structured(parse_json(message.value), message)
    elif BINARY_ATTRIBUTES & attributes.keys():
        named = {name[3:]: text for name, text in attributes.items() if name.startswith("ce_")}
        named |= {"datacontenttype": message.content_type} if message.content_type else {}
        yield from _cloud_event(named, message.value, message)
    elif message.content_type.startswith("image/"):
        upload = ImageUpload(image_id=message.whole_key, data_base64=message.value, content_type=message.content_type)
        yield message.event(upload)
    else:
        yield from _by_value(message.value, message)


def _by_value(value: bytes, message: _Message) -> Iterator[Event]:
    """Parse a value that no header describes: JSON, or a message of SeaweedFS, whose key is a path."""
    try:
        document = parse_json(value)
    except Unprocessable:
        if message.whole_key[0] != "/":
            raise
        try:
            changes = read_filer_event(message.whole_key, value)
        except ValueError as error:
            raise Unprocessable("malformed-event", f"neither JSON nor SeaweedFS's: {short(error)}") from None
        for index, change in enumerate(changes):
            try:
                event = _changed(change, message, index)
            except Exception as error:
                event = _of_entry(refusal(error), message, index)
            yield event
        return
    yield from _structured(document, message)


def _structured(document: Any, message: _Message) -> Iterator[Event]:
    """Parse a document, or a list of such, each by itself. Raises Unprocessable for what holds none."""
    documents = document if isinstance(document, list) and document else [document]
    for index, each in enumerate(documents):
        part = message if len(documents) == 1 else message.part(index)
        try:
            yield from _document(each, part)
        except Exception as error:
            yield part.event(refusal(error))


def _document(document: Any, message: _Message) -> Iterator[Event]:
    """Parse a structured CloudEvent, or the notification of a store."""
    if not isinstance(document, dict):
        raise Unprocessable("malformed-event", f"a JSON object is wanted, not {type(document).__name__}")
    if "specversion" in document or message.content_type.startswith("application/cloudevents"):
        data, encoded = document.get("data"), document.get("data_base64")
        if isinstance(encoded, str) and data is None:
            data = _base64(encoded)
        elif isinstance(data, str) and document.get("datacontentencoding") == "base64":  # of version 0.3
            data = _base64(data)
        yield from _cloud_event({**document, "data": None, "data_base64": None}, data, message)
    else:
        yield from _notification(document, message)


def _cloud_event(attributes: dict[str, Any], data: Any, message: _Message) -> Iterator[Event]:
    """Parse a CloudEvent. One whose envelope is wrong is still answered under the names in its data."""
    attributes = {name: value for name, value in attributes.items() if value is not None}
    content_type = attributes.get("datacontenttype")
    content_type = content_type.lower() if isinstance(content_type, str) else ""
    if isinstance(data, bytes | str) and not content_type.startswith("image/"):
        data = parse_json_or_none(data) or data
    named = data if isinstance(data, dict) else {}
    image_id = _name(named.get("image_id"), message.key)
    tenant = _name(read_tenant(named.get("tenant")), DEFAULT_TENANT)
    try:
        identity = identity_of(attributes)
        kind = attributes["type"]
        if kind not in BODIES and (found := _store_event(attributes, data)) is not None:
            yield from _notification(found, message)
            return
        if kind not in BODIES:
            raise Unprocessable("unknown-event", f"event type {kind[:80]!r} is not one of {', '.join(BODIES)}")
    except Unprocessable as error:
        yield message.event(error, image_id, tenant)
        return
    if kind == "image.uploaded" and isinstance(data, bytes) and content_type.startswith("image/"):
        image_id = _name(attributes.get("subject"), message.whole_key)
        tenant = _name(read_tenant(attributes.get("tenant")), DEFAULT_TENANT)
        data = {"image_id": image_id, "tenant": tenant, "data_base64": data, "content_type": content_type}
    body: ImageUpload | ImageDeleted | Unprocessable
    try:
        body = BODIES[kind].model_validate(data)
    except ValidationError as error:
        body = _malformed(error)
    # A key that stands in for the subject may be of any length.
    yield message.event(body, image_id[:NAME_LENGTH], tenant, identity, to_time(attributes.get("time")))


def identity_of(attributes: dict[str, Any]) -> tuple[str, str]:
    """Check the attributes that a CloudEvent must have; return source and id. Raises Unprocessable."""
    version = attributes.get("specversion", "1.0")
    # The SDK would make up an id that is missing.
    required = {name: attributes.get(name) for name in REQUIRED_ATTRIBUTES} | {"specversion": version}
    try:
        event = get_event_factory_for_version(version)(required, None)
    except Exception as error:  # the SDK raises whatever its parsers raise
        raise Unprocessable("malformed-event", f"not a CloudEvent: {short(error)}") from None
    return event.get_source(), event.get_id()


def _store_event(attributes: dict[str, Any], data: Any) -> dict[str, Any] | None:
    """Find the notification of a store in a CloudEvent: the event itself, or its data."""
    for document in ({**attributes, "data": data}, data):
        if isinstance(document, dict) and find_entries(document) is not None:
            return document
    return None


def _notification(document: dict[str, Any], message: _Message) -> Iterator[Event]:
    """Parse the notification of a store, each entry by itself. Raises Unprocessable for a document that is none."""
    found = find_entries(document)
    if found is None or not found[1]:
        raise Unprocessable(
            "unknown-event", "neither a CloudEvent, a bucket notification, nor a picture with content-type"
        )
    read, entries = found
    for index, entry in enumerate(entries):
        try:
            change = read(entry)
            event = _changed(change, message, index) if change else None
        except Exception as error:
            event = _of_entry(refusal(error), message, index)
        yield event or _of_entry(Ignored(), message, index)


def _changed(change: Change, message: _Message, index: int) -> Event:
    """Make the event for what happened to an object. Raises ValidationError."""
    body: ImageUpload | ImageDeleted
    if change.kind == "created":
        # Stores announce whatever the uploader claimed, often only application/octet-stream: the bytes decide.
        body = ImageUpload(
            image_id=change.image_id,
            url=change.address,
            version_id=change.version,
            uploaded_at=change.time or message.time,
        )
    else:
        body = ImageDeleted(image_id=change.image_id, deleted_at=change.time)
    identity = change.identity or (message.position, str(index))
    return message.event(body, change.image_id, identity=identity, time=change.time)


def _of_entry(body: Ignored | Unprocessable, message: _Message, index: int) -> Event:
    return message.event(body, f"{message.key}#{index}", identity=(message.position, str(index)))


def _base64(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise Unprocessable("malformed-event", f"data_base64: {short(error)}") from None


def _event_id(*identity: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, json.dumps(identity)))


def _text(key: bytes | None) -> str:
    return (key or b"").decode("utf-8", "backslashreplace")


def _name(value: object, default: str) -> str:
    """A name out of an event that may be broken elsewhere, fit to be sent on as UTF-8."""
    return (
        value.encode("utf-8", "backslashreplace").decode()[:NAME_LENGTH]
        if isinstance(value, str) and value
        else default
    )


def refusal(error: Exception) -> Unprocessable:
    """The reason for whatever was raised while a message, or a part of it, was parsed.

    Parsing depends on the message alone: what fails fails each time, and would hold up its partition for good.
    """
    if isinstance(error, MemoryError):  # which says nothing of the message
        raise error
    if isinstance(error, Unprocessable):
        return error
    if isinstance(error, ValidationError):
        return _malformed(error)
    return Unprocessable("malformed-event", f"not of the form that it seems to have: {short(error)}")


def _malformed(error: ValidationError) -> Unprocessable:
    first = error.errors(include_input=False, include_url=False)[0]
    # Names of fields come from the event as well: nothing of it goes on at full length.
    field = cut(".".join(str(part) for part in first["loc"]), 80)
    return Unprocessable("malformed-event", cut(f"{field}: {first['msg']}" if field else first["msg"]))
