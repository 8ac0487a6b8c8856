"""Earlier uploads are told once, also when the process that looks for them is killed in the middle."""

import json
import os
import signal
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis

from consumer.local.pictures import edited, photographs
from consumer.moderation.banks import BankDefined, BankEntry, change_message
from tests.kafka_cluster import KafkaCluster
from tests.processes import until
from tests.service_fixtures import PARTITIONS, Service, new_service

PHOTOGRAPHS = dict(photographs())
NAMES = ("chelsea.png", "coffee.png", "moon.png", "rocket.jpg")
KILLS = 3


RETENTION_S = 15


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lookback_s", [None, 3600.0], ids=["in the window", "that left the window"])
def test_each_pair_is_told_once_however_often_the_process_is_killed(
    kafka_cluster: KafkaCluster, redis_server: str, triton: str, tmp_path: Path, lookback_s: float | None
) -> None:
    random = np.random.default_rng(0)
    servers = kafka_cluster.bootstrap_servers
    settings = {"SEENIT_KAFKA_DELIVERY": "exactly-once", "SEENIT_KAFKA_TRANSACTION_TIMEOUT_MS": "15000"}
    if lookback_s is not None:
        settings |= {"SEENIT_KAFKA_EMBEDDINGS_TOPIC": f"embeddings-{uuid.uuid4().hex[:8]}"}
        settings |= {"SEENIT_WINDOW_RETENTION_S": str(RETENTION_S)}
    with new_service(servers, redis_server, triton, tmp_path, banks=True, **settings) as service:
        consumer = service.consumer()
        for name in NAMES:
            service.picture(name, PHOTOGRAPHS[name])
            service.picture(f"copy of {name}", edited(PHOTOGRAPHS[name], "re-compressed", random))
        service.await_verdicts(2 * len(NAMES))
        if lookback_s is not None:
            rows = f"{service.environment['SEENIT_REDIS_KEY_PREFIX']}:{{default}}:*:rows"
            with Redis.from_url(redis_server) as redis:
                until(lambda: not redis.keys(rows), 4 * RETENTION_S, "the window still holds uploads")
        service.send_message(change_message(service.kafka.banks_topic, BankDefined(bank="b", kind="block")))
        for number, name in enumerate(NAMES):
            entry = BankEntry(bank="b", entry_id=name, data_base64=PHOTOGRAPHS[name], lookback=lookback_s)
            service.send_message(change_message(service.kafka.banks_topic, entry))
            if number < KILLS:
                time.sleep(float(random.uniform(0.2, 1.5)))
                os.kill(consumer.pid, signal.SIGKILL)
                consumer.stop()
                consumer = service.consumer()
        expected = {(name, image_id) for name in NAMES for image_id in (name, f"copy of {name}")}
        assert told(service, expected) == dict.fromkeys(expected, 1)


def told(service: Service, expected: set[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Read the committed events until all that are expected are there; count them by entry and upload."""
    reader = Consumer({"bootstrap.servers": service.kafka.bootstrap_servers, "group.id": uuid.uuid4().hex})
    reader.assign([TopicPartition(service.kafka.rematches_topic, partition, 0) for partition in range(PARTITIONS)])
    counts: Counter[tuple[str, str]] = Counter()
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        complete = set(counts) >= expected
        for message in reader.consume(100, 3.0 if complete else 0.5):  # what is told twice is told soon after
            if message.error() is None:
                data = json.loads(message.value() or b"")
                counts[data["entry_id"], data["image_id"]] += 1
        if complete:
            break
    reader.close()
    return counts
