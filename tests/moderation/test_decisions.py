"""The replica of decisions, fed with what no service writes: its topic is read by whoever may be matched."""

import json
from datetime import UTC, datetime

import pytest

from consumer.events import Record
from consumer.moderation.decisions import Decisions
from consumer.settings import KafkaSettings

SOUND = {
    "tenant": "t",
    "image_id": "a",
    "match_id": "b",
    "decision": "reject",
    "by": "ann",
    "decided_at": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "change",
    [
        {"image_digest": "no hash", "match_digest": "no hash"},
        {"image_digest": "abc", "match_digest": "abc"},
        {"decided_at": "2026-01-01T00:00:00"},
        {"image_id": None},
    ],
)
def test_what_is_no_decision_is_left_out(change: dict[str, object]) -> None:
    decisions = Decisions(KafkaSettings(feedback_topic=""))
    for offset, (key, content) in enumerate(((b"sound", SOUND), (b"other", {**SOUND, **change}))):
        decisions.apply(Record("decisions", 0, offset, key, json.dumps(content).encode(), (), 0))
    assert decisions.partners("t", "a", b"").image_ids == {"b"}
    assert [each.key for each in decisions.tombstones("t", "a", datetime.now(UTC))] == [b"sound"]
