"""Looking pictures up, which are not stored: what an upload at this moment would be told, and not a byte written."""

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from redis import Redis

from consumer.errors import Unavailable
from consumer.settings import WindowSettings
from consumer.window.records import AppendResult, Lookup, NewRecord
from consumer.window.window import RedisWindow
from tests.window.examples import MODEL, NAMES, PREFIX, keys, near, pass_s, upload, vector
from tests.window.servers import Backend, server_of_backend

server = server_of_backend
Open = Callable[..., RedisWindow]
# What a user of Redis needs who only looks up; deploy/README.md says so too.
READ_ONLY = "~seenit:* +ping +evalsha +eval +time +get +exists +hget +hmget +xrange"
READ_ONLY_IN_SLICES = "+hgetall +vcard +vsim"


@pytest.fixture
def process(redis: Redis, backend: Backend) -> Open:
    """Opens a window as another process would."""

    def open_window(
        retention_s: float = 86_400.0, on_loss: Literal["continue", "rebuild"] = "continue", client: Redis = redis
    ) -> RedisWindow:
        settings = WindowSettings(retention_s=retention_s, on_loss=on_loss, backend=backend)
        return RedisWindow(client, MODEL, settings, PREFIX)

    return open_window


def look_up(window: RedisWindow, record: NewRecord) -> AppendResult:
    vectors = () if record.vector is None else (record.vector, *record.region_vectors)
    return window.look_up([Lookup(record.tenant, record.digest, vectors)])[0]


def test_it_finds_what_an_upload_would_be_told(process: Open) -> None:
    window = process()
    window.append([upload(f"{picture}", picture, variant) for picture in range(20) for variant in range(3)])
    for picture in range(20):
        record = upload("new", picture, 7)
        found, told = look_up(window, record), process().append([record])[0]
        assert (found.exact, found.near) == (told.exact, told.near)
        assert found.position is None
        assert len(found.near) == 3
        window.delete("t", "new")


def test_the_earliest_of_the_same_bytes_is_exact_and_near_ones_are_found_too(process: Open) -> None:
    window = process()
    window.append([upload("a", 1), upload("b", 1), upload("c", 1, 1)])
    found = look_up(process(), upload("", 1))
    assert found.exact is not None
    assert found.exact.image_id == "a"
    assert near(found) == ["a", "c"]  # `b` is a copy that was not stored


def test_regions_are_searched_for(process: Open) -> None:
    window = process()
    window.append([upload("a", 1), upload("b", 2)])
    whole = upload("", 3)._replace(region_vectors=(vector(2, 5), vector(9)))
    found = look_up(window, whole)
    assert near(found) == []
    assert [[match.image_id for match in matches] for matches in found.region_matches] == [["b"], []]


def test_a_picture_that_shows_too_little_matches_only_exactly(process: Open) -> None:
    window = process()
    window.append([upload("blank", 1)._replace(vector=None), upload("other", 1, 1)])
    found = look_up(window, upload("", 1)._replace(vector=None))
    assert found.exact is not None
    assert (found.exact.image_id, found.near) == ("blank", ())


@pytest.mark.parametrize("tenant", NAMES)
def test_tenants_are_apart(process: Open, tenant: str) -> None:
    window = process()
    window.append([upload("mine", 1, tenant="owner")])
    assert look_up(window, upload("", 1, tenant=tenant)) == AppendResult()


def test_deleted_pictures_are_not_found(process: Open) -> None:
    window, reader = process(), process()
    window.append([upload("a", 1)])
    assert near(look_up(reader, upload("", 1, 1))) == ["a"]
    window.delete("t", "a")
    assert look_up(reader, upload("", 1)) == AppendResult(region_matches=())


def test_pictures_out_of_time_are_not_found(process: Open, redis: Redis) -> None:
    window = process(retention_s=3600)
    window.append([upload("a", 1)])
    assert near(look_up(window, upload("", 1, 1))) == ["a"]
    pass_s(redis, 3601)
    found = look_up(window, upload("", 1))
    assert (found.exact, found.near) == (None, ())


def test_a_window_that_begins_anew_is_read_anew(process: Open, redis: Redis) -> None:
    reader = process()
    process().append([upload("a", 1)])
    assert near(look_up(reader, upload("", 1, 1))) == ["a"]
    redis.flushall()
    assert look_up(reader, upload("", 1)).exact is None
    process().append([upload("b", 1)])
    assert near(look_up(reader, upload("", 1, 1))) == ["b"]


def test_nothing_is_written_and_no_right_to_write_is_needed(process: Open, redis: Redis, backend: Backend) -> None:
    rights = READ_ONLY if backend == "replica" else f"{READ_ONLY} {READ_ONLY_IN_SLICES}"
    process(retention_s=0.05).append([upload("old", number) for number in range(100, 105)])
    process().append([upload("a", 1), upload("b", 2, tenant="u")])
    time.sleep(0.2)  # slices of the short retention have expired by then
    redis.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">secret", *rights.split())
    before = {key: redis.dump(key) for key in redis.keys("*")}
    port = redis.connection_pool.connection_kwargs["port"]
    with Redis(port=port, username="reader", password="secret") as client:
        reader = process(client=client)
        for record in (upload("", 1), upload("", 1, 1), upload("", 2, tenant="u"), upload("", 3, tenant="nobody")):
            look_up(reader, record)
        assert near(look_up(reader, upload("", 1, 1))) == ["a"]
        assert reader.read_patches([("t", look_up(reader, upload("", 1)).near[0].position)]) == [None]
        with pytest.raises(Unavailable):
            process(client=client).append([upload("c", 3)])
    assert {key: redis.dump(key) for key in redis.keys("*")} == before


def test_a_lost_window_is_not_taken_for_an_empty_one(process: Open, redis: Redis) -> None:
    reader = process(on_loss="rebuild")
    with pytest.raises(Unavailable, match="rebuilt"):
        look_up(reader, upload("", 1))
    with pytest.raises(Unavailable, match="rebuilt"):
        reader.find_record("t", "a")
    reader.store.command("SET", reader.store.shared_key("marker"), b"1-marker")
    assert look_up(reader, upload("", 1)).exact is None
    assert reader.find_record("t", "a") is None
    process().append([upload("a", 1)])
    assert look_up(reader, upload("", 1)).exact is not None
    redis.hset(keys()["meta"], "rebuilding", 1)
    try:
        with pytest.raises(Unavailable, match="rebuilt"):
            look_up(reader, upload("", 1))
    finally:
        redis.hdel(keys()["meta"], "rebuilding")


def test_many_are_looked_up_at_once(process: Open) -> None:
    window = process()
    records = [upload(f"{number}", number, tenant=f"t{number % 7}") for number in range(100)]
    window.append(records)
    found = process().look_up(
        [Lookup(each.tenant, b"", (each.vector.astype(np.float32),)) for each in records if each.vector is not None]
    )
    assert [near(each) for each in found] == [[each.image_id] for each in records]
