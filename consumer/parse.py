"""Parse a record of the input topic into the events it holds.

Three forms are told apart by headers and shape:

1. CloudEvents 1.0, structured or binary: `image.uploaded` and `image.deleted`;
2. bucket notifications in the S3 form: `Records[]` with `s3:ObjectCreated:*` and `s3:ObjectRemoved:*`;
3. the picture itself as the value, with a `content-type: image/*` header and the key as its id.
"""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from pydantic import ValidationError

from consumer.errors import Unprocessable
from consumer.events import DEFAULT_TENANT, NAME_LENGTH, Event, ImageDeleted, ImageUpload, Record

# Verdict ids are UUIDs of the input event's identity under this namespace: the same event always gives the same id.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "seenit:image.verdict")
_JSON = JSONFormat()
# Entries of one bucket notification. Stores put one into each; many would be many pictures in memory at once.
MAX_RECORDS = 100
# The last moment that a calendar has.
LAST_MS = int(datetime.max.replace(tzinfo=UTC).timestamp() * 1000)


def parse(record: Record) -> list[Event]:
    """Parse a record into events, at least one. What cannot be understood is an event whose body says why."""
    headers = {name.lower(): value for name, value in record.headers if value is not None}
    # Producers set timestamps as they like, also to years that no calendar has.
    dated = 0 < record.timestamp_ms < LAST_MS
    time = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC) if dated else datetime.now(UTC)
    position = f"{record.topic}/{record.partition}/{record.offset}"
    # A name for what cannot be understood; a whole key could make the verdict larger than its topic takes.
    whole_key = _text(record.key) or position
    key = whole_key[:NAME_LENGTH]
    content_type = headers.get("content-type", b"").decode("ascii", "replace").strip().lower()
    try:
        if record.value is None:
            raise Unprocessable("malformed-event", "the message has no value")
        if any(name.startswith("ce_") for name in headers) or content_type.startswith("application/cloudevents"):
            return [_cloud_event(headers, record.value, time, key)]
        if content_type.startswith("image/"):
            upload = ImageUpload(image_id=whole_key, data_base64=record.value, content_type=content_type)
            return [Event(_event_id(position), key, DEFAULT_TENANT, upload, time)]
        return list(_json_events(record.value, time, key, position))
    except Unprocessable as error:
        return [Event(_event_id(position), key, DEFAULT_TENANT, error, time)]
    except ValidationError as error:
        return [Event(_event_id(position), key, DEFAULT_TENANT, _malformed(error), time)]


def _json_events(value: bytes, time: datetime, key: str, position: str) -> Iterator[Event]:
    """Parse JSON: a structured CloudEvent without its content type, or a bucket notification."""
    document = _json(value)
    if "specversion" in document:
        yield _cloud_event({"content-type": b"application/cloudevents+json"}, value, time, key)
        return
    records = document.get("Records")
    if not isinstance(records, list) or not records:
        raise Unprocessable(
            "unknown-event", "neither a CloudEvent, a bucket notification, nor a picture with content-type"
        )
    if len(records) > MAX_RECORDS:
        raise Unprocessable("malformed-event", f"{len(records)} records in one notification; at most {MAX_RECORDS}")
    for index, entry in enumerate(records):
        try:
            yield _bucket_event(entry, time)
        except Unprocessable as error:
            yield Event(_event_id(position, str(index)), f"{key}#{index}", DEFAULT_TENANT, error, time)


def _cloud_event(headers: dict[str, bytes], value: bytes, time: datetime, key: str) -> Event:
    """Parse a CloudEvent; `time` and `key` stand in where it names no time or image. Raises Unprocessable."""
    try:
        # Without the key: the SDK would take it for text, and a key may be any bytes.
        cloud_event = from_kafka(KafkaMessage(headers, None, value), _JSON)
        identity = (cloud_event.get_source(), cloud_event.get_id())
    except RecursionError:
        raise Unprocessable("malformed-event", "the JSON is nested too deeply") from None
    except Exception as error:  # the SDK raises whatever its parsers raise
        raise Unprocessable("malformed-event", f"not a CloudEvent: {_short(error)}") from None
    bodies: dict[str, type[ImageUpload] | type[ImageDeleted]] = {
        "image.uploaded": ImageUpload,
        "image.deleted": ImageDeleted,
    }
    data: Any = cloud_event.get_data()
    image_id, tenant = key, DEFAULT_TENANT
    body: ImageUpload | ImageDeleted | Unprocessable
    if isinstance(data, dict):
        image_id = _name(data.get("image_id"), image_id)
        tenant = _name(data.get("tenant"), tenant)
    model = bodies.get(cloud_event.get_type())
    if model is None:
        body = Unprocessable(
            "unknown-event", f"event type {cloud_event.get_type()[:80]!r} is not one of {', '.join(bodies)}"
        )
    else:
        try:
            body = model.model_validate(data)
        except ValidationError as error:
            body = _malformed(error)
    return Event(_event_id(*identity), image_id, tenant, body, cloud_event.get_time() or time)


def _bucket_event(entry: Any, time: datetime) -> Event:
    """Parse one entry of a bucket notification; `time` stands in where it has none. Raises Unprocessable."""
    try:
        name = str(entry["eventName"]).removeprefix("s3:")
        bucket, stored_object = str(entry["s3"]["bucket"]["name"]), entry["s3"]["object"]
        raw_key = str(stored_object["key"])
        url = f"s3://{bucket}/{unquote_plus(raw_key, errors='strict')}"
        # Of one object's versions, the sequencer and the time tell which change this is.
        identity = (bucket, raw_key, name, str(stored_object.get("sequencer", "")), str(entry.get("eventTime", "")))
        uploaded_at = datetime.fromisoformat(entry["eventTime"]) if "eventTime" in entry else time
        body: ImageUpload | ImageDeleted
        if name.startswith("ObjectCreated:"):
            # Stores announce whatever the uploader claimed, often only application/octet-stream: the bytes decide.
            body = ImageUpload(image_id=url, url=url, uploaded_at=uploaded_at)
        elif name.startswith("ObjectRemoved:"):
            body = ImageDeleted(image_id=url)
        else:
            raise Unprocessable(
                "unknown-event", f"bucket event {name[:80]!r} is neither ObjectCreated nor ObjectRemoved"
            )
    except ValidationError as error:
        raise _malformed(error) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Unprocessable("malformed-event", f"not a bucket notification: {_short(error)}") from None
    return Event(_event_id(*identity), url, DEFAULT_TENANT, body, uploaded_at if uploaded_at.tzinfo else time)


def _json(value: bytes) -> dict[str, Any]:
    try:
        document = json.loads(value)
    except RecursionError:
        raise Unprocessable("malformed-event", "the JSON is nested too deeply") from None
    except ValueError as error:
        raise Unprocessable("malformed-event", f"not JSON: {_short(error)}") from None
    if not isinstance(document, dict):
        raise Unprocessable("malformed-event", f"a JSON object is wanted, not {type(document).__name__}")
    return document


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


def _malformed(error: ValidationError) -> Unprocessable:
    first = error.errors(include_input=False, include_url=False)[0]
    # Names of fields come from the event as well: nothing of it goes on at full length.
    field = _cut(".".join(str(part) for part in first["loc"]), 80)
    return Unprocessable("malformed-event", _cut(f"{field}: {first['msg']}" if field else first["msg"]))


def _short(error: BaseException) -> str:
    return _cut(f"{type(error).__name__}: {error}")


def _cut(text: str, length: int = 200) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[:length]}…"
