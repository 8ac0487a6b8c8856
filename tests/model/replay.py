"""Replays walks through the model on the service's own code.

A process is a thread that runs the window, the match and publish stages, the publisher and the consumer as they are. It
stops before every request to Redis, which is real, and to Kafka, which is played; an action of the model lets it make
the one that the action stands for. What it does in between, the model has no step for, or a step that nobody sees.
"""

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition
from prometheus_client import CollectorRegistry
from redis import Redis

import consumer.kafka.consumer as consumer_module
from consumer.encoder.contract import Encoded
from consumer.errors import Unavailable
from consumer.events import Event, ImageUpload
from consumer.kafka import publisher as publisher_module
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.leases import Leased
from consumer.kafka.publisher import Publisher
from consumer.pipeline.batch import Batch, Item
from consumer.pipeline.match import Match
from consumer.pipeline.publish import Publish
from consumer.settings import KafkaSettings, WindowSettings
from consumer.telemetry.metrics import Metrics
from consumer.verification.rerank import Verifier
from consumer.window import replica
from consumer.window.originals import Originals
from consumer.window.records import decode_index_row
from consumer.window.redo_log import RedoLog
from consumer.window.window import RedisWindow
from tests.fakes.moderation import no_campaigns, no_rejections
from tests.model.instances import CONTENT, TOPICS, Instance
from tests.model.played import TOPIC, PlayedAdmin, PlayedBroker, PlayedClient, PlayedProducer
from tests.model.traces import State
from tests.window.examples import MODEL, PREFIX, upload

METRICS = Metrics(CollectorRegistry())
TENANT = "default"
STUCK_S = 20.0
# The request that each action makes; the others make none.
REQUESTS = {
    "LookUp": "exact",
    "Confirm": "exact",
    "AppendUpload": "sync",
    "ReadPage": "sync",
    "CheckLease": "CheckLease",
    "TakeProducer": "TakeProducer",
    "AskOutcome": "AskOutcome",
    "Produce": "Produce",
    **dict.fromkeys(("SendOffsets", "SendOffsetsTwice"), "SendOffsets"),
    **dict.fromkeys(("Commit", "CommitTwice", "CommitHeld", "CommitUnanswered"), "Commit"),
    **dict.fromkeys(("Abort", "AbortTwice"), "Abort"),
}
UNSEEN = {"Init", "Record", "Compare"}
_of_thread = threading.local()  # how the process of this thread makes its producer


class Died(BaseException):
    """The process is gone."""


class Process:
    """A process of the service, from the poll to the commit, which makes a request when `step` says so."""

    def __init__(self, name: str, redis: Redis, broker: PlayedBroker, content: dict[str, int]) -> None:
        self._content = content
        self._client = PlayedClient(broker, self.stop)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(consumer_module, "Consumer", lambda _: self._client)
            patched.setattr(consumer_module, "AdminClient", lambda _: PlayedAdmin())
            settings = KafkaSettings(group_id="group", instance_id=name, input_topic=TOPIC)
            self._consumer = UploadsConsumer(settings, on_revoke=lambda: None)
        publisher = Publisher(settings, self._consumer)
        self._window = RedisWindow(redis, MODEL, WindowSettings(), PREFIX)
        self._run_script = self._window.store.run
        self._window.store.run = self._stopping_run  # type: ignore[method-assign]
        encode = cast(Any, SimpleNamespace(await_encoded=lambda _: None, encode_again=lambda _: None))
        verifier = Verifier(self._window, MODEL, "balanced")
        redo_log, rejections = RedoLog(self._window), no_rejections(self._window)
        self._match = Match(MODEL, 5, encode, self._window, verifier, redo_log, rejections, no_campaigns())
        self._publish = Publish(settings, MODEL, self._consumer, publisher, METRICS, Originals(self._window))
        self._new_producer: Callable[[dict[str, Any]], PlayedProducer] = lambda options: PlayedProducer(
            options, broker, self.stop
        )
        self._work: list[Leased] = []
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._action, self.at, self.failure = "", "", None
        threading.Thread(target=self._run, daemon=True).start()
        self._await_stop()

    def step(self, action: str) -> None:
        """Make the request that the action stands for, and go on to the next one."""
        request = REQUESTS[action]
        if action == "TakeProducer" and self.at != request:
            return  # a new producer is harmless wherever the code goes on with the old one
        if action != "TakeProducer":
            self._take_producer()
        assert self.at == request, f"the model does {action}, the code is at {self.at}"
        self._let_go(action)

    def poll(self, partition: int, image_id: str) -> None:
        """Take a record of a partition, which has to be this one."""
        self._client.reads = partition
        [(record, lease)] = self._consumer.poll(1, 0, 0)
        assert record.value == image_id.encode()
        self._take_producer()
        assert self.at == "idle"
        self._work.append((record, lease))
        self._let_go("Poll")

    def assign(self, partitions: Sequence[int], broker: PlayedBroker) -> None:
        self._take_producer()
        assert self._consumer.commit_lock.acquire(timeout=0.1), f"the model does Assign, the code is at {self.at}"
        self._consumer.commit_lock.release()
        self._client.generation = broker.generation
        self._client.positions = {partition: broker.committed[partition] for partition in partitions}
        self._consumer._assigned(cast(Any, self._client), [TopicPartition(TOPIC, each) for each in partitions])

    def withdraw(self) -> None:
        held = [TopicPartition(TOPIC, each) for each in self._consumer.partitions]
        self._consumer._revoked(cast(Any, self._client), held)

    def die(self) -> None:
        self._let_go("Crash")

    def stop(self, request: str) -> str:
        """Wait until a request may be made; called by the process."""
        self.at = request
        self._stopped.release()
        self._go.acquire()
        if self._action == "Crash":
            raise Died
        return self._action

    def _take_producer(self) -> None:
        """Let it have a new producer where the model goes on with the old one."""
        if self.at == "TakeProducer":
            self._let_go("TakeProducer")

    def _let_go(self, action: str) -> None:
        self._action = action
        self._go.release()
        self._await_stop()

    def _await_stop(self) -> None:
        assert self._stopped.acquire(timeout=STUCK_S), f"stuck after {self._action} at {self.at}"
        if self.failure is not None:
            raise self.failure

    def _stopping_run(self, name: str, calls: Any, epoch: str = "") -> Any:
        self.stop(name)
        return self._run_script(name, calls, epoch)

    def _run(self) -> None:
        _of_thread.new_producer = self._new_producer
        try:
            while True:
                self.stop("idle")
                self._answer(*self._work.pop())
        except Died:
            pass
        except BaseException as error:
            self.failure = error
        self.at = "gone"
        self._stopped.release()

    def _answer(self, record: Any, lease: Any) -> None:
        image_id = record.value.decode()
        new = upload(image_id, 1, self._content[image_id], TENANT)
        body = ImageUpload(image_id=image_id, tenant=TENANT, data_base64=b"a", uploaded_at=new.uploaded_at)
        item = Item(record, lease, Event(image_id, image_id, TENANT, body, new.uploaded_at))
        item.content.digest = new.digest
        assert new.vector is not None
        item.encoding.encoded = Encoded(new.vector[None], None)
        [item.content.exact_match] = self._window.find_exact([item.content_key])
        batch = Batch([item], datetime.now(UTC))
        self._match.run(batch)
        while True:
            self.stop("CheckLease")
            try:
                self._publish.run(batch)
                return
            except Unavailable:
                continue


class Replay:
    """A world of the model, with real processes in it."""

    def __init__(self, instance: Instance, redis: Redis) -> None:
        redis.flushall()
        self._redis = redis
        self._content = CONTENT[instance.content]
        self.broker = PlayedBroker(TOPICS[instance.topic])
        self._owner: list[str] = []
        self._processes = {name: self._start(name) for name in "pq"}

    def follow(self, walk: Sequence[State]) -> None:
        """Do what was done on a walk, and compare after each step what everybody sees."""
        for number, state in enumerate(walk):
            try:
                self.do(*state.action)
                self._compare(state)
            except AssertionError as error:
                actions = "\n".join(str(each.action) for each in walk[: number + 1])
                raise AssertionError(f"{error}\nafter\n{actions}") from error

    def close(self) -> None:
        for process in self._processes.values():
            process.die()

    def _start(self, name: str) -> Process:
        return Process(name, self._redis, self.broker, self._content)

    def do(self, action: str, *arguments: Any) -> None:
        """Do one action of the model."""
        if action in UNSEEN:
            return
        match action:
            case "Rebalance":
                self.broker.generation += 1
                self._owner = arguments[0]
            case "Lose":
                self._redis.flushall()
            case "Deliver":
                self.broker.deliver(f"group-{arguments[0]}", arguments[1])
            case "TimeOut":
                self.broker.begin_epoch(f"group-{arguments[0]}")
            case "Crash":
                self._processes[arguments[0]].die()
                self._processes[arguments[0]] = self._start(arguments[0])
            case "Assign":
                mine = [part for part, owner in enumerate(self._owner) if owner == arguments[0]]
                self._processes[arguments[0]].assign(mine, self.broker)
            case "Withdraw":
                self._processes[arguments[0]].withdraw()
            case "Poll":
                name, image_id = arguments
                [part] = [n for n, uploads in enumerate(self.broker.uploads) if image_id in uploads]
                self._processes[name].poll(part, image_id)
            case _:
                self._processes[arguments[0]].step(action)

    def _compare(self, state: State) -> None:
        broker, store = state.variables["broker"], state.variables["store"]
        assert self.broker.committed == broker["committed"]
        verdicts = [json.loads(value) for topic, value in self.broker.visible if topic == "image-verdicts"]
        for image_id, expected in broker["visible"].items():
            found = [
                (each["verdict"], each["match"]["image_id"] if each["match"] else "none")
                for each in verdicts
                if each["image_id"] == image_id
            ]
            assert found == [(each["kind"], each["match"]) for each in expected], image_id
        assert self._stored() == [entry["u"] for entry in store["entries"]]

    def _stored(self) -> list[str]:
        key = f"{PREFIX}:{{{TENANT}}}:encoder@1x64:"
        positions = [position for position, fields in self._redis.xrange(f"{key}log") if b"row" in fields]
        rows = self._redis.hmget(f"{key}rows", positions) if positions else []
        return [decode_index_row(*pair).image_id.decode() for pair in zip(positions, rows, strict=True)]


def _new_producer(options: dict[str, Any]) -> PlayedProducer:
    producer: PlayedProducer = _of_thread.new_producer(options)
    return producer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers have played producers; nobody waits long for a process that stands still; pages have one entry."""
    # In one place for all processes: each for itself would put back what another one has put there.
    monkeypatch.setattr(publisher_module, "Producer", _new_producer)
    monkeypatch.setattr(consumer_module, "CLOSE_TIMEOUT_S", 0.02)
    monkeypatch.setattr(replica, "PAGE_ENTRIES", 1)
