"""The publisher with a client that hangs or breaks down, which no real broker brings about at will."""

import threading
import time
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from confluent_kafka import Producer, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka import publisher as publisher_module
from consumer.settings import KafkaSettings


def test_a_client_that_does_not_come_back_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    woken = threading.Event()
    hanging = MagicMock(spec=Producer)
    hanging.flush.return_value = 0
    hanging.send_offsets_to_transaction.side_effect = lambda *_: woken.wait(30)
    monkeypatch.setattr(publisher_module, "HANG_TIMEOUT_S", 0.1)
    publisher = publisher_module.Publisher(KafkaSettings(), cast(Any, MagicMock()))
    publisher._producer = hanging
    began_s = time.monotonic()
    with pytest.raises(Unavailable, match="does not come back"):
        publisher.publish([], [TopicPartition("in", 0, 1)])
    woken.set()
    assert time.monotonic() - began_s < 10
    hanging.commit_transaction.assert_not_called()
    assert publisher._producer is None  # the next try has a producer of its own, which fences this one


def test_a_client_that_breaks_down_is_replaced() -> None:
    """A fatal error in flush(), as after a message that came late, does not arrive as the exception that it should."""
    broken = MagicMock(spec=Producer)
    broken.flush.side_effect = SystemError("<method 'flush'> returned NULL without setting an exception")
    publisher = publisher_module.Publisher(KafkaSettings(), cast(Any, MagicMock()))
    publisher._producer = broken
    with pytest.raises(Unavailable, match="gave up"):
        publisher.publish([], [TopicPartition("in", 0, 1)])
    assert publisher._producer is None


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_nothing_is_committed_that_does_not_pass_the_check(delivery: Any) -> None:
    client, consumer = MagicMock(spec=Producer), MagicMock()
    client.flush.return_value = 0

    def check() -> None:
        assert client.flush.called
        raise Unavailable("redis", "lost")

    publisher = publisher_module.Publisher(KafkaSettings(delivery=delivery), cast(Any, consumer))
    publisher._producer = client
    with pytest.raises(Unavailable, match="lost"):
        publisher.publish([], [TopicPartition("in", 0, 1)], check)
    client.commit_transaction.assert_not_called()
    consumer.commit.assert_not_called()
    assert client.abort_transaction.called == (publisher._producer is None) == (delivery == "exactly-once")
