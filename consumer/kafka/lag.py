"""The group's lag: messages between its committed offset and the end of each partition."""

from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka.config import client_options
from consumer.settings import KafkaSettings

ASK_TIMEOUT_S = 5.0


class LagReader:
    """Reads the lag from the brokers.

    It has a client of its own, since the ends that the consumer knows stand still while it is paused. That client is a
    consumer which never joins the group. The admin client would be the natural choice, but as of librdkafka 2.15 its
    requests about groups bring the process down when the group's coordinator does not answer.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.input_topic
        self._client = Consumer(
            {**client_options(settings), "group.id": settings.group_id, "isolation.level": "read_committed"}
        )

    def ask(self, partitions: Iterable[int]) -> dict[int, int]:
        """Read the lag of each of these partitions, in messages. Raises Unavailable."""
        requested = [TopicPartition(self._topic, partition) for partition in partitions]
        if not requested:
            return {}
        try:
            committed = self._client.committed(requested, ASK_TIMEOUT_S)
            return {position.partition: self._behind(position) for position in committed}
        except KafkaException as error:
            raise Unavailable("kafka", error.args[0].str()) from None

    def total(self) -> int:
        """Read the lag of all partitions together, in messages. Raises Unavailable."""
        try:
            topic = self._client.list_topics(self._topic, ASK_TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise Unavailable("kafka", error.args[0].str()) from None
        return sum(self.ask(topic.partitions).values())

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _behind(self, committed: TopicPartition) -> int:
        first, end = self._client.get_watermark_offsets(committed, ASK_TIMEOUT_S)
        return max(0, end - max(first, committed.offset))
