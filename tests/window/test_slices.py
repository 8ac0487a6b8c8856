"""Windows in slices: what is theirs alone. What they share with replicas is tested where a test asks for `backend`."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from redis import Redis

from consumer.cli.preflight.redis import check_redis
from consumer.errors import Misconfigured, Unavailable
from consumer.local.binaries import Binaries
from consumer.local.process import Server
from consumer.settings import RedisSettings, WindowSettings
from consumer.window import replica, slice_filler, slices
from consumer.window.index import SearchParams
from consumer.window.records import AppendResult, IndexRow, Lookup, NewRecord, Position, Source, pack_record
from consumer.window.slices import Filled, Slices
from consumer.window.store import WindowStore
from consumer.window.window import RedisWindow
from tests.redis_servers import redis_like
from tests.stack_fixtures import serving
from tests.window.examples import MODEL, PREFIX, UPLOADED_AT, keys, near, pass_s, upload, vector

Open = Callable[..., RedisWindow]
SEARCH = SearchParams(0.6, 0.5, 32)


@pytest.fixture(scope="module")
def server(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(redis_like("redis-vectors", binaries, tmp_path_factory.mktemp("slices"))) as server:
        yield server


@pytest.fixture
def process(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a window as another process would; every row is moved into slices at once."""
    monkeypatch.setattr(slice_filler, "TAIL_ROWS", 0)
    monkeypatch.setattr(slice_filler, "SURPLUS_ROWS", 0)

    def open_window(client: Redis = redis, **changes: Any) -> RedisWindow:
        settings = WindowSettings.model_validate({"backend": "redis-vectors", **changes})
        return RedisWindow(client, MODEL, settings, PREFIX)

    return open_window


def look_up(window: RedisWindow, record: NewRecord) -> AppendResult:
    assert record.vector is not None
    return window.look_up([Lookup(record.tenant, b"", (record.vector,))])[0]


class OneByOne:
    """A client that sends each command of a pipeline alone, as one of a cluster does with what a lost server left."""

    def __init__(self, redis: Redis, before: Callable[[str], None]) -> None:
        """`before` is called with the name of each command that is to be sent."""
        self._redis = redis
        self._before = before

    def pipeline(self, transaction: bool) -> Any:
        pipeline = self._redis.pipeline(transaction=transaction)
        execute = pipeline.execute

        def execute_one_by_one(**options: bool) -> list[Any]:
            replies: list[Any] = []
            for command in pipeline.command_stack:
                self._before(command[0][0])
                pipeline.command_stack = [command]
                replies += execute(**options)
            return replies

        pipeline.execute = execute_one_by_one  # type: ignore[method-assign]
        return pipeline


def slice_keys(redis: Redis, kind: str = "vectors") -> list[bytes]:
    return sorted(redis.keys(f"*:{kind}:*"))


def lay(window: RedisWindow, count: int) -> None:
    """Lay pictures into a window as a recovery does, over the last ten hours."""
    records = [pack_record(f"{n}", b"%d" % n, UPLOADED_AT, vector(n)) for n in range(count)]
    staged = [part for n, record in enumerate(records) for part in (f"{n}", record, b"")]
    window.store.run("stage", [("t", ["", *staged])], "recovery")
    slice_ms = -(-window.store.retention_ms // slices.SLICES)
    first_ms = (window.store.oldest_ms() + window.store.retention_ms - 10 * 3_600_000) // slice_ms * slice_ms
    entries = [part for n in range(count) for part in (first_ms + n * 36_000, f"{n}", b"", "")]
    window.store.run("restore", [("t", ["1", 0, count, "1", *entries])], "recovery")


def cards(redis: Redis) -> int:
    """How many rows are in slices."""
    return sum(redis.execute_command("VCARD", key) for key in slice_keys(redis))


def test_no_row_stays_in_the_process(process: Open, redis: Redis) -> None:
    window = process()
    for start in range(0, 300, 50):
        window.append([upload(str(n), n) for n in range(start, start + 50)])
        assert window.stats().rows == 0
    assert cards(redis) == redis.hlen(keys()["rows"]) == 300
    assert [near(result) for result in window.append([upload(f"copy-{n}", n, 1) for n in range(0, 300, 7)])] == [
        [str(n)] for n in range(0, 300, 7)
    ]


def test_a_small_window_has_no_slices(redis: Redis) -> None:
    window = RedisWindow(redis, MODEL, WindowSettings(backend="redis-vectors"), PREFIX)
    window.append([upload(str(n), n) for n in range(100)])
    assert near(window.append([upload("copy", 1, 1)])[0]) == ["1"]
    assert slice_keys(redis) == []


def test_slices_find_what_a_replica_finds(process: Open, redis: Redis) -> None:
    sliced, in_process = process(), RedisWindow(redis, MODEL, WindowSettings(), PREFIX)
    # A flood of copies of one picture among others: of the flood the earliest and the nearest are told.
    uploads = [upload(str(n), n % 5 and 1_000 + n, n) for n in range(600)]
    told: list[list[AppendResult]] = []
    for window, tenant in ((sliced, "s"), (in_process, "r")):
        results = []
        for start in range(0, 600, 100):
            results += window.append([each._replace(tenant=tenant) for each in uploads[start : start + 100]])
        told.append(results)
    found, expected = ([{match.image_id: match.l2 for match in each.near} for each in results] for results in told)
    assert [next(iter(each), "") for each in found] == [next(iter(each), "") for each in expected]
    assert all(
        one[name] == other[name]
        for one, other in zip(found, expected, strict=True)
        for name in one.keys() & other.keys()
    )
    in_both = sum(len(one.keys() & other.keys()) for one, other in zip(found, expected, strict=True))
    assert in_both > 0.98 * sum(map(len, expected)) > 0.98 * 2_000
    assert {len(each) for each in found[-100::5]} <= {32, 33}


def test_regions_are_searched_for_and_remembered(process: Open) -> None:
    window = process()
    window.append([upload("a", 1), upload("b", 2)])
    whole = upload("c", 3)._replace(region_vectors=(vector(2, 5), vector(9), vector(1, 4)))
    [first] = window.append([whole])
    assert [[match.image_id for match in matches] for matches in first.region_matches] == [["b"], [], ["a"]]
    window.append([upload("d", 9)])
    assert process().append([whole]) == [first]


class TestRepeats:
    """The graph of a slice may miss a row, and find it later: a repeat is told what was found first."""

    @staticmethod
    def miss(redis: Redis, position: Position | None) -> Callable[[], None]:
        """Take a row out of the slice behind the window's back; returns what puts it in again."""
        [key] = slice_keys(redis)
        assert position is not None
        assert redis.execute_command("VREM", key, str(position)) == 1
        state = key.replace(b":vectors:", b":slice:")
        redis.hincrby(state, "rows", -1)
        numbers = vector(1).astype("<f2").astype("<f4").tobytes()

        attributes = f'{{"m":{position.ms},"n":{position.serial}}}'

        def find_again() -> None:
            redis.execute_command("VADD", key, "FP32", numbers, str(position), "Q8", "SETATTR", attributes)
            redis.hincrby(state, "rows", 1)

        return find_again

    def test_what_was_missed_is_not_found_by_a_repeat(self, process: Open, redis: Redis) -> None:
        window = process()
        [a, _] = window.append([upload("a", 1), upload("x", 5)])
        find_again = self.miss(redis, a.position)
        [first] = window.append([upload("b", 1, 1)])
        find_again()
        assert near(window.append([upload("c", 1, 2)])[0]) == ["a", "b"]
        assert near(first) == []
        assert window.append([upload("b", 1, 1)]) == process().append([upload("b", 1, 1)]) == [first]

    def test_what_was_found_is_found_by_a_repeat(self, process: Open, redis: Redis) -> None:
        window = process()
        [a, _] = window.append([upload("a", 1), upload("x", 5)])
        [first] = window.append([upload("b", 1, 1)])
        self.miss(redis, a.position)
        assert near(window.append([upload("c", 1, 2)])[0]) == ["b"]
        assert window.append([upload("b", 1, 1)]) == process().append([upload("b", 1, 1)]) == [first]
        assert near(first) == ["a"]

    def test_what_was_deleted_since_is_not_told_again(self, process: Open) -> None:
        window = process()
        window.append([upload("a", 1), upload("b", 1, 1), upload("c", 1, 2)])
        window.delete("t", "a")
        assert near(window.append([upload("c", 1, 2)])[0]) == ["b"]

    def test_what_is_remembered_goes_with_its_upload(self, process: Open, redis: Redis) -> None:
        window = process()
        window.append([upload("a", 1), upload("b", 1, 1)])
        assert redis.hlen(keys()["near"]) == 2
        window.delete("t", "b")
        assert redis.hlen(keys()["near"]) == 1
        assert not any(b"b" in value.split() for value in redis.hvals(keys()["near"]))


class TestDeletion:
    def test_a_deleted_row_is_in_no_slice_at_once(self, process: Open, redis: Redis) -> None:
        window, other = process(), process()
        window.append([upload("a", 1), upload("b", 2)])
        assert cards(redis) == 2
        other.delete("t", "a", Source(0, 9))
        assert cards(redis) == 1

    def test_a_deletion_whose_process_died_halfway_is_carried_out_by_the_next(
        self, process: Open, redis: Redis
    ) -> None:
        window = process()
        window.append([upload("a", 1), upload("b", 2)])
        window.store.run("forget", [("t", ["", b"a", "0 9"])])
        assert cards(redis) == 2
        assert process().delete("t", "a", Source(0, 9)).records == 0
        assert cards(redis) == 1

    def test_a_frozen_process_cannot_add_what_was_deleted_meanwhile(self, redis: Redis) -> None:
        frozen = Slices(WindowStore(redis, MODEL, WindowSettings(), PREFIX), SEARCH)
        row = IndexRow(Position(5, 7), b"a", 0, vector(1).astype(np.float16))
        other = IndexRow(Position(5, 8), b"b", 0, vector(2).astype(np.float16))
        frozen.remove("t", b"e", [row.position])
        frozen.add("t", b"e", [row, other], Filled(Position(0, 0), {}))
        assert cards(redis) == 1


class TestLostSlices:
    @pytest.mark.parametrize("kinds", [["vectors"], ["slice"], ["vectors", "slice"]])
    def test_a_lost_slice_is_filled_again(self, process: Open, redis: Redis, kinds: list[str]) -> None:
        window, other = process(), process()
        for start in range(0, 100, 20):
            window.append([upload(str(n), n) for n in range(start, start + 20)])
        other.append([upload("x", 500)])
        redis.delete(*(key for kind in kinds for key in slice_keys(redis, kind)))
        with pytest.raises(Unavailable, match="slices"):
            other.append([upload("y", 501)])
        assert [near(result) for result in window.append([upload("b", 7, 1), upload("c", 93, 1)])] == [["7"], ["93"]]
        assert near(other.append([upload("d", 1, 1)])[0]) == ["1"]
        assert near(process().append([upload("e", 2, 1)])[0]) == ["2"]
        assert cards(redis) == redis.hlen(keys()["rows"]) == 106

    def test_a_slice_without_its_last_rows_is_filled_again(self, process: Open, redis: Redis) -> None:
        """As it is when a replica takes over that lags behind."""
        window, other = process(), process()
        window.append([upload("a", 1), upload("b", 2)])
        had = {key: redis.dump(key) for kind in ("vectors", "slice") for key in slice_keys(redis, kind)}
        window.append([upload("c", 3)])
        for key, content in had.items():
            redis.restore(key, 60_000, content, replace=True)
        with pytest.raises(Unavailable, match="slices"):
            other.append([upload("d", 3, 1)])
        assert near(other.append([upload("d", 3, 1)])[0]) == ["c"]
        assert near(window.append([upload("e", 1, 1)])[0]) == ["a"]
        assert cards(redis) == redis.hlen(keys()["rows"]) == 5

    def test_what_another_sees_to_first_is_searched_again(
        self, process: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A slice that was empty, and that others have filled again by the time that it is asked once more."""
        window, reader = process(), process()
        window.append([upload("a", 1), upload("x", 5)])
        assert near(look_up(reader, upload("", 1, 1))) == ["a"]
        redis.delete(*slice_keys(redis), *slice_keys(redis, "slice"))
        check_lost = Slices._check_lost

        def let_another_see(*arguments: Any) -> None:
            monkeypatch.setattr(Slices, "_check_lost", check_lost)
            with pytest.raises(Unavailable, match="slices"):
                window.append([upload("y", 6)])
            check_lost(*arguments)

        monkeypatch.setattr(Slices, "_check_lost", let_another_see)
        assert near(look_up(reader, upload("", 1, 1))) == ["a"]

    def test_what_is_lost_and_filled_again_during_a_search_is_searched_again(self, process: Open, redis: Redis) -> None:
        """Whole before and after it was searched, and empty in between."""
        sent: list[str] = []

        def lose_and_fill(command: str) -> None:
            sent.append(command)
            if sent.count("VSIM") > 1:
                return
            if command == "VSIM":
                redis.delete(*slice_keys(redis), *slice_keys(redis, "slice"))
            elif sent[-2:-1] == ["VSIM"]:
                with pytest.raises(Unavailable, match="slices"):
                    window.append([upload("y", 6)])
                window.append([upload("y", 6)])

        window, reader = process(), process(client=OneByOne(redis, lose_and_fill))
        window.append([upload("a", 1), upload("x", 5)])
        assert near(look_up(reader, upload("", 1, 1))) == ["a"]
        assert sent.count("VSIM") == 2

    def test_rows_are_not_added_to_a_slice_that_was_lost(self, process: Open, redis: Redis) -> None:
        """Or else it would look as if it were whole."""
        store = WindowStore(redis, MODEL, WindowSettings(), PREFIX)
        lost = Slices(store, SEARCH)
        rows = [IndexRow(Position(5, n), b"%d" % n, 0, vector(n).astype(np.float16)) for n in range(1, 5)]
        last = lost.add("t", b"e", rows[:3], Filled(Position(0, 0), {}))
        redis.flushall()
        with pytest.raises(slices.SliceLost):
            lost.add("t", b"e", rows[3:], Filled(Position(5, 3), last))
        assert cards(redis) == 0

    def test_a_look_up_waits_until_a_lost_slice_is_filled_again(self, process: Open, redis: Redis) -> None:
        window, reader = process(), process()
        window.append([upload("a", 1)])
        assert near(look_up(reader, upload("", 1, 1))) == ["a"]
        redis.delete(*slice_keys(redis))
        before = {key: redis.dump(key) for key in redis.keys("*")}
        with pytest.raises(Unavailable, match="slices"):
            look_up(reader, upload("", 1, 1))
        assert {key: redis.dump(key) for key in redis.keys("*")} == before
        with pytest.raises(Unavailable, match="slices"):
            window.append([upload("b", 2)])
        window.append([upload("b", 2)])
        assert near(look_up(reader, upload("", 1, 1))) == ["a"]

    def test_a_slice_of_which_all_was_deleted_is_not_lost(self, process: Open, redis: Redis) -> None:
        window, reader = process(), process()
        window.append([upload("a", 1)])
        window.delete("t", "a")
        assert slice_keys(redis) == []
        assert near(look_up(reader, upload("", 1, 1))) == []
        window.append([upload("b", 1, 1)])
        assert near(look_up(reader, upload("", 1, 1))) == ["b"]

    def test_a_window_that_was_lost_begins_with_slices_of_its_own(self, process: Open, redis: Redis) -> None:
        window = process()
        window.append([upload("a", 1), upload("x", 2)])
        redis.delete(*keys().values())
        assert near(window.append([upload("b", 1, 1)])[0]) == []
        assert near(process().append([upload("c", 1, 2)])[0]) == ["b"]


class TestExpiry:
    def test_whole_slices_go(self, process: Open, redis: Redis) -> None:
        window = process(retention_s=3.0)
        alive = []
        for n in range(16):
            time.sleep(0.5)
            window.append([upload(str(n), n)])
            alive.append(len(slice_keys(redis)))
        assert max(alive) <= slices.SLICES + 3
        assert all(redis.pttl(key) != -1 for key in redis.keys("*"))  # -2 where one has just gone
        assert near(window.append([upload("old", 1, 1)])[0]) == []
        assert near(window.append([upload("new", 15, 1)])[0]) == ["15"]

    def test_the_bound_on_memory_drops_slices(self, process: Open, redis: Redis) -> None:
        window = process()
        lay(window, 1_000)
        window.append([upload("a", 1, 1)])
        assert len(slice_keys(redis)) >= 3
        assert cards(redis) == 1_001
        window.store.max_bytes = 1
        for n in range(20):
            window.append([upload(f"b{n}", 2_000 + n)])
        assert (len(slice_keys(redis)), redis.hlen(keys()["rows"])) == (1, 1)
        window.store.max_bytes = 1 << 30
        assert near(window.append([upload("c", 2_019, 1)])[0]) == ["b19"]

    def test_another_retention_has_other_slices(self, process: Open) -> None:
        process(retention_s=60).append([upload("a", 1)])
        longer, shorter = process(retention_s=90), process(retention_s=60)
        assert near(longer.append([upload("b", 1, 1)])[0]) == ["a"]
        assert near(shorter.append([upload("c", 1, 2)])[0]) == ["a", "b"]


def test_a_window_that_was_recovered_is_moved_page_by_page(process: Open, redis: Redis) -> None:
    """As it stands after a recovery, or was used with replicas before: all of it in the log."""
    pages: list[int] = []
    settings = WindowSettings(backend="redis-vectors")
    window = RedisWindow(redis, MODEL, settings, PREFIX, progress=lambda _, rows: pages.append(rows))
    count = 1_000
    lay(window, count)
    assert [near(result) for result in window.append([upload("a", 1, 1), upload("b", 999, 1)])] == [["1"], ["999"]]
    assert max(pages) <= 500
    assert window.stats().rows == 0
    assert cards(redis) == count + 2
    assert len(slice_keys(redis)) >= 3


class TestSeveralProcesses:
    def test_replicas_and_slices_have_the_same_window(self, process: Open, redis: Redis) -> None:
        sliced, in_process = process(), RedisWindow(redis, MODEL, WindowSettings(), PREFIX)
        in_process.append([upload("a", 1), upload("x", 5)])
        assert near(sliced.append([upload("b", 1, 1)])[0]) == ["a"]
        assert near(in_process.append([upload("c", 1, 2)])[0]) == ["a", "b"]
        sliced.delete("t", "a")
        assert near(sliced.append([upload("d", 1, 3)])[0]) == ["b", "c"]
        assert cards(redis) == redis.hlen(keys()["rows"]) == 4

    @pytest.mark.timeout(30)
    def test_another_moves_more_than_this_one_has_read(
        self, process: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        in_process = RedisWindow(redis, MODEL, WindowSettings(), PREFIX)
        in_process.append([upload(str(n), n) for n in range(40)])
        monkeypatch.setattr(replica, "PAGE_ENTRIES", 5)
        moved: list[Position] = []

        def move_once(*_: object) -> None:
            if not moved:
                process().append([upload("x", 500)])
            moved.append(Slices(window.store, SEARCH).read_filled("t").position)

        settings = WindowSettings(backend="redis-vectors")
        window = RedisWindow(redis, MODEL, settings, PREFIX, progress=move_once)
        assert near(window.append([upload("copy", 39, 1)])[0]) == ["39"]
        assert len(moved) > 5
        assert moved == sorted(moved)
        assert (window.stats().rows, cards(redis)) == (0, 42)

    def test_where_another_has_died_with_the_claim_it_is_taken_over(self, process: Open, redis: Redis) -> None:
        window = process()
        window.append([upload("a", 1)])
        redis.hset(keys()["slices"], "claim", f"dead {int(time.time() * 1000) + 60_000}")
        assert near(window.append([upload("b", 1, 1)])[0]) == ["a"]
        assert (window.stats().rows, cards(redis)) == (1, 1)
        pass_s(redis, 61)
        assert near(window.append([upload("c", 1, 2)])[0]) == ["a", "b"]
        assert (window.stats().rows, cards(redis)) == (0, 3)

    def test_a_process_holds_no_more_than_so_many_rows_while_others_fill_slices(
        self, process: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slice_filler, "MAX_TAIL_ROWS", 50)
        window = process()
        window.append([upload("a", 1)])
        redis.hset(keys()["slices"], "claim", f"other {int(time.time() * 1000) + 60_000}")
        window.append([upload(str(n), n) for n in range(100, 150)])
        with pytest.raises(Unavailable, match="slices"):
            window.append([upload("b", 1, 1)])
        # It has forgotten what it held, and goes on once the other has moved that.
        redis.hdel(keys()["slices"], "claim")
        assert near(window.append([upload("b", 1, 1)])[0]) == ["a"]


def test_a_server_without_vector_sets_is_said_to_be(redis_server: str, process: Open) -> None:
    settings = RedisSettings.model_validate({"url": redis_server})
    [finding] = [each for each in check_redis(settings, "redis-vectors") if each.what == "redis: window"]
    assert (finding.outcome, "8.2" in finding.remedy) == ("failed", True)
    with Redis.from_url(redis_server) as old, pytest.raises(Misconfigured, match=r"vector sets.*8\.2"):
        process(client=old).check()


def test_a_check_leaves_nothing(process: Open, redis: Redis) -> None:
    process().check()
    assert redis.keys("*") == []
