"""Campaigns on real servers: who joins which, what repeats get, floods, bounds, deletion and loss."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from consumer.errors import Unavailable
from consumer.moderation.campaigns import Joined, newest_campaigns
from consumer.moderation.decisions import Partners
from consumer.settings import WindowSettings
from consumer.verdicts import Campaign
from consumer.window.records import Source
from tests.moderation.examples import BOUND, Process, duplicate, pass_hours
from tests.moderation.stored import stored_bytes
from tests.window.examples import UPLOADED_AT, keys, upload

Open = Callable[..., Process]


@pytest.fixture
def process(redis: Redis) -> Open:
    def start(bound: float = 1e6, **window: Any) -> Process:
        return Process(redis, WindowSettings(**window), bound)

    return start


def of(joined: Joined) -> Campaign:
    assert joined.campaign is not None
    return joined.campaign


def id_and_size(joined: Joined) -> tuple[str, int]:
    return of(joined).id, of(joined).size


def test_copies_join_their_original(process: Open) -> None:
    one = process()
    before = datetime.now(UTC) - timedelta(seconds=2)
    one.original("a", 1)
    assert id_and_size(one.near("b", 1, 1, "a")) == ("a", 2)
    assert id_and_size(one.copy("c", 1)) == ("a", 3)
    joined = of(process().copy("d", 1, 1))
    assert (joined.id, joined.size, joined.uploads_per_hour) == ("a", 4, 4)
    assert before < joined.first_seen <= joined.last_seen < datetime.now(UTC) + timedelta(seconds=2)
    [listed] = newest_campaigns(one.window, ["t", "nobody"])
    assert (listed.tenant, listed.campaign, listed.in_flood) == ("t", joined, False)


def test_the_earliest_picture_that_is_verified_names_the_campaign(process: Open) -> None:
    one = process()
    one.original("a", 1)
    one.near("b", 1, 1, "a")
    assert id_and_size(one.near("c", 1, 2, "a", "b")) == ("a", 3)
    assert one.looks.asked == []


class TestChains:
    """U matches B, and B is in A's campaign."""

    def test_without_a_match_of_the_two_ends_b_has_a_campaign_of_its_own(self, process: Open) -> None:
        one = process()
        a = one.original("a", 1)
        one.near("b", 1, 1, "a")
        assert id_and_size(one.near("u", 1, 2, "b")) == ("b", 2)
        assert one.looks.asked == [(one.positions["u"], a)]
        # What has the bytes of B is in A's, and what has those of U in B's.
        assert id_and_size(one.copy("x", 1, 1)) == ("a", 3)
        assert id_and_size(one.copy("y", 1, 2)) == ("b", 3)

    def test_a_further_look_at_a_lets_u_join(self, process: Open) -> None:
        one = process()
        a = one.original("a", 1)
        one.near("b", 1, 1, "a")
        record = upload("u", 1, 2)
        [result] = one.window.append([record])
        one.looks.alike.add((result.position, a))
        assert id_and_size(one.join([duplicate(record, result, [one.positions["b"]])])[0]) == ("a", 3)

    def test_what_was_looked_at_in_vain_is_not_looked_at_again(self, process: Open) -> None:
        one = process()
        one.original("a", 1)
        one.near("b", 1, 1, "a")
        assert id_and_size(one.near("u", 1, 2, "b", unverified=["a"])) == ("b", 2)
        assert one.looks.asked == []

    def test_an_original_that_has_left_the_window_is_not_looked_at(self, process: Open, redis: Redis) -> None:
        one = process()
        a = one.original("a", 1)
        one.near("b", 1, 1, "a")
        redis.hdel(keys()["rows"], str(a))  # as if its time were over
        assert id_and_size(one.near("u", 1, 2, "b")) == ("b", 2)
        assert one.looks.asked == []
        redis.flushall()

    def test_what_people_rejected_does_not_join_by_a_copy(self, process: Open) -> None:
        one = process()
        one.original("a", 1)
        one.near("b", 1, 1, "a")
        rejected = Partners(digests=frozenset([upload("a", 1).digest]))
        by_content = one.join([one.exact(upload("u", 1, 1), partners=rejected)])[0]
        assert id_and_size(by_content) == ("b", 2)
        by_name = one.join([one.exact(upload("v", 1, 1), partners=Partners(frozenset("a")))])[0]
        assert id_and_size(by_name) == ("b", 3)
        assert id_and_size(one.join([one.exact(upload("w", 1, 1), partners=Partners(frozenset("z")))])[0]) == ("a", 3)


def test_a_repeat_gets_the_same_answer_whatever_came_since(process: Open) -> None:
    one, other = process(bound=2.0), process(bound=2.0)
    one.original("a", 1)
    records = [upload(name, 1) for name in "bcd"]
    answers = [one.join([one.exact(record)])[0] for record in records]
    for n in range(5):
        other.copy(f"more {n}", 1)
    again = [other.exact(record) for record in records]
    assert other.join(again[::-1])[::-1] == answers
    assert other.join([again[0], again[0]]) == [answers[0]] * 2
    assert [len(each.floods) for each in answers] == [0, 1, 0]
    assert id_and_size(one.copy("last", 1)) == ("a", 10)


def test_a_copy_that_is_decided_before_its_match_begins_a_campaign_that_ends_with_it(process: Open) -> None:
    one, other = process(), process()
    one.original("a", 1)
    record = upload("b", 1, 1)
    [late] = one.window.append([record])
    assert late.position is not None
    assert id_and_size(other.copy("c", 1, 1)) == ("b", 2)
    [joined] = one.join([duplicate(record, late, [one.positions["a"]])])
    assert id_and_size(joined) == ("a", 2)
    assert id_and_size(other.copy("d", 1, 1)) == ("a", 3)


def test_an_image_id_with_other_content_is_another_upload(process: Open) -> None:
    one = process()
    one.original("a", 1)
    one.original("z", 2)
    assert id_and_size(one.copy("b", 1)) == ("a", 2)
    assert id_and_size(one.copy("b", 2)) == ("z", 2)


class TestFloods:
    def test_it_is_told_once_when_it_begins_and_once_when_it_ends(self, process: Open, redis: Redis) -> None:
        one = process(BOUND)
        one.original("a", 1)
        joined = [one.copy(f"c{n}", 1) for n in range(6)]
        told = [flood for each in joined for flood in each.floods]
        assert [len(each.floods) for each in joined] == [0, 0, 1, 0, 0, 0]
        flood = told[0].flood
        assert (flood.campaign, flood.tenant, flood.state) == ("a", "t", "began")
        assert (flood.uploads_per_hour, flood.bound) == (4, BOUND)
        assert newest_campaigns(one.window, ["t"])[0].in_flood
        assert one.ends() == []
        pass_hours(redis, one, 2)  # and nothing is uploaded
        [(number, name, rate, ms)] = one.ends()
        assert (name, rate) == (b"a", 0)
        pass_hours(redis, one, 0.1)
        assert one.ends() == [[number, name, rate, ms]]  # until it was told
        assert one.ends(number) == []
        assert not any(each.in_flood for each in newest_campaigns(one.window, ["t"]))
        again = [one.copy(f"d{n}", 1) for n in range(4)]
        assert [[told.flood.state for told in each.floods] for each in again] == [[], [], [], ["began"]]

    def test_a_repeat_tells_it_again_with_the_same_id(self, process: Open) -> None:
        one = process(BOUND)
        one.original("a", 1)
        for n in range(2):
            one.copy(f"c{n}", 1)
        first = one.copy("teller", 1)
        [told] = first.floods
        assert process(BOUND).copy("teller", 1) == first
        assert [told] == list(first.floods)

    def test_a_rate_around_the_bound_tells_nothing_more(self, process: Open, redis: Redis) -> None:
        one = process(4.0)
        one.original("a", 1)
        told = [flood.flood.state for n in range(5) for flood in one.copy(f"c{n}", 1).floods]
        assert told == ["began"]
        pass_hours(redis, one, 0.5)
        told = [flood.flood.state for n in range(3) for flood in one.copy(f"d{n}", 1).floods]
        pass_hours(redis, one, 0.75)  # three are left, more than half of the bound
        told += [flood.flood.state for flood in one.copy("e", 1).floods]
        assert told == []
        assert one.ends() == []

    def test_tenants_have_bounds_of_their_own(self, process: Open) -> None:
        one = process(BOUND)
        one.original("a", 1, tenant="strict")
        [told] = one.copy("b", 1, tenant="strict").floods
        assert (told.flood.tenant, told.flood.bound, told.flood.uploads_per_hour) == ("strict", 1.0, 2)


class TestBounds:
    def test_a_flood_of_copies_takes_bounded_memory(self, process: Open, redis: Redis) -> None:
        one = process(max_bytes=1 << 20)  # the least that there is: a thousand members
        one.original("a", 1)
        sizes = []
        for batch in range(30):
            one.join([one.exact(upload(f"copy {batch} {n}", 1)) for n in range(100)])
            sizes.append(sum(redis.memory_usage(key, samples=0) for key in redis.keys("*")))
        assert id_and_size(one.copy("last", 1)) == ("a", 3002)
        assert redis.zcard(keys()["joins"]) <= 1001
        assert sizes[-1] < 1.1 * sizes[14]

    def test_many_campaigns_take_bounded_memory(self, process: Open, redis: Redis) -> None:
        one = process(max_bytes=1 << 20)
        for n in range(1100):
            one.original(f"o{n}", n)
            one.copy(f"c{n}", n)
        assert redis.zcard(keys()["activity"]) <= 1001
        assert redis.hlen(keys()["campaigns"]) <= 2002
        assert redis.hlen(keys()["contents"]) <= redis.hlen(keys()["digests"])

    def test_all_of_it_expires_with_the_window(self, process: Open, redis: Redis) -> None:
        one = process(retention_s=3600)
        one.original("a", 1)
        one.copy("b", 1)
        assert all(0 < redis.pttl(key) <= 3750 * 1000 for key in redis.keys("*"))
        pass_hours(redis, one, 2)
        one.original("z", 2)
        one.copy("y", 2)
        one.window.append([upload("x", 3)])
        left = stored_bytes(redis)
        assert not any(f'"{name}"'.encode() in left for name in ("a", "b"))
        assert [each.campaign.id for each in newest_campaigns(one.window, ["t"])] == ["z"]


class TestDeletion:
    def test_nothing_is_left_of_a_deleted_original(self, process: Open, redis: Redis) -> None:
        one = process(bound=2.0)
        one.original("original-name", 1)
        one.near("b", 1, 1, "original-name")
        one.copy("c", 1)  # tells of a flood
        one.copy("d", 1, 1)
        one.window.delete("t", "original-name", Source(0, 1000))
        assert b"original-name" not in stored_bytes(redis)
        assert newest_campaigns(one.window, ["t"]) == []
        assert id_and_size(one.copy("e", 1, 1)) == ("b", 2)
        assert id_and_size(one.copy("d", 1, 1)) == ("b", 3)  # its answer named what is deleted

    def test_a_member_that_is_deleted_is_counted_no_more(self, process: Open, redis: Redis) -> None:
        one = process()
        one.original("a", 1)
        one.copy("member-name", 1)
        one.near("near-name", 1, 1, "a")
        for name in ("member-name", "near-name"):
            one.window.delete("t", name, Source(0, 1000))
            assert name.encode() not in stored_bytes(redis)
        assert id_and_size(one.copy("d", 1)) == ("a", 2)

    def test_versions_go_with_their_object(self, process: Open, redis: Redis) -> None:
        one = process()
        one.original("s3://b/first?versionId=1", 1)
        for n in range(20):
            one.copy(f"s3://b/copy?versionId={n}", 1)
        assert id_and_size(one.copy("c", 1)) == ("s3://b/first?versionId=1", 22)
        one.window.delete("t", "s3://b/copy", Source(0, 1000))
        assert b"s3://b/copy" not in stored_bytes(redis)
        one.window.delete("t", "s3://b/first", Source(0, 1001))
        assert b"s3://b/first" not in stored_bytes(redis)

    def test_what_was_uploaded_after_the_deletion_stays(self, process: Open) -> None:
        one = process()
        one.original("a", 1)
        first = one.copy("b", 1)
        earlier = int(UPLOADED_AT.timestamp() * 1e6) - 1
        one.window.delete("t", "b", Source(0, 1000, earlier))
        one.window.delete("t", "a", Source(0, 1001, earlier))
        assert one.copy("b", 1) == first

    def test_an_upload_that_was_deleted_before_it_came_is_not_counted(self, process: Open, redis: Redis) -> None:
        one = process()
        one.original("a", 1)
        one.copy("b", 1)
        one.window.delete("t", "late-name", Source(0, 1000))
        late = one.exact(upload("late-name", 1)._replace(source=Source(0, 999)))
        assert id_and_size(one.join([late])[0]) == ("a", 2)
        assert b"late-name" not in stored_bytes(redis)
        assert id_and_size(one.copy("c", 1)) == ("a", 3)

    def test_matches_that_are_gone_are_no_campaign(self, process: Open) -> None:
        one = process()
        one.original("a", 1)
        copy = one.exact(upload("b", 1))
        one.window.delete("t", "a", Source(0, 1000))
        assert one.join([copy]) == [Joined()]


def test_campaigns_begin_anew_where_redis_lost_them(process: Open, redis: Redis) -> None:
    one = process()
    one.original("a", 1)
    one.near("b", 1, 1, "a")
    redis.flushall()
    one.original("b", 1, 1)
    assert id_and_size(one.copy("c", 1, 1)) == ("b", 2)


def test_a_window_that_is_to_be_recovered_is_waited_for(process: Open, redis: Redis) -> None:
    one = process(on_loss="rebuild")
    one.window.loss_guard.lock()
    one.window.loss_guard.mark()
    one.original("a", 1)
    copy = one.exact(upload("b", 1))
    redis.flushall()
    with pytest.raises(Unavailable):
        one.join([copy])
    assert redis.keys("*") == []


def test_any_name_is_a_name(process: Open) -> None:
    for number, name in enumerate(("", " ", "1:1", "a b", "\ud800", "\x00\n", "日本" * 300, "@a", "#1", "!")):
        one = process()
        one.original(name or "x", number)
        assert of(one.copy(f"{name} copy", number)).id == (name or "x")
