"""Envelopes as they really come: fields that are null or unreadable, base64 as phones write it, wrapped JSON."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.errors import Unprocessable
from consumer.events import Event, ImageDeleted, ImageUpload, Record
from consumer.parse import parse

PICTURE = b"\xff\xd8\xff\xfb\xef picture"
ENCODED = base64.b64encode(PICTURE).decode()
ENVELOPE = {"specversion": "1.0", "id": "1", "source": "/app", "type": "image.uploaded"}
DATA = {"image_id": "a", "tenant": "t", "data_base64": ENCODED}
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def record(value: bytes, *headers: tuple[str, bytes | None], key: bytes = b"key") -> Record:
    return Record("image-uploads", 3, 42, key, value, headers, 1_700_000_000_000)


def structured(data: Any, **attributes: Any) -> Record:
    return record(json.dumps({**ENVELOPE, "data": data, **attributes}).encode(), *STRUCTURED)


def binary(value: bytes, content_type: bytes, **attributes: bytes) -> Record:
    named = {"specversion": b"1.0", "id": b"1", "source": b"/app", "type": b"image.uploaded", **attributes}
    return record(value, ("content-type", content_type), *((f"ce_{name}", text) for name, text in named.items()))


def upload(message: Record) -> tuple[Event, ImageUpload]:
    [event] = parse(message)
    assert isinstance(event.body, ImageUpload), event.body
    return event, event.body


@pytest.mark.parametrize("name", ["time", "subject", "datacontenttype", "dataschema"])
@pytest.mark.parametrize("value", [None, "", 5, [], "2026-11-27T10:00:00", "soon"])
def test_optional_attributes_that_cannot_be_read_are_absent(name: str, value: Any) -> None:
    event, body = upload(structured(DATA, **{name: value}))
    assert body.data_base64 == PICTURE
    assert event.time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tenant": None}, {"tenant": "default"}),
        ({"tenant": ""}, {"tenant": "default"}),
        ({"tenant": 42}, {"tenant": "42"}),
        ({"tenant": []}, {"tenant": "default"}),
        ({"labels": None}, {"labels": {}}),
        ({"labels": "x"}, {"labels": {}}),
        ({"labels": {"a": "b", "c": 5}}, {"labels": {"a": "b"}}),
        ({"uploaded_at": None}, {"uploaded_at": None}),
        ({"uploaded_at": "2026-01-01T00:00:00"}, {"uploaded_at": None}),
        ({"uploaded_at": "soon"}, {"uploaded_at": None}),
        ({"content_type": None}, {"content_type": None}),
        ({"content_type": 5}, {"content_type": None}),
        ({"url": None}, {"url": None}),
        ({"url": ""}, {"url": None}),
        ({"version_id": None}, {"version_id": None}),
        ({"version_id": ""}, {"version_id": None}),
        ({"url": "s3://b/k", "data_base64": ""}, {"data_base64": None}),
        ({"url": "s3://b/k", "data_base64": None}, {"data_base64": None}),
    ],
)
def test_optional_fields_that_cannot_be_read_are_absent(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    _, body = upload(structured({**DATA, **changes}))
    assert body.model_dump(include=set(expected)) == expected


@pytest.mark.parametrize("changes", [{"tenant": "t" * 257}, {"version_id": 5}])
def test_a_tenant_or_version_that_cannot_be_read_is_refused_not_taken_for_another(changes: dict[str, Any]) -> None:
    [event] = parse(structured({**DATA, **changes}))
    assert isinstance(event.body, Unprocessable)


@pytest.mark.parametrize(
    "text",
    [
        base64.encodebytes(PICTURE).decode(),
        "\r\n".join(ENCODED[i : i + 4] for i in range(0, len(ENCODED), 4)),
        base64.urlsafe_b64encode(PICTURE).decode(),
        ENCODED.rstrip("="),
        base64.urlsafe_b64encode(PICTURE).decode().rstrip("="),
        f"data:image/jpeg;base64,{ENCODED}",
        f"data:image/jpeg;charset=x;BASE64,{ENCODED}",
        f" {ENCODED} ",
    ],
)
def test_base64_as_it_is_written(text: str) -> None:
    assert upload(structured({**DATA, "data_base64": text}))[1].data_base64 == PICTURE


@pytest.mark.parametrize("text", ["%%%", "A", "AA=A", "data:image/png,AAAA", "ä", "AAAA*AAA"])
def test_what_is_no_base64(text: str) -> None:
    [event] = parse(structured({**DATA, "data_base64": text}))
    assert isinstance(event.body, Unprocessable)
    assert (event.image_id, event.tenant) == ("a", "t")


class TestContentType:
    """The content type decides between structured and binary mode, whatever `ce_` headers there are."""

    @pytest.mark.parametrize(
        "headers",
        [
            (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"image.uploaded"), ("ce_source", b"/app")),
            (("ce_traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),),
            (("ce_id", b"another"),),
        ],
    )
    def test_structured(self, headers: tuple[tuple[str, bytes], ...]) -> None:
        value = json.dumps({**ENVELOPE, "data": DATA}).encode()
        assert upload(record(value, *STRUCTURED, *headers))[0].id == upload(structured(DATA))[0].id

    @pytest.mark.parametrize(
        "content_type", [b"application/json", b"text/json; charset=utf-8", b"", b"APPLICATION/JSON"]
    )
    def test_binary(self, content_type: bytes) -> None:
        message = binary(json.dumps(DATA).encode(), content_type)
        assert upload(message)[1].data_base64 == PICTURE
        assert upload(message)[0].id == upload(structured(DATA))[0].id

    def test_other_headers_make_no_cloud_event(self) -> None:
        message = record(PICTURE, ("content-type", b"image/jpeg"), ("ce_traceparent", b"00-0af7-b7ad-01"))
        assert upload(message)[0].image_id == "key"

    def test_a_batch_is_as_many_events(self) -> None:
        events = [{**ENVELOPE, "id": str(n), "data": {**DATA, "image_id": f"n{n}"}} for n in range(3)]
        message = record(json.dumps([*events, 5]).encode(), ("content-type", b"application/cloudevents-batch+json"))
        *good, bad = parse(message)
        assert [event.image_id for event in good] == ["n0", "n1", "n2"]
        assert isinstance(bad.body, Unprocessable)
        assert len({event.id for event in (*good, bad)}) == 4

    def test_a_flood_of_events_is_refused_whole(self) -> None:
        [event] = parse(record(json.dumps([{}] * 101).encode(), *STRUCTURED))
        assert isinstance(event.body, Unprocessable)


class TestPictureAsData:
    def test_binary(self) -> None:
        event, body = upload(binary(PICTURE, b"image/jpeg", subject=b"IMG-7", tenant=b"acme"))
        assert (event.image_id, event.tenant) == (body.image_id, body.tenant) == ("IMG-7", "acme")
        assert (body.data_base64, body.content_type) == (PICTURE, "image/jpeg")

    def test_a_picture_that_could_be_text(self) -> None:
        assert upload(binary(b"BM5", b"image/bmp"))[1].data_base64 == b"BM5"

    def test_structured(self) -> None:
        message = structured(None, data_base64=ENCODED, datacontenttype="image/jpeg")
        event, body = upload(message)
        assert (event.image_id, event.tenant, body.data_base64) == ("key", "default", PICTURE)

    def test_json_as_bytes(self) -> None:
        encoded = base64.b64encode(json.dumps(DATA).encode()).decode()
        assert upload(structured(None, data_base64=encoded))[1].data_base64 == PICTURE


class TestBadEnvelopes:
    """Whoever waits for a picture is answered, even when its envelope is wrong."""

    @pytest.mark.parametrize(
        "attributes",
        [
            {"id": 12345},
            {"id": None},
            {"id": ""},
            {"source": None},
            {"type": None},
            {"type": 5},
            {"specversion": "2.0"},
            {"specversion": 1},
            {"type": "order.placed"},
        ],
    )
    def test_the_verdict_is_for_the_names_in_the_data(self, attributes: dict[str, Any]) -> None:
        [event] = parse(structured(DATA, **attributes))
        assert isinstance(event.body, Unprocessable)
        assert (event.image_id, event.tenant) == ("a", "t")

    def test_the_same_message_gives_the_same_id(self) -> None:
        message = structured(DATA, id=None)
        assert parse(message)[0].id == parse(message)[0].id

    @pytest.mark.parametrize("name", ["Upper", "with_underscore", "a" * 40, "data"])
    def test_extensions_do_not_matter(self, name: str) -> None:
        value = json.dumps({**ENVELOPE, name: {"x": None}, "data": DATA}).encode()
        upload(record(value, *STRUCTURED))


class TestWrapped:
    """What serialisers of Kafka Connect and of schema registries put around JSON."""

    EVENT = json.dumps({**ENVELOPE, "data": DATA})

    @pytest.mark.parametrize(
        "value",
        [
            b"\0\0\0\0\7" + EVENT.encode(),
            json.dumps(EVENT).encode(),
            json.dumps({"schema": {"type": "string"}, "payload": EVENT}).encode(),
            json.dumps({"schema": None, "payload": json.loads(EVENT)}).encode(),
            b"\xef\xbb\xbf" + EVENT.encode(),
            EVENT.encode("utf-16"),
            b"\n " + EVENT.encode(),
        ],
    )
    @pytest.mark.parametrize("headers", [(), STRUCTURED])
    def test_event(self, value: bytes, headers: tuple[tuple[str, bytes], ...]) -> None:
        assert upload(record(value, *headers))[1].data_base64 == PICTURE

    def test_data_as_a_string(self) -> None:
        assert upload(structured(json.dumps(DATA)))[1].data_base64 == PICTURE

    def test_avro_says_that_it_is_not_json(self) -> None:
        [event] = parse(record(b"\0\0\0\0\7\x02a\x04bc"))
        assert isinstance(event.body, Unprocessable)
        assert "not JSON" in event.body.detail


def test_version_0_3_with_base64() -> None:
    value = json.dumps(DATA).encode()
    message = structured(
        base64.b64encode(value).decode(), specversion="0.3", datacontentencoding="base64", schemaurl="x:y"
    )
    assert upload(message)[1].data_base64 == PICTURE


def test_a_deletion_without_tenant() -> None:
    [event] = parse(structured({"image_id": "a", "tenant": None}, type="image.deleted"))
    assert event.body == ImageDeleted(image_id="a")
