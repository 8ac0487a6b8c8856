"""A consumer is killed between the offsets and the end of its transaction: it goes on when it is back."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.faults.flow import RATE, TRANSACTION_TIMEOUT_MS, Flow
from tests.torture.world import World

KAFKA_TIMEOUT_S = 30.0


@pytest.mark.timeout(240)
def test_killed_in_its_commit(world: World, flow: Callable[..., Flow]) -> None:
    """Brokers keep back offsets over which a transaction is open: whoever left it open has to end it."""
    running = flow(uploads=RATE * 90, static=True)
    running.start()
    running.consumer.kill()
    leave_transaction_open(world.kafka.bootstrap_servers, running.settings)
    running.consumer.start()
    running.until_ready()
    running.goes_on("it waits for the end of its own transaction")
    running.uploader.stop()
    running.finish()


def leave_transaction_open(servers: str, settings: dict[str, str]) -> None:
    """Do what the consumer does between two commits, under its name, up to the moment before the second one."""
    group, name = settings["SEENIT_KAFKA_GROUP_ID"], settings["SEENIT_KAFKA_INSTANCE_ID"]
    options = {"transactional.id": f"{group}-{name}", "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    producer = Producer({"bootstrap.servers": servers, **options})
    producer.init_transactions(KAFKA_TIMEOUT_S)
    producer.begin_transaction()
    outsider = Consumer({"bootstrap.servers": servers, "group.id": group})
    offsets = [TopicPartition(settings["SEENIT_KAFKA_INPUT_TOPIC"], 0, 1)]
    producer.send_offsets_to_transaction(offsets, outsider.consumer_group_metadata(), KAFKA_TIMEOUT_S)
    outsider.close()
