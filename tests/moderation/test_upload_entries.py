"""Entries that are uploads: they stay when the window and Redis lose all, and go when they are told to."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from consumer.errors import Unavailable, Unprocessable
from consumer.events import Record
from consumer.kafka.messages import OutgoingMessage
from consumer.kafka.sender import Sent
from consumer.moderation.banks import (
    BankEntry,
    EntryKey,
    PictureKey,
    change_message,
    decode_key,
    encode_key,
    parse_change,
    picture_message,
    removal_message,
)
from consumer.moderation.entries import EntryEncoder
from consumer.moderation.kept import KeptPicture
from consumer.moderation.loader import BankLoader
from consumer.moderation.store import EntryRow, NewRow
from consumer.moderation.upload_entries import UploadEntries
from consumer.settings import KafkaSettings, Settings, WindowSettings
from consumer.window.records import Source
from consumer.window.window import RedisWindow
from tests.fakes.encoder import FakeEncoder
from tests.moderation.copies import TOPIC, Copy
from tests.window.examples import MODEL, upload

NAMES = ("a", "b")
IMAGES = {"x": 1, "y": 2}
TENANT = "t"


@dataclass
class Topic:
    """The topic of the banks as Kafka keeps it, and the client that sends to it."""

    messages: list[OutgoingMessage | None] = field(default_factory=list)  # None for what was compacted
    fails_after: int | None = None  # of the messages that are sent next, this one is the last that arrives

    def send(self, message: OutgoingMessage) -> Future[Sent]:
        sent: Future[Sent] = Future()
        if self.fails_after is not None and self.fails_after <= 0:
            sent.set_exception(Unavailable("kafka", "gone"))
            return sent
        self.fails_after = None if self.fails_after is None else self.fails_after - 1
        self.messages.append(message)
        sent.set_result(Sent(0, len(self.messages) - 1))
        return sent

    def records(self, start: int, count: int) -> list[Record]:
        numbered = enumerate(self.messages[start : start + count], start)
        return [Record("t", 0, n, each.key, each.value, each.headers, 0) for n, each in numbered if each is not None]

    def compact(self, until: int) -> None:
        """Keep the last message of each key, and no tombstone that was read long ago."""
        last = {each.key: number for number, each in enumerate(self.messages) if each is not None}
        for number, each in enumerate(self.messages):
            if each is not None and (last[each.key] != number or (each.value is None and number < until)):
                self.messages[number] = None

    def kept(self) -> set[PictureKey]:
        """What is kept of entries once all is compacted."""
        last = {each.key: each for each in self.messages if each is not None}
        keys = [decode_key(key) for key, each in last.items() if each.value is not None]
        return {key for key in keys if isinstance(key, PictureKey)}


class World:
    """The topic, a window, a copy of the banks, and the process that fills it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.topic = Topic()
        self.copy = Copy(redis, MODEL)
        self.copy.lease.release()
        self.window = RedisWindow(redis, MODEL, WindowSettings(), f"{id(self)}")
        self.encoder = EntryEncoder(Settings(), FakeEncoder(), self.window)
        self._deletions = 0
        self.read = 0

    def load(self, count: int, fails_after: int | None = None) -> None:
        """Read messages as a process does that goes on where the one before ended."""
        self.topic.fails_after = fails_after
        store = self.copy.store
        uploads = UploadEntries("banks", store, self.window, MODEL, cast(Any, self.topic))
        loader = BankLoader(KafkaSettings(banks_topic="banks"), store, self.encoder, uploads)
        try:
            assert loader.lease.hold()
            epoch, offsets = store.begin(loader.lease, TOPIC)
            start = offsets.get(0, 0)
            records = self.topic.records(start, count)
            end = min(start + count, len(self.topic.messages))
            loader.take_in(records, epoch, {0: end})
            self.read = end
        except Unavailable:
            assert self.topic.fails_after == 0
        loader.lease.release()
        self.topic.fails_after = None

    def load_all(self) -> None:
        while True:
            self.load(100)
            if self.read == len(self.topic.messages):
                return

    def enter(self, name: str, image: str | None) -> None:
        """Add an entry, or replace it: an upload, or a hash."""
        what: dict[str, Any] = {"pdq": "0" * 64} if image is None else {"image_id": image}
        self.topic.send(change_message("banks", BankEntry(bank="k", entry_id=name, tenant=TENANT, **what)))

    def remove(self, name: str) -> None:
        self.topic.send(removal_message("banks", EntryKey(TENANT, "k", name)))

    def upload(self, image: str) -> None:
        self.window.append([upload(image, IMAGES[image], tenant=TENANT)])

    def delete(self, image: str) -> None:
        """Delete an upload as the pipeline does, which waits until the copy is as far as it was."""
        self.load_all()
        self._deletions += 1
        self.window.delete(TENANT, image, Source(0, self._deletions))
        replica = self.copy.replica()
        replica.sync()
        for key in replica.of_image(TENANT, image):
            self.topic.send(removal_message("banks", key))

    def lose_window(self) -> None:
        self.window.store.delete_windows([TENANT])

    def lose_copy(self) -> None:
        self.redis.delete(*(self.copy.key(kind) for kind in ("log", "rows", "features", "meta", "gone")))

    def rows(self) -> dict[str, tuple[str | None, bytes]]:
        """The digests and vectors of entries that are uploads."""
        names = {name: encode_key(EntryKey(TENANT, "k", name)) for name in NAMES}
        stored = zip(names, self.copy.store.read_entries(list(names.values())), strict=True)
        return {name: (row[0].digest, row[1]) for name, row in stored if row is not None and row[0].of_image}

    def close(self) -> None:
        self.encoder.close()
        self.lose_copy()
        self.lose_window()


@pytest.fixture(scope="module")
def redis(redis_server: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_server)
    yield client
    client.close()


@pytest.fixture
def world(redis: Redis) -> Iterator[World]:
    world = World(redis)
    yield world
    world.close()


def test_an_entry_outlives_its_upload_and_redis(world: World) -> None:
    world.upload("x")
    world.enter("a", "x")
    world.load_all()
    made = world.rows()
    assert made["a"][1]
    world.lose_window()
    world.lose_copy()
    world.load_all()
    assert world.rows() == made


def test_an_entry_is_changed_though_its_upload_has_left_the_window(world: World) -> None:
    world.upload("x")
    world.enter("a", "x")
    world.load_all()
    made = world.rows()
    world.lose_window()
    world.enter("a", "x")  # with other labels, say
    world.load_all()
    assert world.rows() == made
    world.topic.compact(0)
    world.lose_copy()
    world.load_all()
    assert world.rows() == made
    assert len(world.topic.kept()) == 1


def test_nothing_is_kept_of_an_upload_that_is_deleted(world: World) -> None:
    world.upload("x")
    world.enter("a", "x")
    world.load_all()
    world.lose_window()
    world.delete("x")
    world.enter("b", "x")
    world.load_all()
    assert world.rows() == {}
    assert world.topic.kept() == set()


def test_what_is_not_kept_any_more_is_no_entry_also_where_its_removal_was_compacted(world: World) -> None:
    row = EntryRow(at=(0, 0), digest="0" * 64, of_image=(TENANT, "x"))
    key = EntryKey(TENANT, "k", "a")
    kept = KeptPicture(row, (MODEL.name, MODEL.version, MODEL.dim), bytes(2 * MODEL.dim), b"")
    world.topic.send(picture_message("banks", key, kept))
    world.load_all()
    assert world.rows()
    world.topic.send(removal_message("banks", PictureKey.of(key, (0, 1))))  # of another message
    world.load_all()
    assert world.rows()
    world.topic.send(removal_message("banks", PictureKey.of(key, (0, 0))))
    world.load_all()
    assert world.rows() == {}


def test_another_encoder_matches_the_same_bytes_alone(world: World) -> None:
    row = EntryRow(at=(0, 0), digest="0" * 64, of_image=(TENANT, "x"))
    kept = KeptPicture(row, (MODEL.name, "0", MODEL.dim), bytes(2 * MODEL.dim), b"features")
    world.topic.send(picture_message("banks", EntryKey(TENANT, "k", "a"), kept))
    world.load_all()
    assert world.rows() == {"a": ("0" * 64, b"")}


@pytest.mark.parametrize("lacking", ["digest", "of_image", "dim", "vector", "value", "message"])
def test_what_is_no_kept_picture_is_refused_with_a_reason(lacking: str) -> None:
    row = EntryRow(at=(0, 7), digest="0" * 64, of_image=(TENANT, "x"))
    if lacking in ("digest", "of_image"):
        row = row.model_copy(update={lacking: None})
    kept = KeptPicture(row, ("m", "1", 2), b"1234", b"")
    sent = picture_message("banks", EntryKey(None, "k", "a"), kept)
    headers = tuple(header for header in sent.headers if header[0] != lacking)
    key = encode_key(PictureKey(None, "k", "a", "0:8")) if lacking == "message" else sent.key
    record = Record("t", 0, 0, key, b"[]" if lacking == "value" else sent.value, headers, 0)
    with pytest.raises(Unprocessable):
        parse_change(record)


actions = st.one_of(
    st.tuples(st.just("upload"), st.sampled_from(list(IMAGES))),
    st.tuples(st.just("delete"), st.sampled_from(list(IMAGES))),
    st.tuples(st.just("enter"), st.sampled_from(NAMES), st.sampled_from([*IMAGES, None])),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("load"), st.integers(1, 4), st.none() | st.integers(0, 2)),
    st.tuples(st.sampled_from(["lose_window", "lose_copy", "compact"])),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(actions, max_size=30))
def test_what_stands_in_redis_stands_on_the_topic_and_nothing_else_is_kept(
    redis: Redis, steps: list[tuple[Any, ...]]
) -> None:
    world = World(redis)
    try:
        for name, *arguments in steps:
            if name == "compact":
                world.topic.compact(world.read)
            else:
                getattr(world, name)(*arguments)
        world.load_all()
        made = world.rows()
        expected = set(made)
        assert {key.entry_id for key in world.topic.kept()} == expected
        assert len(world.topic.kept()) == len(expected)
        world.lose_window()
        world.lose_copy()
        world.load_all()
        assert world.rows() == made
    finally:
        world.close()


def test_a_row_of_an_entry_is_read_with_its_vector(world: World) -> None:
    name = encode_key(EntryKey(None, "k", "a"))
    row = EntryRow(at=(0, 1), digest="0" * 64)
    world.copy.write(NewRow(name, row, b"12"))
    assert world.copy.store.read_entries([name, b"none"]) == [(row, b"12"), None]
