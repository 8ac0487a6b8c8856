"""What is counted of verdicts, and how uploads of the same picture come together for review."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pytest
from fastapi import Request

from consumer.events import FeedbackDecision, Record
from consumer.http.page import monitor, now
from consumer.http.page.activity import MAX_TENANTS, Activity
from consumer.http.page.campaigns import MAX_CAMPAIGNS, MAX_MEMBERS, CampaignLog, pair_of
from consumer.http.page.decisions import Decision, DecisionLog, feedback_message
from consumer.http.page.desk import Desk
from consumer.http.page.monitor import Health, Monitor
from consumer.http.page.standing import standing_of
from consumer.http.parts import Parts
from consumer.http.problems import Refused
from consumer.verdicts import Campaign, Match, Model, Verdict

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def verdict(
    image_id: str, match_id: str = "", kind: str = "near", tenant: str = "default", ago_s: float = 1
) -> Verdict:
    decided_at = NOW - timedelta(seconds=ago_s)
    return Verdict.model_validate(
        {
            "image_id": image_id,
            "tenant": tenant,
            "verdict": "duplicate" if match_id else "unique",
            "kind": kind if match_id else None,
            "match": Match(image_id=match_id, l2=0.1, uploaded_at=NOW - timedelta(hours=1)) if match_id else None,
            "threshold_l2": 1.0,
            "model": Model(name="m", version="1"),
            "received_at": decided_at - timedelta(milliseconds=40),
            "decided_at": decided_at,
        }
    )


def feedback(data: object) -> Record:
    event = {"specversion": "1.0", "id": "1", "source": "/test", "type": "match.feedback", "data": data}
    return Record("feedback", 0, 0, b"", json.dumps(event).encode(), (), int(NOW.timestamp() * 1000))


def test_the_last_minute_is_counted_by_second_and_kind() -> None:
    activity = Activity(NOW.timestamp)
    for each in (verdict("a"), verdict("b", "a"), verdict("c", "a", "exact", ago_s=5), verdict("old", ago_s=61)):
        activity.add(each)
    activity.add(verdict("x", tenant="other"))
    summary = activity.summary("default")
    assert summary.by_kind == {"unique": 1, "exact": 1, "near": 1, "unprocessable": 0}
    assert (summary.by_second[-2], summary.by_second[-6], sum(summary.by_second)) == (2, 1, 3)
    assert summary.uploads_per_s == 0.3
    assert summary.latency_ms == 40
    assert [each.image_id for each in summary.latest] == ["c", "b"]
    assert activity.summary("nobody").latency_ms is None


def test_tenants_without_end_take_no_memory_without_end() -> None:
    activity, campaigns = Activity(NOW.timestamp), CampaignLog()
    for number in range(max(MAX_TENANTS, MAX_CAMPAIGNS) + 10):
        activity.add(verdict(f"{number}", f"of {number}", tenant=f"{number}"))
        campaigns.add(verdict(f"{number}", f"of {number}"))
    assert len(activity.tenants()) == MAX_TENANTS
    assert len(campaigns.of_tenant("default")) == MAX_CAMPAIGNS


def test_a_campaign_can_be_shown_while_more_uploads_join_it() -> None:
    log = CampaignLog()
    log.add(verdict("b", "a"))
    log.add(verdict("c", "a"))
    [shown] = log.of_tenant("default")
    members = iter(shown.members)
    next(members)
    log.add(verdict("d", "a"))
    assert [each.image_id for each in members] == ["c"]


def test_parts_that_answer_slowly_are_asked_once_for_all_who_look(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Health] = []

    def ask(_: Monitor) -> Health:
        time.sleep(0.1)
        asked.append(Health({"kafka": "away"}, None))
        return asked[-1]

    async def look() -> list[Health]:
        one = Monitor(cast(Parts, None))
        return await asyncio.gather(*(one.health() for _ in range(5)))

    monkeypatch.setattr(Monitor, "_ask", ask)
    monkeypatch.setattr(monitor, "SAMPLE_EVERY_S", 0.05)
    assert asyncio.run(look()) == asked * 5


def _looking(monkeypatch: pytest.MonkeyPatch, render: Callable[..., dict[str, str]]) -> tuple[Request, Desk, Mock]:
    """Somebody who looks at Now, whose parts are made by `render` every millisecond: what `now.events` takes."""

    async def context(*_: object) -> dict[str, object]:
        return {}

    async def connected() -> bool:
        return False

    monkeypatch.setattr(now, "EVERY_S", 0.001)
    monkeypatch.setattr(now, "_context", context)
    monkeypatch.setattr(now, "render_blocks", render)
    request, desk = SimpleNamespace(is_disconnected=connected), SimpleNamespace(streams=0, is_closing=False)
    return cast(Request, request), cast(Desk, desk), Mock(tenant="default")


def test_so_many_are_sent_events_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(now, "MAX_STREAMS", 2)
    looking = _looking(monkeypatch, lambda *_: {"part": "text"})

    async def look() -> None:
        streams = [(await now.events(*looking)).body_iterator for _ in range(2)]
        for stream in streams:
            assert await anext(aiter(stream)) == "event: part\ndata: text\n\n"
        with pytest.raises(Refused, match="503"):
            await now.events(*looking)
        await cast(AsyncGenerator[str], streams[0]).aclose()
        await now.events(*looking)

    asyncio.run(look())


def test_what_has_not_changed_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = iter(({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1", "b": "3"}, {"a": "4", "b": "3"}))
    monkeypatch.setattr(now, "STREAM_S", 0.004)
    looking = _looking(monkeypatch, lambda *_: next(rendered))

    async def look() -> list[object]:
        return [each async for each in (await now.events(*looking)).body_iterator]

    assert asyncio.run(look()) == [
        f"event: {part}\ndata: {text}\n\n" for part, text in (("a", "1"), ("b", "2"), ("b", "3"), ("a", "4"))
    ]


def test_copies_of_copies_are_one_campaign_in_whatever_order_they_come() -> None:
    for order in (("b", "c", "d"), ("d", "c", "b"), ("c", "d", "b")):
        log, matches = CampaignLog(), {"b": "a", "c": "b", "d": "c"}
        for image_id in order:
            log.add(verdict(image_id, matches[image_id]))
            log.add(verdict(image_id, matches[image_id]))  # a repeat
        [campaign] = log.of_tenant("default")
        assert (campaign.id, campaign.size, {each.image_id for each in campaign.members}) == ("a", 4, {"b", "c", "d"})
        assert log.find("default", "d") is campaign
        assert log.find("other", "d") is None


def test_the_campaign_that_a_verdict_tells_counts() -> None:
    log, told = CampaignLog(), {"first_seen": NOW, "last_seen": NOW, "uploads_per_hour": 1}
    for image_id, match_id, campaign_id in (("b", "a", "a"), ("c", "b", "b"), ("d", "c", "b")):
        campaign = Campaign(id=campaign_id, size=7, **told)
        log.add(verdict(image_id, match_id).model_copy(update={"campaign": campaign}))
    assert {each.id: each.size for each in log.of_tenant("default")} == {"a": 7, "b": 7}
    found = log.find("default", "b")  # which is an upload of the other one as well
    assert found is not None
    assert found.id == "b"
    joined = log.joined("default", "b")
    assert joined is not None
    assert joined.id == "a"
    assert log.find("default", "c") is found  # and not that of the first of its campaign


def test_a_decision_is_about_the_edited_copies_where_there_are_any() -> None:
    log = CampaignLog()
    log.add(verdict("b", "a", "exact"))
    [campaign] = log.of_tenant("default")
    assert [pair_of(each) for each in campaign.copies] == [("b", "a")]
    log.add(verdict("c", "a", "near"))
    log.add(verdict("d", "a", "exact"))
    assert [pair_of(each) for each in campaign.copies] == [("c", "a")]
    assert [each.image_id for each in campaign.listed] == ["c", "d", "b"]  # what can be looked at
    for number in range(2 * MAX_MEMBERS):
        log.add(verdict(f"{number}", "a"))
    assert (campaign.size, len(campaign.members)) == (4 + 2 * MAX_MEMBERS, MAX_MEMBERS)


def test_the_latest_decision_counts_whoever_came_first() -> None:
    log = DecisionLog()
    log.add("t", ("a", "b"), Decision("reject", "ada", NOW))
    log.apply(feedback({"image_id": "b", "match_id": "a", "tenant": "t", "decision": "confirm", "by": "bob"}))
    log.add("t", ("a", "b"), Decision("reject", "late", NOW - timedelta(seconds=1)))
    for none in ({"decision": "confirm"}, {"verdict_id": "v", "tenant": "t", "decision": "reject", "by": "eve"}, None):
        log.apply(feedback(none))
    decision, none = log.about("t", [("a", "b"), ("a", "c")])
    assert decision is not None
    assert (decision.decision, decision.by) == ("confirm", "bob")
    assert none is None
    assert log.about("other", [("a", "b")]) == [None]


def test_what_was_withdrawn_is_undecided() -> None:
    log, pair = DecisionLog(), ("a", "b")
    log.add("t", pair, Decision("confirm", "ada", NOW))
    made = Decision("reject", "bob", NOW + timedelta(seconds=1))
    for both in (pair, ("c", "b")):
        log.add("t", both, made)
    log.add("t", ("d", "b"), Decision("reject", "bob", NOW))
    log.add("other", pair, made)
    assert log.made_with("t", made) == [(pair, made), (("c", "b"), made)]
    withdrawn = Decision("withdraw", "bob", NOW + timedelta(seconds=2), "known")
    sent = feedback_message("feedback", "t", pair, withdrawn)
    log.apply(Record(sent.topic, 0, 0, sent.key, sent.value, tuple(sent.headers), int(NOW.timestamp() * 1000)))
    log.add("t", pair, made)  # which was on its way for longer
    [one, other] = log.about("t", [pair, ("c", "b")])
    assert one is not None
    assert (one.stands, other) == (False, made)
    assert log.made_with("t", made) == [(("c", "b"), made)]


def test_a_decision_about_several_pairs_is_one_when_it_comes_back_from_its_topic() -> None:
    log, decision = DecisionLog(), Decision("confirm", "ada", NOW, "known")
    pairs = [("b", "a"), ("c", "a")]
    for number, pair in enumerate(pairs):
        sent = feedback_message("feedback", "t", pair, decision if number == 0 else decision._replace(to_bank=None))
        at_ms = int(NOW.timestamp() * 1000) + 10 * number
        log.apply(Record(sent.topic, 0, number, sent.key, sent.value, tuple(sent.headers), at_ms))
    assert log.about("t", pairs) == [decision, decision._replace(to_bank=None)]


def test_a_campaign_is_decided_when_every_copy_is_that_was_there() -> None:
    campaigns, decisions = CampaignLog(), DecisionLog()

    def join(image_id: str, ago_s: float, kind: str = "near") -> None:
        campaigns.add(verdict(image_id, "a", kind, ago_s=ago_s))

    def decide(image_id: str, ago_s: float, decision: FeedbackDecision = "reject", to_bank: str | None = None) -> None:
        at = NOW - timedelta(seconds=ago_s)
        decisions.add("default", (image_id, "a"), Decision(decision, "ada", at, to_bank))

    def left() -> list[str]:
        [campaign] = campaigns.of_tenant("default")
        return [each.image_id for each in standing_of(campaign, decisions).open]

    for image_id, ago_s in (("b", 100), ("c", 90), ("d", 80)):
        join(image_id, ago_s)
    assert left() == ["d", "c", "b"]
    decide("c", 70)
    assert left() == ["d", "b"]  # left out of a single decision
    decide("d", 60)
    decide("b", 60, to_bank="known")
    assert left() == []
    join("late", 50)
    join("same file", 40, "exact")
    assert left() == []  # what joins later does not open it again
    [campaign] = campaigns.of_tenant("default")
    standing = standing_of(campaign, decisions)
    assert (standing.decision and standing.decision.to_bank, standing.to_show.image_id) == ("known", "b")
    # A later decision about the late copy alone is taken back, and an earlier one stands: the late copy is open.
    decide("late", 30, "confirm")
    assert left() == []
    decide("late", 20, "withdraw")
    assert left() == ["late"]
    decide("late", 10)
    assert left() == []
