"""Feedback on real Kafka and Redis: what follows from decisions, what is refused, and what a deletion takes with it."""

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from redis import Redis

from consumer.errors import Unavailable
from consumer.events import MatchFeedback, Record
from consumer.kafka.messages import OutgoingMessage, to_record
from consumer.moderation import feedback as feedback_module
from consumer.moderation.banks import parse_change
from consumer.moderation.campaigns import Campaigns
from consumer.moderation.decisions import Decision, Decisions
from consumer.moderation.feedback import FeedbackWorker, receive
from consumer.moderation.rejections import Rejections
from consumer.settings import CampaignsSettings, KafkaSettings, WindowSettings
from consumer.verification.rerank import Verifier
from consumer.window.records import AppendResult, NewRecord, Source
from consumer.window.window import RedisWindow
from tests.kafka.group import WAIT_S, Topics, new_topics, wait_for
from tests.kafka_cluster import KafkaCluster
from tests.moderation.examples import duplicate
from tests.window.examples import MODEL, PREFIX, near, upload


class Desk:
    """The topics of this module, a process that takes feedback in, and one that only follows decisions."""

    def __init__(self, redis: Redis, topics: Topics) -> None:
        self.topics, self.settings = topics, topics.settings
        self.window = RedisWindow(redis, MODEL, WindowSettings(), PREFIX)
        self.campaigns = Campaigns(self.window, Verifier(self.window, MODEL, "balanced"), CampaignsSettings())
        self.decisions = Decisions(self.settings)
        self.rejections = Rejections(self.decisions, self.window)
        self.counted: list[str] = []
        self.producer = Producer({"bootstrap.servers": self.settings.bootstrap_servers})
        self._stop = threading.Event()
        self._threads = [self._worker(self.settings)]
        self.decisions.start()

    def _worker(self, settings: KafkaSettings) -> threading.Thread:
        worker = FeedbackWorker(
            settings, self.window, MODEL, self.counted.append, lambda _, bank: bank == "everybody's"
        )
        thread = threading.Thread(target=worker.run, args=(self._stop,))
        thread.start()
        return thread

    def at_least_once(self) -> str:
        """Begin to take in feedback from a topic of its own without transactions; return its name."""
        name = f"{self.settings.feedback_topic}-at-least-once"
        self.topics.cluster.create_topic(name, 1)
        changes = {"delivery": "at-least-once", "feedback_topic": name, "group_id": name}
        self._threads.append(self._worker(self.settings.model_copy(update=changes)))
        return name

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.decisions.close()


class World:
    """A tenant with two pictures, a and b, that match, and one, z, that does not."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.tenant, self.feedback_topic = desk, uuid.uuid4().hex, desk.settings.feedback_topic
        self.window, self.rejections, self.decisions = desk.window, desk.rejections, desk.decisions
        self.window.append([self.record("a", 1), self.record("z", 9)])
        self.answered = len(desk.counted)
        self.join("b", 1, 1)

    def record(self, image_id: str, picture: int, variant: int = 0) -> NewRecord:
        return upload(image_id, picture, variant, self.tenant)

    def join(self, image_id: str, picture: int, variant: int = 0) -> None:
        """Upload a copy, which joins a campaign: exact, if there are these bytes already."""
        record = self.record(image_id, picture, variant)
        [exact] = self.window.find_exact([(self.tenant, image_id, record.digest, record.uploaded_at)])
        result = AppendResult(exact=exact) if exact else self.window.append([record])[0]
        match = exact or result.near[0]
        self.desk.campaigns.join([duplicate(record, result, [match.position])])

    def send(self, *feedback: Any, kind: str = "match.feedback") -> None:
        """Send feedback about this tenant's pictures, and wait until all of it is answered."""
        for each in feedback:
            data = {"tenant": self.tenant, **each} if isinstance(each, dict) else each
            event = {"specversion": "1.0", "id": "1", "source": "/desk", "type": kind, "data": data}
            self.send_raw(json.dumps(event).encode())
        self.await_answers(len(feedback))

    def send_raw(self, value: bytes, headers: dict[str, bytes] | None = None) -> None:
        self.desk.producer.produce(self.feedback_topic, value, headers=list((headers or {}).items()))
        assert self.desk.producer.flush(WAIT_S) == 0

    def await_answers(self, count: int) -> None:
        self.answered += count
        wait_for(lambda: len(self.desk.counted) >= self.answered)
        self.decisions.catch_up()

    def matches_of(self, image_id: str, picture: int, variant: int = 0) -> list[str]:
        """What an upload would be matched with now."""
        record = self.record(image_id, picture, variant)
        [result] = self.rejections.leave_out([record[:3]], self.window.append([record]))
        exact = [] if result.exact is None else [result.exact.image_id]
        return exact + near(result)

    def kept(self) -> dict[tuple[str, ...], Decision]:
        """The last decision of each key about this tenant, as compaction leaves them, by both image ids."""
        latest: dict[bytes, bytes | None] = {}
        for message in self.desk.topics.messages(self.desk.settings.decisions_topic):
            latest[message.key() or b""] = message.value()
        kept = {tuple(json.loads(key)): Decision.model_validate_json(value) for key, value in latest.items() if value}
        return {tuple(key[1:]): decision for key, decision in kept.items() if key[0] == self.tenant}

    def in_banks(self) -> list[Message]:
        """What was put into banks of this tenant, and taken out of them."""
        messages = self.ended_messages(self.desk.settings.banks_topic)
        return [each for each in messages if json.loads(each.key() or b"")[1] == self.tenant]

    def ended_messages(self, topic: str) -> list[Message]:
        """The committed messages of a topic, once no transaction on it is open."""
        self.desk.topics.await_markers(topic)
        return self.desk.topics.messages(topic)

    def refusals(self) -> list[tuple[str, str]]:
        """Reason and detail of each dead letter."""
        letters = self.ended_messages(self.desk.settings.dead_letter_topic)
        headers = [dict(message.headers() or ()) for message in letters]
        return [(each["seenit-reason"].decode(), each["seenit-detail"].decode()) for each in headers]


@pytest.fixture(scope="module")
def desk(redis_server: str, kafka_cluster: KafkaCluster) -> Iterator[Desk]:
    topics = new_topics(kafka_cluster)
    name = topics.settings.group_id
    names = {kind: f"{kind}-{name}" for kind in ("feedback_topic", "decisions_topic", "banks_topic")}
    topics.settings = topics.settings.model_copy(update=names)
    for topic in names.values():
        kafka_cluster.create_topic(topic, 1)
    with Redis.from_url(redis_server) as redis:
        desk = Desk(redis, topics)
        yield desk
        desk.close()


@pytest.fixture
def world(desk: Desk) -> World:
    return World(desk)


def reject(image_id: str = "b", match_id: str = "a", **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "match_id": match_id, "decision": "reject", "by": "ann", **more}


def confirm(image_id: str = "b", match_id: str = "a", **more: Any) -> dict[str, Any]:
    return reject(image_id, match_id, **{"decision": "confirm", **more})


def withdraw(image_id: str, match_id: str, **more: Any) -> dict[str, Any]:
    return reject(image_id, match_id, **{"decision": "withdraw", **more})


def test_a_rejected_pair_and_exact_copies_of_it_are_not_matched_again(world: World) -> None:
    assert world.matches_of("b", 1, 1) == ["a"]
    world.send(reject())
    assert world.matches_of("b", 1, 1) == []
    world.window.append([world.record("c", 1, 2)])
    assert world.matches_of("copy of b", 1, 1) == ["b"]
    world.window.delete(world.tenant, "b")
    assert world.matches_of("another copy of b", 1, 1) == ["c"]  # and not a
    assert world.matches_of("d", 1, 3) == ["a", "c", "another copy of b"]


def test_it_holds_whichever_of_the_two_comes_first(world: World) -> None:
    world.send(reject("a", "b"))
    world.window.delete(world.tenant, "a")
    assert world.matches_of("copy of a", 1, 0) == []


def test_the_latest_decision_counts(world: World) -> None:
    world.send(reject(), confirm())
    assert world.matches_of("b", 1, 1) == ["a"]
    world.send(reject())
    assert world.matches_of("b", 1, 1) == []
    assert [kept.decision for kept in world.kept().values()] == ["reject"]
    # About the same contents under other names, which is another pair of pictures.
    world.join("b2", 1, 1)
    world.send(confirm("b2", "a"))
    assert world.matches_of("b", 1, 1) == ["a"]


def test_the_same_bytes_are_apart_where_people_say_so(world: World) -> None:
    world.join("same", 1)
    assert world.matches_of("same", 1, 0) == ["a"]
    world.send(reject("same", "a"))
    assert world.matches_of("same", 1, 0) == []
    assert world.matches_of("third", 1, 0) == []


def test_what_was_decided_is_taken_back(world: World) -> None:
    world.send(reject())
    assert world.matches_of("b", 1, 1) == []
    world.send(withdraw("a", "b"))
    assert world.matches_of("b", 1, 1) == ["a"]
    assert world.kept() == {}
    # Also where nobody knows the pictures any more, and where nothing was decided.
    world.send(reject("z", "a"))
    for image_id in ("z", "a"):
        world.window.delete(world.tenant, image_id)
    before = world.refusals()
    world.send(withdraw("z", "a"), withdraw("no", "nowhere"))
    assert world.kept() == {}
    assert world.refusals() == before


@pytest.mark.parametrize("names", [("b", "a"), ("same", "a")], ids=["an edited copy", "an exact copy"])
def test_what_was_taken_back_leaves_its_bank_again(world: World, names: tuple[str, str]) -> None:
    world.join("same", 1)
    world.send(confirm(*names, to_bank="known"), withdraw(*names, to_bank="known"))
    messages = world.in_banks()
    assert messages[0].value()
    latest = {message.key(): message.value() for message in messages}
    assert not any(latest.values())


def test_other_tenants_are_not_concerned(world: World, desk: Desk) -> None:
    world.send(reject())
    assert World(desk).matches_of("b", 1, 1) == ["a"]


def test_a_verdict_is_named_by_its_id(world: World) -> None:
    world.send({"verdict_id": "verdict on b", "decision": "reject", "by": "ann", "note": "no"})
    assert world.matches_of("b", 1, 1) == []
    [(pair, decision)] = world.kept().items()
    assert pair == ("a", "b")
    assert (decision.image_id, decision.match_id, decision.by, decision.note) == ("b", "a", "ann", "no")
    assert (decision.match_kind, decision.l2, decision.score) == ("near", 0.25, 0.9)
    assert decision.model is not None
    assert decision.model.name == MODEL.name


def test_binary_events_count_too(world: World) -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "/desk", "type": "match.feedback"}
    data = {**reject(), "tenant": world.tenant}
    world.send_raw(json.dumps(data).encode(), {f"ce_{name}": text.encode() for name, text in attributes.items()})
    world.await_answers(1)
    assert list(world.kept()) == [("a", "b")]


def test_a_confirmed_match_goes_into_a_bank(world: World) -> None:
    world.join("same", 1)
    world.send(
        confirm(to_bank="known", note="n" * 4096), confirm("same", "a", to_bank="known"), confirm(to_bank="known")
    )
    first, second, third = world.in_banks()
    data = json.loads(first.value() or b"")
    assert dict(first.headers() or ())["ce_type"] == b"bank.entry"
    assert (data["bank"], data["tenant"], data["image_id"], data["source"]) == ("known", world.tenant, "b", "feedback")
    assert json.loads(first.key() or b"") == ["entry", world.tenant, "known", data["entry_id"]]
    assert json.loads(second.value() or b"")["image_id"] == "a"  # an exact copy is not in the window itself
    assert third.key() == first.key()
    assert parse_change(to_record(first)).body is not None  # also with a note longer than one of an entry


REFUSED = [
    (reject(decision="maybe"), "malformed-event", "decision"),
    (reject(by=""), "malformed-event", "by"),
    ({"decision": "reject", "by": "ann"}, "malformed-event", "give image_id and match_id, or verdict_id"),
    (reject("a", "a"), "malformed-event", "the same picture"),
    (reject(to_bank="known"), "malformed-event", "only a confirmed match can go into a bank"),
    (confirm(to_bank="everybody's"), "unknown-bank", "is for all tenants, and feedback is one tenant's"),
    (reject("no", "nowhere"), "unknown-picture", "neither 'no' nor 'nowhere' is known as a picture of "),
    (reject(tenant="nobody"), "unknown-picture", "as a picture of 'nobody'"),
    (
        {"verdict_id": "what", "decision": "reject", "by": "ann"},
        "unknown-picture",
        "with this id is remembered; give image_id and match_id",
    ),
    ("text", "malformed-event", "valid dictionary"),
]


def test_bad_feedback_ends_with_a_reason_and_leaves_its_neighbours_alone(world: World) -> None:
    before = world.refusals()
    world.send(*(feedback for feedback, _, _ in REFUSED), reject())
    for value in (b"\xff not JSON", b"[1]", b""):
        world.send_raw(value)
    world.await_answers(3)
    world.send(reject(), kind="match.praise")
    refusals = world.refusals()
    assert len(refusals) == len(before) + len(REFUSED) + 4
    for _, reason, text in [*REFUSED, ({}, "malformed-event", "not JSON"), ({}, "unknown-event", "'match.praise'")]:
        assert any(each[0] == reason and text in each[1] for each in refusals), text
    assert world.matches_of("b", 1, 1) == []


def test_a_message_from_a_year_that_no_calendar_has_is_taken_in() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/desk", "type": "match.feedback", "data": reject()}
    event["time"] = "0001-01-01T00:00:00+14:00"
    received = receive(Record("feedback", 0, 0, None, json.dumps(event).encode(), (), 1 << 62))
    assert isinstance(received.feedback, MatchFeedback)
    assert received.time.astimezone(UTC) == received.time


def test_a_process_that_starts_knows_all_that_was_decided_before(world: World, desk: Desk) -> None:
    world.send(reject(), reject("z", "a"))
    late = Decisions(desk.settings)
    late.start()
    late.catch_up()
    assert len(late) == len(desk.decisions)
    [digest] = late.partners(world.tenant, "z", world.record("z", 9).digest).digests
    assert digest == world.record("a", 1).digest
    late.close()


def test_without_its_topic_a_process_is_not_ready(desk: Desk) -> None:
    missing = Decisions(desk.settings.model_copy(update={"decisions_topic": "no-such-topic"}))
    missing.start()
    with pytest.raises(Unavailable, match="no-such-topic"):
        missing.catch_up()
    missing.close()


def publish(desk: Desk, messages: Sequence[OutgoingMessage]) -> None:
    for message in messages:
        desk.producer.produce(message.topic, message.value, message.key)
    assert desk.producer.flush(WAIT_S) == 0
    desk.decisions.catch_up()


class TestDeletion:
    def test_decisions_go_with_their_picture(self, world: World) -> None:
        world.send(reject(), reject("z", "a"), reject("z", "b"))
        world.window.delete(world.tenant, "a", Source(0, 1000))
        [tombstones] = world.rejections.tombstones([(world.tenant, "a", None)])
        publish(world.desk, tombstones)
        assert list(world.kept()) == [("b", "z")]
        assert world.matches_of("copy of a", 1, 0) == ["b"]

    def test_what_was_decided_after_it_stays(self, world: World) -> None:
        world.send(reject())
        hour = timedelta(hours=1)
        [before, after] = world.rejections.tombstones(
            [(world.tenant, "a", datetime.now(UTC) - hour), (world.tenant, "a", datetime.now(UTC) + hour)]
        )
        assert (len(before), len(after)) == (0, 1)

    def test_what_claims_to_be_from_the_future_goes_too(self, world: World) -> None:
        data = {"tenant": world.tenant, **reject()}
        event = {"specversion": "1.0", "id": "1", "source": "/desk", "type": "match.feedback", "data": data}
        world.send_raw(json.dumps({**event, "time": "2999-01-01T00:00:00Z"}).encode())
        world.await_answers(1)
        [messages] = world.rejections.tombstones([(world.tenant, "a", datetime.now(UTC))])
        assert len(messages) == 1

    def test_an_object_takes_the_decisions_about_its_versions(self, world: World) -> None:
        world.window.append([world.record("s3://b/k?versionId=1", 1, 2)])
        world.send(reject("s3://b/k?versionId=1", "a"))
        [tombstones] = world.rejections.tombstones([(world.tenant, "s3://b/k", None)])
        assert len(tombstones) == 1

    def test_feedback_that_comes_later_is_refused(self, world: World) -> None:
        world.window.delete(world.tenant, "a", Source(0, 1000))
        world.send(reject())
        assert ("unknown-picture", f"the picture 'a' of tenant {world.tenant!r} was deleted") in world.refusals()
        assert world.kept() == {}

    @pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
    def test_a_decision_that_is_on_its_way_does_not_outlive_it(
        self, world: World, delivery: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if delivery == "at-least-once":
            world.feedback_topic = world.desk.at_least_once()
        publisher = feedback_module.Publisher.publish
        deleted = []

        def publish_late(self: Any, messages: Any, offsets: Any, check: Any) -> None:
            def check_after_deletion() -> None:
                if not deleted:
                    deleted.append(world.window.delete(world.tenant, "a", Source(0, 1000)))
                check()

            publisher(self, messages, offsets, check_after_deletion)

        monkeypatch.setattr(feedback_module.Publisher, "publish", publish_late)
        world.send(reject())
        assert deleted
        assert world.desk.counted[-1] == "refused"
        assert world.kept() == {}
