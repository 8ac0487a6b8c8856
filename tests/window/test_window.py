"""The window on real servers: against a model of itself, and each property of it by itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import count

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable
from consumer.settings import WindowSettings
from consumer.window import large_index, replica, replicas, slice_filler, store
from consumer.window.records import ExactMatch, NewRecord, Position, Source, to_us
from consumer.window.window import RedisWindow
from tests.window.examples import (
    DIM,
    LARGE_MODEL,
    MODEL,
    NAMES,
    PREFIX,
    UPLOADED_AT,
    assert_coherent,
    keys,
    look_up,
    near,
    pass_s,
    upload,
    vector,
)
from tests.window.servers import Backend, server_of_backend

server = server_of_backend
Open = Callable[..., RedisWindow]


def opener(redis: Redis, model: ModelInfo, backend: Backend) -> Open:
    def open_window(retention_s: float = 86_400.0, max_bytes: int = 1 << 30, **options: object) -> RedisWindow:
        window = WindowSettings(retention_s=retention_s, max_bytes=max_bytes, backend=backend)
        return RedisWindow(redis, model, window, PREFIX, **options)  # type: ignore[arg-type]

    return open_window


@pytest.fixture
def process(redis: Redis, backend: Backend) -> Open:
    """Opens a window as another process would."""
    return opener(redis, MODEL, backend)


@pytest.fixture(params=["small", "large"])
def process_of_any_size(
    request: pytest.FixtureRequest, redis: Redis, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> Open:
    """Opens a window that is searched exactly, or one that outgrows that with its third row."""
    if request.param == "small":
        return opener(redis, MODEL, backend)
    if backend != "replica":
        monkeypatch.setattr(slice_filler, "TAIL_ROWS", 2)
        return opener(redis, MODEL, backend)
    monkeypatch.setattr(replica, "EXACT_ROWS", 2)
    monkeypatch.setattr(large_index, "EXACT_ROWS", 0)
    return opener(redis, LARGE_MODEL, backend)


def held(backend: Backend, *rows: int) -> list[int]:
    """How many rows windows hold in this process, where replicas hold so many: none where all are in slices."""
    return list(rows) if backend == "replica" else [0] * len(rows)


@pytest.fixture
def replicas_only(backend: Backend) -> None:
    """For tests of what replicas alone do."""
    if backend != "replica":
        pytest.skip("slices are no replica")


class TestAgainstAModel:
    """Any sequence of uploads, repeats and deletions, by three processes, in batches."""

    @dataclass
    class Entry:
        image_id: str
        content: int
        deleted: bool = False

    _tenants = count()
    _names = ("s3://a", "s3://a?versionId=1", "s3://a?versionId=2", "b", "c", "d")
    _upload = st.tuples(st.sampled_from(_names), st.integers(0, 8))
    _step = st.tuples(
        st.integers(0, 2),
        st.one_of(
            st.tuples(st.just("append"), st.lists(_upload, min_size=1, max_size=5)),
            st.tuples(st.just("exact"), st.lists(_upload, min_size=1, max_size=3)),
            st.tuples(st.just("delete"), st.sampled_from(_names)),
            st.tuples(st.just("refresh"), st.none()),
            st.tuples(st.just("restart"), st.none()),
        ),
    )

    @staticmethod
    def _record(tenant: str, image_id: str, content: int) -> NewRecord:
        record = upload(image_id, content // 3, content % 3, tenant)
        return record._replace(vector=None) if content == 8 else record  # a blank picture

    def _find(self, stored: "list[Entry]", image_id: str, content: int) -> "tuple[Entry | None, Entry | None]":
        living = [record for record in stored if not record.deleted and record.content == content]
        own = next((record for record in living if record.image_id == image_id), None)
        if own is not None:
            living = living[: living.index(own)]
        return own, next((record for record in living if record.image_id != image_id), None)

    @settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(steps=st.lists(_step, min_size=1, max_size=14))
    def test_results_are_as_if_one_by_one(
        self, process_of_any_size: Open, steps: list[tuple[int, tuple[str, object]]]
    ) -> None:
        process = process_of_any_size
        tenant = f"t{next(self._tenants)}"
        windows = [process() for _ in range(3)]
        stored: list[TestAgainstAModel.Entry] = []
        for number, (action, argument) in steps:
            window = windows[number]
            if action == "restart":
                windows[number] = process()
            elif action == "refresh":
                window.refresh()
            elif action == "delete":
                gone = [
                    record
                    for record in stored
                    if (record.image_id == argument or record.image_id.startswith(f"{argument}?versionId="))
                    and not record.deleted
                ]
                assert window.delete(tenant, str(argument)).records == len(gone)
                for record in gone:
                    record.deleted = True
            elif action == "exact":
                assert isinstance(argument, list)
                records = [self._record(tenant, *one) for one in argument]
                matches = window.find_exact(
                    [(record.tenant, record.image_id, record.digest, UPLOADED_AT) for record in records]
                )
                expected = [self._find(stored, *one)[1] for one in argument]
                assert [match and match.image_id for match in matches] == [one and one.image_id for one in expected]
            else:
                assert isinstance(argument, list)
                self._check_append(window, tenant, stored, argument)

    def _check_append(
        self, window: RedisWindow, tenant: str, stored: "list[Entry]", argument: list[tuple[str, int]]
    ) -> None:
        expected: list[tuple[str | None, TestAgainstAModel.Entry | None]] = []
        for image_id, content in argument:
            own, match = self._find(stored, image_id, content)
            if match is None and own is None:
                own = self.Entry(image_id, content)
                stored.append(own)
            expected.append((match and match.image_id, own))
        for (image_id, content), (exact, own), result in zip(
            argument, expected, window.append([self._record(tenant, *one) for one in argument]), strict=True
        ):
            assert (result.exact and result.exact.image_id) == exact
            before = [] if exact or own is None or content == 8 else stored[: stored.index(own)]
            assert near(result) == [
                record.image_id
                for record in before
                if not record.deleted
                and record.image_id != image_id
                and record.content // 3 == content // 3
                and record.content != 8
            ]
            assert (result.position is None) == (own is None)


def test_of_two_copies_at_the_same_moment_exactly_one_is_the_duplicate(process: Open) -> None:
    one, other = process(), process()
    for picture in range(50):
        first, second = upload("a", picture, 0, f"p{picture}"), upload("b", picture, 1, f"p{picture}")
        assert look_up(one, first) is look_up(other, second) is None
        assert [near(one.append([first])[0]), near(other.append([second])[0])] == [[], ["a"]]


def test_a_match_tells_all_about_the_picture(process: Open) -> None:
    east = UPLOADED_AT.astimezone(timezone(timedelta(hours=9)))
    window = process()
    original = upload("a", 1)._replace(uploaded_at=east)
    [first] = window.append([original])
    [result] = window.append([upload("b", 1, 1)])
    [match] = result.near
    l2 = float(np.linalg.norm(vector(1).astype(np.float16) - vector(1, 1).astype(np.float16).astype(np.float32)))
    assert (match.image_id, match.position, match.uploaded_at) == ("a", first.position, UPLOADED_AT)
    assert match.l2 == pytest.approx(l2, abs=1e-6)
    assert look_up(window, upload("c", 1)) == ExactMatch("a", first.position, UPLOADED_AT)  # type: ignore[arg-type]


@pytest.mark.parametrize("moment", [datetime.min, datetime.max, datetime(1969, 7, 20, 20, 17, 40)])
def test_any_time_of_upload_is_kept(process: Open, moment: datetime) -> None:
    window = process()
    uploaded_at = moment.replace(tzinfo=timezone(timedelta(hours=14 if moment.year < 1000 else -12)))
    window.append([upload("a", 1)._replace(uploaded_at=uploaded_at)])
    match = look_up(window, upload("b", 1))
    assert match is not None
    assert abs(match.uploaded_at - moment.replace(tzinfo=UTC)) <= timedelta(hours=14)


def test_a_repeat_gives_the_same_answer_whatever_came_since(process: Open) -> None:
    records = [upload("a", 1, 0), upload("b", 1, 1), upload("c", 1, 2), upload("d", 1, 1)]
    answers = process().append(records)
    other = process()
    other.append([upload("e", 1, 3), upload("f", 1, 4)])
    # Encoded a little differently this time, as in a batch of another size.
    noisy = [
        record._replace(vector=record.vector + np.float32(1e-3)) for record in records if record.vector is not None
    ]
    assert other.append(noisy[::-1])[::-1] == answers
    assert [near(result) for result in answers] == [[], ["a"], ["a", "b"], []]
    assert answers[3].exact is not None


def test_a_flood_of_one_file_is_stored_once(process: Open, backend: Backend, redis: Redis) -> None:
    window = process()
    window.append([upload("a", 1)])
    before = redis.memory_usage(keys()["rows"], samples=0)
    for batch in range(20):
        records = [upload(f"{batch}/{n}", 1) for n in range(32)]
        assert {result.exact.image_id for result in window.append(records) if result.exact} == {"a"}
        assert all(look_up(window, record) for record in records[:3])
    assert redis.memory_usage(keys()["rows"], samples=0) == before
    assert [window.stats().rows] == held(backend, 1)


def test_versions_of_one_image_do_not_match_each_other(process: Open, redis: Redis) -> None:
    window = process()
    versions = [upload("a", 1, variant) for variant in range(20)]
    for record in versions:
        [result] = window.append([record])
        assert (result.exact, result.near) == (None, ())
    assert redis.hlen(keys()["rows"]) == 16
    assert near(window.append([upload("b", 1, 50)])[0]) == ["a"] * 16
    assert window.delete("t", "a").records == 16
    assert near(window.append([upload("c", 1, 51)])[0]) == ["b"]


@pytest.mark.usefixtures("replicas_only")
def test_deletion_reaches_every_process(process: Open) -> None:
    one, other = process(), process()
    one.append([upload("a", 1), upload("b", 2)])
    other.append([upload("c", 3)])
    assert (one.stats().rows, other.stats().rows) == (2, 3)
    one.delete("t", "a")
    assert (one.stats().rows, other.stats().rows) == (2, 3)
    time.sleep(replicas.STALE_S)
    other.refresh()
    assert other.stats().rows == 2
    assert process().append([upload("d", 1, 1)])[0].near == ()
    assert look_up(other, upload("e", 1)) is None


@pytest.mark.usefixtures("replicas_only")
def test_a_process_busy_with_another_tenant_still_hears_of_deletions(
    process: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "STALE_S", 0.0)
    one, other = process(), process()
    other.append([upload("a", 1)])
    one.delete("t", "a")
    other.append([upload("x", 5, tenant="busy")])
    assert other.stats().rows == 1


def test_nothing_of_a_deleted_picture_is_left_in_redis(process: Open, redis: Redis) -> None:
    redis.config_set("rdbcompression", "no")
    window = process()
    secret = upload("the-secret-name", 7, patches=b"PATCHES-OF-THE-SECRET")
    window.append([upload(f"before-{n}", 100 + n) for n in range(3)])
    window.append([secret])
    window.append([upload(f"after-{n}", 200 + n) for n in range(3)])
    traces = [secret.digest, b"the-secret-name", vector(7).astype("<f2").tobytes(), secret.patches or b""]

    def left() -> list[bool]:
        dumps = b"".join(redis.dump(key) or b"" for key in redis.keys("*"))
        return [trace in dumps for trace in traces]

    assert left() == [True] * 4
    window.delete("t", "the-secret-name", Source(0, 10))
    assert left() == [False] * 4
    redis.config_set("rdbcompression", "yes")


def test_a_deleted_original_is_found_no_more_by_its_copies(process: Open) -> None:
    window = process()
    window.append([upload("a", 1), upload("b", 1), upload("c", 1, 1)])
    window.delete("t", "a")
    [result] = window.append([upload("d", 1)])
    assert (result.exact, near(result)) == (None, ["c"])
    assert look_up(window, upload("e", 1)).image_id == "d"  # type: ignore[union-attr]


def test_an_upload_from_before_its_deletion_is_not_stored_again(process: Open, redis: Redis) -> None:
    frozen, heir = process(), process()
    event, later = Source(0, 5), Source(0, 9)
    upload_a = upload("a", 1)
    heir.append([upload_a._replace(source=event), upload("b", 2)])
    heir.delete("t", "a", Source(0, 7))
    # Thawed, the other one goes on where it was; its other upload is compared with what stands.
    result = frozen.append([upload_a._replace(source=event), upload("c", 2, 1)._replace(source=Source(1, 1))])
    assert [near(one) for one in result] == [[], ["b"]]
    assert redis.hkeys(keys()["ids"]) == [b"b", b"c"]
    assert near(process().append([upload("d", 1, 1)])[0]) == []
    heir.delete("t", "d")
    # Another event of the same partition after the deletion, and one of another partition, are uploads as any.
    assert heir.append([upload_a._replace(source=later)])[0].position is not None
    assert look_up(heir, upload("e", 1)) is not None
    heir.delete("t", "a", Source(0, 12))
    heir.append([upload_a._replace(source=Source(1, 2))])
    assert b"a" in redis.hkeys(keys()["ids"])


VERSIONS = (
    *("s3://b/k", "s3://b/k?versionId=1", "s3://b/k?versionId=2", "s3://b/k2?versionId=1", "s3://b/k?versionId="),
    *("gs://b/k?versionId=1", "https://b/k?versionId=1", "az://b/k?versionId=1"),
)


@pytest.mark.parametrize(
    ("deleted", "left"),
    [
        ("s3://b/k", [3, 4, 5, 6, 7]),
        ("s3://b/k?versionId=1", [0, 2, 3, 4, 5, 6, 7]),
        ("s3://b/k?versionId=3", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("s3://b/k?versionId=", [0, 1, 2, 3, 5, 6, 7]),
        ("s3://b", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("gs://b/k", [0, 1, 2, 3, 4, 6, 7]),
        ("https://b/k", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("az://b/k", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_an_object_is_deleted_with_its_versions_and_a_version_by_itself(
    process: Open, redis: Redis, deleted: str, left: list[int]
) -> None:
    window = process()
    window.append([upload(name, picture) for picture, name in enumerate(VERSIONS)])
    assert window.delete("t", deleted, Source(0, 9)).records == len(VERSIONS) - len(left)
    found = [look_up(window, upload("probe", picture)) for picture in range(len(VERSIONS))]
    assert [picture for picture, match in enumerate(found) if match is not None] == left
    assert_coherent(redis)


def test_a_version_from_before_the_deletion_of_its_object_is_not_stored_again(process: Open, redis: Redis) -> None:
    window = process()
    version = "s3://b/k?versionId=1"
    window.append([upload("other", 9)])
    window.delete("t", "s3://b/k", Source(0, 7))
    window.append([upload(version, 1)._replace(source=Source(0, 5))])
    assert redis.hkeys(keys()["ids"]) == [b"other"]
    window.append([upload(version, 1)._replace(source=Source(0, 8))])
    assert look_up(window, upload("probe", 1)) is not None
    # A deletion carried out twice deletes nothing that came after it.
    assert window.delete("t", "s3://b/k", Source(0, 7)).records == 0
    assert window.delete("t", version, Source(0, 6)).records == 1


def at(second: int) -> datetime:
    return UPLOADED_AT + timedelta(seconds=second)


def test_a_deletion_that_comes_late_spares_what_was_uploaded_after_it(process: Open) -> None:
    """Stores do not keep the order of what they tell, but tell when it was."""
    window = process()
    window.append([upload("a", 1)._replace(uploaded_at=at(1), source=Source(0, 1))])
    window.append([upload("a", 2)._replace(uploaded_at=at(3), source=Source(0, 2))])
    assert window.delete("t", "a", Source(0, 3, to_us(at(2)))).records == 1
    assert [look_up(window, upload("probe", picture)) is not None for picture in (1, 2)] == [False, True]
    # A frozen process appends both again: what is deleted stays deleted, what is not is known.
    again = process().append([upload("a", n)._replace(uploaded_at=at(2 * n - 1), source=Source(0, n)) for n in (1, 2)])
    assert [result.own_record is not None for result in again] == [False, True]


@pytest.mark.parametrize(("second", "stored"), [(1, False), (2, True), (3, True)])
def test_an_upload_that_comes_after_its_deletion_is_not_stored_if_it_is_older(
    process: Open, second: int, stored: bool
) -> None:
    """Of the same moment the order in the topic counts, since some stores tell full seconds only."""
    window = process()
    window.append([upload("other", 9)])
    window.delete("t", "a", Source(0, 5, to_us(at(2))))
    window.append([upload("a", 1)._replace(uploaded_at=at(second), source=Source(0, 6))])
    assert (look_up(window, upload("probe", 1)) is not None) == stored


@pytest.mark.parametrize(
    ("deletions", "offset", "second"),
    [
        ([(0, 1, 10), (0, 2, 5)], 3, 7),
        ([(0, 1, 10), (0, 2, None)], 3, 7),
        ([(0, 2, None), (0, 3, 5)], 1, 7),  # in the hands of a frozen process
        ([(0, 1, 5), (0, 3, None)], 2, 7),  # as well
        ([(0, 2, 10), (1, 9, 5)], 1, 7),
    ],
)
def test_of_several_deletions_each_counts(
    process: Open, redis: Redis, deletions: list[tuple[int, int, int | None]], offset: int, second: int
) -> None:
    window = process()
    window.append([upload("other", 9)])
    for partition, number, time_s in deletions:
        window.delete("t", "a", Source(partition, number, None if time_s is None else to_us(at(time_s))))
    window.append([upload("a", 1)._replace(uploaded_at=at(second), source=Source(0, offset))])
    assert look_up(window, upload("probe", 1)) is None
    window.append([upload("a", 1)._replace(uploaded_at=at(11), source=Source(0, 12))])
    assert look_up(window, upload("probe", 1)) is not None
    assert_coherent(redis)


def test_an_object_overwritten_for_ever_has_a_bounded_list_of_versions(process: Open, redis: Redis) -> None:
    window = process()
    window.append([upload(f"s3://b/k?versionId={number}", number) for number in range(40)])
    assert redis.hlen(keys()["rows"]) == 16
    assert_coherent(redis)
    window.delete("t", "s3://b/k")
    assert redis.hlen(keys()["ids"]) == 0


def test_the_mark_of_a_deletion_leaves_with_its_time(process: Open, redis: Redis) -> None:
    window = process()
    window.append([upload("a", 1)])
    for n in range(3):
        window.delete("t", "a", Source(0, n))
    assert redis.hlen(keys()["deleted"]) == 1
    window.store.max_bytes = 1
    for n in range(3):
        window.append([upload(f"b{n}", 2)])
    assert redis.hlen(keys()["deleted"]) == 0
    assert all(redis.pttl(key) > 0 for key in redis.keys("*"))


@pytest.mark.usefixtures("replicas_only")
def test_a_late_process_reads_the_living_records_page_by_page(process: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "PAGE_ENTRIES", 10)
    early = process()
    for start in range(0, 60, 20):
        early.append([upload(str(n), n) for n in range(start, start + 20)])
    for n in range(0, 60, 7):
        early.delete("t", str(n))
    pages: list[tuple[str, int]] = []
    late = process(progress=lambda tenant, records: pages.append((tenant, records)))
    [first, last, gone] = late.append([upload("x", 1, 1), upload("y", 59, 1), upload("z", 7, 1)])
    assert (near(first), near(last), near(gone)) == (["1"], ["59"], [])
    assert len(pages) >= 6
    assert [records for _, records in pages] == sorted(records for _, records in pages)
    early.append([])
    time.sleep(replicas.STALE_S)
    early.refresh()
    assert late.stats().rows == early.stats().rows == 60 - 9 + 3


class TestExpiry:
    def test_what_left_the_window_does_not_match_whether_trimmed_or_not(
        self, process: Open, backend: Backend, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "GRACE_SHARE", 100)
        window = process(retention_s=3600)
        window.append([upload("a", 1), upload("x", 2)])
        pass_s(redis, 3700)
        [b, y] = window.append([upload("b", 1, 1), upload("y", 2)])
        assert (b.near, y.near, y.exact) == ((), (), None)
        [c] = window.append([upload("c", 1, 2)])
        assert near(c) == ["b"]
        assert [window.stats().rows] == held(backend, 5)

    def test_a_repeat_in_the_grace_gives_the_same_answer(
        self, process: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "GRACE_SHARE", 1)
        window = process(retention_s=3600)
        window.append([upload("a", 1)])
        pass_s(redis, 2200)
        first = window.append([upload("b", 1, 1)])
        assert near(first[0]) == ["a"]
        pass_s(redis, 1600)
        assert near(window.append([upload("c", 1, 2)])[0]) == ["b"]
        assert window.append([upload("b", 1, 1)]) == process(retention_s=3600).append([upload("b", 1, 1)]) == first

    @pytest.mark.usefixtures("replicas_only")
    def test_records_maps_and_replicas_are_trimmed_together(
        self, process: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replicas, "STALE_S", -1.0)
        one, other = process(retention_s=3600), process(retention_s=3600)
        one.append([upload(str(n), n, patches=b"p") for n in range(50)])
        pass_s(redis, 2000)
        other.append([upload("x", 100)])
        assert other.stats().rows == redis.hlen(keys()["rows"]) == 51
        pass_s(redis, 2000)
        other.append([upload("y", 101)])
        assert redis.hlen(keys()["rows"]) == redis.hlen(keys()["ids"]) == redis.hlen(keys()["digests"]) == 2
        assert redis.xlen(keys()["log"]) == 2
        assert not redis.exists(keys()["patches"])
        one.refresh()
        assert one.stats().rows == other.stats().rows == 2
        assert one.stats().resets == 0

    def test_trimming_goes_in_bounded_steps(self, process: Open, redis: Redis) -> None:
        window = process()
        for start in range(0, 400, 100):
            window.append([upload(str(n), n) for n in range(start, start + 100)])
        window.store.max_bytes = 1
        left = []
        for n in range(8):
            window.append([upload(f"new-{n}", 2_000 + n)])
            left.append(redis.hlen(keys()["rows"]))
        assert left == [*(400 - 65 * n for n in range(1, 7)), 1, 1]

    def test_windows_of_idle_tenants_vanish(self, process: Open, backend: Backend, redis: Redis) -> None:
        window = process(retention_s=2.0)
        window.append([upload("a", 1)])
        assert len(redis.keys("*")) == (5 if backend == "replica" else 9)
        time.sleep(2.5)
        assert redis.keys("*") == []
        [result] = window.append([upload("b", 1, 1)])
        assert result.near == ()
        assert [window.stats().rows] == held(backend, 1)

    @pytest.mark.parametrize("by_append", [False, True])
    def test_a_file_that_keeps_coming_stays_known(self, process: Open, redis: Redis, by_append: bool) -> None:
        window = process(retention_s=1600)
        window.append([upload("a", 1)])
        matched_ids = []
        for n in range(12):
            pass_s(redis, 200)
            copy = upload(f"copy-{n}", 1)
            match = window.append([copy])[0].exact if by_append else look_up(window, copy)
            assert match is not None
            matched_ids.append(match.image_id)
        assert matched_ids[0] == "a"
        assert matched_ids[-1].startswith("copy-")
        assert redis.hlen(keys()["rows"]) <= 10
        # A near copy of what came last still has a vector to be compared with.
        [result] = window.append([upload("z", 1, 1)])
        assert "copy-11" in near(result)

    def test_a_repeat_of_the_first_does_not_match_the_copies_stored_since(self, process: Open, redis: Redis) -> None:
        window = process()
        [first] = window.append([upload("a", 1)])
        pass_s(redis, 4000)
        [copy] = window.append([upload("b", 1)])
        assert copy.position is not None
        assert look_up(window, upload("a", 1)) is None
        assert window.append([upload("a", 1)]) == [first]
        assert window.append([upload("b", 1)]) == [copy]

    def test_the_same_upload_after_its_time_is_a_new_one(self, process: Open, redis: Redis) -> None:
        window = process(retention_s=3600)
        records = [upload(str(n), n) for n in range(200)]
        first = window.append(records)
        pass_s(redis, 2000)
        window.append([upload("x", 500)])
        pass_s(redis, 2000)
        # More have had their time than a script lets go.
        [again] = window.append([records[199]])
        assert again.position is not None
        assert first[199].position is not None
        assert again.position > first[199].position

    def test_the_bound_on_memory_drops_the_oldest_everywhere(
        self, process: Open, backend: Backend, redis: Redis
    ) -> None:
        one, other = process(max_bytes=1 << 20), process(max_bytes=1 << 20)
        for start in range(0, 4_000, 100):
            one.append([upload(str(n), n, patches=bytes(100)) for n in range(start, start + 100)])
        other.append([upload("x", 5_000)])
        stored_count = redis.hlen(keys()["rows"])
        assert 1_000 < stored_count < 3_000
        assert int(redis.hget(keys()["meta"], "bytes") or 0) <= (1 << 20) + 100_000
        one.append([upload("y", 5_001)])
        assert abs(one.stats().rows - held(backend, redis.hlen(keys()["rows"]))[0]) <= 1
        assert near(one.append([upload("copy-of-oldest", 0, 1)])[0]) == []
        assert near(other.append([upload("copy-of-newest", 3_999, 1)])[0]) == ["3999"]


class TestLostData:
    def test_an_emptied_redis_is_a_new_log(self, process: Open, backend: Backend, redis: Redis) -> None:
        one, other = process(), process()
        one.append([upload(str(n), n) for n in range(20)])
        other.append([upload("x", 50)])
        redis.flushall()
        assert near(one.append([upload("a", 1, 1)])[0]) == []
        assert near(other.append([upload("b", 1, 2), upload("c", 2, 1)])[0]) == ["a"]
        assert [window.stats().rows for window in (one, other)] == held(backend, 1, 3)
        assert [window.stats().resets for window in (one, other)] == [1, 1]

    def test_the_loss_is_noticed_when_idle(self, process: Open, redis: Redis) -> None:
        window = process()
        window.append([upload("a", 1)])
        redis.flushall()
        time.sleep(replicas.STALE_S)
        window.refresh()
        assert (window.stats().rows, window.stats().resets) == (0, 1)

    def test_a_server_without_the_last_records_takes_over(self, process: Open, backend: Backend, redis: Redis) -> None:
        one, other = process(), process()
        one.append([upload(str(n), n) for n in range(10)])
        copies = {key: redis.dump(key) for key in redis.keys("*")}
        one.append([upload("lost", 30), upload("lost-too", 31)])
        redis.flushall()
        for key, dump in copies.items():
            redis.restore(key, 0, dump)
        # The serials of the lost records are given again, to other ones.
        assert other.append([upload("a", 40)])[0].position is not None
        [b, c] = one.append([upload("b", 30, 1), upload("c", 40, 1)])
        assert (near(b), near(c)) == ([], ["a"])
        assert [one.stats().rows] == held(backend, 13)
        assert one.stats().resets == 1

    @pytest.mark.parametrize("kind", ["log", "rows", "ids", "digests", "meta"])
    def test_a_key_evicted_by_itself_is_a_loss_of_all(
        self, process: Open, backend: Backend, redis: Redis, kind: str
    ) -> None:
        window = process()
        window.append([upload("a", 1), upload("b", 2)])
        redis.delete(keys()[kind])
        assert look_up(window, upload("c", 1)) is None
        assert near(window.append([upload("d", 1, 1)])[0]) == []
        assert redis.hlen(keys()["rows"]) == 1
        assert [window.stats().rows] == held(backend, 1)

    @pytest.mark.usefixtures("replicas_only")
    def test_emptied_between_two_pages(self, process: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replica, "PAGE_ENTRIES", 8)
        process().append([upload(str(n), n) for n in range(20)])
        flushed: list[int] = []

        def flush_once(_: str, records: int) -> None:
            if not flushed and records >= 16:
                flushed.append(records)
                redis.flushall()
                process().append([upload("other", 3, 2)])

        late = process(progress=flush_once)
        [result] = late.append([upload("x", 3, 1)])
        assert flushed
        assert near(result) == ["other"]
        assert result.position is not None
        assert result.position.serial == 2
        assert late.stats().rows == 2

    def test_scripts_forgotten_by_the_server_are_sent_again(self, process: Open, redis: Redis) -> None:
        window = process()
        window.append([upload("a", 1)])
        redis.script_flush()
        assert near(window.append([upload("b", 1, 1)])[0]) == ["a"]


class TestTenants:
    def test_any_name_is_a_tenant_of_its_own(self, process: Open, redis: Redis) -> None:
        window = process()
        for _ in range(2):
            result = window.append([upload("a", 1, tenant=name) for name in NAMES])
            assert all(one.near == () and one.exact is None for one in result)
        others = process().append([upload("b", 1, 1, tenant=name) for name in NAMES])
        assert [near(one) for one in others] == [["a"]] * len(NAMES)
        tags = {key.split(b":")[1].split(b"/")[0].rstrip(b"}") for key in redis.keys("*")}
        assert len(tags) == len(NAMES)
        assert all(key.startswith(b"seenit:{") for key in redis.keys("*"))
        assert window.delete("{", "a").records == 1
        assert look_up(window, upload("c", 1, tenant="}")) is not None

    @pytest.mark.parametrize("image_id", ["{a}", "1-1", "a b", "\ud800", "\x00", "日本" * 300, "-"])
    def test_any_name_is_an_image(self, process: Open, image_id: str) -> None:
        window = process()
        window.append([upload(image_id, 1)])
        assert near(process().append([upload("b", 1, 1)])[0]) == [image_id]
        assert window.delete("t", image_id).records == 1

    def test_other_models_are_other_windows(self, process: Open, redis: Redis) -> None:
        process().append([upload("a", 1)])
        newer = RedisWindow(redis, ModelInfo("encoder", "2", 160, DIM, 0.5, 32, None), WindowSettings(), PREFIX)
        assert newer.append([upload("b", 1, 1)])[0].near == ()

    def test_the_number_of_replicas_is_bounded(self, process: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replicas, "MAX_TENANTS", 3)
        window = process()
        for n in range(10):
            window.append([upload("a", 1, tenant=f"t{n}")])
        assert window.stats().tenants == 3
        assert near(window.append([upload("b", 1, 1, tenant="t0")])[0]) == ["a"]


def test_patches_come_in_one_round_trip(process: Open) -> None:
    window = process(radius_l2=1.9)
    records = [upload("a", 1, patches=b"of a"), upload("b", 2), upload("c", 3, tenant="u", patches=b"of c")]
    positions = [result.position or Position(0, 0) for result in window.append(records)]
    positions_asked = [("t", positions[0]), ("t", positions[1]), ("u", positions[2]), ("t", Position(1, 9))]
    assert window.read_patches(positions_asked) == [b"of a", None, b"of c", None]
    assert window.read_patches([]) == []
    assert near(window.append([upload("d", 4)])[0]) == ["a", "b"]
    window.delete("t", "a")
    assert window.read_patches(positions_asked[:1]) == [None]


def test_an_exact_copy_stored_again_has_the_patches_too(process: Open, redis: Redis) -> None:
    window = process()
    window.append([upload("a", 1, patches=b"local")])
    pass_s(redis, 4000)
    look_up(window, upload("b", 1))
    [_, second] = window.append([upload("z", 1, 1)])[0].near
    assert second.image_id == "b"
    assert window.read_patches([("t", second.position)]) == [b"local"]


def test_a_full_server_refuses_and_keeps_nothing_half(process: Open, redis: Redis) -> None:
    window = process()
    window.append([upload("a", 1)])
    redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(Unavailable, match=r"redis.*maxmemory"):
            window.append([upload("b", 2), upload("c", 3)])
        assert look_up(window, upload("d", 1)) is not None
    finally:
        redis.config_set("maxmemory", "0")
    assert redis.hlen(keys()["rows"]) == 1
    assert [near(result) for result in window.append([upload("b", 2), upload("c", 3), upload("d", 2, 1)])] == [
        [],
        [],
        ["b"],
    ]
