"""Each input form is parsed, and a message that cannot be is one event with a reason."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import Unprocessable
from consumer.events import NAME_LENGTH, Event, ImageDeleted, ImageUpload, Record
from consumer.parse import parse

CLOUD_EVENT = {"specversion": "1.0", "id": "1", "source": "/app", "type": "image.uploaded"}
DATA = {"image_id": "a", "url": "s3://b/c"}


def record(value: bytes | None, key: bytes | None = b"key", **headers: bytes) -> Record:
    named = tuple((name.replace("_", "-") if name == "content_type" else name, text) for name, text in headers.items())
    return Record("image-uploads", 3, 42, key, value, named, 1_700_000_000_000)


def structured(data: Any, **attributes: str) -> Record:
    value = json.dumps({**CLOUD_EVENT, **attributes, "data": data}).encode()
    return record(value, content_type=b"application/cloudevents+json")


def notification(*names: str, key: str = "folder/ein+Bild%C3%A4%2B.jpg", **changes: Any) -> bytes:
    one = {
        "eventTime": "2026-01-02T03:04:05.678Z",
        "s3": {"bucket": {"name": "pics"}, "object": {"key": key, "sequencer": "7"}},
    }
    return json.dumps(
        {"EventName": names[0], "Key": f"pics/{key}", "Records": [{**one, "eventName": n, **changes} for n in names]}
    ).encode()


def parsed(message: Record) -> Event:
    """Parse a message that has one event."""
    [event] = parse(message)
    return event


def refused(message: Record) -> Unprocessable:
    body = parsed(message).body
    assert isinstance(body, Unprocessable)
    return body


def test_structured_cloud_event() -> None:
    event = parsed(
        structured({"image_id": "a", "tenant": "t", "url": "https://example.org/a.png", "labels": {"x": "y"}})
    )
    assert event.body == ImageUpload(image_id="a", tenant="t", url="https://example.org/a.png", labels={"x": "y"})
    assert (event.image_id, event.tenant) == ("a", "t")


def test_structured_cloud_event_without_content_type() -> None:
    value = json.dumps({**CLOUD_EVENT, "data": {"image_id": "a", "url": "s3://b/c"}}).encode()
    assert isinstance(parsed(record(value)).body, ImageUpload)


def test_binary_cloud_event_with_a_picture_inside() -> None:
    data = {
        "image_id": "a",
        "data_base64": base64.b64encode(b"\xff\xd8pic").decode(),
        "uploaded_at": "2026-01-01T00:00:00Z",
    }
    headers = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/app", "ce_type": b"image.uploaded"}
    body = parsed(record(json.dumps(data).encode(), content_type=b"application/json", **headers)).body
    assert isinstance(body, ImageUpload)
    assert body.data_base64 == b"\xff\xd8pic"
    assert body.uploaded_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_key_of_a_cloud_event_may_be_any_bytes() -> None:
    value = json.dumps({**CLOUD_EVENT, "data": {"image_id": "a", "url": "s3://b/c"}}).encode()
    assert parsed(record(value, key=b"\xff\x00")).image_id == "a"


def test_deletion() -> None:
    assert parsed(structured({"image_id": "a"}, type="image.deleted")).body == ImageDeleted(image_id="a")


def test_bucket_notification_decodes_the_key() -> None:
    event = parsed(record(notification("s3:ObjectCreated:Put")))
    assert event.image_id == "s3://pics/folder/ein Bildä+.jpg"
    assert isinstance(event.body, ImageUpload)
    assert event.body.url == event.image_id
    assert event.body.uploaded_at == datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def test_bucket_notification_has_an_event_a_record() -> None:
    created, removed, odd = parse(
        record(notification("s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete", "s3:Something:x"))
    )
    assert isinstance(created.body, ImageUpload)
    assert removed.body == ImageDeleted(image_id=created.image_id, deleted_at=removed.time)
    assert isinstance(odd.body, Unprocessable)
    assert len({created.id, removed.id, odd.id}) == 3


def test_the_picture_itself() -> None:
    event = parsed(record(b"\xff\xd8", key="katze 🐈".encode(), content_type=b"image/jpeg"))
    assert event.image_id == "katze 🐈"
    assert event.body == ImageUpload(image_id="katze 🐈", data_base64=b"\xff\xd8", content_type="image/jpeg")


def test_the_picture_itself_without_a_key_is_named_by_its_position() -> None:
    assert parsed(record(b"\xff\xd8", key=None, content_type=b"image/jpeg")).image_id == "image-uploads/3/42"


@pytest.mark.parametrize(
    ("message", "reason", "says"),
    [
        (record(None), "malformed-event", "no value"),
        (record(b"{"), "malformed-event", "not JSON"),
        (record(b"\xff\xd8\xff"), "malformed-event", "not JSON"),
        (record(b"[]"), "malformed-event", "object is wanted, not list"),
        (record(b"[" * 100_000), "malformed-event", "nested too deeply"),
        (record(b"{}"), "unknown-event", "neither"),
        (record(b"", content_type=b"image/png"), "malformed-event", "data_base64"),
        (record(b"[" * 100_000, content_type=b"application/cloudevents+json"), "malformed-event", "nested"),
        (structured({"image_id": "a"}, type="order.placed"), "unknown-event", "order.placed"),
        (structured({"image_id": "a"}), "malformed-event", "either url or data_base64"),
        (structured({"url": "s3://a/b"}), "malformed-event", "image_id"),
        (structured({"image_id": 7, "url": "s3://a/b"}), "malformed-event", "image_id"),
        (structured({"image_id": "\ud800", "url": "s3://a/b"}), "malformed-event", "image_id"),
        (structured({"image_id": "a", "data_base64": "%%%"}), "malformed-event", "base64"),
        (structured("text"), "malformed-event", "ImageUpload"),
        (record(b"{}", ce_type=b"image.uploaded", ce_time=b"yesterday"), "malformed-event", "CloudEvent"),
        (record(b"{}", ce_type=b"\xff"), "malformed-event", "CloudEvent"),
        (record(notification("s3:ObjectCreated:Put", key="%FF")), "malformed-event", "UnicodeDecodeError"),
        (record(notification("s3:ObjectCreated:Put", s3=None)), "malformed-event", "not of the form"),
    ],
)
def test_what_cannot_be_understood_says_why(message: Record, reason: str, says: str) -> None:
    error = refused(message)
    assert error.reason == reason
    assert says in error.detail


@pytest.mark.parametrize("wrapped", ["no json", "[" * 100_000])
def test_a_cloud_event_around_what_is_not_json(wrapped: str) -> None:
    event = parsed(structured({"image_id": "a", "Type": "Notification", "Message": wrapped}, type="order.placed"))
    assert isinstance(event.body, Unprocessable)
    assert (event.body.reason, event.image_id) == ("malformed-event", "a")


def test_a_fault_in_parsing_is_the_messages_own_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_entries(document: Any) -> None:
        raise LookupError(document)

    monkeypatch.setattr("consumer.parse.find_entries", find_entries)
    first, second = parse(record(json.dumps([{"Records": []}, {**CLOUD_EVENT, "data": DATA}]).encode()))
    assert isinstance(first.body, Unprocessable)
    assert isinstance(second.body, ImageUpload)


def test_names_survive_an_otherwise_broken_event() -> None:
    event = parsed(structured({"image_id": "a", "tenant": "t"}))
    assert (event.image_id, event.tenant) == ("a", "t")


PICTURE_EVENT = {"ce_id": b"1", "ce_source": b"/app", "ce_type": b"image.uploaded", "content_type": b"image/png"}


@pytest.mark.parametrize("headers", [{}, {"content_type": b"image/png"}, PICTURE_EVENT])
def test_a_key_of_any_length_gives_a_verdict_that_its_topic_takes(headers: dict[str, bytes]) -> None:
    event = parsed(record(b"not JSON", key=b"\xff" * 500_000, **headers))
    assert isinstance(event.body, Unprocessable)
    assert len(event.image_id) <= NAME_LENGTH


def test_ids_are_of_the_event_not_of_the_delivery() -> None:
    first = structured({"image_id": "a", "url": "s3://b/c"})
    again = Record(first.topic, 5, 99, first.key, first.value, first.headers, first.timestamp_ms + 1)
    assert parsed(first).id == parsed(again).id
    assert parsed(first).id != parsed(structured({"image_id": "a", "url": "s3://b/c"}, id="2")).id


@given(
    st.none()
    | st.binary()
    | st.recursive(st.none() | st.text() | st.floats(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda x: json.dumps(x).encode()
    ),
    st.none() | st.binary(),
    st.lists(
        st.tuples(
            st.sampled_from(["content-type", "ce_id", "ce_type", "ce_time", "ce_specversion", "x"]),
            st.none()
            | st.binary()
            | st.sampled_from([b"1.0", b"image.uploaded", b"image/png", b"application/cloudevents+json"]),
        )
    ),
)
def test_nothing_on_the_topic_raises(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    events = parse(Record("t", 0, 1, key, value, tuple(headers), 0))
    assert events
    for event in events:
        event.image_id.encode()
        event.tenant.encode()


def test_a_timestamp_beyond_all_calendars_is_ignored() -> None:
    first = record(b"\xff\xd8", content_type=b"image/jpeg")
    late = Record(first.topic, first.partition, first.offset, first.key, first.value, first.headers, 10**18)
    assert parsed(late).time.year < 9999


def test_the_content_type_may_be_written_in_any_case() -> None:
    assert isinstance(parsed(record(b"\xff\xd8", content_type=b" IMAGE/JPEG")).body, ImageUpload)


def test_a_flood_of_records_in_one_notification_is_refused_whole() -> None:
    error = refused(record(json.dumps({"Records": [0] * 100_000}).encode()))
    assert (error.reason, "at most" in error.detail) == ("malformed-event", True)


def test_a_flood_in_a_list_of_notifications_is_refused_whole() -> None:
    one = json.loads(notification("s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete"))
    assert len(parse(record(json.dumps([one] * 50).encode()))) == 100
    error = refused(record(json.dumps([one] * 51).encode()))
    assert (error.reason, "at most 100" in error.detail) == ("malformed-event", True)


def test_nothing_of_an_event_is_repeated_at_length() -> None:
    error = refused(structured({"image_id": "a", "url": "s3://b/c"}, type="x" * 1_000_000))
    assert len(error.detail) < 300
    error = refused(structured({"image_id": "a", "data_base64": "%" * 1_000_000}))
    assert len(error.detail) < 300
