"""KRaft brokers on loopback, each a process that can be stopped, killed, frozen and started again."""

import contextlib
import shutil
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from tests.kafka_cluster import jars
from tests.kafka_cluster.security import Security
from tests.processes import Child, Reaper, free_ports, listens, until

# Quick to start rather than quick at the peak: the interpreter and the first compiler only, and the simplest collector.
JAVA_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true")
HEAP = "256m"
START_TIMEOUT_S = 60.0
MESSAGE_MAX_BYTES = 16 << 20
ALL_RULES = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)


@dataclass(frozen=True)
class Broker:
    """One broker that is controller too; `folder` holds its properties, its data and its log.

    The listener on `proxied_port` tells its clients to come to `proxy_port`, where a proxy may listen.
    """

    number: int
    port: int
    controller_port: int
    secured_port: int
    proxied_port: int
    proxy_port: int
    folder: Path
    directory_id: str
    child: Child

    @property
    def properties_file(self) -> Path:
        """The broker's configuration."""
        return self.folder / "server.properties"


class KafkaCluster:
    """Apache Kafka with 1 or 3 brokers, numbered from 0; a context manager. Raises KafkaMissing where it cannot run.

    `security` adds a secured listener beside the plain one; `properties` go over the brokers' own.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        security: Security | None = None,
        properties: Mapping[str, str] | None = None,
        heap: str = HEAP,
    ) -> None:
        self._jars = jars.fetch()
        self._security = security
        self._heap = heap
        self._id = _identifier()
        self._reaper = Reaper()
        self.folder = Path(tempfile.mkdtemp(prefix="seenit-kafka-"))
        ports = free_ports(5 * brokers)
        self.brokers = [self._broker(n, ports[5 * n : 5 * n + 5]) for n in range(brokers)]
        self._properties = dict(properties or {})

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of the plain listeners, comma-separated."""
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)

    @property
    def proxied_servers(self) -> str:
        """Addresses where the proxies of the brokers are expected, comma-separated."""
        return ",".join(f"127.0.0.1:{broker.proxy_port}" for broker in self.brokers)

    @property
    def secured_servers(self) -> str:
        """Addresses of the listeners with TLS and SASL/SCRAM, comma-separated."""
        return ",".join(f"localhost:{broker.secured_port}" for broker in self.brokers)

    @property
    def ca_file(self) -> Path:
        """The authority that signed the secured listeners' certificates."""
        return self.folder / "ca.pem"

    def __enter__(self) -> Self:
        self._reaper.__enter__()
        try:
            if self._security:
                self._security.write(self.folder)
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._format, self.brokers))
            for broker in self.brokers:
                broker.child.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every broker and remove all data."""
        for broker in self.brokers:
            broker.child.kill()
        self._reaper.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    # Harm and repair.

    def start(self, number: int) -> None:
        """Start a broker that was stopped or killed, with its old ports and data, and wait until it is back."""
        self.brokers[number].child.start()
        self.wait_ready()

    def stop(self, number: int) -> None:
        """Shut a broker down in good order; kill it if it does not end in time."""
        self.brokers[number].child.stop()

    def kill(self, number: int) -> None:
        """Kill a broker with SIGKILL: no farewell to group, quorum or clients."""
        self.brokers[number].child.kill()

    def freeze(self, number: int) -> None:
        """Halt a broker (SIGSTOP): its connections stay open and silent."""
        self.brokers[number].child.freeze()

    def thaw(self, number: int) -> None:
        """Let a frozen broker go on."""
        self.brokers[number].child.thaw()

    def heal(self) -> None:
        """Thaw and start whatever was frozen, stopped or killed, and wait until all are back."""
        for broker in self.brokers:
            broker.child.thaw()
            broker.child.start()
        self.wait_ready()

    # Topics and state.

    def admin(self) -> AdminClient:
        """Make a client with every right. Keep it until its futures are done: they end with it."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic, replicated to every broker, and wait until the leader of each partition knows that it is."""
        topic = NewTopic(name, partitions, len(self.brokers), config=dict(config or {}))
        admin = self.admin()
        for future in admin.create_topics([topic], operation_timeout=30).values():
            future.result(30)
        until(lambda: self._is_led(name, partitions), START_TIMEOUT_S, "no leader")

    def _is_led(self, topic: str, partitions: int) -> bool:
        admin = self.admin()
        ends = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(partitions)}
        try:
            for future in admin.list_offsets(ends).values():
                future.result(30)
        except KafkaException:  # a broker that is the leader may not have heard so
            return False
        return True

    def delete_topics(self, *names: str) -> None:
        """Delete topics with all that is on them."""
        admin = self.admin()  # a name of its own keeps it until its futures are done
        for future in admin.delete_topics(list(names), operation_timeout=30).values():
            future.result(30)

    def apply_rules(self, rules: Iterable[AclBinding]) -> None:
        """Put access rules into force, and wait until the broker has them, which hears of them after its controller."""
        admin, wanted = self.admin(), list(rules)
        for future in admin.create_acls(wanted).values():
            future.result(30)
        until(lambda: set(wanted) <= set(admin.describe_acls(ALL_RULES).result(30)), START_TIMEOUT_S, "no such rules")

    def leader(self, topic: str, partition: int = 0) -> int | None:
        """Tell which broker leads the partition, by its number; None while none does."""
        metadata = self.admin().list_topics(topic, timeout=10).topics[topic]
        state = metadata.partitions.get(partition)
        return None if state is None or state.leader < 0 else state.leader

    def assignment(self, group: str) -> dict[str, int]:
        """Tell how many partitions each member of a group has, as the brokers see it."""
        admin = self.admin()
        described = admin.describe_consumer_groups([group])[group].result(30)
        return {member.member_id: len(member.assignment.topic_partitions) for member in described.members}

    def in_sync(self) -> bool:
        """Tell whether every replica of every topic has caught up with its leader."""
        try:
            topics = self.admin().list_topics(timeout=10).topics.values()
        except KafkaException:
            return False
        partitions = [partition for topic in topics for partition in topic.partitions.values()]
        return all(partition.leader >= 0 and set(partition.isrs) == set(partition.replicas) for partition in partitions)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every broker that runs unfrozen is a member of the cluster and answers."""
        running = [broker for broker in self.brokers if broker.child.alive and not broker.child.frozen]

        def ready() -> bool:
            for broker in running:
                if not broker.child.alive:
                    raise RuntimeError(
                        f"broker {broker.number} ended with {broker.child.status}: {broker.child.output[-2000:]}"
                    )
            with contextlib.suppress(KafkaException):
                return all({b.number for b in running} <= self._members(broker) for broker in running)
            return False

        until(ready, timeout_s, "brokers are not ready")

    def _members(self, broker: Broker) -> set[int]:
        if not listens(broker.port):  # a refused connection would cost the client a second
            return set()
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{broker.port}", "log_level": 0})
        return set(admin.list_topics(timeout=2).brokers)

    # Files and processes.

    def _broker(self, number: int, ports: Sequence[int]) -> Broker:
        folder = self.folder / str(number)
        command = self._java(self._heap, "kafka.Kafka", [str(folder / "server.properties")])
        child = Child(f"broker-{number}", command, folder / "broker.log", self._reaper)
        return Broker(number, *ports, folder, _identifier(), child)

    def _format(self, broker: Broker) -> None:
        broker.folder.mkdir()
        properties = self._server_properties(broker)
        broker.properties_file.write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
        voters = ",".join(f"{b.number}@127.0.0.1:{b.controller_port}:{b.directory_id}" for b in self.brokers)
        arguments = ["format", "--config", str(broker.properties_file), f"--cluster-id={self._id}"]
        arguments += ["--initial-controllers", voters, *(self._security.format_arguments() if self._security else [])]
        completed = subprocess.run(
            self._java("64m", "kafka.tools.StorageTool", arguments), capture_output=True, text=True, check=False
        )
        if completed.returncode:
            raise RuntimeError(
                f"broker {broker.number} cannot be formatted: {completed.stdout[-1000:]}{completed.stderr[-1000:]}"
            )

    def _java(self, heap: str, main: str, arguments: Sequence[str]) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}"
        return ["java", f"-Xmx{heap}", *JAVA_FLAGS, logging, "-cp", f"{self._jars}/*", main, *arguments]

    def _server_properties(self, broker: Broker) -> dict[str, str]:
        listeners = {
            "PLAIN": ("127.0.0.1", broker.port),
            "CONTROLLER": ("127.0.0.1", broker.controller_port),
            "PROXIED": ("127.0.0.1", broker.proxied_port),
        }
        protocols = dict.fromkeys(listeners, "PLAINTEXT")
        if self._security:
            listeners["SECURED"] = ("localhost", broker.secured_port)
            protocols["SECURED"] = "SASL_SSL"
        advertised = {**listeners, "PROXIED": ("127.0.0.1", broker.proxy_port)}
        del advertised["CONTROLLER"]
        copies = str(len(self.brokers))
        in_sync = str(len(self.brokers) // 2 + 1)
        return {
            "process.roles": "broker,controller",
            "node.id": str(broker.number),
            "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{b.controller_port}" for b in self.brokers),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": _addresses(listeners),
            "advertised.listeners": _addresses(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "log.dirs": str(broker.folder / "data"),
            # Settings of a careful operator.
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_sync,
            "message.max.bytes": str(MESSAGE_MAX_BYTES),
            "replica.fetch.max.bytes": str(MESSAGE_MAX_BYTES),
            # Small, and quick to notice faults: the defaults are made for data centres.
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.num.partitions": "3",
            "log.cleaner.dedupe.buffer.size": "2097152",
            "num.network.threads": "2",
            "num.io.threads": "2",
            "background.threads": "2",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.min.heartbeat.interval.ms": "300",
            "group.consumer.heartbeat.interval.ms": "500",
            "group.consumer.session.timeout.ms": "6000",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "4000",
            "controlled.shutdown.retry.backoff.ms": "500",
            **(self._security.properties(self.folder) if self._security else {}),
            **self._properties,
        }


def _addresses(listeners: Mapping[str, tuple[str, int]]) -> str:
    return ",".join(f"{name}://{host}:{port}" for name, (host, port) in listeners.items())


def _identifier() -> str:
    """Draw an id in the form that Kafka gives to clusters and folders."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
