"""Tries every dependency of a configuration the way the service will use it, and says how to mend what fails."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import redis
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin._acl import AclOperation
from redis.cluster import RedisCluster

from consumer.encoder.contract import ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, Unavailable, Unprocessable
from consumer.images.fetch import STORES, Fetcher
from consumer.kafka.config import client_options
from consumer.kafka.topics import ASK_TIMEOUT_S, TopicAdmin, differences, required_topics
from consumer.settings import FetchSettings, KafkaSettings, RedisSettings, Settings, WindowSettings
from consumer.window.connection import REDIS_FAILURES, connect
from consumer.window.records import NewRecord
from consumer.window.window import RedisWindow

Outcome = Literal["ok", "warning", "failed"]

# The scripts are tested from here on.
OLDEST_REDIS = (7, 0)
# The window that is written to Redis to try it; its keys expire by themselves, soon after this.
TRIAL_RETENTION_S = 60.0
TRIAL_MODEL = ModelInfo("check", "0", size=8, dim=8, threshold_l2=0.5, max_batch_size=1, patches=None)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing tried: what came of it, and what to do if it did not work."""

    what: str
    outcome: Outcome
    detail: str
    remedy: str = ""


def check(settings: Settings) -> Iterator[Finding]:
    """Try broker, Redis, Triton and object stores. Harmless to a service that runs with the same settings."""
    yield from check_kafka(settings.kafka, settings.window.retention_s)
    yield from check_redis(settings.redis)
    yield from check_triton(settings)
    yield from check_fetch(settings.fetch)


# Kafka


def check_kafka(settings: KafkaSettings, window_s: float = 0.0) -> Iterator[Finding]:
    """Brokers, topics, rights, and transactions if they are used."""
    topics = TopicAdmin(settings)
    try:
        found = topics.list_topics()
    except Unavailable as error:
        yield Finding(
            "kafka: brokers",
            "failed",
            error.detail,
            "SEENIT_KAFKA_BOOTSTRAP_SERVERS must name brokers that this machine reaches, under the names they "
            "advertise; SEENIT_KAFKA_SECURITY_PROTOCOL, _SASL_* and _SSL_CA_FILE must be those of that listener",
        )
        return
    brokers = len(topics.admin.list_topics(timeout=ASK_TIMEOUT_S).brokers)
    yield Finding("kafka: brokers", "ok", f"{settings.bootstrap_servers}: {brokers} in the cluster")
    yield from _topics(topics, settings, window_s)
    rights = [(settings.input_topic, "READ"), (settings.output_topic, "WRITE"), (settings.dead_letter_topic, "WRITE")]
    if settings.embeddings_topic:
        rights += [(settings.embeddings_topic, "WRITE"), (settings.embeddings_topic, "READ")]
    for topic, right in rights:
        if topic in found:
            yield _right_on_topic(topics, topic, right)
    yield _group(topics, settings.group_id)
    if settings.delivery == "exactly-once":
        yield _transactions(settings)


def _topics(topics: TopicAdmin, settings: KafkaSettings, window_s: float) -> Iterator[Finding]:
    wants = required_topics(settings, partitions=1, replicas=2, retention_days=1, window_s=window_s)
    found = topics.describe([want.name for want in wants])
    less = list(differences(found, wants))
    for difference in less:
        yield Finding(
            f"kafka: topic {difference.topic}",
            "failed" if difference.fatal else "warning",
            f"{difference.property} is {difference.actual}, should be {difference.expected}",
            difference.remedy,
        )
    for topic in found.values():
        if topic.name not in {difference.topic for difference in less}:
            told = "" if topic.config else "; its configuration may not be read"
            yield Finding(f"kafka: topic {topic.name}", "ok", f"{topic.partitions} partitions{told}")


def _right_on_topic(topics: TopicAdmin, topic: str, right: str) -> Finding:
    what = f"kafka: {right.lower()} {topic}"
    asked = topics.admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=ASK_TIMEOUT_S
    )
    try:
        operations = asked[topic].result().authorized_operations
    except KafkaException as error:
        return Finding(what, "failed", error.args[0].str(), _grant(right, f"--topic {topic}"))
    return _allowed(what, operations, right, f"--topic {topic}")


def _group(topics: TopicAdmin, group: str) -> Finding:
    what = f"kafka: group {group}"
    try:
        description = _described(topics, group)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return Finding(what, "ok", "new: nobody has used it yet")
        return Finding(what, "failed", error.args[0].str(), _grant("READ", f"--group {group}"))
    members = f"{description.state.name.lower()}, {len(description.members)} members"
    return _allowed(what, description.authorized_operations, "READ", f"--group {group}", members)


def _described(topics: TopicAdmin, group: str) -> Any:
    """A cluster's first group has to wait for the topic that its brokers keep offsets in."""
    deadline_s = time.monotonic() + ASK_TIMEOUT_S
    while True:
        asked = topics.admin.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=ASK_TIMEOUT_S
        )
        try:
            return asked[group].result()
        except KafkaException as error:
            not_yet = error.args[0].code() in (
                KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
                KafkaError.COORDINATOR_NOT_AVAILABLE,
                KafkaError.NOT_COORDINATOR,
            )
            if not not_yet or time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)


def _allowed(what: str, operations: Any, right: str, resource: str, detail: str = "") -> Finding:
    if not operations:
        return Finding(what, "ok", detail or "the broker keeps no access lists")
    if AclOperation[right] in operations or AclOperation.ALL in operations:
        return Finding(what, "ok", detail or "allowed")
    names = ", ".join(sorted(operation.name for operation in operations))
    return Finding(what, "failed", f"this user may {names}, and not {right}", _grant(right, resource))


def _grant(right: str, resource: str) -> str:
    return f"kafka-acls.sh --add --allow-principal User:... --operation {right.title()} {resource}"


def _transactions(settings: KafkaSettings) -> Finding:
    """As the service names its transactions: the group's id, a dash, and something."""
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
            mend = _grant("Write", f"--transactional-id {settings.group_id}- --resource-pattern-type prefixed")
        elif error.code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
            mend = "SEENIT_KAFKA_TRANSACTION_TIMEOUT_MS must be at most the brokers' transaction.max.timeout.ms"
        else:
            mend = (
                "is the transaction log replicated enough (transaction.state.log.min.isr)? A broker without "
                "transactions needs SEENIT_KAFKA_DELIVERY=at-least-once"
            )
        return Finding(what, "failed", error.str(), mend)
    return Finding(what, "ok", f"{identity} may begin")


# Redis


def check_redis(settings: RedisSettings) -> Iterator[Finding]:
    """Connection, server, limits, and the scripts."""
    try:
        client = connect(settings)
        client.ping()
    except Misconfigured:
        form = "SEENIT_REDIS_URL: redis[s]://[user:password@]host:port/0, with user and password percent-encoded"
        yield Finding("redis: connection", "failed", "the address has not the form of one", form)
        return
    except redis.AuthenticationError as error:
        yield Finding("redis: connection", "failed", _said(error), "user and password in SEENIT_REDIS_URL")
        return
    except (*REDIS_FAILURES, Unavailable) as error:
        yield Finding(
            "redis: connection",
            "failed",
            _said(error),
            "SEENIT_REDIS_URL must name a Redis that this machine reaches; rediss:// for TLS, with "
            "SEENIT_REDIS_SSL_CA_FILE for an authority of your own; SEENIT_REDIS_CLUSTER for a cluster",
        )
        return
    try:
        yield from _server(client)
        yield _window(client, settings.key_prefix)
    finally:
        client.close()


def _server(client: Any) -> Iterator[Finding]:
    options = {"target_nodes": RedisCluster.RANDOM} if isinstance(client, RedisCluster) else {}
    try:
        info = client.info(**options)
    except REDIS_FAILURES as error:
        detail = f"cannot be asked for its version and limits: {_said(error)}"
        yield Finding("redis: server", "warning", detail, "allow this user +info, or look yourself")
        return
    version = str(info["redis_version"])
    name = f"{info.get('server_name', 'redis')} {info.get('valkey_version', version)}"
    if tuple(map(int, version.split(".")[:2])) < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        yield Finding("redis: server", "failed", f"{name} is too old", f"Redis {oldest} or newer")
    else:
        yield Finding("redis: server", "ok", name)
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding(
            "redis: eviction",
            "failed",
            f"maxmemory-policy is {policy}: whole windows would vanish when memory is short",
            "CONFIG SET maxmemory-policy noeviction, and bound the windows by SEENIT_WINDOW_MAX_BYTES",
        )
    if not info.get("aof_enabled"):
        yield Finding(
            "redis: persistence",
            "warning",
            "no append-only file: a restart forgets what was seen since the last snapshot",
            "appendonly yes, appendfsync everysec",
        )


def _window(client: Any, prefix: str) -> Finding:
    """Append an upload, find its copy, forget it: every script, under the service's own keys."""
    what = "redis: window"
    tenant, digest = f"seenit-check-{uuid.uuid4()}", sha256(b"seenit check").digest()
    now = datetime.now(UTC)
    window = RedisWindow(client, TRIAL_MODEL, WindowSettings(retention_s=TRIAL_RETENTION_S), prefix)
    began_s = time.perf_counter()
    try:
        window.append([NewRecord(tenant, "first", digest, np.eye(1, TRIAL_MODEL.dim, dtype=np.float32)[0], now)])
        earlier = window.find_exact([(tenant, "copy", digest, now)])[0]
        window.delete(tenant, "first")
    except Unavailable as error:
        mend = f"the user needs the keys {prefix}:* and the commands of the scripts: see deploy/README.md"
        return Finding(what, "failed", error.detail, mend)
    took_ms = (time.perf_counter() - began_s) * 1000
    if earlier is None or earlier.image_id != "first":
        return Finding(what, "failed", "an upload just written was not found", "ask for help: this should not happen")
    return Finding(what, "ok", f"written, found and forgotten in {took_ms:.1f} ms")


# Triton


def check_triton(settings: Settings) -> Iterator[Finding]:
    """The model's contract, and a real inference."""
    try:
        with TritonEncoder(settings.triton) as encoder:
            info = encoder.info
            threshold = f"threshold_l2 {info.threshold_l2:g}"
            detail = f"{info.name} {info.version}: {info.size} pixels square to {info.dim} numbers, {threshold}"
            yield Finding("triton: model", "ok", detail)
            most, batch = info.max_batch_size, settings.pipeline.batch_size
            if batch > most:
                yield Finding(
                    "triton: batch size",
                    "warning",
                    f"the model takes {most} pictures at once: SEENIT_PIPELINE_BATCH_SIZE {batch} is cut to that",
                    "raise max_batch_size of the model, or lower the setting",
                )
            began_s = time.perf_counter()
            encoder.check()
            yield Finding("triton: inference", "ok", f"one picture in {(time.perf_counter() - began_s) * 1000:.0f} ms")
    except Unavailable as error:
        yield Finding(
            "triton",
            "failed",
            error.detail,
            "SEENIT_TRITON_URL must be host:port of Triton's gRPC (8001, not the 8000 of HTTP), the model loaded "
            "(/v2/models/image_encoder/ready) and its log free of errors",
        )
    except Misconfigured as error:
        yield Finding(
            "triton: model", "failed", str(error), "serve an encoder that keeps the contract: see deploy/README.md"
        )


# What pictures are fetched from


def check_fetch(settings: FetchSettings) -> Iterator[Finding]:
    """Folders and buckets that pictures may be read from."""
    schemes = sorted({*settings.schemes, *(["s3"] if settings.s3_endpoint else [])})
    hosts = ", ".join(settings.hosts) or "any public host"
    yield Finding("fetch: addresses", "ok", f"{', '.join(schemes)}; http(s) from {hosts}")
    for folder in settings.folders:
        try:
            next(folder.iterdir(), None)
            yield Finding(f"fetch: {folder}", "ok", "can be read")
        except OSError as error:
            yield Finding(
                f"fetch: {folder}", "failed", _said(error), "SEENIT_FETCH_FOLDERS, and the user's rights there"
            )
    stores = [scheme for scheme in schemes if scheme in STORES]
    if stores and not settings.buckets:
        yield Finding(
            "fetch: buckets",
            "warning",
            f"any bucket of {', '.join(stores)} that the credentials allow may be read; none was tried",
            'name them, as SEENIT_FETCH_BUCKETS=["uploads"]',
        )
    with Fetcher(settings) as fetcher:
        for bucket in settings.buckets:
            for scheme in stores:
                yield _bucket(fetcher, scheme, bucket)


def _bucket(fetcher: Fetcher, scheme: str, bucket: str) -> Finding:
    """Ask for an object that is not there: the answer shows whether the store is there and knows the credentials."""
    what = f"fetch: {scheme}://{bucket}"
    try:
        fetcher.fetch(f"{scheme}://{bucket}/seenit-check-{uuid.uuid4()}")
    except Unprocessable as error:
        if "may not be read" not in error.detail:
            return Finding(what, "ok", "the store answers")
        return Finding(
            what,
            "warning",
            error.detail,
            "for an object that does not exist this is how a store answers without the right to list; if uploads end "
            "as not-found too, grant the right to get objects (s3:GetObject)",
        )
    except Unavailable as error:
        return Finding(
            what,
            "failed",
            error.detail,
            "SEENIT_FETCH_S3_ENDPOINT and _S3_REGION, and the store's own credential variables",
        )
    return Finding(what, "ok", "the store answers")


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
