"""Tries the Kafka cluster: brokers, topics, rights, and transactions if they are used."""

import time
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin._acl import AclOperation

from consumer.cli.preflight.finding import Finding
from consumer.errors import Unavailable
from consumer.kafka.config import client_options
from consumer.kafka.topics import ASK_TIMEOUT_S, TopicAdmin, differences, required_topics
from consumer.settings import KafkaSettings


def check_kafka(settings: KafkaSettings, window_s: float = 0.0) -> Iterator[Finding]:
    """Try brokers, topics, rights, and transactions if they are used; `window_s` is the retention of the window."""
    topics = TopicAdmin(settings)
    existing = yield from _brokers(topics, settings)
    if existing is None:
        return
    yield from _topics(topics, settings, window_s)
    yield from _rights(topics, existing, _service_rights(settings))
    yield _group(topics, settings.group_id)
    if settings.banks_topic:
        yield _group(topics, f"{settings.group_id}-rematches")
    if settings.feedback_topic:
        yield _group(topics, f"{settings.group_id}-feedback")
    if settings.delivery == "exactly-once":
        yield _transactions(settings)


def check_serving(settings: KafkaSettings, *, thumbnails: bool = False) -> Iterator[Finding]:
    """Try the rights that `seenit serve` needs: it reads verdicts, sends events, and tells the audit topic of them."""
    topics = TopicAdmin(settings)
    existing = yield from _brokers(topics, settings)
    if existing is None:
        return
    rights = [(settings.output_topic, "READ"), (settings.input_topic, "READ"), (settings.input_topic, "WRITE")]
    for topic in filter(None, (settings.banks_topic, settings.feedback_topic)):
        rights += [(topic, "READ"), (topic, "WRITE")]
    if settings.feedback_topic:
        rights.append((settings.decisions_topic, "READ"))
    if settings.audit_topic:
        rights.append((settings.audit_topic, "WRITE"))
    for topic, right in rights:
        if topic not in existing:
            remedy = f"`seenit topics --create`, or {_grant(right, f'--topic {topic}')}"
            yield Finding(f"kafka: {right.lower()} {topic}", "failed", "is missing, or unknown to this user", remedy)
    yield from _rights(topics, existing, rights)
    yield _group(topics, settings.group_id, "DESCRIBE")
    if thumbnails:
        yield _group(topics, f"{settings.group_id}-thumbnails")


def _brokers(topics: TopicAdmin, settings: KafkaSettings) -> Generator[Finding, None, Collection[str] | None]:
    """Try the brokers, and return the names of their topics; None if they do not answer."""
    try:
        existing = topics.list_topics()
    except Unavailable as error:
        yield Finding(
            "kafka: brokers",
            "failed",
            error.detail,
            "SEENIT_KAFKA_BOOTSTRAP_SERVERS must name brokers that this machine reaches, under the names they "
            "advertise; SEENIT_KAFKA_SECURITY_PROTOCOL, _SASL_* and _SSL_CA_FILE must be those of that listener",
        )
        return None
    brokers = len(topics.admin.list_topics(timeout=ASK_TIMEOUT_S).brokers)
    yield Finding("kafka: brokers", "ok", f"{settings.bootstrap_servers}: {brokers} in the cluster")
    return existing


def _service_rights(settings: KafkaSettings) -> list[tuple[str, str]]:
    """What the service needs: rights on topics."""
    rights = [(settings.input_topic, "READ"), (settings.output_topic, "WRITE"), (settings.dead_letter_topic, "WRITE")]
    if settings.embeddings_topic:
        rights += [(settings.embeddings_topic, "WRITE"), (settings.embeddings_topic, "READ")]
    if settings.banks_topic:
        rights += [(settings.banks_topic, "READ"), (settings.banks_topic, "WRITE")]
    if settings.rematches_topic:
        rights.append((settings.rematches_topic, "WRITE"))
    if settings.feedback_topic:
        rights += [
            (settings.feedback_topic, "READ"),
            (settings.decisions_topic, "READ"),
            (settings.decisions_topic, "WRITE"),
        ]
    return rights


def _topics(topics: TopicAdmin, settings: KafkaSettings, window_s: float) -> Iterator[Finding]:
    """Compare the topics with the least that a service in production needs."""
    specs = required_topics(settings, partitions=1, replicas=2, retention_days=1, window_s=window_s)
    existing = topics.describe([spec.name for spec in specs])
    problems = list(differences(existing, specs))
    for problem in problems:
        yield Finding(
            f"kafka: topic {problem.topic}",
            "failed" if problem.fatal else "warning",
            f"{problem.property} is {problem.actual}, should be {problem.expected}",
            problem.remedy,
        )
    for topic in existing.values():
        if topic.name not in {problem.topic for problem in problems}:
            unread = "" if topic.config else "; its configuration may not be read"
            yield Finding(f"kafka: topic {topic.name}", "ok", f"{topic.partitions} partitions{unread}")


def _rights(topics: TopicAdmin, existing: Collection[str], rights: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Ask for rights on topics, of those that exist."""
    for topic, right in rights:
        if topic in existing:
            yield _right_on_topic(topics, topic, right)


def _right_on_topic(topics: TopicAdmin, topic: str, right: str) -> Finding:
    what = f"kafka: {right.lower()} {topic}"
    futures = topics.admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=ASK_TIMEOUT_S
    )
    try:
        operations = futures[topic].result().authorized_operations
    except KafkaException as error:
        return Finding(what, "failed", error.args[0].str(), _grant(right, f"--topic {topic}"))
    return _right_among(operations, what, right, f"--topic {topic}")


def _group(topics: TopicAdmin, group: str, right: str = "READ") -> Finding:
    what = f"kafka: group {group}"
    try:
        description = _describe_group(topics, group)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return Finding(what, "ok", "new: nobody has used it yet")
        return Finding(what, "failed", error.args[0].str(), _grant(right, f"--group {group}"))
    members = f"{description.state.name.lower()}, {len(description.members)} members"
    return _right_among(description.authorized_operations, what, right, f"--group {group}", members)


def _describe_group(topics: TopicAdmin, group: str) -> Any:
    """Describe the group, and ask again for a while: a cluster's first one waits for the topic of the offsets."""
    deadline_s = time.monotonic() + ASK_TIMEOUT_S
    while True:
        futures = topics.admin.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=ASK_TIMEOUT_S
        )
        try:
            return futures[group].result()
        except KafkaException as error:
            not_yet = error.args[0].code() in (
                KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
                KafkaError.COORDINATOR_NOT_AVAILABLE,
                KafkaError.NOT_COORDINATOR,
            )
            if not not_yet or time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)


def _right_among(operations: Any, what: str, right: str, resource: str, detail: str = "") -> Finding:
    """Tell whether a right is among the operations that the brokers allow this user; they may keep no such lists."""
    if not operations:
        return Finding(what, "ok", detail or "the broker keeps no access lists")
    if AclOperation[right] in operations or AclOperation.ALL in operations:
        return Finding(what, "ok", detail or "allowed")
    names = ", ".join(sorted(operation.name for operation in operations))
    return Finding(what, "failed", f"this user may {names}, and not {right}", _grant(right, resource))


def _grant(right: str, resource: str) -> str:
    return f"kafka-acls.sh --add --allow-principal User:... --operation {right.title()} {resource}"


def _transactions(settings: KafkaSettings) -> Finding:
    """Try to begin transactions under an id like the service's: the group's id, a dash, and something."""
    what = "kafka: transactions"
    identity = f"{settings.group_id}-check"
    try:
        producer = Producer(
            {
                **client_options(settings),
                "transactional.id": identity,
                "transaction.timeout.ms": settings.transaction_timeout_ms,
            }
        )
        producer.init_transactions(ASK_TIMEOUT_S)
    except KafkaException as exception:
        error: KafkaError = exception.args[0]
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            remedy = _grant("Write", f"--transactional-id {settings.group_id}- --resource-pattern-type prefixed")
        elif error.code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
            remedy = "SEENIT_KAFKA_TRANSACTION_TIMEOUT_MS must be at most the brokers' transaction.max.timeout.ms"
        else:
            remedy = (
                "is the transaction log replicated enough (transaction.state.log.min.isr)? A broker without "
                "transactions needs SEENIT_KAFKA_DELIVERY=at-least-once"
            )
        return Finding(what, "failed", error.str(), remedy)
    return Finding(what, "ok", f"{identity} may begin")
