"""Consumer and publisher on real Apache Kafka: committed once or not at all, and never for another process."""

import contextlib
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from confluent_kafka import Producer

from consumer.errors import Unavailable, Unprocessable
from consumer.events import Record
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.dead_letters import dead_letter
from consumer.kafka.leases import Leased
from consumer.kafka.messages import OutgoingMessage
from consumer.kafka.publisher import Publisher
from tests.kafka.group import PARTITIONS, WAIT_S, Member, Topics, leave_transaction_open, new_topics, wait_for
from tests.kafka_cluster import KafkaCluster


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_verdicts_and_offsets_stand_together(topics: Topics, join: Callable[..., Member], protocol: str) -> None:
    topics.upload(b"one", b"two")
    member = join(group_protocol=protocol)
    wait_for(lambda: len(member.received) == 2)
    publisher = Publisher(topics.settings, member.consumer)
    publisher.publish([topics.verdict(b"on one"), topics.verdict(b"on two")], topics.offsets(2))
    assert sorted(topics.read(topics.settings.output_topic)) == [b"on one", b"on two"]
    assert topics.committed() == {0: 2}
    publisher.close()


def test_a_batch_without_verdicts_commits_its_offsets(topics: Topics, join: Callable[..., Member]) -> None:
    topics.upload(b"a deletion")
    member = join()
    wait_for(lambda: member.received)
    publisher = Publisher(topics.settings, member.consumer)
    publisher.publish([], topics.offsets(1))
    assert topics.committed() == {0: 1}
    publisher.close()


def test_what_a_broker_refuses_leaves_nothing_and_can_be_tried_again(
    topics: Topics, join: Callable[..., Member]
) -> None:
    topics.upload(b"one")
    member = join()
    wait_for(lambda: member.received)
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
    """Whoever may upload could otherwise stop a partition for good: a letter is larger than its upload."""
    largest = 50_000
    narrow = f"narrow-{uuid.uuid4().hex[:8]}"
    topics.cluster.create_topic(narrow, PARTITIONS, {"max.message.bytes": str(largest)})
    topics.upload(b"one", b"two")
    member = join()
    wait_for(lambda: len(member.received) == 2)
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
        wait_for(lambda: len(member.received) == 2)
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
    wait_for(lambda: len(member.received) == count)
    # Longer than the broker may be away: Apache Kafka 4.4.0, begun after the time-out of an open transaction, forgets
    # to mark that it gave it up.
    patient = topics.settings.model_copy(update={"transaction_timeout_ms": 180_000})
    publisher = Publisher(patient, member.consumer)
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


def test_a_commit_that_outlasts_its_lease_is_refused(topics: Topics, join: Callable[..., Member]) -> None:
    """Brokers take offsets from any member of the latest generation, also for partitions that another holds by now."""
    first = join(instance_id="first")
    wait_for(lambda: first.partitions == {0, 1})
    for partition in range(PARTITIONS):
        topics.upload(b"one", partition=partition)
    wait_for(lambda: len(first.received) == PARTITIONS)

    class Slow(Publisher):
        def _deliver(self, producer: Producer, messages: Sequence[OutgoingMessage]) -> None:
            super()._deliver(producer, messages)
            second = join(instance_id="second")
            wait_for(lambda: second.received)

    publisher = Slow(topics.settings, first.consumer)
    with first.consumer.commit_lock, pytest.raises(Unavailable):
        publisher.publish([topics.verdict(b"late")], [topics.offset(1, partition) for partition in range(PARTITIONS)])
    assert topics.committed() == {}
    assert topics.read(topics.settings.output_topic) == []
    publisher.close()


def test_nothing_is_committed_under_a_generation_not_taken_over_yet(
    topics: Topics, join: Callable[..., Member]
) -> None:
    """A cooperative member enters the next generation before it gives up the partitions that go to another there."""
    topics.upload(b"one")
    first = UploadsConsumer(topics.settings, lambda: None)
    received: list[Leased] = []
    wait_for(lambda: received.extend(first.poll(1, 0.1, 0)) or received)
    _, lease = received[0]
    assert set(first.partitions) == {0, 1}
    second = join()
    before = str(first._client.consumer_group_metadata())
    wait_for(lambda: str(first._client.consumer_group_metadata()) != before)
    assert first.holds(lease), "the callback that withdraws it has not run"
    publisher = Publisher(topics.settings, first)
    for _ in range(2):
        with pytest.raises(Unavailable, match="ILLEGAL_GENERATION"):
            publisher.publish([topics.verdict(b"late")], topics.offsets(1))
    assert topics.committed() == {}
    wait_for(lambda: first.poll(1, 0.1, 0) or len(first.partitions) == len(second.partitions) == 1)
    remaining = first.partitions[0]
    publisher.publish([topics.verdict(b"in time")], [topics.offset(1, remaining)])
    assert topics.committed() == {remaining: 1}
    assert topics.read(topics.settings.output_topic) == [b"in time"]
    publisher.close()
    first.close()


def test_a_process_killed_in_its_commit_goes_on_when_it_is_back(topics: Topics, join: Callable[..., Member]) -> None:
    """Brokers keep the group's offsets back while a transaction that would change them is open."""
    named = topics.settings.model_copy(update={"instance_id": "same", "transaction_timeout_ms": 180_000})
    topics.upload(b"one")
    killed = join(instance_id="same")
    wait_for(lambda: killed.received)
    producer = leave_transaction_open(
        named.bootstrap_servers, f"{named.group_id}-same", topics.offset(1), killed.consumer.generation
    )
    producer.produce(named.output_topic, b"never seen")
    assert producer.flush(WAIT_S) == 0
    killed.stop()
    back = join(instance_id="same")
    wait_for(lambda: back.partitions)
    time.sleep(3)
    assert back.received == []
    publisher = Publisher(named, back.consumer)
    publisher.prepare()
    wait_for(lambda: back.received)
    publisher.publish([topics.verdict(b"on one")], topics.offsets(1))
    assert topics.read(topics.settings.output_topic) == [b"on one"]
    publisher.close()


def test_a_fenced_publisher_commits_nothing(topics: Topics, join: Callable[..., Member]) -> None:
    topics.upload(b"one")
    member = join()
    wait_for(lambda: member.received)
    named = topics.settings.model_copy(update={"instance_id": "same"})
    zombie, successor = Publisher(named, member.consumer), Publisher(named, member.consumer)
    zombie.publish([topics.verdict(b"once")], topics.offsets(1))
    successor.publish([], topics.offsets(1))
    with pytest.raises(Unavailable, match="FENCED"):
        zombie.publish([topics.verdict(b"from the grave")], topics.offsets(1))
    assert topics.read(topics.settings.output_topic) == [b"once"]
    zombie.close()
    successor.close()
