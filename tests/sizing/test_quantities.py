"""Quantities as people write them."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import Misconfigured
from consumer.sizing.quantities import DURATION, MEMORY, NETWORK, PICTURE, RATE, Kind, in_words


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (RATE, "1000", 1000),
        (RATE, "20k", 20_000),
        (RATE, "0.5", 0.5),
        (DURATION, "24h", 86_400),
        (DURATION, "90 s", 90),
        (DURATION, "45m", 2700),
        (DURATION, "7d", 604_800),
        (DURATION, "1.5H", 5400),
        (PICTURE, "300k", 300_000),
        (PICTURE, " 300K ", 300_000),
        (PICTURE, "2.5M", 2_500_000),
        (MEMORY, "64G", 64e9),
        (NETWORK, "25g", 25e9),
    ],
)
def test_units_are_read(kind: Kind, text: str, value: float) -> None:
    assert kind.parse(text, "--it") == value


@pytest.mark.parametrize("kind", [RATE, DURATION, PICTURE, MEMORY, NETWORK])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "1e9",
        "nan",
        "inf",
        "k",
        "1kk",
        "24 hours",
        "0x10",
        "٣",
        "1,5",
        "9" * 400,
        "1\x00",
        "\x1b[31m",
        "1z",
    ],
)
def test_anything_else_is_refused_in_a_sentence(kind: Kind, text: str) -> None:
    with pytest.raises(Misconfigured, match=r"^--it is ") as refused:
        kind.parse(text, "--it")
    assert len(str(refused.value)) < 200
    assert str(refused.value).isprintable()


@given(st.text())
@settings(deadline=None, max_examples=50)
def test_no_text_ends_in_another_error(text: str) -> None:
    with suppress(Misconfigured):
        assert RATE.least <= RATE.parse(text, "--rate") <= RATE.most


def test_a_duration_needs_a_unit() -> None:
    with pytest.raises(Misconfigured, match="24h"):
        DURATION.parse("86400", "--window")


@pytest.mark.parametrize(
    ("value", "words"), [(24.3e9, "24.3 GB"), (243e9, "243 GB"), (2e12, "2.0 TB"), (999, "999 B"), (0, "0.0 B")]
)
def test_bytes_are_written_with_three_digits(value: float, words: str) -> None:
    assert in_words(value, "B") == words
