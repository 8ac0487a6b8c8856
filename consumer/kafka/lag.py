"""How far the group is behind: messages between its committed offset and the end of each partition."""

from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.errors import Unavailable
from consumer.kafka.config import client_options
from consumer.settings import KafkaSettings

ASK_TIMEOUT_S = 5.0


class LagReader:
    """Asks the brokers, with a client of its own: the consumer's view of the ends stands still while it is paused.

    That client is a consumer which never joins the group. The admin client would be the natural choice, but as of
    librdkafka 2.15 its questions about groups bring the process down when the group's coordinator does not answer.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.input_topic
        self._asker = Consumer(
            {**client_options(settings), "group.id": settings.group_id, "isolation.level": "read_committed"}
        )

    def ask(self, partitions: Iterable[int]) -> dict[int, int]:
        """The lag of each partition, in messages. Raises Unavailable."""
        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        if not wanted:
            return {}
        try:
            return {at.partition: self._behind(at) for at in self._asker.committed(wanted, ASK_TIMEOUT_S)}
        except KafkaException as error:
            raise Unavailable("kafka", error.args[0].str()) from None

    def _behind(self, committed: TopicPartition) -> int:
        first, end = self._asker.get_watermark_offsets(committed, ASK_TIMEOUT_S)
        return max(0, end - max(first, committed.offset))
