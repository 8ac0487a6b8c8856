"""Append-and-compare in every interleaving, with crashes and lost partitions between any two steps."""

import pytest

from tests.faults.protocol import Rules, Upload, Violation, explore

A_PAIR = [Upload(0, 0, 0), Upload(1, 1, 0)]
EXACT_PAIR = [Upload(0, 0, 0), Upload(1, 0, 0)]
EXACT_COPY_OF_A_COPY = [Upload(0, 0, 0), Upload(1, 1, 0), Upload(2, 1, 0)]
WITH_A_STRANGER = [Upload(0, 0, 0), Upload(0, 2, 2), Upload(1, 1, 0), Upload(1, 3, 2)]
ONE_PARTITION = [Upload(0, 0, 0), Upload(0, 1, 0), Upload(0, 0, 0)]
THREE_COPIES = [Upload(0, 0, 0), Upload(1, 1, 0), Upload(2, 2, 0)]


@pytest.mark.parametrize(
    ("uploads", "consumers", "faults"),
    [
        (A_PAIR, 2, 4),
        (EXACT_PAIR, 2, 4),
        (WITH_A_STRANGER, 2, 2),
        (ONE_PARTITION, 2, 3),
        (THREE_COPIES, 3, 2),
        (EXACT_COPY_OF_A_COPY, 3, 2),
    ],
)
def test_the_guarantees_hold_in_every_interleaving(uploads: list[Upload], consumers: int, faults: int) -> None:
    assert explore(uploads, consumers, faults) > 500


@pytest.mark.parametrize(
    ("broken", "uploads", "faults", "symptom"),
    [
        (Rules(append_before_compare=False), A_PAIR, 0, "are unique"),
        (Rules(append_once=False), A_PAIR, 1, "matches itself|decided in two ways"),
        (Rules(only_earlier_records=False), A_PAIR, 0, r"\[\] are unique"),
        (Rules(atomic_exact=False), EXACT_PAIR, 1, "decided in two ways"),
        (Rules(commit_with_verdict=False), A_PAIR, 1, "has 2 verdicts"),
        (Rules(fence=False), A_PAIR, 1, "has 2 verdicts"),
    ],
)
def test_each_rule_is_needed(broken: Rules, uploads: list[Upload], faults: int, symptom: str) -> None:
    explore(uploads, 2, faults)
    with pytest.raises(Violation, match=symptom):
        explore(uploads, 2, faults, broken)
