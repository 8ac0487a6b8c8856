"""A consumer is killed between the offsets and the end of its transaction: it goes on when it is back."""

from collections.abc import Callable
from contextlib import closing

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.faults.flow import RATE, Flow
from tests.kafka.group import leave_transaction_open
from tests.torture.world import World


@pytest.mark.timeout(240)
def test_killed_in_its_commit(world: World, flow: Callable[..., Flow]) -> None:
    """Brokers keep back offsets over which a transaction is open: whoever left it open has to end it."""
    running = flow(uploads=RATE * 90, static=True)
    running.start()
    running.consumer.kill()
    servers, group = world.kafka.bootstrap_servers, running.settings["SEENIT_KAFKA_GROUP_ID"]
    name = f"{group}-{running.settings['SEENIT_KAFKA_INSTANCE_ID']}"
    with closing(Consumer({"bootstrap.servers": servers, "group.id": group})) as outsider:
        offset = TopicPartition(running.settings["SEENIT_KAFKA_INPUT_TOPIC"], 0, 1)
        leave_transaction_open(servers, name, offset, outsider.consumer_group_metadata())
    running.consumer.start()
    running.until_ready()
    running.goes_on("it waits for the end of its own transaction")
    running.uploader.stop()
    running.finish()
