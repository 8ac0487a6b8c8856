"""The window comes back from the embeddings topic as it was: on real Kafka and real servers."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from redis import Redis

from consumer.errors import Unavailable
from consumer.kafka.messages import OutgoingMessage
from consumer.local.process import Server
from consumer.settings import KafkaSettings, WindowSettings
from consumer.window import changelog as embeddings
from consumer.window import recovery as rebuild
from consumer.window import store as scripts
from consumer.window import window as recent
from consumer.window.loss_guard import RECOVERY_PENDING
from consumer.window.records import NewRecord, Source, decode_record
from consumer.window.recovery import RecoveryProgress, recover_window
from consumer.window.redo_log import BatchWrites, RedoLog, Write
from consumer.window.window import RedisWindow
from tests.kafka_cluster import KafkaCluster
from tests.redis_servers import client_of
from tests.window.test_window import MODEL, PREFIX, assert_coherent, keys, look_up, near, upload

PARTITIONS = 3


@pytest.fixture
def redis(server: Server) -> Iterator[Redis]:
    with client_of(server) as client:
        client.flushall()
        yield client
        assert_coherent(client)


@pytest.fixture
def topic(kafka_cluster: KafkaCluster) -> "Topic":
    """A topic of embeddings and who publishes to it."""
    name = f"embeddings-{uuid.uuid4().hex[:8]}"
    kafka_cluster.create_topic(name, PARTITIONS)
    return Topic(KafkaSettings(bootstrap_servers=kafka_cluster.bootstrap_servers, embeddings_topic=name))


class Topic:
    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "linger.ms": 0})

    def publish(self, messages: Sequence[OutgoingMessage]) -> None:
        for message in messages:
            send(self._producer, message)
        assert self._producer.flush(30) == 0

    def kept(self, tenant: str, row: Any, model: Any = MODEL) -> OutgoingMessage:
        return embeddings.upsert_message(self.settings.embeddings_topic, model, tenant, row)

    def rebuild(
        self, window: RedisWindow, tell: Callable[[RecoveryProgress], None] = lambda progress: None
    ) -> RecoveryProgress:
        return recover_window(self.settings, MODEL, window.store, window.loss_guard, tell)


def send(producer: Producer, message: OutgoingMessage) -> None:
    producer.produce(message.topic, message.value, message.key, headers=list(message.headers))


class Process:
    """Works on the window, and publishes what a consumer would."""

    def __init__(self, redis: Redis, topic: Topic, **settings: Any) -> None:
        self.window = open_window(redis, **settings)
        self.topic = topic
        self.unsent: list[OutgoingMessage] = []

    def add(self, *rows: NewRecord) -> list[Any]:
        placed = self.window.append(rows)
        self.unsent += [
            self.topic.kept(row.tenant, place.own_record)
            for row, place in zip(rows, placed, strict=True)
            if place.own_record
        ]
        return placed

    def exact(self, row: NewRecord) -> Any:
        found = look_up(self.window, row)
        if found is not None and found.own_record is not None:
            self.unsent.append(self.topic.kept(row.tenant, found.own_record))
        return found

    def forget(self, tenant: str, image_id: str, source: Source | None = None) -> None:
        at = self.window.delete(tenant, image_id, source).position
        name = self.topic.settings.embeddings_topic
        self.unsent.append(embeddings.tombstone_message(name, MODEL, tenant, image_id, at, source))

    def publish(self) -> None:
        self.topic.publish(self.unsent)
        self.unsent = []


def open_window(redis: Redis, **settings: Any) -> RedisWindow:
    return RedisWindow(redis, MODEL, WindowSettings(**settings), PREFIX)


class Entry(NamedTuple):
    """A row as it stands in Redis, without its serial."""

    ms: int
    image_id: bytes
    digest: bytes
    record: bytes
    patches: bytes | None


def contents(redis: Redis, tenant: str) -> list[Entry]:
    """The window's rows in order."""
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
    """What a process that has just begun says of new pictures, without positions."""
    window = open_window(redis)
    told: list[Any] = []
    for picture in range(6):
        for variant in range(3):
            probe = upload(f"probe {picture}/{variant}", picture, variant, tenant)
            exact = look_up(window, probe)
            told.append(exact and (exact.image_id, exact.uploaded_at))
        [placed] = window.append([upload(f"probe {picture}", picture, 9, tenant)])
        told.append([(each.image_id, each.l2, each.uploaded_at) for each in placed.near])
        placed_at = [(tenant, each.position) for each in placed.near]
        told.append(window.read_patches(placed_at))
        window.delete(tenant, f"probe {picture}")
    return told


def test_a_rebuilt_window_is_as_it_was(redis: Redis, topic: Topic) -> None:
    """Any history, by several processes that publish late and out of order, comes out the same."""
    chance = random.Random(1)
    processes = [Process(redis, topic) for _ in range(3)]
    tenants = ["t", "", "{x}", "\ud800 日本"]
    for number in range(300):
        process, tenant = chance.choice(processes), chance.choice(tenants)
        image_id = f"image {chance.randrange(25)}"
        match chance.randrange(10):
            case 0:
                process.forget(tenant, image_id, Source(0, number))
            case 1:
                process.exact(upload(image_id, chance.randrange(6), chance.randrange(3), tenant))
            case _:
                content = chance.randrange(6), chance.randrange(3)
                row = upload(image_id, *content, tenant, b"patches of %d/%d" % content)
                blank = row._replace(vector=None, patches=None, digest=b"blank")
                source = Source(0, chance.randrange(number + 1))  # some come from before a deletion
                process.add((blank if chance.random() < 0.1 else row)._replace(source=source))
        if chance.random() < 0.1:
            process.publish()
        if chance.random() < 0.02:
            time.sleep(0.005)
    for process in processes:
        again = process.unsent[:5]
        process.publish()
        topic.publish(again)  # a repeat after a crash
    before = {tenant: contents(redis, key_of(tenant)) for tenant in tenants}
    said = {tenant: answers(redis, tenant) for tenant in tenants}
    marks = {tenant: redis.hkeys(keys(key_of(tenant))["deleted"]) for tenant in tenants}
    assert all(len(rows) > 5 for rows in before.values())
    redis.flushall()

    done = topic.rebuild(open_window(redis))

    assert (done.tenants, done.broken, done.in_use) == (len(tenants), 0, [])
    for tenant in tenants:
        assert contents(redis, key_of(tenant)) == before[tenant]
        assert answers(redis, tenant) == said[tenant]
        assert sorted(redis.hkeys(keys(key_of(tenant))["deleted"])) == sorted(marks[tenant])  # type: ignore[type-var]
        assert 0 < redis.pttl(keys(key_of(tenant))["rows"]) <= 86_400_000 * 25 / 24  # type: ignore[operator]


def key_of(tenant: str) -> str:
    """As it stands between the braces of a key."""
    return {"": "%", "{x}": "%7Bx%7D", "\ud800 日本": "%ED%A0%80%20%E6%97%A5%E6%9C%AC"}.get(tenant, tenant)


def test_an_upload_that_was_published_is_known_at_its_place_again(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    placed = process.add(upload("a", 1), upload("b", 1, 1), upload("c", 1, 2))
    process.publish()
    placed += process.add(upload("on its way to the topic", 2), upload("too", 3))
    lost = {each.position.serial for each in placed}
    redis.flushall()
    topic.rebuild(open_window(redis))
    fresh = open_window(redis)
    placed = fresh.append([upload("c", 1, 2), upload("a", 1), upload("b", 1, 1), upload("d", 1, 3)])
    assert [near(each) for each in placed] == [["a", "b"], [], ["a"], ["a", "b", "c"]]
    # No position of the lost window is one of its heir.
    assert lost.isdisjoint(each.position.serial for each in placed if each.position)


def test_a_copy_stored_again_reaches_the_topic(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "GRACE_SHARE", 0.05)
    process = Process(redis, topic, retention_s=2.0)
    process.add(upload("original", 1, patches=b"p"))
    time.sleep(0.3)  # older than the grace: what is uploaded again is stored again
    assert process.exact(upload("copy", 1)).image_id == "original"
    process.publish()
    time.sleep(1.9)  # the original's time is over
    redis.flushall()
    topic.rebuild(open_window(redis, retention_s=2.0))
    [row] = contents(redis, "t")
    assert (row.image_id, row.patches) == (b"copy", b"p")


def test_what_is_of_another_model_or_too_old_or_unreadable_is_left_out(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    [placed] = process.add(upload("a", 1))
    row = placed.own_record
    old = replace_ms(row, row.position.ms - 86_400_000 * 2)
    others = [replace(MODEL, name="other"), replace(MODEL, version="2"), replace(MODEL, dim=32)]
    messages = [topic.kept("t", row, model) for model in others]
    good = topic.kept("t", row)
    broken = [
        OutgoingMessage(good.topic, b"k", b"v", ()),
        OutgoingMessage(good.topic, good.key, b"short", good.headers),
        OutgoingMessage(good.topic, good.key, good.value, tuple(h for h in good.headers if h[0] != "tenant")),
        OutgoingMessage(good.topic, good.key, good.value, (*good.headers, ("position", b"here"))),
        OutgoingMessage(good.topic, good.key, good.value, (*good.headers, ("image-id", b"x" * 70_000))),
    ]
    topic.publish([*messages, topic.kept("t", old), *broken, good])
    redis.flushall()
    done = topic.rebuild(open_window(redis))
    assert [entry.image_id for entry in contents(redis, "t")] == [b"a"]
    assert (done.messages, done.foreign, done.broken, done.added) == (10, 4, 5, 1)


def replace_ms(row: Any, ms: int) -> Any:
    return row._replace(position=row.position._replace(ms=ms))


def test_what_was_not_committed_is_left_out_and_what_is_about_to_be_is_waited_for(redis: Redis, topic: Topic) -> None:
    window = open_window(redis)
    first, second = (place.own_record for place in window.append([upload("a", 1), upload("b", 2)]))
    redis.flushall()
    producers = [
        Producer({"bootstrap.servers": topic.settings.bootstrap_servers, "transactional.id": uuid.uuid4().hex})
        for _ in range(2)
    ]
    for producer, row in zip(producers, (first, second), strict=True):
        producer.init_transactions(30)
        producer.begin_transaction()
        send(producer, topic.kept("t", row))
        producer.flush(30)

    def tell(progress: RecoveryProgress) -> None:
        seen.append(progress.messages)

    seen: list[int] = []
    producers[0].abort_transaction(30)
    commits = threading.Timer(1.5, lambda: producers[1].commit_transaction(30))
    commits.start()
    topic.rebuild(open_window(redis), tell)
    commits.join()
    assert [entry.image_id for entry in contents(redis, "t")] == [b"b"]


def test_an_interrupted_rebuild_is_begun_anew(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "CHUNK_MESSAGES", 7)
    monkeypatch.setattr(rebuild, "RESTORE_ROWS", 7)
    process = Process(redis, topic)
    process.add(*(upload(f"{n}", n % 5, n, tenant) for n in range(20) for tenant in ("t", "u")))
    process.forget("t", "3")
    process.publish()
    before = [contents(redis, tenant) for tenant in ("t", "u")]
    redis.flushall()
    window = open_window(redis, on_loss="rebuild")
    steps = 0
    while True:
        steps += 1
        left = steps

        def tell(progress: RecoveryProgress) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        try:
            topic.rebuild(window, tell)
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
    monkeypatch.setattr(rebuild, "RESTORE_ROWS", 7)
    process = Process(redis, topic)
    for n in range(30):
        process.add(upload(f"{n % 20}", n % 5, n))
        if n % 7 == 0:
            process.forget("t", f"{n % 20}", Source(0, n))
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
    topic.rebuild(window)
    assert contents(redis, "t") == before


def test_windows_in_use_are_left_alone_and_named(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    process.add(upload("a", 1), upload("a", 1, tenant="u"))
    process.publish()
    redis.flushall()
    open_window(redis).append([upload("b", 2)])
    done = topic.rebuild(open_window(redis))
    assert done.in_use == ["t"]
    assert "1 tenants that are not empty: 't'" in done.summary
    assert [entry.image_id for entry in contents(redis, "t")] == [b"b"]
    assert [entry.image_id for entry in contents(redis, "u")] == [b"a"]


def test_no_more_is_laid_by_than_there_is_room_for(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "CHUNK_MESSAGES", 50)
    process = Process(redis, topic)
    process.add(*(upload(f"{n}", n, patches=bytes(10_000)) for n in range(400)))
    process.publish()
    redis.flushall()
    most = 0

    def tell(progress: RecoveryProgress) -> None:
        nonlocal most
        most = max(most, redis.hlen(keys()["rows"]))  # type: ignore[arg-type]

    topic.rebuild(open_window(redis, max_bytes=1 << 20), tell)
    ids = [int(entry.image_id) for entry in contents(redis, "t")]
    assert ids == list(range(400 - len(ids), 400))
    assert 80 < len(ids) <= (1 << 20) // 10_000  # each takes more than its patches
    assert most < 150


def test_one_process_rebuilds_and_its_lock_ends_with_it(
    redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(redis, topic)
    process.add(upload("a", 1))
    process.publish()
    redis.flushall()

    def tell(progress: RecoveryProgress) -> None:
        with pytest.raises(Unavailable, match="another process"):
            topic.rebuild(open_window(redis))
        if progress.rows:
            return  # this tenant is done
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            open_window(redis).append([upload("b", 2)])
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            open_window(redis).find_exact([("t", "b", b"d", upload("b", 2).uploaded_at)])

    topic.rebuild(open_window(redis), tell)
    assert len(contents(redis, "t")) == 1


def test_a_rebuild_that_died_halfway_blocks_nobody_for_ever(redis: Redis, topic: Topic) -> None:
    process = Process(redis, topic)
    process.add(upload("a", 1))
    process.publish()
    redis.flushall()
    redis_of_the_dead = open_window(redis)
    redis_of_the_dead.loss_guard.unlock = lambda: None  # type: ignore[method-assign]

    def die(progress: RecoveryProgress) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        topic.rebuild(redis_of_the_dead, die)
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


def test_a_rebuild_that_was_frozen_gives_way(redis: Redis, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "LOCK_MS", 0)  # it looks at its lock each time
    process = Process(redis, topic)
    process.add(upload("a", 1))
    process.publish()
    before = contents(redis, "t")
    redis.flushall()
    stalled = []

    def tell(progress: RecoveryProgress) -> None:
        if not stalled:
            stalled.append(1)
            redis.delete(*redis.keys("*:lock"))  # type: ignore[misc]
            topic.rebuild(open_window(redis))

    with pytest.raises(Unavailable):
        topic.rebuild(open_window(redis), tell)
    assert contents(redis, "t") == before


class TestWhileOthersWork:
    """What a process that is to rebuild does when the window is gone under its hands."""

    @pytest.fixture
    def process(self, redis: Redis, topic: Topic) -> Process:
        process = Process(redis, topic, on_loss="rebuild")
        topic.rebuild(process.window)  # of nothing: the very first start
        return process

    def test_nobody_appends_to_a_lost_window_before_it_is_rebuilt(
        self, redis: Redis, topic: Topic, process: Process
    ) -> None:
        other = Process(redis, topic, on_loss="rebuild")
        process.add(upload("a", 1))
        process.publish()
        assert near(other.add(upload("b", 1, 1))[0]) == ["a"]
        other.publish()
        redis.flushall()
        fresh = Process(redis, topic, on_loss="rebuild")
        for each in (process, other, fresh):
            with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                each.add(upload("c", 1, 2))
            with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                each.forget("t", "a")
            with pytest.raises(Unavailable, match=RECOVERY_PENDING):
                each.add(upload("x", 1, 0, "a new tenant"))
        assert redis.keys("*:log") == []
        assert process.window.stats().resets == 1
        assert process.window.loss_guard.problem
        topic.rebuild(other.window)
        for number, each in enumerate((process, other, fresh)):
            found = each.add(upload(f"c{number}", 1, 3 + number))
            assert near(found[0])[:2] == ["a", "b"]
            assert each.add(upload(f"x{number}", 1, 0, f"new tenant {number}"))[0].position is not None
        assert process.window.loss_guard.problem == ""

    def test_a_part_that_is_lost_is_rebuilt_too(self, redis: Redis, topic: Topic, process: Process) -> None:
        """As when one server of a cluster comes back empty: the marker is still there."""
        process.add(upload("a", 1), upload("a", 1, tenant="u"), upload("a", 1, tenant="never published"))
        process.unsent.pop()
        process.publish()
        redis.delete(*keys("t").values(), *keys("never%20published").values())
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            process.add(upload("b", 1, 1))
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            process.add(upload("b", 1, 1, "never published"))
        assert topic.rebuild(process.window).in_use == ["u"]
        assert near(process.add(upload("b", 1, 1))[0]) == ["a"]
        assert near(process.add(upload("b", 1, 1, "u"))[0]) == ["a"]
        # Nothing was known of it; that is found out once, not for ever.
        assert near(process.add(upload("b", 1, 1, "never published"))[0]) == []

    def test_what_only_left_with_its_time_is_not_lost(self, redis: Redis, topic: Topic) -> None:
        process = Process(redis, topic, on_loss="rebuild", retention_s=0.5)
        topic.rebuild(process.window)
        process.add(upload("a", 1))
        time.sleep(recent.STALE_S)
        assert redis.keys("*:log") == []
        process.window.refresh()
        assert process.window.stats().rows == 0
        assert process.add(upload("b", 1, 1))[0].near == ()
        assert process.window.stats().resets == 0

    @pytest.mark.parametrize("lost", [True, False])
    def test_what_was_committed_too_late_for_the_rebuild_is_repeated(
        self, redis: Redis, topic: Topic, process: Process, lost: bool
    ) -> None:
        process.add(upload("kept", 1), upload("deleted", 2), upload("deleted and uploaded again", 3))
        process.publish()
        process.window.loss_guard.marker()
        unsettled, account, late = RedoLog(process.window), BatchWrites(), BatchWrites()
        source = Source(0, 7)
        unsettled.record(account)
        late_row = upload("late", 4, patches=b"p")
        account.writes.append(Write("t", "late", source, process.add(late_row)[0].own_record))
        for name in ("deleted", "deleted and uploaded again"):
            process.forget("t", name, source)
            account.writes.append(Write("t", name, source, None))
        if lost:
            redis.flushall()
            topic.rebuild(open_window(redis))
            process.window.loss_guard.marker()
            assert [entry.image_id for entry in contents(redis, "t")] == [
                b"kept",
                b"deleted",
                b"deleted and uploaded again",
            ]
        account.commit()
        unsettled.replay()  # as before each batch
        unsettled.record(late)
        again = upload("deleted and uploaded again", 3)._replace(source=Source(0, 8))
        late.writes.append(Write("t", "deleted and uploaded again", Source(0, 8), process.add(again)[0].own_record))
        unsettled.replay()
        rows = {entry.image_id: entry for entry in contents(redis, "t")}
        assert set(rows) == {b"kept", b"late", b"deleted and uploaded again"}
        assert rows[b"late"].patches == b"p"
        assert near(process.add(upload("copy", 4, 1))[0]) == ["late"]
        # What was committed before the marker was asked for is safe, and nothing is kept of it.
        late.commit()
        process.window.loss_guard.marker()
        unsettled.replay()
        assert not unsettled._accounts

    def test_a_window_begun_on_a_server_that_was_emptied_meanwhile_is_taken_back(
        self, redis: Redis, topic: Topic, process: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process.add(upload("a", 1))
        process.publish()
        fresh = Process(redis, topic, on_loss="rebuild")
        run, emptied = fresh.window.store.run, []

        def run_on_an_empty_server(name: str, calls: Sequence[Any], epoch: str = "") -> list[Any]:
            if calls[0][1][0] == "" and not emptied:  # by leave of the marker
                emptied.append(1)
                redis.flushall()
            return run(name, calls, epoch)

        monkeypatch.setattr(fresh.window.store, "run", run_on_an_empty_server)
        with pytest.raises(Unavailable, match=RECOVERY_PENDING):
            fresh.add(upload("b", 1, 1, "u"))
        assert emptied
        assert redis.keys("*:log") == []
        topic.rebuild(fresh.window)
        assert near(fresh.add(upload("b", 1, 1))[0]) == ["a"]
