"""A process that is far behind a window reads ahead, finds what any other finds, and says how far it is."""

import logging
from collections.abc import Callable
from itertools import pairwise

import pytest
from redis import Redis

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable
from consumer.settings import WindowSettings
from consumer.window import catch_up, large_index, replica
from consumer.window.index import VectorIndex
from consumer.window.window import RedisWindow
from tests.window.examples import LARGE_MODEL, MODEL, PREFIX, near, upload

COUNT = 60


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has 4 entries, 3 pages are indexed at once, and 10 entries are many."""
    monkeypatch.setattr(replica, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(catch_up, "PAGES_AT_ONCE", 3)
    monkeypatch.setattr(catch_up, "FAR_ENTRIES", 10)


def open_window(
    redis: Redis, on_pages: Callable[[str, int], None] | None = None, model: ModelInfo = MODEL
) -> RedisWindow:
    return RedisWindow(redis, model, WindowSettings(), PREFIX, progress=on_pages)


@pytest.fixture(params=["small", "large"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModelInfo:
    """That of windows that are searched exactly, or of some that outgrow this with their 21st row."""
    if request.param == "small":
        return MODEL
    monkeypatch.setattr(replica, "EXACT_ROWS", 20)
    monkeypatch.setattr(large_index, "EXACT_ROWS", 0)
    return LARGE_MODEL


def test_it_has_the_window_that_others_have(redis: Redis, model: ModelInfo) -> None:
    early = open_window(redis, model=model)
    for number in range(COUNT):
        early.append([upload(str(number), number)])
        if number % 3 == 2:
            early.delete("t", str(number - number % 2))
    rows: list[int] = []
    late = open_window(redis, lambda _, count: rows.append(count), model)
    found = late.append([upload(f"copy {number}", number, 1) for number in range(COUNT)])
    again = early.append([upload(f"copy {number}", number, 1) for number in range(COUNT)])
    assert [near(one) for one in found] == [near(one) for one in again]
    assert 0 < sum(not near(one) for one in found) < COUNT / 2
    assert max(after - before for before, after in pairwise(rows)) > 4  # several pages at once
    assert late.stats().rows == early.stats().rows


def test_a_large_window_is_not_read_into_the_exact_index_first(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "EXACT_ROWS", 20)
    open_window(redis, model=LARGE_MODEL).append([upload(str(number), number) for number in range(COUNT)])
    most = 0
    extend = VectorIndex.extend

    def counting(index: VectorIndex, *rows: object) -> None:
        nonlocal most
        extend(index, *rows)  # type: ignore[arg-type]
        most = max(most, len(index))

    monkeypatch.setattr(VectorIndex, "extend", counting)
    late = open_window(redis, model=LARGE_MODEL)
    assert near(late.append([upload("copy", 5, 1)])[0]) == ["5"]
    assert most == 4


@pytest.mark.parametrize("others", [0, 100])
def test_a_log_that_is_lost_meanwhile_is_read_anew(redis: Redis, others: int) -> None:
    open_window(redis).append([upload(str(number), number) for number in range(COUNT)])
    lost: list[int] = []

    def lose_once(_: str, rows: int) -> None:
        if not lost and rows >= 16:
            lost.append(rows)
            redis.flushall()
            open_window(redis).append([upload(f"other {number}", number, 2) for number in range(others)])

    late = open_window(redis, lose_once)
    [result] = late.append([upload("x", 3, 1)])
    assert lost
    assert near(result) == ["other 3"][:others]
    assert late.stats().rows == others + 1
    assert late.stats().resets == 1


def test_where_redis_is_away_meanwhile_it_goes_on_where_it_was(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    open_window(redis).append([upload(str(number), number) for number in range(COUNT)])
    late = open_window(redis)
    run = late.store.run
    calls: list[str] = []

    def failing(name: str, *arguments: object) -> object:
        calls.append(name)
        if calls.count("read") == 5:
            raise Unavailable("redis", "away")
        return run(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(late.store, "run", failing)
    with pytest.raises(Unavailable):
        late.append([upload("x", 59, 1)])
    held = late.stats().rows
    assert 0 < held < COUNT
    assert late.problems == {}
    monkeypatch.setattr(late.store, "run", run)
    assert near(late.append([upload("x", 59, 1)])[0]) == ["59"]
    assert late.stats().rows == COUNT + 1
    assert late.stats().resets == 0


def test_it_says_how_far_it_is(redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "consumer.window.catch_up")
    open_window(redis).append([upload(str(number), number) for number in range(COUNT)])
    told: list[tuple[dict[str, str], int]] = []
    monkeypatch.setattr(catch_up, "TELL_AFTER_S", 60.0)
    late = open_window(redis, lambda *_: told.append((late.problems, late.unread_rows())))
    late.append([upload("w", 2, 1)])
    assert len(told) > 3
    assert all(each == ({}, 0) for each in told)  # it takes but a moment
    assert caplog.messages == []
    monkeypatch.setattr(catch_up, "TELL_AFTER_S", 0.0)
    late = open_window(redis, lambda *_: told.append((late.problems, late.unread_rows())))
    late.append([upload("x", 3, 1)])
    text, total = "the window of tenant 't' is being read", COUNT + 2
    assert ({"window": f"{text}: 16 of {total} rows"}, total - 16) in told
    assert (late.problems, late.unread_rows()) == ({}, 0)
    assert len(caplog.messages) == 2
    assert caplog.messages[0] == f"{text}: 16 of {total} rows"
    assert caplog.messages[1].startswith(f"read {total} rows of tenant 't' in ")
