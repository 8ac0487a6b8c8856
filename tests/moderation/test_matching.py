"""What uploads show of banks in a real Redis, by vectors that were made up: what counts, and what comes before what."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from redis import Redis

from consumer.encoder.contract import ModelInfo
from consumer.encoder.views import EncodedViews
from consumer.images.region import WHOLE_IMAGE
from consumer.moderation import shelf
from consumer.moderation.banks import BankKey, EntryKey, encode_key
from consumer.moderation.candidates import BankRequest
from consumer.moderation.matching import Banks
from consumer.moderation.store import BankRow, EntryRow, NewRow
from consumer.verification.looks import MAX_CANDIDATES
from consumer.window.records import to_us
from tests.moderation.copies import Copy
from tests.window.examples import LARGE_MODEL, MODEL, vector

MANY = 5 * MAX_CANDIDATES
BANK = BankRow(at=(0, 0), kind="block", enabled=True, strictness="balanced")
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def redis(redis_server: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_server)
    yield client
    client.close()


@pytest.fixture(params=["exact", "large"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModelInfo:
    """A model without a second look; with code books, which are used from the third picture on."""
    if request.param == "exact":
        return MODEL
    monkeypatch.setattr(shelf, "MAX_EXACT", 2)
    return LARGE_MODEL


def bank(name: str, tenant: str | None = None, *, enabled: bool = True) -> NewRow:
    return NewRow(encode_key(BankKey(tenant, name)), BANK.model_copy(update={"enabled": enabled}))


def entry(
    bank: str,
    name: str,
    picture: int,
    variant: int = 0,
    tenant: str | None = None,
    expires_at: datetime | None = None,
    pdq: str | None = None,
) -> NewRow:
    key = encode_key(EntryKey(tenant, bank, name))
    if pdq is not None:
        return NewRow(key, EntryRow(at=(0, 0), pdq=pdq))
    row = EntryRow(
        at=(0, picture),
        digest=digest(picture, variant).hex(),
        expires_us=None if expires_at is None else to_us(expires_at),
    )
    return NewRow(key, row, vector(picture, variant).astype("<f2").tobytes())


def digest(picture: int, variant: int) -> bytes:
    return picture.to_bytes(16, "big") + variant.to_bytes(16, "big")


def shown(banks: Banks, picture: int, variant: int, pdq: str | None = None) -> list[str]:
    """The entries, by bank and name, that a variant of a picture is told to show."""
    views = EncodedViews([WHOLE_IMAGE], vector(picture, variant)[np.newaxis], None)
    banks.sync()
    [result] = banks.match([BankRequest("t", digest(picture, variant), views, pdq)])
    return [f"{hit.bank}/{hit.entry_id}" for hit in result.hits]


def test_entries_that_do_not_count_stand_before_no_other(redis: Redis, model: ModelInfo) -> None:
    copy = Copy(redis, model)
    banks = Banks(copy.store, model)
    hidden = [entry("off", str(number), 1, 100 + number) for number in range(MANY)]
    expired = [entry("on", f"old {number}", 1, 200 + number, expires_at=NOW) for number in range(MANY)]
    copy.write(bank("off", enabled=False), bank("on"), *hidden, *expired, entry("on", "x", 1, 7), entry("on", "y", 2))
    assert shown(banks, 1, 50) == ["on/x"]
    copy.write(bank("off"), NewRow(encode_key(BankKey(None, "on")), None))
    found = shown(banks, 1, 50)
    assert {each.split("/")[0] for each in found} == {"off"}
    assert len(found) == MAX_CANDIDATES
    copy.write(bank("off", enabled=False), bank("on"))
    assert shown(banks, 1, 50) == ["on/x"]
    assert shown(banks, 1, 100) == ["on/x"]  # the bytes of an entry that does not count


def test_an_entry_ends_when_it_expires_and_not_before_also_where_the_clock_is_set(
    redis: Redis, model: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Copy(redis, model)
    banks = Banks(copy.store, model)
    copy.write(bank("b"), *(entry("b", str(n), n, expires_at=NOW + timedelta(hours=n)) for n in range(1, 5)))
    assert [shown(banks, n, 9) for n in range(1, 5)] == [[f"b/{n}"] for n in range(1, 5)]

    class Later(datetime):
        hours = 0.0

        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return NOW + timedelta(hours=cls.hours)

    for module in ("matching", "replica"):
        monkeypatch.setattr(f"consumer.moderation.{module}.datetime", Later)
    for hours, expected in ((2.5, [[], [], ["b/3"], ["b/4"]]), (1.5, [[], ["b/2"], ["b/3"], ["b/4"]]), (5, [[]] * 4)):
        Later.hours = hours
        assert [shown(banks, n, 9) for n in range(1, 5)] == expected


def test_one_picture_in_many_banks_is_a_hit_of_each(redis: Redis, model: ModelInfo) -> None:
    copy = Copy(redis, model)
    banks = Banks(copy.store, model)
    names = [f"b{number}" for number in range(MANY)]
    tenants = [None if number % 2 else "t" for number in range(MANY)]
    rows = list(zip(names, tenants, strict=True))
    copy.write(*(bank(*each) for each in rows), *(entry(name, "e", 1, tenant=tenant) for name, tenant in rows))
    copy.write(entry("b1", "another", 1, 3), entry("b1", "stranger", 2))
    assert sorted(shown(banks, 1, 9)) == sorted([*(f"{name}/e" for name in names), "b1/another"])
    copy.write(NewRow(encode_key(EntryKey("t", "b0", "e")), None))
    assert "b0/e" not in shown(banks, 1, 9)
    assert "b1/e" in shown(banks, 1, 9)


@pytest.mark.parametrize("seed", range(3))
def test_hits_are_the_same_whatever_order_entries_came_in(redis: Redis, model: ModelInfo, seed: int) -> None:
    rows = [entry("b", f"{picture} {variant}", picture, variant) for picture in range(3) for variant in range(MANY)]
    expected = None
    for order in range(2):
        copy = Copy(redis, model)
        banks = Banks(copy.store, model)
        shuffled = random.Random(10 * seed + order).sample(rows, len(rows))
        copy.write(bank("b"), *shuffled)
        banks.sync()
        copy.write(*shuffled[::7])  # sent again: they come last
        found = [shown(banks, picture, 1000 + seed) for picture in range(3)]
        assert all(len(each) == MAX_CANDIDATES for each in found)
        expected = expected or found
        assert found == expected


def test_a_shelf_with_a_large_index_follows_entries_that_go_and_come(redis: Redis) -> None:
    """Its index holds codes alone; the vectors stand beside it."""
    copy = Copy(redis, LARGE_MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelf, "MAX_EXACT", 2)
        banks = Banks(copy.store, LARGE_MODEL)
        copy.write(bank("b"), *(entry("b", str(picture), picture) for picture in range(5)))
        assert shown(banks, 1, 9) == ["b/1"]
        copy.write(NewRow(encode_key(EntryKey(None, "b", "1")), None), entry("b", "2", 1, 30))
        assert shown(banks, 1, 9) == ["b/2"]
        assert shown(banks, 2, 9) == []


def test_hashes_are_found_by_the_distance_of_each_bank(redis: Redis) -> None:
    copy = Copy(redis, MODEL)
    banks = Banks(copy.store, MODEL)
    random_ = np.random.default_rng(0)
    asked: NDArray[np.uint8] = random_.integers(0, 256, 32, np.uint8)

    def differing(bits: int) -> str:
        mask = np.zeros(256, np.uint8)
        mask[random_.choice(256, bits, replace=False)] = 1
        return (asked ^ np.packbits(mask)).tobytes().hex()

    strict = BANK.model_copy(update={"strictness": "strict"})
    others = [entry("b", f"s{n}", 0, pdq=random_.bytes(32).hex()) for n in range(9_000)]
    copy.write(bank("b"), NewRow(encode_key(BankKey(None, "s")), strict), *others)
    copy.write(*(entry(name, str(bits), 0, pdq=differing(bits)) for name in "bs" for bits in (0, 20, 21, 31, 32, 200)))
    assert sorted(shown(banks, 1, 0, asked.tobytes().hex())) == ["b/0", "b/20", "b/21", "b/31", "s/0", "s/20"]
    copy.write(NewRow(encode_key(EntryKey(None, "b", "20")), None))
    assert sorted(shown(banks, 1, 0, asked.tobytes().hex())) == ["b/0", "b/21", "b/31", "s/0", "s/20"]


def test_an_allowed_entry_silences_banks_of_its_own_tenant_or_of_all_tenants_as_it_is_for(redis: Redis) -> None:
    copy = Copy(redis, MODEL)
    banks = Banks(copy.store, MODEL)
    copy.write(
        *(bank("b", tenant) for tenant in (None, "t")), *(entry("b", "e", 1, 0, tenant) for tenant in (None, "t"))
    )
    allow = BANK.model_copy(update={"kind": "allow", "silences": ("b",)})
    views = EncodedViews([WHOLE_IMAGE], vector(1, 0)[np.newaxis], None)

    def told(*allowing: str | None) -> list[str]:
        """Whose hits are told, with allow banks of these tenants."""
        for tenant in (None, "t"):
            row = allow.model_copy(update={"enabled": tenant in allowing})
            copy.write(NewRow(encode_key(BankKey(tenant, "a")), row), entry("a", "e", 1, 0, tenant))
        banks.sync()
        request = BankRequest("t", digest(1, 0), views)
        [result], [silencing] = banks.match([request]), banks.silenced([request])
        assert [each.entry.key.tenant for each in silencing] == [tenant for tenant in ("t", None) if tenant in allowing]
        return sorted(hit.action or "of all" for hit in result.hits)

    copy.write(NewRow(encode_key(BankKey("t", "b")), BANK.model_copy(update={"action": "of t"})))
    assert told() == ["of all", "of t"]
    assert told("t") == ["of all"]
    assert told(None) == ["of t"]
    assert told(None, "t") == []
    assert not banks.is_for_all("t", "b")
    assert banks.is_for_all("other", "b")
    assert not banks.is_for_all("other", "nobody's")
