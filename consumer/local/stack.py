"""The embedded stack: broker, Redis-compatible server and Triton on free loopback ports, and consumers beside them.

    with Stack() as stack:
        stack.start_consumer()
        ...  # stack.addresses

Everything is stopped when the block is left, and also when this process is killed. It is for trying things: topics and
window live in memory only, and delivery is at-least-once, since the embedded broker has no working transactions.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumer.local import state
from consumer.local.binaries import find_binaries, silent
from consumer.local.process import (
    CONSUMERS_STOP_S,
    SERVERS_STOP_S,
    Server,
    StartFailed,
    answers,
    stop_all,
    wait_until_ready,
)
from consumer.local.servers import REPOSITORY, TritonServer, tansu, valkey
from consumer.local.state import CONSUMER, HTTP, Addresses, Process, State
from consumer.settings import KafkaSettings

_PARTITIONS = 4  # as many consumers can share the input
_FOREIGN = ("SEENIT_KAFKA_", "SEENIT_REDIS_", "SEENIT_TRITON_", "SEENIT_CONFIG")  # settings meant for other servers


class Stack:
    """The `servers` of one embedded stack (broker, Redis, Triton), and its consumers.

    `detached` servers outlive this process, and state.py knows them. Others log to `log_dir`, a temporary folder that
    is removed after a clean stop and kept after a failure. `progress` is called with a few words about what happens.
    """

    def __init__(
        self, *, repository: Path = REPOSITORY, detached: bool = False, progress: Callable[[str], None] = silent
    ) -> None:
        self._repository = repository
        self._detached = detached
        self._progress = progress
        self._topics = KafkaSettings(
            banks_topic="image-banks",
            rematches_topic="image-rematches",
            feedback_topic="image-feedback",
            audit_topic="image-audit",
        )
        self.servers: Sequence[Server] = ()
        self._consumers: list[Server] = []
        self._http: Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if not self._detached and (error is None or isinstance(error, KeyboardInterrupt)):
            shutil.rmtree(self.log_dir, ignore_errors=True)

    def start(self) -> None:
        """Start the servers and create the topics; on any failure nothing stays behind.

        Raises StartFailed, or Misconfigured when the binaries are not to be had.
        """
        binaries = find_binaries(self._progress)
        self.log_dir = state.folder() if self._detached else Path(tempfile.mkdtemp(prefix="seenit-"))
        self._broker = tansu(binaries, self.log_dir, detached=self._detached)
        self._redis = valkey(binaries, self.log_dir, detached=self._detached)
        self._triton = TritonServer(binaries, self.log_dir, repository=self._repository, detached=self._detached)
        self.servers = [self._broker, self._redis, self._triton]
        self._progress("starting broker, Redis and Triton")
        try:
            self._run(self.servers)
            create_topics(self.addresses)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def start_consumer(self, environment: Mapping[str, str] | None = None) -> Server:
        """Start `seenit run` on this stack and wait until it reports ready; `environment` adds or changes settings.

        Raises StartFailed; the servers stay.
        """
        consumer = self._command(f"{CONSUMER}{len(self._consumers) + 1}", "run", environment or {})
        self._consumers.append(consumer)
        try:
            self._start(consumer)
        except BaseException:
            self._consumers.remove(consumer)
            raise
        return consumer

    def start_http(self, environment: Mapping[str, str] | None = None) -> str:
        """Start `seenit serve` on this stack, wait until it reports ready, and return its address.

        Raises StartFailed; the servers stay.
        """
        self._http = self._command(HTTP, "serve", environment or {})
        try:
            self._start(self._http)
        except BaseException:
            self._http = None
            raise
        return self.addresses.http_url or ""

    def _command(self, name: str, command: str, environment: Mapping[str, str]) -> Server:
        """Make a process of `seenit run` or `seenit serve`; `environment` adds or changes settings."""
        own = {**self.environment(), **environment}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        return Server(
            name,
            lambda _: [sys.executable, "-m", "consumer", command],
            lambda ports: answers(ports[0], "/readyz"),
            log=self.log_dir / f"{name}.log",
            ports=2 if command == "serve" else 1,
            environment=lambda ports: {
                **inherited,
                **own,
                "SEENIT_HTTP_PORT": str(ports[0]),
                "SEENIT_SERVE_PORT": str(ports[-1]),
            },
            detached=self._detached,
        )

    def _start(self, process: Server) -> None:
        self._progress(f"starting {process.name}")
        try:
            self._run([process])
        except BaseException:
            process.stop()
            raise

    def stop(self) -> None:
        """Stop everything, consumers first; harmless when it is stopped already."""
        stop_all(self._clients, CONSUMERS_STOP_S)
        stop_all(self.servers, SERVERS_STOP_S)
        for server in self.servers:
            server.stop()  # ended by now; frees what it held beside its process

    @property
    def addresses(self) -> Addresses:
        """The addresses that the servers listen on."""
        metrics = f"http://127.0.0.1:{self._consumers[0].ports[0]}/metrics" if self._consumers else None
        return Addresses(
            kafka=f"127.0.0.1:{self._broker.ports[0]}",
            triton_grpc=f"127.0.0.1:{self._triton.ports[0]}",
            triton_metrics_url=f"http://127.0.0.1:{self._triton.ports[2]}/metrics",
            redis=f"redis://127.0.0.1:{self._redis.ports[0]}/0",
            metrics_url=metrics,
            input_topic=self._topics.input_topic,
            output_topic=self._topics.output_topic,
            dead_letter_topic=self._topics.dead_letter_topic,
            banks_topic=self._topics.banks_topic,
            rematches_topic=self._topics.rematches_topic,
            feedback_topic=self._topics.feedback_topic,
            audit_topic=self._topics.audit_topic,
            http_url=None if self._http is None else f"http://127.0.0.1:{self._http.ports[1]}/",
        )

    def environment(self) -> dict[str, str]:
        """Return the `SEENIT_*` variables that point a consumer at these servers."""
        return environment(self.addresses)

    @property
    def _clients(self) -> list[Server]:
        """The processes that use the servers."""
        return [*self._consumers, *([] if self._http is None else [self._http])]

    def _run(self, servers: Sequence[Server]) -> None:
        for server in servers:
            server.start()
        self._record()  # so that `seenit down` finds them even if this process is killed while it waits
        wait_until_ready(servers)
        self._record()  # with other ports, if some were taken

    def _record(self) -> None:
        if self._detached:
            servers = [*self.servers, *self._clients]
            State(
                addresses=self.addresses,
                processes=tuple(Process.of(server.name, server.pid, server.log) for server in servers),
                shared_memory_prefix=self._triton.shared_memory_prefix,
                log_dir=str(self.log_dir),
            ).save()


def environment(addresses: Addresses) -> dict[str, str]:
    """Return the `SEENIT_*` variables that point a consumer at the servers of these addresses."""
    return {
        "SEENIT_KAFKA_BOOTSTRAP_SERVERS": addresses.kafka,
        "SEENIT_KAFKA_INPUT_TOPIC": addresses.input_topic,
        "SEENIT_KAFKA_OUTPUT_TOPIC": addresses.output_topic,
        "SEENIT_KAFKA_DEAD_LETTER_TOPIC": addresses.dead_letter_topic,
        "SEENIT_KAFKA_BANKS_TOPIC": addresses.banks_topic,
        "SEENIT_KAFKA_REMATCHES_TOPIC": addresses.rematches_topic,
        "SEENIT_KAFKA_FEEDBACK_TOPIC": addresses.feedback_topic,
        "SEENIT_KAFKA_AUDIT_TOPIC": addresses.audit_topic,
        "SEENIT_KAFKA_DELIVERY": "at-least-once",
        "SEENIT_KAFKA_SESSION_TIMEOUT_MS": "6000",  # the broker lets the first member wait for half of it
        "SEENIT_TRITON_URL": addresses.triton_grpc,
        "SEENIT_REDIS_URL": addresses.redis,
    }


def create_topics(addresses: Addresses) -> None:
    """Create all topics; banks, feedback and decisions stand in one partition each, in order. Raises StartFailed."""
    admin = AdminClient({"bootstrap.servers": addresses.kafka, "log_level": 0})  # what goes wrong is raised
    names = [addresses.input_topic, addresses.output_topic, addresses.dead_letter_topic]
    names += [addresses.rematches_topic, addresses.audit_topic]
    topics = [NewTopic(name, num_partitions=_PARTITIONS, replication_factor=1) for name in names]
    ordered = (addresses.banks_topic, addresses.feedback_topic, KafkaSettings().decisions_topic)
    topics += [NewTopic(name, num_partitions=1, replication_factor=1) for name in ordered]
    for name, created in admin.create_topics(topics, request_timeout=10.0).items():
        try:
            created.result()
        except KafkaException as error:
            raise StartFailed(f"The broker did not create the topic {name}: {error}") from error


def up(
    *,
    consumer: bool = True,
    environment: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = silent,
) -> State:
    """Start a stack that outlives this process, unless one runs already; return its processes and addresses.

    `environment` adds settings for its consumer and for `seenit serve`, which is started with it.

    Raises StartFailed, Misconfigured, or SeenitError when another `up` or `down` is at work.
    """
    with state.exclusive():
        running = state.load()
        if running is not None and running.alive:
            return running
        if running is not None:
            progress("removing what is left of an earlier stack")
            running.stop()
        stack = Stack(detached=True, progress=progress)
        stack.start()
        if consumer:
            try:
                stack.start_consumer(environment)
                stack.start_http(environment)
            except BaseException:
                stack.stop()
                raise
        started = state.load()
        assert started is not None, "a detached stack records itself"  # noqa: S101
        return started


def down() -> bool:
    """Stop the stack that was left running; tell whether there was one."""
    with state.exclusive():
        running = state.load()
        if running is None:
            return False
        running.stop()
        return True


@contextmanager
def triton(*, progress: Callable[[str], None] = silent) -> Iterator[str]:
    """Run the encoder alone for as long as the block lasts; give its gRPC address.

    Raises StartFailed or Misconfigured.
    """
    binaries = find_binaries()
    progress("starting Triton")
    with tempfile.TemporaryDirectory(prefix="seenit-") as folder:
        server = TritonServer(binaries, Path(folder))
        try:
            server.start()
            wait_until_ready([server])
            yield f"127.0.0.1:{server.ports[0]}"
        finally:
            server.stop()
