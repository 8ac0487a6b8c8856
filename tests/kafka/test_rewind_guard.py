"""A client that begins partitions again, on real Apache Kafka: nothing is handed out twice, and nothing is lost."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.events import Record
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.leases import Lease
from consumer.kafka.publisher import Publisher
from tests.kafka.group import PARTITIONS, WAIT_S, Member, Topics, wait_for


def test_a_partition_goes_on_where_it_was_although_a_transaction_stood_open(
    topics: Topics, join: Callable[..., Member]
) -> None:
    for partition in range(PARTITIONS):
        topics.upload(*(b"%d" % n for n in range(8)), partition=partition)
    killed = join()
    wait_for(lambda: len(killed.received) == 8 * PARTITIONS)
    publisher = Publisher(topics.settings, killed.consumer)
    publisher.publish([], [topics.offset(3, partition) for partition in range(PARTITIONS)])
    producer = publisher._ready_producer()
    producer.begin_transaction()
    further = [topics.offset(6, partition) for partition in range(PARTITIONS)]
    producer.send_offsets_to_transaction(further, killed.consumer._client.consumer_group_metadata(), WAIT_S)
    killed.stop()
    # While the brokers hold back the offsets of the open transaction, the group changes once more.
    first = join()
    wait_for(lambda: first.partitions == {0, 1})
    second = join()
    wait_for(lambda: len(first.partitions) == len(second.partitions) == 1)
    wait_for(lambda: first.received and second.received)
    assert first.received[0][0] == second.received[0][0] == b"3"
    publisher.close()


def test_what_waits_of_a_partition_that_begins_again_is_not_handed_out(
    topics: Topics, join: Callable[..., Member]
) -> None:
    topics.upload(b"0", b"1", b"2")
    first = join()
    wait_for(lambda: len(first.received) == 3)
    publisher = Publisher(topics.settings, first.consumer)
    publisher.publish([], topics.offsets(3))
    publisher.close()
    first.stop()
    successor = UploadsConsumer(topics.settings, lambda: None)
    wait_for(lambda: successor.poll(2, 0.1, 0.01) or set(successor.partitions) == {0, 1})
    lease = Lease(0, successor._lease_numbers[0])
    # As many as one batch takes, and one more: as if the client had begun at the start.
    successor.put_back([(Record(successor.topic, 0, n, None, b"%d" % n, (), 1), lease) for n in range(3)])
    topics.upload(b"3")
    received: list[bytes | None] = []
    wait_for(lambda: received.extend(record.value for record, _ in successor.poll(2, 0.1, 0.01)) or received)
    assert received == [b"3"]
    successor.close()


def test_a_client_that_goes_back_by_itself_doubles_nothing(topics: Topics, join: Callable[..., Member]) -> None:
    topics.upload(b"0", b"1", b"2")
    member = join()
    wait_for(lambda: len(member.received) == 3)
    member.consumer._client.seek(TopicPartition(member.consumer.topic, 0, 0))
    topics.upload(b"3")
    wait_for(lambda: len(member.received) > 3)
    assert [value for value, _ in member.received] == [b"0", b"1", b"2", b"3"]


def test_a_topic_made_anew_is_read_from_its_start(topics: Topics) -> None:
    consumer = UploadsConsumer(topics.settings, lambda: None)
    received: list[bytes | None] = []

    def poll() -> int:
        received.extend(record.value for record, _ in consumer.poll(10, 0.1, 0.01))
        return len(received)

    topics.upload(*(b"%d" % n for n in range(8)))
    wait_for(lambda: poll() == 8)
    topics.cluster.delete_topics(consumer.topic)
    topics.cluster.create_topic(consumer.topic, PARTITIONS)
    topics.upload(b"new 0", b"new 1")
    time.sleep(3)  # the client fetches them by itself
    # By the time that the first one is taken, the new log has grown beyond what was read of the old one.
    topics.upload(*(b"new %d" % n for n in range(2, 30)))
    wait_for(lambda: poll() == 38)
    assert received[8:] == [b"new %d" % n for n in range(30)]
    consumer.close()


def test_while_nobody_can_tell_the_topic_nothing_is_handed_out(
    topics: Topics, join: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.upload(b"0", b"1")
    member = join()
    wait_for(lambda: len(member.received) == 2)
    requested = threading.Event()

    def unknown(*_: object, **__: object) -> dict[str, object]:
        requested.set()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    with monkeypatch.context() as patch:
        patch.setattr(member.consumer._rewind_guard, "_admin", SimpleNamespace(describe_topics=unknown))
        member.consumer._client.seek(TopicPartition(member.consumer.topic, 0, 0))
        assert requested.wait(WAIT_S)
        topics.upload(b"2")
        time.sleep(0.5)
        assert len(member.received) == 2
    wait_for(lambda: len(member.received) == 3)
    assert [value for value, _ in member.received] == [b"0", b"1", b"2"]
