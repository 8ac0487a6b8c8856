"""`seenit check` and `seenit topics` against real servers: well, badly configured, and away."""

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from pydantic import SecretStr
from redis import Redis

from consumer.cli.preflight.check import check_all
from consumer.cli.preflight.finding import Finding
from consumer.cli.preflight.kafka import check_kafka
from consumer.cli.preflight.redis import check_redis
from consumer.errors import Misconfigured, Unavailable
from consumer.kafka.topics import Difference, TopicAdmin, differences, required_topics
from consumer.local.binaries import Binaries
from consumer.local.pictures import photographs
from consumer.local.process import free_ports
from consumer.settings import FetchSettings, KafkaSettings, PipelineSettings, RedisSettings, Settings, TritonSettings
from tests.commands import seenit
from tests.kafka_cluster import KafkaCluster
from tests.kafka_fixtures import USERS
from tests.processes import until
from tests.redis_servers import client_of, redis_like
from tests.service_fixtures import Service
from tests.stack_fixtures import serving

USER = "seenit"


def kafka_settings(bootstrap_servers: str, **changes: object) -> KafkaSettings:
    """Return settings with topics and a group of this very test."""
    name = f"ops-{uuid.uuid4().hex[:8]}"
    return KafkaSettings(
        bootstrap_servers=bootstrap_servers,
        group_id=name,
        input_topic=name,
        output_topic=f"{name}.out",
        dead_letter_topic=f"{name}.dlq",
    ).model_copy(update=changes)


def created(settings: KafkaSettings, partitions: int = 3) -> KafkaSettings:
    specs = list(required_topics(settings, partitions, 1, 7))
    assert TopicAdmin(settings).create(specs) == [spec.name for spec in specs]
    return settings


def differing(settings: KafkaSettings, partitions: int = 3, replicas: int = 1) -> list[Difference]:
    specs = required_topics(settings, partitions, replicas, 7)
    topics = TopicAdmin(settings)
    return list(differences(topics.describe([spec.name for spec in specs]), specs))


def change(cluster: KafkaCluster, topic: str, **config: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]

    def described() -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = admin.describe_configs([resource])[resource].result(10)
        return {name.replace(".", "_"): entry.value for name, entry in entries.items()}

    admin = cluster.admin()
    for future in admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]
    ).values():
        future.result(10)
    # Brokers hear of it a little later than the controller.
    until(lambda: config.items() <= described().items(), 10, f"{topic} does not change")


def by_what(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def failed(findings: dict[str, Finding]) -> set[str]:
    return {what for what, finding in findings.items() if finding.outcome == "failed"}


# Topics


def test_topics_are_created_as_wanted_and_left_alone_afterwards(kafka_cluster: KafkaCluster) -> None:
    settings = kafka_settings(kafka_cluster.bootstrap_servers)
    missing = differing(settings)
    assert [(d.property, d.actual, d.fatal) for d in missing] == [("topic", "missing", True)] * 3
    created(settings)
    assert differing(settings) == []
    change(kafka_cluster, settings.input_topic, retention_ms="-1")
    assert TopicAdmin(settings).create(list(required_topics(settings, 9, 1, 7))) == []
    [few_in, few_out] = differing(settings, partitions=9)
    assert (few_in.topic, few_in.property, few_in.actual) == (settings.input_topic, "partitions", "3")
    assert few_out.topic == settings.output_topic
    assert "--partitions 9" in few_in.remedy
    assert differing(settings) == []  # kept for ever is long enough


def test_each_property_that_differs_is_named_with_its_remedy(kafka_cluster: KafkaCluster) -> None:
    settings = created(kafka_settings(kafka_cluster.bootstrap_servers))
    topic, dead_letters = settings.input_topic, settings.dead_letter_topic
    change(kafka_cluster, topic, cleanup_policy="compact,delete", retention_ms="60000", max_message_bytes="8000000")
    by_property = {(d.topic, d.property): d for d in differing(settings, replicas=2)}
    assert set(by_property) == {
        *((name, "replicas") for name in (topic, settings.output_topic, dead_letters)),
        (topic, "cleanup.policy"),
        (topic, "retention.ms"),
        (dead_letters, "max.message.bytes"),
    }
    assert by_property[topic, "cleanup.policy"].fatal
    assert by_property[topic, "retention.ms"].remedy.endswith(
        f"--entity-name {topic} --add-config retention.ms=604800000"
    )
    # The remedy works.
    assert by_property[dead_letters, "max.message.bytes"].remedy.endswith("max.message.bytes=8065536")
    change(kafka_cluster, dead_letters, max_message_bytes="8065536")
    assert (dead_letters, "max.message.bytes") not in {(d.topic, d.property) for d in differing(settings)}


def test_topics_that_the_brokers_refuse_say_why(kafka_cluster: KafkaCluster) -> None:
    settings = kafka_settings(kafka_cluster.bootstrap_servers)
    with pytest.raises(Misconfigured, match=r"(?i)replication factor"):
        TopicAdmin(settings).create(list(required_topics(settings, 1, 3, 7)))


def test_a_broker_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.kafka.topics.ASK_TIMEOUT_S", 1.0)
    [port] = free_ports(1)
    with pytest.raises(Unavailable, match=rf"{port}.*refused"):
        TopicAdmin(KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}")).list_topics()


# Check


def test_a_configuration_that_works_has_no_failure(kafka_cluster: KafkaCluster, redis_server: str, triton: str) -> None:
    settings = Settings(
        kafka=created(kafka_settings(kafka_cluster.bootstrap_servers)),
        redis=RedisSettings(url=SecretStr(redis_server)),
        triton=TritonSettings(url=triton),
        pipeline=PipelineSettings(batch_size=64),
    )
    findings = by_what(check_all(settings))
    assert failed(findings) == set()
    assert {
        "kafka: brokers",
        f"kafka: group {settings.kafka.group_id}",
        f"kafka: read {settings.kafka.input_topic}",
        "kafka: transactions",
        "redis: window",
        "triton: model",
        "triton: inference",
    } <= {what for what, finding in findings.items() if finding.outcome == "ok"}
    assert findings[f"kafka: topic {settings.kafka.input_topic}"].outcome == "warning"  # one replica
    assert findings["triton: batch size"].outcome == "warning"
    assert findings["redis: persistence"].outcome == "warning"


def test_nothing_there_is_told_for_each_dependency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("consumer.kafka.topics.ASK_TIMEOUT_S", 1.0)
    kafka, redis, triton = (f"127.0.0.1:{port}" for port in free_ports(3))
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka),
        redis=RedisSettings(url=SecretStr(f"redis://:hidden@{redis}/0")),
        triton=TritonSettings(url=triton, timeout_s=1.0),
        fetch=FetchSettings(folders=(tmp_path / "missing",), s3_endpoint="http://127.0.0.1:9", timeout_s=1.0),
    )
    findings = by_what(check_all(settings))
    assert failed(findings) == {"kafka: brokers", "redis: connection", "triton", f"fetch: {tmp_path / 'missing'}"}
    assert findings["fetch: buckets"].outcome == "warning"
    for what in failed(findings):
        assert "SEENIT_" in findings[what].remedy
    assert "hidden" not in repr(findings)


def test_an_address_of_redis_that_cannot_be_read_stays_secret() -> None:
    findings = by_what(check_redis(RedisSettings(url=SecretStr("redis://u:se/cret@h:1/0"))))
    assert failed(findings) == {"redis: connection"}
    assert "cret" not in repr(findings)


def test_a_redis_that_evicts_or_denies_is_told(binaries: Binaries, tmp_path: Path) -> None:
    with serving(redis_like("valkey", binaries, tmp_path)) as server:
        with client_of(server) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.execute_command("ACL SETUSER seenit on >secret ~other:* +@all")

        def findings_with(password: str) -> dict[str, Finding]:
            url = f"redis://seenit:{password}@127.0.0.1:{server.ports[0]}/0"
            return by_what(check_redis(RedisSettings(url=SecretStr(url))))

        findings = findings_with("secret")
        assert failed(findings) == {"redis: eviction", "redis: window"}
        assert "seenit:*" in findings["redis: window"].remedy
        findings = findings_with("wrong")
        assert failed(findings) == {"redis: connection"}
        assert "password" in findings["redis: connection"].remedy


def test_what_is_tried_leaves_nothing_in_redis_for_long(redis_server: str) -> None:
    prefix = f"ops-{uuid.uuid4().hex[:8]}"
    assert failed(by_what(check_redis(RedisSettings(url=SecretStr(redis_server), key_prefix=prefix)))) == set()
    with Redis.from_url(redis_server) as client:
        keys = list(client.scan_iter(f"{prefix}:*"))
        assert keys
        assert all(0 < client.pttl(key) <= 5 * 60_000 for key in keys)


def test_rights_are_asked_for_one_by_one(kafka_secured: KafkaCluster) -> None:
    settings = kafka_settings(
        kafka_secured.secured_servers,
        security_protocol="sasl_ssl",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=USER,
        sasl_password=SecretStr(USERS[USER]),
        ssl_ca_file=str(kafka_secured.ca_file),
    )
    created(
        kafka_settings(kafka_secured.bootstrap_servers).model_copy(
            update={name: getattr(settings, name) for name in ("input_topic", "output_topic", "dead_letter_topic")}
        )
    )
    names = {
        "read": f"kafka: read {settings.input_topic}",
        "write": f"kafka: write {settings.output_topic}",
        "dead letters": f"kafka: write {settings.dead_letter_topic}",
        "group": f"kafka: group {settings.group_id}",
        "transactions": "kafka: transactions",
    }

    def failures() -> set[str]:
        return failed(by_what(check_kafka(settings)))

    topic, group, transaction = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
    # Unknown to this user, and so as good as missing.
    assert failures() >= {f"kafka: topic {settings.input_topic}", names["group"], names["transactions"]}
    for name in (settings.input_topic, settings.output_topic, settings.dead_letter_topic):
        allow(kafka_secured, topic, name, "DESCRIBE", "DESCRIBE_CONFIGS")
    allow(kafka_secured, group, settings.group_id, "DESCRIBE")
    assert failures() == set(names.values())
    allow(kafka_secured, topic, settings.input_topic, "READ")
    allow(kafka_secured, topic, settings.output_topic, "WRITE")
    allow(kafka_secured, topic, settings.dead_letter_topic, "WRITE")
    assert failures() == {names["group"], names["transactions"]}
    allow(kafka_secured, group, settings.group_id, "READ")
    allow(kafka_secured, transaction, f"{settings.group_id}-", "WRITE", "DESCRIBE", prefixed=True)
    assert failures() == set()
    # A wrong password is reported as one, not as a broker that does not answer.
    wrong = settings.model_copy(update={"sasl_password": SecretStr("wrong")})
    with pytest.raises(Unavailable, match=r"(?i)authentication"):
        TopicAdmin(wrong).list_topics()


def allow(cluster: KafkaCluster, kind: ResourceType, name: str, *rights: str, prefixed: bool = False) -> None:
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    rules = [
        AclBinding(kind, name, pattern, f"User:{USER}", "*", AclOperation[right], AclPermissionType.ALLOW)
        for right in rights
    ]
    cluster.apply_rules(rules)


# The commands


def test_the_commands_print_a_table_and_end_with_a_status(
    kafka_cluster: KafkaCluster, redis_server: str, triton: str
) -> None:
    kafka = kafka_settings(kafka_cluster.bootstrap_servers)
    variables = {
        "SEENIT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SEENIT_KAFKA_GROUP_ID": kafka.group_id,
        "SEENIT_KAFKA_INPUT_TOPIC": kafka.input_topic,
        "SEENIT_KAFKA_OUTPUT_TOPIC": kafka.output_topic,
        "SEENIT_KAFKA_DEAD_LETTER_TOPIC": kafka.dead_letter_topic,
        "SEENIT_REDIS_URL": redis_server,
        "SEENIT_TRITON_URL": triton,
        "COLUMNS": "200",
        "XDG_STATE_HOME": "/nonexistent",
    }
    before = seenit("topics", **variables)
    assert before.returncode == 1
    assert f"{kafka.input_topic}: topic is missing" in before.stdout
    tried = seenit("check", **variables)
    assert tried.returncode == 1
    assert "seenit topics --create" in tried.stdout
    made = seenit("topics", "--create", "--replicas", "1", "--partitions", "2", **variables)
    assert made.returncode == 0, made.stdout + made.stderr
    assert f"created {kafka.dead_letter_topic}" in made.stdout
    tried = seenit("check", **variables)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert tried.stderr.strip() == ""
    assert "triton: inference" in tried.stdout


def test_a_consumer_tells_what_it_does(service: Service) -> None:
    """Metrics, readiness, and log lines that name their upload; verdicts' too after a signal."""
    consumer = service.consumer({"SEENIT_LOG_FORMAT": "json"})
    url = f"http://127.0.0.1:{consumer.ports[0]}"
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        assert client.get("/readyz").json() == {"ok": True, "problems": {}}
        service.picture("junk", b"no picture")
        service.await_verdicts(1)
        os.kill(consumer.pid, signal.SIGUSR1)
        service.picture("cat", next(data for name, data in photographs() if name == "chelsea.png"))
        service.await_verdicts(2)
        until(lambda: "'cat'" in consumer.log.read_text(), 10, "no line for the verdict")
        lines = [json.loads(line) for line in consumer.log.read_text().splitlines() if line.startswith('{"time"')]
        by_image = {line["image_id"]: line for line in lines if "image_id" in line}
        assert (by_image["junk"]["level"], by_image["junk"]["reason"]) == ("info", "not-an-image")
        assert (by_image["cat"]["level"], by_image["cat"]["tenant"]) == ("debug", "default")
        assert {"partition", "offset"} <= set(by_image["cat"])
        # Both: it may have looked while the upload was answered and not committed, and says so until it looks again.
        observed = {"seenit_ready 1.0", 'seenit_consumer_lag_messages{partition="0"} 0.0'}
        until(lambda: observed <= set(client.get("/metrics").text.splitlines()), 20, "never observed")
        page = client.get("/metrics").text
    for line in (
        'seenit_consumer_lag_messages{partition="0"} 0.0',
        'seenit_dependency_up{dependency="triton"} 1.0',
        'seenit_verdicts_total{kind="",verdict="unprocessable"} 1.0',
        'seenit_window_embeddings{tenant="default"} 1.0',
        'seenit_rebalances_total{change="assigned"} 1.0',
    ):
        assert line in page
    consumer.stop()


def test_the_group_is_left_as_it_was(kafka_cluster: KafkaCluster) -> None:
    """Checking a service at work must not take its partitions."""
    settings = created(kafka_settings(kafka_cluster.bootstrap_servers))
    member = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": settings.group_id,
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    revoked: list[list[TopicPartition]] = []
    try:
        member.subscribe([settings.input_topic], on_revoke=lambda _, partitions: revoked.append(partitions))
        while not member.assignment():
            member.poll(0.2)
        findings = by_what(check_kafka(settings))
        assert findings[f"kafka: group {settings.group_id}"].detail == "stable, 1 members"
        member.poll(1.0)
        assert revoked == []
    finally:
        member.close()
