"""Verdicts leave the service as CloudEvents."""

import json
from datetime import UTC, datetime

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat

from consumer.errors import Unprocessable
from consumer.events import Record
from consumer.kafka.dead_letters import dead_letter
from consumer.kafka.messages import verdict_message
from consumer.parse import parse
from consumer.verdicts import Model, Verdict


def test_verdict_is_a_cloud_event_keyed_by_image() -> None:
    upload = {"specversion": "1.0", "id": "1", "source": "/app", "type": "image.uploaded"}
    value = json.dumps({**upload, "data": {"image_id": "ä", "url": "s3://b/c"}}).encode()
    headers = (("content-type", b"application/cloudevents+json"),)
    [event] = parse(Record("image-uploads", 3, 42, b"key", value, headers, 1_700_000_000_000))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    model = Model(name="image_encoder", version="1")
    verdict = Verdict(
        image_id="ä", tenant="t", verdict="unique", threshold_l2=0.5, model=model, received_at=now, decided_at=now
    )
    message = verdict_message(verdict, event)
    read = from_kafka(KafkaMessage(message.headers, None, message.value), JSONFormat())
    assert message.key == "ä".encode()
    assert (read.get_type(), read.get_id(), read.get_subject()) == ("image.verdict", event.id, "ä")
    assert Verdict.model_validate(read.get_data()) == verdict


def test_a_dead_letter_gets_small_whatever_came_with_it() -> None:
    """Also headers that look like the service's own are left out."""
    headers = (("content-type", b"image/png"), ("seenit-x", bytes(500_000)), ("seenit-reason", bytes(500_000)))
    record = Record("image-uploads", 3, 42, b"k" * 500_000, b"v" * 500_000, headers, 1_700_000_000_000)
    letter = dead_letter(record, Unprocessable("too-large", "why"), "a", "dlq")
    assert (letter.key, letter.value, letter.headers[:3]) == (record.key, record.value, headers)
    without_value = letter.shrink()
    assert (without_value.key, without_value.value, without_value.headers[:3]) == (record.key, None, headers)
    smallest = without_value.shrink()
    assert (smallest.key, smallest.value, smallest.may_shrink) == (None, None, False)
    assert dict(smallest.headers) == {
        "seenit-reason": b"too-large",
        "seenit-detail": b"why",
        "seenit-image-id": b"a",
        "seenit-topic": b"image-uploads",
        "seenit-partition": b"3",
        "seenit-offset": b"42",
        "seenit-omitted-bytes": b"500000",
    }
