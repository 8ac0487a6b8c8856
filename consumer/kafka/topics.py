"""The topics: what each should be, what it is, and how to remedy the difference."""

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

# Limit of one request to the brokers; the first one also connects.
ASK_TIMEOUT_S = 10.0
DAY_MS = 24 * 60 * 60 * 1000
# The largest message that brokers take by default.
DEFAULT_MESSAGE_BYTES = 1_048_588
# Room for the headers that a dead letter adds to the original message: why it failed, and its position.
DEAD_LETTER_HEADERS_BYTES = 64 << 10
DEAD_LETTER_RETENTION_DAYS = 30
AUDIT_RETENTION_DAYS = 365
# Of a compacted topic: what is not replaced stays.
FOREVER_MS = -1


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The least that a topic needs."""

    name: str
    partitions: int
    replicas: int
    retention_ms: int
    max_message_bytes: int
    dated_by_brokers: bool = True  # else by whoever sends a message
    compacted: bool = False  # else messages are deleted when their time is over

    @property
    def min_insync_replicas(self) -> int:
        """One less than the replicas: a lost broker neither loses an acknowledged message nor stops the writers."""
        return max(1, self.replicas - 1)

    @property
    def cleanup_policy(self) -> str:
        """Whether the last message of a key is kept: of two uploads with one id the first would vanish unread."""
        return "compact" if self.compacted else "delete"

    def config(self) -> dict[str, str]:
        """The configuration to create the topic with."""
        return {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            "min.insync.replicas": str(self.min_insync_replicas),
            "max.message.bytes": str(self.max_message_bytes),
            # Brokers refuse a message dated an hour ahead: a process whose clock is wrong could publish nothing.
            **({"message.timestamp.type": "LogAppendTime"} if self.dated_by_brokers else {}),
        }


@dataclass(frozen=True, slots=True)
class Topic:
    """An existing topic. `config` is empty where this user may not read it, or the broker does not return it."""

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A property of a topic that is not as required. `fatal`: uploads would be lost or stuck, sooner or later."""

    topic: str
    property: str
    actual: str
    expected: str
    remedy: str
    fatal: bool = False


def required_topics(
    settings: KafkaSettings, partitions: int, replicas: int, retention_days: float, window_s: float = 0.0
) -> tuple[TopicSpec, ...]:
    """Specify the input, output and dead-letter topic, in this order, and the others that the settings name.

    `window_s` is the retention of the window: embeddings are kept for as long as the window keeps them.
    """
    retention_ms = round(retention_days * DAY_MS)
    dead_letter_retention_ms = max(retention_ms, DEAD_LETTER_RETENTION_DAYS * DAY_MS)
    dead_letter_bytes = DEFAULT_MESSAGE_BYTES + DEAD_LETTER_HEADERS_BYTES
    embeddings_retention_ms = math.ceil(window_s * (1 + GRACE_SHARE) * 1000)
    topics = [
        # An upload's time, where it names none, is that of its message.
        TopicSpec(settings.input_topic, partitions, replicas, retention_ms, DEFAULT_MESSAGE_BYTES, False),
        TopicSpec(settings.output_topic, partitions, replicas, retention_ms, DEFAULT_MESSAGE_BYTES),
        TopicSpec(settings.dead_letter_topic, 1, replicas, dead_letter_retention_ms, dead_letter_bytes),
    ]
    if name := settings.embeddings_topic:
        topics.append(TopicSpec(name, partitions, replicas, embeddings_retention_ms, DEFAULT_MESSAGE_BYTES))
    if name := settings.banks_topic:
        # In one partition the order of banks and their entries is that in which they were sent.
        topics.append(TopicSpec(name, 1, replicas, FOREVER_MS, DEFAULT_MESSAGE_BYTES, compacted=True))
    if name := settings.rematches_topic:
        topics.append(TopicSpec(name, partitions, replicas, retention_ms, DEFAULT_MESSAGE_BYTES))
    if name := settings.feedback_topic:
        topics.append(TopicSpec(name, 1, replicas, retention_ms, DEFAULT_MESSAGE_BYTES, False))
        decisions = settings.decisions_topic
        topics.append(TopicSpec(decisions, 1, replicas, FOREVER_MS, DEFAULT_MESSAGE_BYTES, compacted=True))
    if name := settings.audit_topic:
        audit_retention_ms = max(retention_ms, AUDIT_RETENTION_DAYS * DAY_MS)
        topics.append(TopicSpec(name, 1, replicas, audit_retention_ms, DEFAULT_MESSAGE_BYTES))
    return tuple(topics)


class TopicAdmin:
    """Lists, describes and creates a cluster's topics. Methods raise Unavailable when the brokers do not answer."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Make the client, without connecting yet. Raises Misconfigured for settings that the client does not take."""
        self._problems: list[str] = []
        options = {**client_options(settings), "error_cb": self._note_problem}
        del options["logger"]  # it would report every problem twice, and more
        try:
            self.admin = AdminClient({**options, "log_level": 0})
        except KafkaException as error:
            raise Misconfigured(f"the Kafka client does not take these settings: {error.args[0].str()}") from None

    def list_topics(self) -> dict[str, Topic]:
        """List all topics that this user may see, without their configuration."""
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
        """Describe the topics of these names that exist, with their configuration."""
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
        """Create the topics that do not exist yet, and return their names. Existing topics are never changed.

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
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was quicker
                    raise Misconfigured(f"the topic {name!r} cannot be created: {error.args[0].str()}") from None
        return created

    def _note_problem(self, error: KafkaError) -> None:
        self._problems.append(error.str())

    def _unavailable(self, error: KafkaException) -> Unavailable:
        """Make an Unavailable with the client's last problem in the background, which says more than "timed out"."""
        self.admin.poll(0)
        causes = [problem for problem in self._problems if "brokers are down" not in problem]
        return Unavailable("kafka", causes[-1] if causes else error.args[0].str())


def differences(topics: Mapping[str, Topic], specs: tuple[TopicSpec, ...]) -> Iterator[Difference]:
    """Compare topics with the specs of input, output, dead letters and perhaps more; yield what is not as required."""
    uploads, _, dead_letters, *_ = (topics.get(spec.name) for spec in specs)
    too_small = None if uploads is None or dead_letters is None else _compare_dead_letters(uploads, dead_letters)
    for spec in specs:
        if spec.name not in topics:
            yield Difference(spec.name, "topic", "missing", "there", "seenit topics --create", fatal=True)
            continue
        for difference in _compare(topics[spec.name], spec):
            if too_small is None or (difference.topic, difference.property) != (too_small.topic, too_small.property):
                yield difference
    if too_small is not None:
        yield too_small


def _compare(topic: Topic, spec: TopicSpec) -> Iterator[Difference]:
    name = topic.name
    if topic.partitions < spec.partitions:
        remedy = f"kafka-topics.sh --alter --topic {name} --partitions {spec.partitions}"
        yield Difference(name, "partitions", str(topic.partitions), f"{spec.partitions} or more", remedy)
    if topic.replicas < spec.replicas:
        remedy = "kafka-reassign-partitions.sh with more replicas for each partition"
        yield Difference(name, "replicas", str(topic.replicas), f"{spec.replicas} or more", remedy)
    policy = topic.config.get("cleanup.policy", spec.cleanup_policy)
    if policy != spec.cleanup_policy:
        remedy = _alter_command(name, "cleanup.policy", spec.cleanup_policy)
        yield Difference(name, "cleanup.policy", policy, spec.cleanup_policy, remedy, fatal=True)
    dated = topic.config.get("message.timestamp.type", "LogAppendTime")
    if spec.dated_by_brokers and dated != "LogAppendTime":
        expected = "LogAppendTime, or a process whose clock is an hour ahead publishes nothing"
        remedy = _alter_command(name, "message.timestamp.type", "LogAppendTime")
        yield Difference(name, "message.timestamp.type", dated, expected, remedy)
    minimums = {
        "retention.ms": spec.retention_ms,
        "min.insync.replicas": spec.min_insync_replicas,
        "max.message.bytes": spec.max_message_bytes,
    }
    for key, minimum in minimums.items():
        actual = topic.config.get(key, "")
        if actual and 0 <= int(actual) < minimum:  # -1 is without limit
            yield Difference(name, key, actual, f"{minimum} or more", _alter_command(name, key, str(minimum)))
    in_sync = int(topic.config.get("min.insync.replicas", "1"))
    if 1 < topic.replicas <= in_sync:
        one_less = str(topic.replicas - 1)
        expected = f"{one_less}, or one lost broker stops writing"
        remedy = _alter_command(name, "min.insync.replicas", one_less)
        yield Difference(name, "min.insync.replicas", str(in_sync), expected, remedy)


def _compare_dead_letters(uploads: Topic, dead_letters: Topic) -> Difference | None:
    """Compare the topics' limits: a dead letter is larger than its upload by some headers.

    Where a dead letter does not fit, it is published without its value.
    """
    key = "max.message.bytes"
    upload_bytes, actual = uploads.config.get(key), dead_letters.config.get(key)
    if upload_bytes is None or actual is None or int(actual) >= int(upload_bytes) + DEAD_LETTER_HEADERS_BYTES:
        return None
    minimum = str(int(upload_bytes) + DEAD_LETTER_HEADERS_BYTES)
    expected = f"{minimum} or more, for every message of {uploads.name} with the headers that say what was wrong"
    return Difference(dead_letters.name, key, actual, expected, _alter_command(dead_letters.name, key, minimum))


def _alter_command(topic: str, key: str, value: str) -> str:
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {key}={value}"
