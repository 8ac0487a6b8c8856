"""What `kafka` and `publish` promise, on real Apache Kafka: committed once or not at all, never for somebody else."""

import contextlib
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast
from unittest.mock import MagicMock

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from prometheus_client import CollectorRegistry

from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, Unavailable, Unprocessable
from consumer.events import Record
from consumer.images.fetch import Fetcher
from consumer.kafka.consumer import Lease, Leased, UploadsConsumer
from consumer.kafka.dead_letters import dead_letter
from consumer.kafka.messages import OutgoingMessage
from consumer.kafka.publisher import Publisher
from consumer.pipeline.poison import PoisonGuard
from consumer.pipeline.runner import Pipeline
from consumer.settings import FetchSettings, KafkaSettings, PipelineSettings, Settings
from consumer.telemetry.metrics import Metrics
from consumer.window.window import RedisWindow
from tests.kafka_cluster import KafkaCluster
from tests.pipeline.test_stages import PlayedEncoder

WAIT_S = 30.0
PARTITIONS = 2


@dataclass
class Topics:
    """Topics and a group of one test's own."""

    cluster: KafkaCluster
    settings: KafkaSettings

    def upload(self, *values: bytes, partition: int = 0) -> None:
        """Puts messages on a partition of the input topic."""
        producer = Producer({"bootstrap.servers": self.settings.bootstrap_servers, "message.max.bytes": 64 << 20})
        for value in values:
            producer.produce(self.settings.input_topic, value, b"key", partition)
        assert producer.flush(WAIT_S) == 0

    def read(self, topic: str, isolation: str = "read_committed") -> list[bytes]:
        """Every value of a topic, as a reader of that isolation sees them."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap_servers,
                "group.id": uuid.uuid4().hex,
                "isolation.level": isolation,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        values, ended, deadline_s = [], set(), time.monotonic() + WAIT_S
        while len(ended) < PARTITIONS:
            assert time.monotonic() < deadline_s, f"{topic} cannot be read to its end"
            for message in consumer.consume(1000, 0.2):
                error = message.error()
                if error is None:
                    values.append(message.value() or b"")
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        consumer.close()
        return values

    def committed(self) -> dict[int, int]:
        """The group's offsets, by partition."""
        asker = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, "group.id": self.settings.group_id})
        asked = [TopicPartition(self.settings.input_topic, partition) for partition in range(PARTITIONS)]
        found = {at.partition: at.offset for at in asker.committed(asked, WAIT_S) if at.offset >= 0}
        asker.close()
        return found

    def verdict(self, value: bytes) -> OutgoingMessage:
        """Something to publish."""
        return OutgoingMessage(self.settings.output_topic, b"key", value, ())

    def offset(self, offset: int, partition: int = 0) -> TopicPartition:
        """An offset to commit."""
        return TopicPartition(self.settings.input_topic, partition, offset)

    def offsets(self, offset: int) -> list[TopicPartition]:
        """The offset of partition 0."""
        return [self.offset(offset)]


@pytest.fixture
def topics(kafka_cluster: KafkaCluster) -> Topics:
    return new_topics(kafka_cluster)


def new_topics(cluster: KafkaCluster) -> Topics:
    name = uuid.uuid4().hex[:8]
    settings = KafkaSettings(
        bootstrap_servers=cluster.bootstrap_servers,
        group_id=name,
        input_topic=f"in-{name}",
        output_topic=f"out-{name}",
        dead_letter_topic=f"dlq-{name}",
        session_timeout_ms=6000,
        transaction_timeout_ms=15_000,
    )
    for topic in (settings.input_topic, settings.output_topic, settings.dead_letter_topic):
        cluster.create_topic(topic, PARTITIONS)
    return Topics(cluster, settings)


@dataclass
class Member:
    """A consumer that polls on a thread of its own, and keeps what it got."""

    consumer: UploadsConsumer
    got: list[tuple[bytes, Lease]] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self.busy = threading.Event()  # no room for records: it only stays in the group
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    @property
    def partitions(self) -> set[int]:
        return {p for p in range(PARTITIONS) if self.consumer._client and p in self.consumer._numbers}

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.consumer.close()

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                if self.busy.is_set():
                    self.consumer.idle(0.1)
                    continue
                for record, lease in self.consumer.poll(10, 0.1, 0.01):
                    self.got.append((record.value or b"", lease))
            except Unavailable as error:
                self.error = error
            except BaseException as error:
                self.error = error
                return


@pytest.fixture
def join(topics: Topics) -> Iterator[Callable[..., Member]]:
    """Lets consumers join the group; they leave it in the end."""
    members: list[Member] = []

    def new(on_revoke: Callable[[], None] = lambda: None, **changes: object) -> Member:
        members.append(Member(UploadsConsumer(topics.settings.model_copy(update=changes), on_revoke)))
        return members[-1]

    yield new
    for member in members:
        member.stop()


def soon(true: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.05)


def test_records_that_are_put_back_come_again_before_others(topics: Topics) -> None:
    topics.upload(*(b"%d" % n for n in range(5)))
    consumer = UploadsConsumer(topics.settings, lambda: None)
    polled: list[bytes] = []

    def poll(most: int) -> None:
        leased = consumer.poll(most, 0.2, 0.01)
        consumer.put_back(leased[1:])
        polled.extend(record.value or b"" for record, _ in leased[:1])

    try:
        soon(lambda: poll(5) or len(polled) == 3)
        topics.upload(b"later")
        soon(lambda: poll(2) or len(polled) == 6)
    finally:
        consumer.close()
    assert polled == [b"0", b"1", b"2", b"3", b"4", b"later"]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_verdicts_and_offsets_stand_together(topics: Topics, join: Callable[..., Member], protocol: str) -> None:
    topics.upload(b"one", b"two")
    member = join(group_protocol=protocol)
    soon(lambda: len(member.got) == 2)
    publisher = Publisher(topics.settings, member.consumer)
    publisher.publish([topics.verdict(b"on one"), topics.verdict(b"on two")], topics.offsets(2))
    assert sorted(topics.read(topics.settings.output_topic)) == [b"on one", b"on two"]
    assert topics.committed() == {0: 2}
    publisher.close()


def test_a_batch_without_verdicts_commits_its_offsets(topics: Topics, join: Callable[..., Member]) -> None:
    topics.upload(b"a deletion")
    member = join()
    soon(lambda: member.got)
    publisher = Publisher(topics.settings, member.consumer)
    publisher.publish([], topics.offsets(1))
    assert topics.committed() == {0: 1}
    publisher.close()


def test_what_a_broker_refuses_leaves_nothing_and_can_be_tried_again(
    topics: Topics, join: Callable[..., Member]
) -> None:
    topics.upload(b"one")
    member = join()
    soon(lambda: member.got)
    publisher = Publisher(topics.settings, member.consumer)
    nowhere = OutgoingMessage("there-is-no-such-topic", b"key", b"lost", ())
    with pytest.raises(Unavailable, match="there-is-no-such-topic"):
        publisher.publish([topics.verdict(b"first try"), nowhere], topics.offsets(1))
    assert topics.committed() == {}
    assert topics.read(topics.settings.output_topic) == []
    assert topics.read(topics.settings.output_topic, "read_uncommitted") == [b"first try"]
    publisher.publish([topics.verdict(b"second try")], topics.offsets(1))
    assert topics.read(topics.settings.output_topic) == [b"second try"]
    assert topics.committed() == {0: 1}
    publisher.close()


def test_a_dead_letter_larger_than_its_topic_takes_goes_without_its_value(
    topics: Topics, join: Callable[..., Member]
) -> None:
    """Whoever may upload could otherwise stop a partition for good: a letter is larger than what it tells of."""
    largest = 50_000
    narrow = f"narrow-{uuid.uuid4().hex[:8]}"
    topics.cluster.create_topic(narrow, PARTITIONS, {"max.message.bytes": str(largest)})
    topics.upload(b"one", b"two")
    member = join()
    soon(lambda: len(member.got) == 2)
    publisher = Publisher(topics.settings, member.consumer)
    reason = Unprocessable("not-an-image", "no decoder knows it")
    letters = [
        dead_letter(Record("in", 0, n, b"key", value, (("content-type", b"image/jpeg"),), 0), reason, "x", narrow)
        for n, value in enumerate((b"small", random.Random(1).randbytes(largest)))
    ]
    publisher.publish([topics.verdict(b"unprocessable"), *letters], topics.offsets(2))
    assert topics.read(topics.settings.output_topic) == [b"unprocessable"]
    assert sorted(topics.read(narrow)) == [b"", b"small"]
    assert topics.committed() == {0: 2}
    publisher.close()


def test_a_coordinator_that_is_gone_holds_nobody_up_for_ever(kafka_trio: KafkaCluster) -> None:
    topics = new_topics(kafka_trio)
    member = Member(UploadsConsumer(topics.settings, lambda: None))
    publisher = Publisher(topics.settings, member.consumer)
    try:
        topics.upload(b"one", b"two")
        soon(lambda: len(member.got) == 2)
        publisher.publish([topics.verdict(b"1")], topics.offsets(1))
        group = topics.settings.group_id
        admin = kafka_trio.admin()
        kafka_trio.kill(admin.describe_consumer_groups([group])[group].result(WAIT_S).coordinator.id)
        time.sleep(3)  # the client hears that there is no such broker any more
        done = threading.Event()

        def publish() -> None:
            while not done.is_set():
                with contextlib.suppress(Unavailable):
                    publisher.publish([topics.verdict(b"2")], topics.offsets(2))
                    done.set()

        threading.Thread(target=publish, daemon=True).start()
        assert done.wait(90), "the client does not come back"
        assert topics.committed() == {0: 2}
        assert Counter(topics.read(topics.settings.output_topic)) == {b"1": 1, b"2": 1}
    finally:
        member.stop()
        publisher.close()


def test_a_broker_that_comes_and_goes_never_doubles_a_verdict(
    topics: Topics, kafka_broker: KafkaCluster, join: Callable[..., Member]
) -> None:
    """A commit whose answer is lost may stand or not: the publisher has to find out which."""
    count = 120
    topics.upload(*(b"%d" % n for n in range(count)))
    member = join()
    soon(lambda: len(member.got) == count)
    publisher = Publisher(topics.settings, member.consumer)
    failures: list[str] = []

    def publish_all() -> None:
        for n in range(count):
            while True:
                try:
                    publisher.publish([topics.verdict(b"%d" % n)], topics.offsets(n + 1))
                    break
                except Unavailable as error:
                    failures.append(str(error))
                    time.sleep(0.2)
            time.sleep(0.02)

    thread = threading.Thread(target=publish_all)
    thread.start()
    time.sleep(0.7)
    kafka_broker.freeze(0)
    time.sleep(18)
    kafka_broker.thaw(0)
    time.sleep(1)
    kafka_broker.kill(0)
    kafka_broker.start(0)
    thread.join(120)
    assert not thread.is_alive(), failures
    assert failures, "the broker was never missed"
    assert Counter(topics.read(topics.settings.output_topic)) == Counter(b"%d" % n for n in range(count))
    assert topics.committed() == {0: count}
    publisher.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_partition_moves_without_loss_and_its_lease_ends(
    topics: Topics, join: Callable[..., Member], protocol: str
) -> None:
    asked: list[float] = []
    first = join(lambda: asked.append(time.monotonic()), group_protocol=protocol)
    soon(lambda: first.partitions == {0, 1})
    topics.upload(b"before", partition=0)
    topics.upload(b"before", partition=1)
    soon(lambda: len(first.got) == 2)
    leases = {lease.partition: lease for _, lease in first.got}
    second = join(group_protocol=protocol)
    soon(lambda: len(first.partitions) == len(second.partitions) == 1)
    [kept], [moved] = first.partitions, second.partitions
    assert bool(asked) == (protocol == "consumer"), "asked to finish what can be committed, and only that"
    assert first.consumer.holds(leases[kept])
    assert not first.consumer.holds(leases[moved])
    # Nothing was committed, so the heir begins where the first began.
    soon(lambda: [value for value, _ in second.got] == [b"before"])
    second.stop()
    soon(lambda: first.partitions == {0, 1})
    assert not first.consumer.holds(leases[moved]), "the old lease came back to life"


def test_a_commit_that_outlasts_its_lease_is_refused(topics: Topics, join: Callable[..., Member]) -> None:
    """Brokers take offsets from any member of the latest generation, also of partitions that are another's by now."""
    first = join(instance_id="first")
    soon(lambda: first.partitions == {0, 1})
    for partition in range(PARTITIONS):
        topics.upload(b"one", partition=partition)
    soon(lambda: len(first.got) == PARTITIONS)

    class Slow(Publisher):
        def _deliver(self, producer: Producer, messages: Sequence[OutgoingMessage]) -> None:
            super()._deliver(producer, messages)
            second = join(instance_id="second")
            soon(lambda: second.got)

    publisher = Slow(topics.settings, first.consumer)
    with first.consumer.commit_lock, pytest.raises(Unavailable):
        publisher.publish([topics.verdict(b"late")], [topics.offset(1, partition) for partition in range(PARTITIONS)])
    assert topics.committed() == {}
    assert topics.read(topics.settings.output_topic) == []
    publisher.close()


def test_nothing_is_committed_under_a_generation_not_taken_over_yet(
    topics: Topics, join: Callable[..., Member]
) -> None:
    """A cooperative member enters the next generation before it gives up what goes to another there."""
    topics.upload(b"one")
    first = UploadsConsumer(topics.settings, lambda: None)
    got: list[Leased] = []
    soon(lambda: got.extend(first.poll(1, 0.1, 0)) or got)
    _, lease = got[0]
    assert set(first.partitions) == {0, 1}
    second = join()
    before = str(first._client.consumer_group_metadata())
    soon(lambda: str(first._client.consumer_group_metadata()) != before)
    assert first.holds(lease), "the callback that withdraws it has not run"
    publisher = Publisher(topics.settings, first)
    for _ in range(2):
        with pytest.raises(Unavailable, match="ILLEGAL_GENERATION"):
            publisher.publish([topics.verdict(b"late")], topics.offsets(1))
    assert topics.committed() == {}
    soon(lambda: first.poll(1, 0.1, 0) or len(first.partitions) == len(second.partitions) == 1)
    kept = first.partitions[0]
    publisher.publish([topics.verdict(b"in time")], [topics.offset(1, kept)])
    assert topics.committed() == {kept: 1}
    assert topics.read(topics.settings.output_topic) == [b"in time"]
    publisher.close()
    first.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_partition_that_went_while_it_was_paused_runs_when_it_comes_back(
    topics: Topics, join: Callable[..., Member], protocol: str
) -> None:
    first = join(group_protocol=protocol)
    soon(lambda: first.partitions == {0, 1})
    first.busy.set()
    soon(lambda: first.consumer._paused == {0, 1})
    second = join(group_protocol=protocol)
    soon(lambda: len(first.partitions) == len(second.partitions) == 1)
    second.stop()
    soon(lambda: first.partitions == {0, 1})
    first.busy.clear()
    for partition in range(PARTITIONS):
        topics.upload(b"%d" % partition, partition=partition)
    soon(lambda: {value for value, _ in first.got} == {b"0", b"1"})


def test_a_partition_goes_on_where_it_was_although_a_transaction_stood_open(
    topics: Topics, join: Callable[..., Member]
) -> None:
    for partition in range(PARTITIONS):
        topics.upload(*(b"%d" % n for n in range(8)), partition=partition)
    killed = join()
    soon(lambda: len(killed.got) == 8 * PARTITIONS)
    publisher = Publisher(topics.settings, killed.consumer)
    publisher.publish([], [topics.offset(3, partition) for partition in range(PARTITIONS)])
    producer = publisher._ready_producer()
    producer.begin_transaction()
    further = [topics.offset(6, partition) for partition in range(PARTITIONS)]
    producer.send_offsets_to_transaction(further, killed.consumer._client.consumer_group_metadata(), WAIT_S)
    killed.stop()
    # While the brokers hold the open transaction's offsets back, the group changes once more.
    first = join()
    soon(lambda: first.partitions == {0, 1})
    second = join()
    soon(lambda: len(first.partitions) == len(second.partitions) == 1)
    soon(lambda: first.got and second.got)
    assert first.got[0][0] == second.got[0][0] == b"3"
    publisher.close()


def test_what_waits_of_a_partition_that_begins_again_is_not_handed_out(
    topics: Topics, join: Callable[..., Member]
) -> None:
    topics.upload(b"0", b"1", b"2")
    first = join()
    soon(lambda: len(first.got) == 3)
    publisher = Publisher(topics.settings, first.consumer)
    publisher.publish([], topics.offsets(3))
    publisher.close()
    first.stop()
    heir = UploadsConsumer(topics.settings, lambda: None)
    soon(lambda: heir.poll(2, 0.1, 0.01) or set(heir.partitions) == {0, 1})
    lease = Lease(0, heir._numbers[0])
    # As many as one batch takes, and one more: as if the client had begun at the start.
    heir.put_back([(Record(heir.topic, 0, n, None, b"%d" % n, (), 1), lease) for n in range(3)])
    topics.upload(b"3")
    got: list[bytes | None] = []
    soon(lambda: got.extend(record.value for record, _ in heir.poll(2, 0.1, 0.01)) or got)
    assert got == [b"3"]
    heir.close()


def test_a_client_that_goes_back_by_itself_doubles_nothing(topics: Topics, join: Callable[..., Member]) -> None:
    topics.upload(b"0", b"1", b"2")
    member = join()
    soon(lambda: len(member.got) == 3)
    member.consumer._client.seek(TopicPartition(member.consumer.topic, 0, 0))
    topics.upload(b"3")
    soon(lambda: len(member.got) > 3)
    assert [value for value, _ in member.got] == [b"0", b"1", b"2", b"3"]


def test_a_topic_made_anew_is_read_from_its_start(topics: Topics) -> None:
    consumer = UploadsConsumer(topics.settings, lambda: None)
    got: list[bytes | None] = []

    def poll() -> int:
        got.extend(record.value for record, _ in consumer.poll(10, 0.1, 0.01))
        return len(got)

    topics.upload(*(b"%d" % n for n in range(8)))
    soon(lambda: poll() == 8)
    topics.cluster.delete_topics(consumer.topic)
    topics.cluster.create_topic(consumer.topic, PARTITIONS)
    topics.upload(b"new 0", b"new 1")
    time.sleep(3)  # the client fetches them by itself
    # By the time that the first one is taken, the log has grown beyond what was read of the other.
    topics.upload(*(b"new %d" % n for n in range(2, 30)))
    soon(lambda: poll() == 38)
    assert got[8:] == [b"new %d" % n for n in range(30)]
    consumer.close()


def test_while_nobody_can_tell_the_topic_nothing_is_handed_out(
    topics: Topics, join: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.upload(b"0", b"1")
    member = join()
    soon(lambda: len(member.got) == 2)
    asked = threading.Event()

    def unknown(*_: object, **__: object) -> dict[str, object]:
        asked.set()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    with monkeypatch.context() as patch:
        patch.setattr(member.consumer, "_admin", SimpleNamespace(describe_topics=unknown))
        member.consumer._client.seek(TopicPartition(member.consumer.topic, 0, 0))
        assert asked.wait(WAIT_S)
        topics.upload(b"2")
        time.sleep(0.5)
        assert len(member.got) == 2
    soon(lambda: len(member.got) == 3)
    assert [value for value, _ in member.got] == [b"0", b"1", b"2"]


def test_two_processes_under_one_name_end_with_one(topics: Topics, join: Callable[..., Member]) -> None:
    first = join(instance_id="same")
    soon(lambda: first.partitions == {0, 1})
    second = join(instance_id="same")
    soon(lambda: second.partitions == {0, 1})
    soon(lambda: first.error is not None)
    soon(lambda: isinstance(first.error, Misconfigured))
    assert "fenced" in str(first.error)
    soon(lambda: second.partitions == {0, 1})
    topics.upload(b"late")
    soon(lambda: b"late" in [value for value, _ in second.got])


def test_a_member_that_is_fenced_once_joins_again(topics: Topics, join: Callable[..., Member]) -> None:
    first = join(instance_id="same")
    soon(lambda: first.partitions == {0, 1})
    topics.upload(b"early")
    soon(lambda: first.got)
    early = first.got[0][1]
    # What the brokers see of a member whose coordinator stood still: another join under its name, and nobody behind it.
    ghost = Consumer(first.consumer._options)
    ghost.subscribe([topics.settings.input_topic])
    soon(lambda: not ghost.poll(0.1) and first.error)
    assert isinstance(first.error, Unavailable)
    assert "fenced" in str(first.error)
    assert not first.consumer.holds(early)
    soon(lambda: first.partitions == {0, 1})
    topics.upload(b"late")
    soon(lambda: b"late" in [value for value, _ in first.got])
    ghost.close()


def test_an_heir_waits_until_the_name_is_free(topics: Topics, join: Callable[..., Member]) -> None:
    first = join(instance_id="same", group_protocol="consumer")
    soon(lambda: first.partitions == {0, 1})
    second = join(instance_id="same", group_protocol="consumer")
    soon(lambda: second.error is not None)
    assert isinstance(second.error, Unavailable)
    assert "'same'" in str(second.error)
    assert first.error is None
    first.stop()
    soon(lambda: second.partitions == {0, 1})
    topics.upload(b"late")
    soon(lambda: [value for value, _ in second.got] == [b"late"])


def test_a_pipeline_without_room_waits_for_its_name_too(topics: Topics, join: Callable[..., Member]) -> None:
    first = join(instance_id="same", group_protocol="consumer")
    soon(lambda: first.partitions == {0, 1})
    kafka = topics.settings.model_copy(update={"instance_id": "same", "group_protocol": "consumer"})
    pipeline = Pipeline(
        Settings(kafka=kafka, pipeline=PipelineSettings(shutdown_timeout_s=0.1)),
        Fetcher(FetchSettings()),
        cast(TritonEncoder, PlayedEncoder()),
        MagicMock(spec=RedisWindow),
        Metrics(CollectorRegistry()),
        cast(PoisonGuard, None),
    )
    pipeline._in_flight = 99
    running = threading.Thread(target=pipeline.run)
    running.start()
    soon(lambda: "kafka" in pipeline.progress.waiting_for or not running.is_alive())
    assert "'same'" in pipeline.progress.waiting_for["kafka"]
    assert running.is_alive()
    pipeline.stop()
    running.join()


def test_a_fenced_publisher_commits_nothing(topics: Topics, join: Callable[..., Member]) -> None:
    topics.upload(b"one")
    member = join()
    soon(lambda: member.got)
    named = topics.settings.model_copy(update={"instance_id": "same"})
    zombie, heir = Publisher(named, member.consumer), Publisher(named, member.consumer)
    zombie.publish([topics.verdict(b"once")], topics.offsets(1))
    heir.publish([], topics.offsets(1))
    with pytest.raises(Unavailable, match="FENCED"):
        zombie.publish([topics.verdict(b"from the grave")], topics.offsets(1))
    assert topics.read(topics.settings.output_topic) == [b"once"]
    zombie.close()
    heir.close()
