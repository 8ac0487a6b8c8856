"""Requests that fail, or are held back while the client repeats them and delivered later: nothing is lost or doubled.

Brokers that speak the newer protocol alone with a client (KIP-890) refuse a late request; librdkafka does not speak it.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka import config
from consumer.kafka import publisher as publisher_module
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.messages import OutgoingMessage
from consumer.kafka.publisher import Publisher
from consumer.settings import KafkaSettings
from tests.kafka.group import Member, Topics, new_topics, wait_for
from tests.kafka_cluster import KafkaCluster
from tests.kafka_cluster.requests import Held, Requests, Rule, requests_of

FENCED = {KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
LATE = {KafkaError.INVALID_TXN_STATE, *FENCED}
TOO_LARGE = "x" * 5000  # more metadata than an offset may have: the quickest way to have one refused


@pytest.fixture
def line(topics: Topics, requests: Requests, join: Callable[..., Member]) -> Iterator["Line"]:
    line = Line(topics, requests, join().consumer)
    topics.upload(b"0", b"1", b"2")
    wait_for(lambda: line.consumer.partitions)
    yield line
    line.close()


class Crashed(BaseException):
    """What ends a process in the midst of a publish."""


class Dying(Publisher):
    """A publisher whose process ends when it has sent its messages; `last_deed` is done before."""

    last_deed: Callable[[], object]

    def _deliver(self, producer: Producer, messages: Sequence[OutgoingMessage]) -> None:
        super()._deliver(producer, messages)
        self.last_deed()
        raise Crashed


class Line:
    """A process that publishes over links, one verdict after the other, each until it is confirmed."""

    def __init__(self, topics: Topics, requests: Requests, consumer: UploadsConsumer, **changes: object) -> None:
        self.topics = topics
        self.requests = requests
        self.consumer = consumer
        changes = {"bootstrap_servers": topics.cluster.proxied_servers, "instance_id": "one", **changes}
        self.settings: KafkaSettings = topics.settings.model_copy(update=changes)
        self.publisher = Publisher(self.settings, consumer)
        requests.start_over()

    def close(self) -> None:
        self.publisher.close()

    def publish(self, number: int) -> None:
        """Publish the verdict on an upload, as often as it takes."""
        for _ in range(3):
            with contextlib.suppress(Unavailable):
                self.publisher.publish([self.topics.verdict(b"%d" % number)], self.topics.offsets(number + 1))
                return
        pytest.fail("it cannot be published")

    def fail_to_publish(self, number: int) -> None:
        """Publish a verdict whose offset is refused, so that the transaction is aborted."""
        refused = TopicPartition(self.settings.input_topic, 0, number + 1, TOO_LARGE)
        with pytest.raises(Unavailable, match="OFFSET_METADATA_TOO_LARGE"):
            self.publisher.publish([self.topics.verdict(b"%d, aborted" % number)], [refused])

    def hold_of_first(self, name: str, *, silent: bool = False) -> Held:
        """Publish the first verdict, with one of its requests held; its abort comes before it, where that is held."""
        held = self.requests.hold(name, silent=silent)
        if name == "Abort":
            self.fail_to_publish(0)
        else:
            self.publish(0)
        held.wait()
        self.check_pauses(name)
        return held

    def check_pauses(self, name: str) -> None:
        """Check that the client repeated the request, and no sooner than it is trusted to."""
        first_s, second_s, *_ = [at_s for seen, at_s in self.requests.seen if seen == name]
        if name in ("AddOffsetsToTxn", "TxnOffsetCommit", "Commit"):
            assert second_s - first_s >= config.SENT_ONCE_S

    def check(self, count: int) -> None:
        """Check that each verdict stands there once, and the group at the end of what they answer."""
        verdicts = Counter(self.topics.read(self.settings.output_topic))
        assert (verdicts, self.topics.committed()) == (Counter(b"%d" % n for n in range(count)), {0: count})


@pytest.mark.parametrize(
    ("harm", "times_seen"),
    [(Requests.lose_answer, 2), (Requests.cut_off, 2), (partial(Requests.delay, delay_s=1.0), 1)],
    ids=["its answer is lost", "it is cut off", "it is slow"],
)
def test_each_step_of_a_transaction_may_fail(line: Line, harm: Callable[..., Rule], times_seen: int) -> None:
    steps = ["Produce", "AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "Commit", "InitProducerId"]
    for number, step in enumerate(steps):
        line.requests.start_over()
        rule = harm(line.requests, step)
        line.publish(number)
        assert rule.is_met(0)
        assert [name for name, _ in line.requests.seen].count(step) == times_seen, step
    line.check(len(steps))


@pytest.mark.parametrize("when", ["AddOffsetsToTxn", "TxnOffsetCommit", "Commit"])
@pytest.mark.parametrize("end", ["Commit", "Abort"])
def test_a_late_end_does_not_end_the_next_transaction(line: Line, end: str, when: str) -> None:
    held = line.hold_of_first(end)
    answers: list[int] = []
    line.requests.before(when, action=lambda: answers.append(held.deliver_end()))
    first = 0 if end == "Abort" else 1
    line.publish(first)
    line.publish(first + 1)
    line.check(first + 2)
    assert set(answers) <= FENCED
    assert answers


@pytest.mark.parametrize("end", ["Commit", "Abort"])
def test_a_late_end_does_no_harm_where_the_next_process_crashes(line: Line, end: str) -> None:
    held = line.hold_of_first(end)
    first = 0 if end == "Abort" else 1
    dying = Dying(line.settings, line.consumer)
    dying.last_deed = held.deliver_end
    # It is the same process as before.
    dying._producer = line.publisher._producer
    with pytest.raises(Crashed):
        dying.publish([line.topics.verdict(b"%d" % first)], line.topics.offsets(first + 1))
    heir = Line(line.topics, line.requests, line.consumer)
    if line.topics.committed().get(0, 0) == first:  # where the heir goes on
        heir.publish(first)
    heir.check(first + 1)
    heir.close()


def test_a_late_end_does_no_harm_after_a_silent_connection(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is not closed costs the client its time-out, and only then it repeats the request."""
    monkeypatch.setattr(config, "SOCKET_TIMEOUT_MS", 1000)
    held = line.hold_of_first("Commit", silent=True)
    line.requests.before("TxnOffsetCommit", action=held.deliver_end)
    line.publish(1)
    line.check(2)


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("InitProducerId", "AddOffsetsToTxn"),
        ("InitProducerId", "Commit"),
        ("AddPartitionsToTxn", "AddPartitionsToTxn"),
        ("AddPartitionsToTxn", None),
        ("Produce", "AddPartitionsToTxn"),
        ("Produce", "AddOffsetsToTxn"),
        ("Produce", None),
        ("AddOffsetsToTxn", "AddPartitionsToTxn"),
        ("AddOffsetsToTxn", "TxnOffsetCommit"),
        ("AddOffsetsToTxn", None),
        ("TxnOffsetCommit", "TxnOffsetCommit"),
        ("TxnOffsetCommit", "Commit"),
        ("TxnOffsetCommit", None),
    ],
)
def test_a_late_request_does_not_change_the_next_transaction(line: Line, name: str, when: str | None) -> None:
    held = line.hold_of_first(name)
    if when is None:
        line.publish(1)
        held.deliver()
        line.publish(2)
        line.check(3)
    else:
        answers: list[bytes] = []
        line.requests.before(when, action=lambda: answers.append(held.deliver()))
        line.publish(1)
        line.check(2)
        assert answers, "it was not delivered"


def test_messages_that_were_given_up_are_refused_when_they_come_late(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "BROKER_TIMEOUT_S", 5.0)
    given_up = [line.requests.hold("Produce") for _ in range(15)]
    with pytest.raises(Unavailable):
        line.publisher.publish([line.topics.verdict(b"given up")], line.topics.offsets(1))
    line.requests.forget()
    line.requests.before("AddOffsetsToTxn", action=given_up[0].deliver)
    line.publish(0)
    given_up[0].deliver()
    line.publish(1)
    line.check(2)


@pytest.mark.parametrize("ended_by", ["its late commit", "itself", "its time-out"])
def test_a_zombies_late_commit_stands_or_falls_as_a_whole(
    topics: Topics, requests: Requests, join: Callable[..., Member], monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    """Its commits do not arrive, so that it gives up; the first one arrives before or after its transaction ended."""
    monkeypatch.setattr(publisher_module, "BROKER_TIMEOUT_S", 10.0)  # no message may outlast its transaction
    monkeypatch.setattr(config, "SOCKET_TIMEOUT_MS", 1000)
    timeout_ms = 10_000 if ended_by == "its time-out" else 15_000
    zombie = Line(topics, requests, join().consumer, transaction_timeout_ms=timeout_ms)
    heir = Line(topics, requests, zombie.consumer, instance_id="two")
    wait_for(lambda: zombie.consumer.partitions)
    zombie.publish(0)
    held, *_ = [requests.hold("Commit") for _ in range(40)]  # its client repeats it every half second
    with monkeypatch.context() as hasty:
        hasty.setattr(publisher_module, "BROKER_TIMEOUT_S", 1.0)
        with pytest.raises(Unavailable):
            zombie.publisher.publish([topics.verdict(b"1")], topics.offsets(2))
    with pytest.raises(KafkaException, match="TIMED_OUT"):
        heir.consumer.committed(topics.offsets(2), 0.5)  # nobody is told where to go on, as long as that is open
    if ended_by == "its time-out":
        assert topics.committed() == {0: 1}  # it waited for that
    requests.forget()
    if ended_by == "itself":
        zombie.publish(1)
    elif ended_by == "its time-out":
        heir.publish(1)
    assert held.deliver_end() in ({0} if ended_by == "its late commit" else LATE)
    if ended_by != "itself":
        zombie.publish(1)
    heir.publish(2)
    heir.check(3)
    zombie.close()
    heir.close()


def test_a_late_commit_does_no_harm_where_the_coordinator_has_moved(kafka_trio: KafkaCluster) -> None:
    topics = new_topics(kafka_trio)
    member = Member(UploadsConsumer(topics.settings, lambda: None))
    with requests_of(kafka_trio) as requests:
        line = Line(topics, requests, member.consumer)
        try:
            wait_for(lambda: member.consumer.partitions)
            held = requests.hold("Commit")
            publishing = threading.Thread(target=line.publish, args=(0,))
            publishing.start()
            held.wait()
            [coordinator] = [b.number for b in kafka_trio.brokers if b.proxied_port == held.server_port]
            kafka_trio.kill(coordinator)
            publishing.join()
            alive = [broker.proxied_port for broker in kafka_trio.brokers if broker.number != coordinator]
            answers: list[int] = []
            requests.before("TxnOffsetCommit", action=lambda: answers.extend(held.deliver_end(port) for port in alive))
            line.publish(1)
            kafka_trio.heal()
            requests.before("TxnOffsetCommit", action=lambda: answers.append(held.deliver_end()))
            line.publish(2)
            line.check(3)
            assert set(answers) <= {KafkaError.NOT_COORDINATOR, *FENCED}
            assert not FENCED.isdisjoint(answers)
        finally:
            member.stop()
            line.close()


def test_at_least_once_a_late_message_is_recognized(line: Line) -> None:
    repeating = Line(line.topics, line.requests, line.consumer, delivery="at-least-once")
    held = repeating.hold_of_first("Produce")
    repeating.publish(1)
    held.deliver()
    repeating.publish(2)
    repeating.check(3)
    repeating.close()


def test_at_least_once_a_late_commit_repeats_verdicts_and_loses_none(
    topics: Topics, requests: Requests, join: Callable[..., Member]
) -> None:
    """An offset that goes back is no loss: the uploads from there on are answered again, by the same ids."""
    line = Line(
        topics, requests, join(bootstrap_servers=topics.cluster.proxied_servers).consumer, delivery="at-least-once"
    )
    wait_for(lambda: line.consumer.partitions)
    held = requests.hold("OffsetCommit")
    line.publish(0)
    line.publish(1)
    held.deliver()
    assert topics.committed() == {0: 1}
    assert set(topics.read(topics.settings.output_topic)) == {b"0", b"1"}
    line.publish(1)
    assert topics.committed() == {0: 2}
    line.close()
