"""The window is recovered from its changelog as it was: on real Kafka and real servers."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from redis import Redis

from consumer.errors import Unavailable
from consumer.kafka.messages import OutgoingMessage
from consumer.settings import KafkaSettings, WindowSettings
from consumer.window import originals as originals_module
from consumer.window import recovery, replicas
from consumer.window.changelog import tombstone_message, upsert_message
from consumer.window.loss_guard import RECOVERY_PENDING
from consumer.window.originals import Originals
from consumer.window.records import NewRecord, Source, decode_record, to_us
from consumer.window.recovery import RecoveryProgress, recover_window
from consumer.window.redo_log import BatchWrites, RedoLog, Write
from consumer.window.window import RedisWindow
from tests.kafka_cluster import KafkaCluster
from tests.window.examples import MODEL, PREFIX, UPLOADED_AT, keys, look_up, near, pass_s, upload

PARTITIONS = 3


@pytest.fixture
def topic(kafka_cluster: KafkaCluster) -> "Topic":
    """A changelog of this test's own."""
    name = f"embeddings-{uuid.uuid4().hex[:8]}"
    kafka_cluster.create_topic(name, PARTITIONS)
    return Topic(KafkaSettings(bootstrap_servers=kafka_cluster.bootstrap_servers, embeddings_topic=name))


class Topic:
    """A changelog, with a producer to publish to it."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "linger.ms": 0})

    def publish(self, messages: Sequence[OutgoingMessage]) -> None:
        for message in messages:
            send(self._producer, message)
        assert self._producer.flush(30) == 0

    def upsert_message(self, tenant: str, record: Any, model: Any = MODEL) -> OutgoingMessage:
        return upsert_message(self.settings.embeddings_topic, model, tenant, record)

    def recover(
        self, window: RedisWindow, on_progress: Callable[[RecoveryProgress], None] = lambda progress: None
    ) -> RecoveryProgress:
        return recover_window(self.settings, MODEL, window.store, window.loss_guard, on_progress)


def send(producer: Producer, message: OutgoingMessage) -> None:
    producer.produce(message.topic, message.value, message.key, headers=list(message.headers))


class Process:
    """Works on the window, and publishes what a consumer would."""

    def __init__(self, redis: Redis, topic: Topic, **settings: Any) -> None:
        self.window = open_window(redis, **settings)
        self.topic = topic
        self.unsent: list[OutgoingMessage] = []

    def append(self, *records: NewRecord) -> list[Any]:
        results = self.window.append(records)
        self.unsent += [
            self.topic.upsert_message(record.tenant, result.own_record)
            for record, result in zip(records, results, strict=True)
            if result.own_record
        ]
        return results

    def find_exact(self, record: NewRecord) -> Any:
        match = look_up(self.window, record)
        if match is not None and match.own_record is not None:
            self.unsent.append(self.topic.upsert_message(record.tenant, match.own_record))
        return match

    def delete(self, tenant: str, image_id: str, source: Source | None = None) -> None:
        deleted_at = self.window.delete(tenant, image_id, source).position
        name = self.topic.settings.embeddings_topic
        self.unsent.append(tombstone_message(name, MODEL, tenant, image_id, deleted_at, source))

    def publish(self) -> None:
        self.topic.publish(self.unsent)
        self.unsent = []


def open_window(redis: Redis, **settings: Any) -> RedisWindow:
    return RedisWindow(redis, MODEL, WindowSettings(**settings), PREFIX)


class Entry(NamedTuple):
    """A record as it stands in Redis, without its serial."""

    ms: int
    image_id: bytes
    digest: bytes
    record: bytes
    patches: bytes | None


def contents(redis: Redis, tenant: str) -> list[Entry]:
    """The window's records in order."""
    key = keys(tenant)
    entries = []
    for position, fields in redis.xrange(key["log"]):
        if b"row" in fields:
            record = redis.hget(key["rows"], position)
            assert isinstance(record, bytes)
            content = decode_record(record)
            patches = redis.hget(key["patches"], position)
            entries.append(
                Entry(int(position.split(b"-")[0]), content.image_id, content.digest, record, patches)  # type: ignore[arg-type]
            )
    return entries


def answers(redis: Redis, tenant: str) -> list[Any]:
    """The matches of new pictures in a process that has just begun, without positions."""
    window = open_window(redis)
    answered: list[Any] = []
    for picture in range(6):
        for variant in range(3):
            probe = upload(f"probe {picture}/{variant}", picture, variant, tenant)
            exact = look_up(window, probe)
            answered.append(exact and (exact.image_id, exact.uploaded_at))
        [result] = window.append([upload(f"probe {picture}", picture, 9, tenant)])
        answered.append([(each.image_id, each.l2, each.uploaded_at) for each in result.near])
        matched = [(tenant, each.position) for each in result.near]
        answered.append(window.read_patches(matched))
        window.delete(tenant, f"probe {picture}")
    return answered


def test_a_recovered_window_is_as_it_was(redis: Redis, topic: Topic) -> None:
    """Any history, by several processes that publish late and out of order, comes out the same."""
    chance = random.Random(1)
    processes = [Process(redis, topic) for _ in range(3)]
    tenants = ["t", "", "{x}", "\ud800 日本"]
    for number in range(300):
        process, tenant = chance.choice(processes), chance.choice(tenants)
        image_id = f"gs://image {chance.randrange(20)}" + chance.choice(["", "", "?versionId=1", "?versionId=2"])
        match chance.randrange(10):
            case 0:
                time_us = chance.choice([None, to_us(UPLOADED_AT) + chance.randrange(-1, 3)])
                process.delete(tenant, image_id, Source(0, number, time_us))
            case 1:
                process.find_exact(upload(image_id, chance.randrange(6), chance.randrange(3), tenant))
            case _:
                content = chance.randrange(6), chance.randrange(3)
                record = upload(image_id, *content, tenant, b"patches of %d/%d" % content)
                blank = record._replace(vector=None, patches=None, digest=b"blank")
                source = Source(0, chance.randrange(number + 1))  # some come from before a deletion
                process.append((blank if chance.random() < 0.1 else record)._replace(source=source))
        if chance.random() < 0.1:
            process.publish()
        if chance.random() < 0.02:
            time.sleep(0.005)
    for process in processes:
        again = process.unsent[:5]
        process.publish()
        topic.publish(again)  # a repeat after a crash
    before = {tenant: contents(redis, key_of(tenant)) for tenant in tenants}
    answers_before = {tenant: answers(redis, tenant) for tenant in tenants}
    marks = {tenant: redis.hkeys(keys(key_of(tenant))["deleted"]) for tenant in tenants}
    assert all(len(records) > 5 for records in before.values())
    redis.flushall()

    progress = topic.recover(open_window(redis))

    assert (progress.tenants, progress.broken, progress.in_use) == (len(tenants), 0, [])
    for tenant in tenants:
        assert contents(redis, key_of(tenant)) == before[tenant]
        assert answers(redis, tenant) == answers_before[tenant]
        assert sorted(redis.hkeys(keys(key_of(tenant))["deleted"])) == sorted(marks[tenant])  # type: ignore[type-var]
        assert 0 < redis.pttl(keys(key_of(tenant))["rows"]) <= 86_400_000 * 25 / 24  # type: ignore[operator]


def key_of(tenant: str) -> str:
    """The tenant as it stands between the braces of a key."""
    return {"": "%", "{x}": "%7Bx%7D", "\ud800 日本": "%ED%A0%80%20%E6%97%A5%E6%9C%AC"}.get(tenant, tenant)


def test_an_upload_that_was_published_is_known_at_its_place_again(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    results = process.append(upload("a", 1), upload("b", 1, 1), upload("c", 1, 2))
    process.publish()
    results += process.append(upload("on its way to the topic", 2), upload("too", 3))
    lost = {each.position.serial for each in results}
    redis.flushall()
    topic.recover(open_window(redis))
    fresh = open_window(redis)
    results = fresh.append([upload("c", 1, 2), upload("a", 1), upload("b", 1, 1), upload("d", 1, 3)])
    assert [near(each) for each in results] == [["a", "b"], [], ["a"], ["a", "b", "c"]]
    # No position of the lost window is one of the recovered window.
    assert lost.isdisjoint(each.position.serial for each in results if each.position)


def test_an_original_whose_verdict_was_held_back_is_there_before_the_copy_that_names_it(
    redis: Redis, topic: Topic
) -> None:
    process, other = Process(redis, topic), Process(redis, topic)
    [original] = process.append(upload("original", 1, patches=b"p"))
    [copy] = other.append(upload("copy", 1, 1))
    originals, gone = Originals(other.window), ("t", copy.position._replace(serial=99))
    unpublished = originals.unpublished([("t", original.position), gone])
    assert unpublished == {("t", original.position): original.own_record}
    other.unsent.append(topic.upsert_message("t", unpublished["t", original.position]))
    other.publish()
    originals.note(unpublished)
    assert originals.unpublished([("t", original.position)]) == {}
    redis.flushall()
    topic.recover(other.window)
    match = look_up(other.window, upload("exact copy", 1))
    assert match is not None
    assert match.image_id == "original"
    assert near(other.append(upload("original", 1, patches=b"p"))[0]) == []
    assert near(other.append(upload("copy", 1, 1))[0]) == ["original"]


def test_an_original_that_is_deleted_before_its_copy_has_a_verdict_stays_so(redis: Redis, topic: Topic) -> None:
    process, other = Process(redis, topic), Process(redis, topic)
    process.append(upload("original", 1))
    [copy] = other.append(upload("copy", 1, 1))
    unpublished = Originals(other.window).unpublished([("t", copy.near[0].position)])
    process.delete("t", "original", Source(0, 7))
    process.publish()
    other.unsent += [topic.upsert_message("t", record) for record in unpublished.values()]
    other.publish()
    redis.flushall()
    topic.recover(other.window)
    assert [entry.image_id for entry in contents(redis, "t")] == [b"copy"]


def test_only_the_newest_places_are_remembered(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals_module, "MAX_PUBLISHED", 2)
    process = Process(redis, topic)
    places = [("t", result.position) for result in process.append(*(upload(f"{n}", n) for n in range(3)))]
    originals = Originals(process.window)
    originals.note(places[:2])
    originals.note(places[:1])
    originals.note(places[2:])
    assert list(originals.unpublished(places)) == [places[1]]


def test_a_copy_stored_again_reaches_the_topic(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(redis, topic, retention_s=3600)
    process.append(upload("original", 1, patches=b"p"))
    pass_s(redis, 200)  # older than the grace: what is uploaded again is stored again
    match = process.find_exact(upload("copy", 1))
    assert match.image_id == "original"
    process.publish()
    redis.flushall()
    window = open_window(redis, retention_s=3600)
    # The original's time is over, and the copy's is not.
    monkeypatch.setattr(window.store, "oldest_ms", lambda: match.own_record.position.ms)
    topic.recover(window)
    [record] = contents(redis, "t")
    assert (record.image_id, record.patches) == (b"copy", b"p")


def test_the_clock_of_the_machine_that_recovers_does_not_matter(
    redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(redis, topic)
    process.append(upload("a", 1))
    process.publish()
    redis.flushall()
    now_s = time.time
    monkeypatch.setattr(time, "time", lambda: now_s() + 30 * 3600)
    topic.recover(open_window(redis))
    assert [record.image_id for record in contents(redis, "t")] == [b"a"]


def test_what_is_of_another_model_or_too_old_or_unreadable_is_left_out(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    [result] = process.append(upload("a", 1))
    record = result.own_record
    old = replace_ms(record, record.position.ms - 86_400_000 * 2)
    others = [replace(MODEL, name="other"), replace(MODEL, version="2"), replace(MODEL, dim=32)]
    messages = [topic.upsert_message("t", record, model) for model in others]
    good = topic.upsert_message("t", record)
    broken = [
        OutgoingMessage(good.topic, b"k", b"v", ()),
        OutgoingMessage(good.topic, good.key, b"short", good.headers),
        OutgoingMessage(good.topic, good.key, good.value, tuple(h for h in good.headers if h[0] != "tenant")),
        OutgoingMessage(good.topic, good.key, good.value, (*good.headers, ("position", b"here"))),
        OutgoingMessage(good.topic, good.key, good.value, (*good.headers, ("image-id", b"x" * 70_000))),
    ]
    topic.publish([*messages, topic.upsert_message("t", old), *broken, good])
    redis.flushall()
    progress = topic.recover(open_window(redis))
    assert [entry.image_id for entry in contents(redis, "t")] == [b"a"]
    assert (progress.messages, progress.foreign, progress.broken, progress.added) == (10, 4, 5, 1)


def replace_ms(record: Any, ms: int) -> Any:
    return record._replace(position=record.position._replace(ms=ms))


def test_what_was_not_committed_is_left_out_and_what_is_about_to_be_is_waited_for(redis: Redis, topic: Topic) -> None:
    window = open_window(redis)
    first, second = (result.own_record for result in window.append([upload("a", 1), upload("b", 2)]))
    redis.flushall()
    producers = [
        Producer({"bootstrap.servers": topic.settings.bootstrap_servers, "transactional.id": uuid.uuid4().hex})
        for _ in range(2)
    ]
    for producer, record in zip(producers, (first, second), strict=True):
        producer.init_transactions(30)
        producer.begin_transaction()
        send(producer, topic.upsert_message("t", record))
        producer.flush(30)

    def on_progress(progress: RecoveryProgress) -> None:
        messages_read.append(progress.messages)

    messages_read: list[int] = []
    producers[0].abort_transaction(30)
    commits = threading.Timer(1.5, lambda: producers[1].commit_transaction(30))
    commits.start()
    topic.recover(open_window(redis), on_progress)
    commits.join()
    assert [entry.image_id for entry in contents(redis, "t")] == [b"b"]


def test_the_first_transaction_of_a_partition_is_waited_for(redis: Redis, topic: Topic) -> None:
    [result] = open_window(redis).append([upload("a", 1)])
    redis.flushall()
    options = {"bootstrap.servers": topic.settings.bootstrap_servers, "transactional.id": uuid.uuid4().hex}
    producer = Producer(options)
    producer.init_transactions(30)
    producer.begin_transaction()
    send(producer, topic.upsert_message("t", result.own_record))
    producer.flush(30)
    commits = threading.Timer(1.5, lambda: producer.commit_transaction(30))
    commits.start()
    topic.recover(open_window(redis))
    commits.join()
    assert [entry.image_id for entry in contents(redis, "t")] == [b"a"]


def test_an_interrupted_recovery_is_begun_anew(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "CHUNK_MESSAGES", 7)
    monkeypatch.setattr(recovery, "RESTORE_ENTRIES", 7)
    process = Process(redis, topic)
    process.append(*(upload(f"{n}", n % 5, n, tenant) for n in range(20) for tenant in ("t", "u")))
    process.delete("t", "3")
    process.publish()
    before = [contents(redis, tenant) for tenant in ("t", "u")]
    redis.flushall()
    window = open_window(redis, on_loss="rebuild")
    steps = 0
    while True:
        steps += 1
        left = steps

        def on_progress(progress: RecoveryProgress) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        try:
            topic.recover(window, on_progress)
            break
        except KeyboardInterrupt:
            assert window.loss_guard.marker() is None
            if contents(redis, "t") != before[0]:
                with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                    window.append([upload("new", 9)])
    assert steps >= 8
    assert [contents(redis, tenant) for tenant in ("t", "u")] == before
    assert window.loss_guard.marker() is not None


def test_a_script_that_is_sent_twice_does_nothing_twice(
    redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RESTORE_ENTRIES", 7)
    process = Process(redis, topic)
    for n in range(30):
        process.append(upload(f"{n % 20}", n % 5, n))
        if n % 7 == 0:
            process.delete("t", f"{n % 20}", Source(0, n))
    process.publish()
    before = contents(redis, "t")
    redis.flushall()
    window = open_window(redis)
    run = window.store.run

    def twice(*arguments: Any) -> list[Any]:
        first = run(*arguments)
        run(*arguments)
        return first

    monkeypatch.setattr(window.store, "run", twice)
    topic.recover(window)
    assert contents(redis, "t") == before


def test_windows_in_use_are_left_alone_and_named(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    process.append(upload("a", 1), upload("a", 1, tenant="u"))
    process.publish()
    redis.flushall()
    open_window(redis).append([upload("b", 2)])
    progress = topic.recover(open_window(redis))
    assert progress.in_use == ["t"]
    assert "1 tenants that are not empty: 't'" in progress.summary
    assert [entry.image_id for entry in contents(redis, "t")] == [b"b"]
    assert [entry.image_id for entry in contents(redis, "u")] == [b"a"]


def test_no_more_is_staged_than_there_is_room_for(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "CHUNK_MESSAGES", 50)
    process = Process(redis, topic)
    process.append(*(upload(f"{n}", n, patches=bytes(10_000)) for n in range(400)))
    process.publish()
    redis.flushall()
    most_staged = 0

    def on_progress(progress: RecoveryProgress) -> None:
        nonlocal most_staged
        most_staged = max(most_staged, redis.hlen(keys()["rows"]))  # type: ignore[arg-type]

    topic.recover(open_window(redis, max_bytes=1 << 20), on_progress)
    ids = [int(entry.image_id) for entry in contents(redis, "t")]
    assert ids == list(range(400 - len(ids), 400))
    assert 80 < len(ids) <= (1 << 20) // 10_000  # each takes more than its patches
    assert most_staged < 150


def test_one_process_recovers_and_its_lock_ends_with_it(
    redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(redis, topic)
    process.append(upload("a", 1))
    process.publish()
    redis.flushall()

    def on_progress(progress: RecoveryProgress) -> None:
        with pytest.raises(Unavailable, match="another process"):
            topic.recover(open_window(redis))
        if progress.rows:
            return  # this tenant is done
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            open_window(redis).append([upload("b", 2)])
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            open_window(redis).find_exact([("t", "b", b"d", upload("b", 2).uploaded_at)])

    topic.recover(open_window(redis), on_progress)
    assert len(contents(redis, "t")) == 1


def test_a_recovery_that_died_halfway_blocks_nobody_for_ever(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    process.append(upload("a", 1))
    process.publish()
    redis.flushall()
    redis_of_the_dead = open_window(redis)
    redis_of_the_dead.loss_guard.unlock = lambda: None  # type: ignore[method-assign]

    def die(progress: RecoveryProgress) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        topic.recover(redis_of_the_dead, die)
    waits = open_window(redis)
    with pytest.raises(Unavailable, match=RECOVERY_PENDING):
        waits.append([upload("b", 2)])
    [lock] = redis.keys("*:lock")  # type: ignore[misc]
    assert 0 < redis.pttl(lock) <= 30_000  # type: ignore[operator]
    redis.delete(lock)  # as time does
    careful = open_window(redis, on_loss="rebuild")
    with pytest.raises(Unavailable, match=RECOVERY_PENDING):
        careful.append([upload("b", 2)])
    assert waits.append([upload("b", 2)])[0].position is not None


def test_a_recovery_that_was_frozen_gives_way(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOCK_MS", 0)  # the lock is renewed each time
    process = Process(redis, topic)
    process.append(upload("a", 1))
    process.publish()
    before = contents(redis, "t")
    redis.flushall()
    stalled = []

    def on_progress(progress: RecoveryProgress) -> None:
        if not stalled:
            stalled.append(1)
            redis.delete(*redis.keys("*:lock"))  # type: ignore[misc]
            topic.recover(open_window(redis))

    with pytest.raises(Unavailable):
        topic.recover(open_window(redis), on_progress)
    assert contents(redis, "t") == before


class TestWhileOthersWork:
    """What happens in a process with the setting `rebuild` when the window is lost while it works."""

    @pytest.fixture
    def process(self, redis: Redis, topic: Topic) -> Process:
        process = Process(redis, topic, on_loss="rebuild")
        topic.recover(process.window)  # of nothing: the very first start
        return process

    def test_nobody_appends_to_a_lost_window_before_it_is_recovered(
        self, redis: Redis, topic: Topic, process: Process
    ) -> None:
        other = Process(redis, topic, on_loss="rebuild")
        process.append(upload("a", 1))
        process.publish()
        assert near(other.append(upload("b", 1, 1))[0]) == ["a"]
        other.publish()
        redis.flushall()
        fresh = Process(redis, topic, on_loss="rebuild")
        for each in (process, other, fresh):
            with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                each.append(upload("c", 1, 2))
            with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                each.delete("t", "a")
            with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                each.append(upload("x", 1, 0, "a new tenant"))
        assert redis.keys("*:log") == []
        assert process.window.stats().resets == 1
        assert process.window.loss_guard.problem
        topic.recover(other.window)
        for number, each in enumerate((process, other, fresh)):
            [result] = each.append(upload(f"c{number}", 1, 3 + number))
            assert near(result)[:2] == ["a", "b"]
            assert each.append(upload(f"x{number}", 1, 0, f"new tenant {number}"))[0].position is not None
        assert process.window.loss_guard.problem == ""

    def test_a_part_that_is_lost_is_recovered_too(self, redis: Redis, topic: Topic, process: Process) -> None:
        """As when one server of a cluster comes back empty: the marker is still there."""
        process.append(upload("a", 1), upload("a", 1, tenant="u"), upload("a", 1, tenant="never published"))
        process.unsent.pop()
        process.publish()
        redis.delete(*keys("t").values(), *keys("never%20published").values())
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            process.append(upload("b", 1, 1))
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            process.append(upload("b", 1, 1, "never published"))
        assert topic.recover(process.window).in_use == ["u"]
        assert near(process.append(upload("b", 1, 1))[0]) == ["a"]
        assert near(process.append(upload("b", 1, 1, "u"))[0]) == ["a"]
        # Nothing is known of it; that is noticed once, not for ever.
        assert near(process.append(upload("b", 1, 1, "never published"))[0]) == []

    def test_what_only_left_with_its_time_is_not_lost(self, redis: Redis, topic: Topic) -> None:
        process = Process(redis, topic, on_loss="rebuild", retention_s=0.5)
        topic.recover(process.window)
        process.append(upload("a", 1))
        time.sleep(replicas.STALE_S)
        assert redis.keys("*:log") == []
        process.window.refresh()
        assert process.window.stats().rows == 0
        assert process.append(upload("b", 1, 1))[0].near == ()
        assert process.window.stats().resets == 0

    @pytest.mark.parametrize("lost", [True, False])
    def test_what_was_committed_too_late_for_the_recovery_is_replayed(
        self, redis: Redis, topic: Topic, process: Process, lost: bool
    ) -> None:
        process.append(upload("kept", 1), upload("deleted", 2), upload("deleted and uploaded again", 3))
        process.publish()
        process.window.loss_guard.marker()
        redo_log, early, late = RedoLog(process.window), BatchWrites(), BatchWrites()
        source = Source(0, 7)
        redo_log.record(early, lambda: None)
        late_upload = upload("late", 4, patches=b"p")
        early.writes.append(Write("t", "late", source, process.append(late_upload)[0].own_record))
        for name in ("deleted", "deleted and uploaded again"):
            process.delete("t", name, source)
            early.writes.append(Write("t", name, source, None))
        if lost:
            redis.flushall()
            topic.recover(open_window(redis))
            process.window.loss_guard.marker()
            assert [entry.image_id for entry in contents(redis, "t")] == [
                b"kept",
                b"deleted",
                b"deleted and uploaded again",
            ]
        early.commit()
        redo_log.replay()  # as before each batch
        redo_log.record(late, lambda: None)
        again = upload("deleted and uploaded again", 3)._replace(source=Source(0, 8))
        late.writes.append(Write("t", "deleted and uploaded again", Source(0, 8), process.append(again)[0].own_record))
        redo_log.replay()
        records = {entry.image_id: entry for entry in contents(redis, "t")}
        assert set(records) == {b"kept", b"late", b"deleted and uploaded again"}
        assert records[b"late"].patches == b"p"
        assert near(process.append(upload("copy", 4, 1))[0]) == ["late"]
        # What was committed before the marker was read is safe, and is dropped from the log.
        late.commit()
        process.window.loss_guard.marker()
        redo_log.replay()
        assert not redo_log.batches

    @pytest.mark.parametrize("recovered", [True, False])
    def test_a_window_begun_on_a_server_that_was_emptied_meanwhile_counts_as_none(
        self, redis: Redis, topic: Topic, process: Process, monkeypatch: pytest.MonkeyPatch, recovered: bool
    ) -> None:
        """Also where a recovery comes and goes before whoever began it looks again."""
        fresh = Process(redis, topic, on_loss="rebuild")
        run, emptied = fresh.window.store.run, []

        def run_on_an_empty_server(name: str, calls: Sequence[Any], epoch: str = "") -> list[Any]:
            if len(calls[0][1][0]) <= 1 or emptied:  # not by leave of the marker
                return run(name, calls, epoch)
            emptied.append(1)
            process.append(upload("a", 1, tenant="u"))
            process.publish()
            redis.flushall()
            replies = run(name, calls, epoch)
            if recovered:
                topic.recover(process.window)
            return replies

        monkeypatch.setattr(fresh.window.store, "run", run_on_an_empty_server)
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            fresh.append(upload("b", 1, 1, "u"))
        assert emptied
        if not recovered:
            with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                Process(redis, topic, on_loss="rebuild").append(upload("c", 1, 2, "u"))
            assert topic.recover(process.window).in_use == []
        assert near(fresh.append(upload("b", 1, 1, "u"))[0]) == ["a"]
        assert redis.hget(keys("u")["meta"], "leave") is None

    def test_a_window_that_nobody_confirmed_is_confirmed_by_the_next(
        self, redis: Redis, topic: Topic, process: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(_: object) -> None:
            raise Unavailable("redis", "the process dies")

        with monkeypatch.context() as patched:
            patched.setattr(process.window.loss_guard, "confirm", die)
            with pytest.raises(Unavailable, match="dies"):
                process.append(upload("a", 1, tenant="u"))
        assert redis.hget(keys("u")["meta"], "leave")
        process.window.loss_guard.unmark(process.window.loss_guard.marker())
        topic.recover(process.window)
        assert near(process.append(upload("b", 1, 1, "u"))[0]) == ["a"]
        assert redis.hget(keys("u")["meta"], "leave") is None

    def test_leave_of_an_earlier_marker_undoes_no_recovery(
        self, redis: Redis, topic: Topic, process: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that was about to begin a window finds the one that is recovered, but not yet marked."""
        fresh = Process(redis, topic, on_loss="rebuild")

        def cut_off(*_: object) -> None:
            raise Unavailable("redis", "cut off")

        def run_once(name: str, calls: Sequence[Any], epoch: str = "") -> list[Any]:
            if len(calls[0][1][0]) > 1:
                cut_off()
            return run(name, calls, epoch)

        run = fresh.window.store.run
        with monkeypatch.context() as patched:
            patched.setattr(fresh.window.store, "run", run_once)
            with pytest.raises(Unavailable, match="cut off"):
                fresh.append(upload("b", 1, 1, "u"))
        process.append(upload("a", 1, tenant="u"))
        process.publish()
        redis.flushall()
        with monkeypatch.context() as patched:
            patched.setattr(process.window.loss_guard, "mark", cut_off)
            with pytest.raises(Unavailable, match="cut off"):
                topic.recover(process.window)
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            fresh.append(upload("b", 1, 1, "u"))
        assert contents(redis, "u")[0].image_id == b"a"

    def test_a_server_that_was_emptied_at_the_very_end_is_not_marked(
        self, redis: Redis, topic: Topic, process: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process.append(upload("a", 1))
        process.publish()
        redis.flushall()
        guard = process.window.loss_guard
        mark = guard.mark

        def mark_an_empty_server() -> None:
            redis.flushall()
            mark()

        with monkeypatch.context() as patched:
            patched.setattr(guard, "mark", mark_an_empty_server)
            with pytest.raises(Unavailable, match="emptied once more"):
                topic.recover(process.window)
        assert guard.marker() is None
        topic.recover(process.window)
        assert near(process.append(upload("b", 1, 1))[0]) == ["a"]
