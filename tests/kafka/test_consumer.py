"""The consumer as a member of its group, on real Apache Kafka: partitions move, and names are held by one process."""

import threading
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer

from consumer.errors import Misconfigured, Unavailable
from consumer.kafka.config import consumer_options
from consumer.kafka.consumer import UploadsConsumer
from tests.kafka.group import PARTITIONS, Member, Topics, wait_for
from tests.kafka_cluster.requests import Requests


def test_records_that_are_put_back_come_again_before_others(topics: Topics) -> None:
    topics.upload(*(b"%d" % n for n in range(5)))
    consumer = UploadsConsumer(topics.settings, lambda: None)
    polled: list[bytes] = []

    def poll(limit: int) -> None:
        leased = consumer.poll(limit, 0.2, 0.01)
        consumer.put_back(leased[1:])
        polled.extend(record.value or b"" for record, _ in leased[:1])

    try:
        wait_for(lambda: poll(5) or len(polled) == 3)
        topics.upload(b"later")
        wait_for(lambda: poll(2) or len(polled) == 6)
    finally:
        consumer.close()
    assert polled == [b"0", b"1", b"2", b"3", b"4", b"later"]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_partition_moves_without_loss_and_its_lease_ends(
    topics: Topics, join: Callable[..., Member], protocol: str
) -> None:
    revocations_s: list[float] = []
    first = join(lambda: revocations_s.append(time.monotonic()), group_protocol=protocol)
    wait_for(lambda: first.partitions == {0, 1})
    topics.upload(b"before", partition=0)
    topics.upload(b"before", partition=1)
    wait_for(lambda: len(first.received) == 2)
    leases = {lease.partition: lease for _, lease in first.received}
    second = join(group_protocol=protocol)
    wait_for(lambda: len(first.partitions) == len(second.partitions) == 1)
    [remaining], [moved] = first.partitions, second.partitions
    assert bool(revocations_s) == (protocol == "consumer"), "asked to finish what can be committed, and only that"
    assert first.consumer.holds(leases[remaining])
    assert not first.consumer.holds(leases[moved])
    # Nothing was committed, so the other begins where the first began.
    wait_for(lambda: [value for value, _ in second.received] == [b"before"])
    second.stop()
    wait_for(lambda: first.partitions == {0, 1})
    assert not first.consumer.holds(leases[moved]), "the old lease came back to life"


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_partition_that_went_while_it_was_paused_runs_when_it_comes_back(
    topics: Topics, join: Callable[..., Member], protocol: str
) -> None:
    first = join(group_protocol=protocol)
    wait_for(lambda: first.partitions == {0, 1})
    first.busy.set()
    wait_for(lambda: first.consumer._paused == {0, 1})
    second = join(group_protocol=protocol)
    wait_for(lambda: len(first.partitions) == len(second.partitions) == 1)
    second.stop()
    wait_for(lambda: first.partitions == {0, 1})
    first.busy.clear()
    for partition in range(PARTITIONS):
        topics.upload(b"%d" % partition, partition=partition)
    wait_for(lambda: {value for value, _ in first.received} == {b"0", b"1"})


def test_a_partition_has_an_owner_though_the_answer_that_gives_it_is_lost(
    topics: Topics, requests: Requests, join: Callable[..., Member]
) -> None:
    """Each of two members gives one up to a third, one of them later: the third has one when the answer is lost."""
    topic = f"six-{topics.settings.input_topic}"
    topics.cluster.create_topic(topic, 6)
    changes = {"group_protocol": "consumer", "input_topic": topic}
    requests.start_over()
    quick = join(**changes)
    wait_for(lambda: len(quick.partitions) == 6)
    may_revoke = threading.Event()
    slow = join(may_revoke.wait, **changes)
    wait_for(lambda: len(quick.partitions) == len(slow.partitions) == 3)
    third = join(bootstrap_servers=topics.cluster.proxied_servers, **changes)
    wait_for(lambda: len(third.partitions) == 1)
    time.sleep(1)  # it has confirmed that it has the one
    name = third.consumer._client.memberid()
    for _ in range(100):  # more than it sends until the brokers have given it the other one
        requests.lose_answer("ConsumerGroupHeartbeat", silent=True)
    may_revoke.set()
    wait_for(lambda: topics.cluster.assignment(topics.settings.group_id)[name] == 2)
    assert len(third.partitions) == 1
    requests.forget()
    wait_for(lambda: {*quick.partitions, *slow.partitions, *third.partitions} == set(range(6)))


def test_two_processes_under_one_name_end_with_one(topics: Topics, join: Callable[..., Member]) -> None:
    first = join(instance_id="same")
    wait_for(lambda: first.partitions == {0, 1})
    second = join(instance_id="same")
    wait_for(lambda: second.partitions == {0, 1})
    wait_for(lambda: first.error is not None)
    wait_for(lambda: isinstance(first.error, Misconfigured))
    assert "fenced" in str(first.error)
    wait_for(lambda: second.partitions == {0, 1})
    topics.upload(b"late")
    wait_for(lambda: b"late" in [value for value, _ in second.received])


def test_a_member_that_is_fenced_once_joins_again(topics: Topics, join: Callable[..., Member]) -> None:
    first = join(instance_id="same")
    wait_for(lambda: first.partitions == {0, 1})
    topics.upload(b"early")
    wait_for(lambda: first.received)
    early = first.received[0][1]
    # To the brokers, a member whose coordinator stood still joins once more under its name, with no process behind it.
    ghost = Consumer(consumer_options(topics.settings.model_copy(update={"instance_id": "same"})))
    ghost.subscribe([topics.settings.input_topic])
    wait_for(lambda: not ghost.poll(0.1) and first.error)
    assert isinstance(first.error, Unavailable)
    assert "fenced" in str(first.error)
    assert not first.consumer.holds(early)
    wait_for(lambda: first.partitions == {0, 1})
    topics.upload(b"late")
    wait_for(lambda: b"late" in [value for value, _ in first.received])
    ghost.close()


def test_an_heir_waits_until_the_name_is_free(topics: Topics, join: Callable[..., Member]) -> None:
    first = join(instance_id="same", group_protocol="consumer")
    wait_for(lambda: first.partitions == {0, 1})
    second = join(instance_id="same", group_protocol="consumer")
    wait_for(lambda: second.error is not None)
    assert isinstance(second.error, Unavailable)
    assert "'same'" in str(second.error)
    assert first.error is None
    first.stop()
    wait_for(lambda: second.partitions == {0, 1})
    topics.upload(b"late")
    wait_for(lambda: [value for value, _ in second.received] == [b"late"])
