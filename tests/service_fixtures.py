"""A whole service on the embedded servers. Its consumers are processes, as an operator would run them."""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumer.errors import Unavailable
from consumer.kafka.clients import PublishedVerdict, VerdictsReader
from consumer.kafka.messages import OutgoingMessage
from consumer.local.process import Server, answers, wait_until_ready
from consumer.settings import KafkaSettings
from consumer.verdicts import Verdict
from tests.topics import read_topic

PARTITIONS = 2
VERDICT_TIMEOUT_S = 60.0


@dataclass
class Service:
    """Topics of one test, the consumers that were started on them, and the verdicts that were read so far."""

    kafka: KafkaSettings
    environment: dict[str, str]
    folder: Path

    def __post_init__(self) -> None:
        self._reader = self._open_reader()
        self._producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "message.max.bytes": 64 << 20})
        self.verdicts: list[Verdict] = []
        self.published: list[PublishedVerdict] = []
        self._consumers: list[Server] = []

    def consumer(self, more: Mapping[str, str] | None = None) -> Server:
        """Start a consumer, with `more` settings, and wait until it is ready. Stop it, or let `close` do so."""
        name = f"consumer-{uuid.uuid4().hex[:8]}"
        server = Server(
            name,
            lambda _: [sys.executable, "-m", "consumer", "run"],
            lambda ports: answers(ports[0], "/readyz"),
            log=self.folder / f"{name}.log",
            environment=lambda ports: {
                **os.environ,
                **self.environment,
                **(more or {}),
                "SEENIT_HTTP_PORT": str(ports[0]),
            },
        )
        server.start()
        self._consumers.append(server)
        wait_until_ready([server])
        return server

    def send(self, value: bytes | None, key: bytes | None = None, headers: Mapping[str, bytes] | None = None) -> None:
        """Put a message on the input topic."""
        self._producer.produce(self.kafka.input_topic, value, key, headers=list((headers or {}).items()))
        self._producer.poll(0)

    def send_message(self, message: OutgoingMessage) -> None:
        """Put a message on its topic, and wait until it is there."""
        self._producer.produce(message.topic, message.value, message.key, headers=list(message.headers))
        self._producer.flush()

    def picture(self, image_id: str, data: bytes) -> None:
        """Upload a picture as the message itself."""
        self.send(data, image_id.encode(), {"content-type": b"image/jpeg"})

    def await_verdicts(
        self, done: Callable[[list[Verdict]], bool] | int, timeout_s: float = VERDICT_TIMEOUT_S
    ) -> list[Verdict]:
        """Read on until there are `done` verdicts, or `done` is true of them; return all that were read so far."""
        self._producer.flush()
        enough = done if callable(done) else lambda verdicts: len(verdicts) >= done
        deadline_s = time.monotonic() + timeout_s
        while not enough(self.verdicts):
            arrived = list(self._reader.poll(0.2))
            self.published += arrived
            self.verdicts += [each.verdict for each in arrived]
            assert time.monotonic() < deadline_s, f"{len(self.verdicts)} verdicts after {timeout_s:.0f} s"
        return self.verdicts

    def await_verdict(self, image_id: str) -> Verdict:
        """Read on until there is a verdict on this image; return the first one."""
        verdicts = self.await_verdicts(lambda verdicts: any(each.image_id == image_id for each in verdicts))
        return next(each for each in verdicts if each.image_id == image_id)

    def dead_letters(self, count: int) -> list[Message]:
        """Return the first `count` dead letters."""
        return self.messages(self.kafka.dead_letter_topic, count)

    def messages(self, topic: str, count: int) -> list[Message]:
        """Return the first `count` messages of a topic as they stand there, or fewer after VERDICT_TIMEOUT_S."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": uuid.uuid4().hex})
        partitions = consumer.list_topics(topic, VERDICT_TIMEOUT_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        messages: list[Message] = []
        deadline_s = time.monotonic() + VERDICT_TIMEOUT_S
        while len(messages) < count and time.monotonic() < deadline_s:
            messages += [message for message in consumer.consume(count, 0.2) if message.error() is None]
        consumer.close()
        return messages

    def all_messages(self, topic: str) -> list[Message]:
        """Return all that stands on a topic by now, in the order of each partition."""
        return read_topic(self.kafka.bootstrap_servers, topic)

    def _open_reader(self) -> VerdictsReader:
        """Open a reader; try again while the leader of a new topic does not know of it yet."""
        deadline_s = time.monotonic() + VERDICT_TIMEOUT_S
        while True:
            try:
                return VerdictsReader(self.kafka, from_beginning=True)
            except Unavailable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        """Stop the consumers and let go of the topics."""
        for consumer in self._consumers:
            consumer.stop()
        self._reader.close()


@contextmanager
def new_service(
    broker: str, redis_url: str, triton_url: str, folder: Path, *, banks: bool = False, **more: str
) -> Iterator[Service]:
    """Make a service whose topics, group and window are its own, on servers that others use too.

    `more` are settings; the topics among them are made, with one partition, but embeddings with as many as uploads.
    """
    name = uuid.uuid4().hex[:8]
    kafka = KafkaSettings(
        bootstrap_servers=broker,
        group_id=name,
        input_topic=f"in-{name}",
        output_topic=f"out-{name}",
        dead_letter_topic=f"dlq-{name}",
        audit_topic=f"audit-{name}",
        delivery="at-least-once",
        session_timeout_ms=6000,
        **({"banks_topic": f"banks-{name}", "rematches_topic": f"rematches-{name}"} if banks else {}),
    )
    admin = AdminClient({"bootstrap.servers": broker})
    topics = [kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic, kafka.audit_topic]
    topics += [kafka.rematches_topic] if banks else []
    new_topics = [NewTopic(topic, PARTITIONS, 1) for topic in topics]
    new_topics += [NewTopic(kafka.banks_topic, 1, 1)] if banks else []
    new_topics += [
        NewTopic(topic, PARTITIONS if "EMBEDDINGS" in setting else 1, 1)
        for setting, topic in more.items()
        if setting.endswith("_TOPIC")
    ]
    for created in admin.create_topics(new_topics).values():
        created.result()
    environment = {
        **{f"SEENIT_KAFKA_{key.upper()}": str(value) for key, value in kafka.model_dump(exclude_unset=True).items()},
        "SEENIT_REDIS_URL": redis_url,
        "SEENIT_REDIS_KEY_PREFIX": name,
        "SEENIT_TRITON_URL": triton_url,
        **more,
    }
    service = _opened(kafka, environment, folder)
    try:
        yield service
    finally:
        service.close()


def _opened(kafka: KafkaSettings, environment: dict[str, str], folder: Path) -> Service:
    """Make the service; try again while Apache Kafka does not have a new topic yet whose creation it has confirmed."""
    deadline_s = time.monotonic() + 10
    while True:
        try:
            return Service(kafka, environment, folder)
        except Unavailable:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)


@pytest.fixture
def service(broker: str, redis_server: str, triton: str, tmp_path: Path) -> Iterator[Service]:
    """A service without consumers yet."""
    with new_service(broker, redis_server, triton, tmp_path) as new:
        yield new
