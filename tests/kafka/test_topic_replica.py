"""A process's copy of a topic: whoever wrote to the topic can wait until the copy has it."""

import threading

from consumer.events import Record
from consumer.kafka.topic_replica import TopicReplica
from tests.kafka.group import WAIT_S, Topics


def test_what_was_written_is_waited_for(topics: Topics) -> None:
    applied, may_go_on = list[bytes | None](), threading.Event()

    def apply(record: Record) -> None:
        may_go_on.wait(WAIT_S)
        applied.append(record.value)

    replica = TopicReplica(topics.settings, topics.settings.input_topic, apply)
    replica.start()
    try:
        topics.upload(b"first", b"second", partition=1)
        assert not replica.await_read(1, 0, 0.5)  # read at most, not applied
        may_go_on.set()
        assert replica.await_read(1, 1, WAIT_S)
        assert applied == [b"first", b"second"]
        assert not replica.await_read(1, 2, 0.1)  # nobody wrote that
        assert not replica.await_read(0, 0, 0.1)
    finally:
        may_go_on.set()
        replica.close()
