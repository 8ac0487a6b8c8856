"""Redis is lost between a decision and its commit: of two copies one stays unique. On real Kafka and a real server."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from consumer.encoder.contract import Encoded
from consumer.errors import Unavailable
from consumer.events import Event, ImageUpload, Record
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.publisher import Publisher
from consumer.moderation.campaigns import Campaigns
from consumer.pipeline.batch import Batch, Item
from consumer.pipeline.match import Match
from consumer.pipeline.publish import Publish
from consumer.settings import CampaignsSettings, WindowSettings
from consumer.telemetry.metrics import Metrics
from consumer.verification.rerank import Verifier
from consumer.window.originals import Originals
from consumer.window.recovery import recover_window
from consumer.window.redo_log import RedoLog
from consumer.window.window import RedisWindow
from tests.fakes.moderation import no_rejections
from tests.kafka.group import PARTITIONS, Member, Topics, new_topics, wait_for
from tests.kafka_cluster import KafkaCluster
from tests.window.examples import MODEL, PREFIX, UPLOADED_AT, upload

METRICS = Metrics(CollectorRegistry())


class Process:
    """Matches and publishes with the service's own stages, as the only member of a group of its own."""

    def __init__(self, redis: Redis, topics: Topics, name: str) -> None:
        self.settings = topics.settings.model_copy(update={"group_id": f"{topics.settings.group_id}-{name}"})
        self.member = Member(UploadsConsumer(self.settings, lambda: None))
        self.window = RedisWindow(redis, MODEL, WindowSettings(on_loss="rebuild"), PREFIX)
        self.publisher = Publisher(self.settings, self.member.consumer)
        encode = cast(Any, SimpleNamespace(await_encoded=lambda _: None, encode_again=lambda _: None))
        verifier = Verifier(self.window, MODEL, "balanced")
        redo_log, campaigns = RedoLog(self.window), Campaigns(self.window, verifier, CampaignsSettings())
        rejections = no_rejections(self.window)
        self._match = Match(MODEL, 5, encode, self.window, verifier, redo_log, rejections, campaigns)
        self._publish = Publish(
            self.settings, MODEL, self.member.consumer, self.publisher, METRICS, Originals(self.window)
        )
        self._batch = Batch([], datetime.now(UTC))

    def match(self, image_id: str, variant: int) -> None:
        """Match a batch of one upload, of a picture that all share."""
        wait_for(lambda: self.member.received)
        self.window.loss_guard.marker()
        new = upload(image_id, 1, variant)
        body = ImageUpload(image_id=image_id, tenant="t", data_base64=b"a", uploaded_at=UPLOADED_AT)
        record = Record(self.settings.input_topic, 0, 0, b"key", b"", (), 0)
        item = Item(record, self.member.received[0][1], Event(image_id, image_id, "t", body, UPLOADED_AT))
        item.content.digest = new.digest
        assert new.vector is not None
        item.encoding.encoded = Encoded(new.vector[None], None)
        [item.content.exact_match] = self.window.find_exact([item.content_key])
        self._batch = Batch([item], datetime.now(UTC))
        self._match.run(self._batch)

    def publish(self) -> None:
        """Publish the batch; where that has to wait for the match stage, let that have its turn first."""
        try:
            self._publish.run(self._batch)
        except Unavailable:
            wait_for(self.window.loss_guard.marker)
            self._match.refresh()
            self._publish.run(self._batch)

    def recover(self) -> None:
        recover_window(self.settings, MODEL, self.window.store, self.window.loss_guard)


class World:
    """Two processes, and the topics that they publish to."""

    def __init__(self, redis: Redis, topics: Topics) -> None:
        self.redis, self.topics = redis, topics
        self.first, self.second = Process(redis, topics, "first"), Process(redis, topics, "second")
        self.second.recover()  # of nothing: the very first start

    def lose(self) -> None:
        """Lose the window, and let the second process recover it."""
        self.redis.flushall()
        self.second.recover()

    def verdicts(self) -> dict[str, tuple[str, str | None]]:
        """The verdict on each upload, and the match that it names."""
        self.topics.await_markers(self.topics.settings.output_topic)
        verdicts = [json.loads(value) for value in self.topics.read(self.topics.settings.output_topic)]
        assert len({each["image_id"] for each in verdicts}) == len(verdicts)
        return {each["image_id"]: (each["verdict"], each["match"] and each["match"]["image_id"]) for each in verdicts}


@pytest.fixture
def world(redis: Redis, kafka_cluster: KafkaCluster) -> Iterator[World]:
    topics = new_topics(kafka_cluster)
    topics.settings = topics.settings.model_copy(update={"embeddings_topic": f"e-{topics.settings.group_id}"})
    kafka_cluster.create_topic(topics.settings.embeddings_topic, PARTITIONS)
    topics.upload(b"an upload")
    world = World(redis, topics)
    yield world
    for process in (world.first, world.second):
        process.publisher.close()
        process.member.stop()


def after(call: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    """The call, and something that happens behind it, once."""
    pending = [then]

    def both(*arguments: Any) -> Any:
        result = call(*arguments)
        while pending:
            pending.pop()()
        return result

    return both


@pytest.mark.parametrize("variants", [(0, 1), (0, 0)], ids=["near", "exact"])
class TestCopies:
    """Of a picture, uploaded to two processes."""

    def test_what_a_recovery_did_not_see_is_matched_again(self, world: World, variants: tuple[int, int]) -> None:
        world.first.match("a", variants[0])
        world.lose()
        world.second.match("b", variants[1])
        world.second.publish()
        world.first.publish()
        assert world.verdicts() == {"b": ("unique", None), "a": ("duplicate", "b")}

    def test_what_is_matched_again_first_is_unique(self, world: World, variants: tuple[int, int]) -> None:
        world.first.match("a", variants[0])
        world.lose()
        world.first.publish()
        world.second.match("b", variants[1])
        world.second.publish()
        assert world.verdicts() == {"a": ("unique", None), "b": ("duplicate", "a")}

    def test_what_a_copy_was_compared_with_before_the_loss_stays_unique(
        self, world: World, variants: tuple[int, int]
    ) -> None:
        world.first.match("a", variants[0])
        world.second.match("b", variants[1])
        world.second.publish()
        world.lose()
        world.first.publish()
        world.second.match("c", 2)
        world.second.publish()
        verdicts = world.verdicts()
        assert verdicts["a"] == ("unique", None)
        assert verdicts["b"] == ("duplicate", "a")
        assert verdicts["c"][0] == "duplicate"

    def test_and_where_another_process_decides_on_it(self, world: World, variants: tuple[int, int]) -> None:
        """The one that had it died, or its partition moved; others come first."""
        world.first.match("a", variants[0])
        world.second.match("b", variants[1])
        world.second.publish()
        world.lose()
        for image_id, variant in (("c", variants[1]), ("d", 2), ("a", variants[0])):
            world.second.match(image_id, variant)
            world.second.publish()
        verdicts = world.verdicts()
        assert verdicts["a"] == ("unique", None)
        assert verdicts["b"] == verdicts["d"] == ("duplicate", "a")
        assert verdicts["c"][0] == "duplicate"

    @pytest.mark.parametrize("moment", ["delivered", "checked"])
    def test_a_window_lost_in_the_midst_of_a_transaction(
        self, world: World, variants: tuple[int, int], moment: str
    ) -> None:
        """Before the check it is aborted, and behind it a recovery waits for its end."""
        world.first.match("a", variants[0])
        recovery = threading.Thread(target=world.second.recover)

        def lose() -> None:
            world.redis.flushall()
            recovery.start()

        if moment == "delivered":
            world.first.publisher._deliver = after(world.first.publisher._deliver, lose)  # type: ignore[method-assign]
        else:
            guard = world.first.window.loss_guard
            marker = guard.marker
            guard.marker = after(marker, lambda: setattr(guard, "marker", after(marker, lose)))  # type: ignore[method-assign]
        world.first.publish()
        recovery.join()
        world.second.match("b", variants[1])
        world.second.publish()
        assert world.verdicts() == {"a": ("unique", None), "b": ("duplicate", "a")}
