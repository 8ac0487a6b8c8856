"""The topics: what they should be like, what they are, and what to do about the difference."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from consumer.errors import Misconfigured, Unavailable
from consumer.kafka.config import client_options
from consumer.settings import GRACE_SHARE, KafkaSettings

# How long one question to the brokers may take; the first one also connects.
ASK_TIMEOUT_S = 10.0
DAY_MS = 24 * 60 * 60 * 1000
# What brokers take unless told otherwise.
MESSAGE_BYTES = 1_048_588
# A dead letter is the original message and these headers: why, and where it stood.
DEAD_LETTER_HEADERS_BYTES = 64 << 10
DEAD_LETTER_RETENTION_DAYS = 30


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic needs at least, and how it is cleaned up."""

    name: str
    partitions: int
    replicas: int
    retention_ms: int
    max_message_bytes: int

    @property
    def min_insync_replicas(self) -> int:
        """One less than the copies: a lost broker neither loses an acknowledged message nor stops the writers."""
        return max(1, self.replicas - 1)

    def config(self) -> dict[str, str]:
        """The configuration to create it with."""
        return {
            # Compaction keeps the last message of a key: of two uploads with one id the first would vanish unseen.
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "min.insync.replicas": str(self.min_insync_replicas),
            "max.message.bytes": str(self.max_message_bytes),
        }


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic is. `config` is empty where this user may not read it, or the broker does not tell."""

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One property that is not as wanted. `fatal`: uploads would be lost or stuck, sooner or later."""

    topic: str
    property: str
    actual: str
    expected: str
    remedy: str
    fatal: bool = False


def required_topics(
    settings: KafkaSettings, partitions: int, replicas: int, retention_days: float, window_s: float = 0.0
) -> tuple[TopicSpec, ...]:
    """Input, output and dead-letter topic, in this order, and that of embeddings where there is one.

    `window_s` is the retention of the window: embeddings are kept for as long as it keeps them.
    """
    retention_ms = round(retention_days * DAY_MS)
    longer_ms = max(retention_ms, DEAD_LETTER_RETENTION_DAYS * DAY_MS)
    dead_letter_bytes = MESSAGE_BYTES + DEAD_LETTER_HEADERS_BYTES
    window_ms = math.ceil(window_s * (1 + GRACE_SHARE) * 1000)
    topics = (
        TopicSpec(settings.input_topic, partitions, replicas, retention_ms, MESSAGE_BYTES),
        TopicSpec(settings.output_topic, partitions, replicas, retention_ms, MESSAGE_BYTES),
        TopicSpec(settings.dead_letter_topic, 1, replicas, longer_ms, dead_letter_bytes),
    )
    if not settings.embeddings_topic:
        return topics
    return (*topics, TopicSpec(settings.embeddings_topic, partitions, replicas, window_ms, MESSAGE_BYTES))


class TopicAdmin:
    """Asks and changes the topics of one cluster. Each method raises Unavailable when the brokers cannot be asked."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Does not connect yet. Raises Misconfigured for settings that the client does not take."""
        self._problems: list[str] = []
        options = {**client_options(settings), "error_cb": self._problem}
        del options["logger"]  # says every problem twice, and more
        try:
            self.admin = AdminClient({**options, "log_level": 0})
        except KafkaException as error:
            raise Misconfigured(f"the Kafka client does not take these settings: {error.args[0].str()}") from None

    def list_topics(self) -> dict[str, Topic]:
        """All topics this user may see, without their configuration."""
        try:
            metadata = self.admin.list_topics(timeout=ASK_TIMEOUT_S)
        except KafkaException as error:
            raise self._unavailable(error) from None
        return {
            name: Topic(
                name, len(topic.partitions), min((len(p.replicas) for p in topic.partitions.values()), default=0), {}
            )
            for name, topic in metadata.topics.items()
        }

    def describe(self, names: list[str]) -> dict[str, Topic]:
        """Those of the topics that exist, with their configuration."""
        present = {name: topic for name, topic in self.list_topics().items() if name in names}
        if not present:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in present]
        for resource, future in self.admin.describe_configs(resources, request_timeout=ASK_TIMEOUT_S).items():
            topic = present[resource.name]
            try:
                config = {name: entry.value for name, entry in future.result().items() if entry.value is not None}
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise self._unavailable(error) from None
                config = {}
            present[resource.name] = Topic(topic.name, topic.partitions, topic.replicas, config)
        return present

    def create(self, topics: list[TopicSpec]) -> list[str]:
        """Create those that do not exist yet; their names. What exists is never changed.

        Raises Misconfigured when the brokers refuse.
        """
        present = self.list_topics()
        new = [NewTopic(t.name, t.partitions, t.replicas, config=t.config()) for t in topics if t.name not in present]
        created = []
        for name, future in (self.admin.create_topics(new, request_timeout=ASK_TIMEOUT_S) if new else {}).items():
            try:
                future.result()
                created.append(name)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was quicker
                    raise Misconfigured(f"the topic {name!r} cannot be created: {error.args[0].str()}") from None
        return created

    def _problem(self, error: KafkaError) -> None:
        self._problems.append(error.str())

    def _unavailable(self, error: KafkaException) -> Unavailable:
        """With what the client noticed in the background, which says more than "timed out" does."""
        self.admin.poll(0)
        noticed = [problem for problem in self._problems if "brokers are down" not in problem]
        return Unavailable("kafka", noticed[-1] if noticed else error.args[0].str())


def differences(topics: Mapping[str, Topic], wants: tuple[TopicSpec, ...]) -> Iterator[Difference]:
    """What of the wanted topics (input, output, dead letters, perhaps more) is missing or less than wanted."""
    source, _, dead_letters, *_ = (topics.get(want.name) for want in wants)
    too_small = None if source is None or dead_letters is None else _too_small(source, dead_letters)
    for want in wants:
        if want.name not in topics:
            yield Difference(want.name, "topic", "missing", "there", "seenit topics --create", fatal=True)
            continue
        for difference in _less(topics[want.name], want):
            if too_small is None or (difference.topic, difference.property) != (too_small.topic, too_small.property):
                yield difference
    if too_small is not None:
        yield too_small


def _less(topic: Topic, want: TopicSpec) -> Iterator[Difference]:
    name = topic.name
    if topic.partitions < want.partitions:
        mend = f"kafka-topics.sh --alter --topic {name} --partitions {want.partitions}"
        yield Difference(name, "partitions", str(topic.partitions), f"{want.partitions} or more", mend)
    if topic.replicas < want.replicas:
        mend = "kafka-reassign-partitions.sh with more replicas for each partition"
        yield Difference(name, "replicas", str(topic.replicas), f"{want.replicas} or more", mend)
    if "compact" in topic.config.get("cleanup.policy", ""):
        has = topic.config["cleanup.policy"]
        yield Difference(name, "cleanup.policy", has, "delete", _alter(name, "cleanup.policy", "delete"), fatal=True)
    least = {
        "retention.ms": want.retention_ms,
        "min.insync.replicas": want.min_insync_replicas,
        "max.message.bytes": want.max_message_bytes,
    }
    for what, amount in least.items():
        has = topic.config.get(what, "")
        if has and 0 <= int(has) < amount:  # -1 is without end
            yield Difference(name, what, has, f"{amount} or more", _alter(name, what, str(amount)))
    in_sync = int(topic.config.get("min.insync.replicas", "1"))
    if 1 < topic.replicas <= in_sync:
        less = str(topic.replicas - 1)
        mend = _alter(name, "min.insync.replicas", less)
        yield Difference(name, "min.insync.replicas", str(in_sync), f"{less}, or one lost broker stops writing", mend)


def _too_small(source: Topic, dead_letters: Topic) -> Difference | None:
    """A dead letter is larger than its upload by some headers; where it does not fit, it goes without its value."""
    what = "max.message.bytes"
    most, room = source.config.get(what), dead_letters.config.get(what)
    if most is None or room is None or int(room) >= int(most) + DEAD_LETTER_HEADERS_BYTES:
        return None
    enough = str(int(most) + DEAD_LETTER_HEADERS_BYTES)
    wants = f"{enough} or more, for every message of {source.name} with the headers that say what was wrong"
    return Difference(dead_letters.name, what, room, wants, _alter(dead_letters.name, what, enough))


def _alter(topic: str, what: str, value: str) -> str:
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {what}={value}"
