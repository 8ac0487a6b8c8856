"""The lag that is read from brokers that are there, gone and back."""

import subprocess
import sys
import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka.lag import LagReader
from consumer.settings import KafkaSettings
from tests.kafka_cluster import KafkaCluster

# Reads the lag again and again, as fast as it can; ends when its standard input does.
READER = """
import sys, threading
from consumer.errors import Unavailable
from consumer.kafka.lag import LagReader
from consumer.settings import KafkaSettings

lag = LagReader(KafkaSettings(bootstrap_servers=sys.argv[1], input_topic=sys.argv[2], group_id=sys.argv[2]))
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
answers, failures = 0, 0
while not ended.is_set():
    try:
        answers += lag.ask([0, 1]) == {0: 3, 1: 0}
    except Unavailable:
        failures += 1
print(answers, failures)
"""


@pytest.fixture
def settings(kafka_cluster: KafkaCluster) -> KafkaSettings:
    topic = f"lag-{uuid.uuid4().hex[:8]}"
    kafka_cluster.create_topic(topic, 2)
    producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap_servers})
    for n in range(3):
        producer.produce(topic, str(n), partition=0)
    assert producer.flush(20) == 0
    group = Consumer({"bootstrap.servers": kafka_cluster.bootstrap_servers, "group.id": topic})
    group.committed([TopicPartition(topic, 0)], 30)  # the first question about a group takes fresh brokers a while
    group.close()
    return KafkaSettings(bootstrap_servers=kafka_cluster.bootstrap_servers, input_topic=topic, group_id=topic)


def test_lag_counts_from_the_committed_offset_or_the_beginning(settings: KafkaSettings) -> None:
    lag = LagReader(settings)
    assert lag.ask([]) == {}
    assert lag.ask([0, 1]) == {0: 3, 1: 0}
    group = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group_id})
    group.commit(offsets=[TopicPartition(settings.input_topic, 0, 2)], asynchronous=False)
    group.close()
    assert lag.ask([0, 1]) == {0: 1, 1: 0}


def test_brokers_that_come_and_go_are_unavailable_and_then_answer_again(
    settings: KafkaSettings, kafka_broker: KafkaCluster
) -> None:
    """In a process of its own: some calls of the client bring the whole process down when a coordinator is away."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, settings.bootstrap_servers, settings.input_topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        for away_s in (3, 8):
            time.sleep(3)
            kafka_broker.kill(0)
            time.sleep(away_s)
            kafka_broker.start(0)
        time.sleep(5)
        printed, _ = reader.communicate()
    assert reader.returncode == 0
    answers, failures = map(int, printed.split())
    assert answers > 10
    assert failures > 0


def test_nobody_answers() -> None:
    with pytest.raises(Unavailable):
        LagReader(KafkaSettings(bootstrap_servers="127.0.0.1:1")).ask([0])
