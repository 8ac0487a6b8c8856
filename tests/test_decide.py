"""The decision: what is a match, which one is named, and in what order the others stand."""

import random
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from consumer.decide import Decision, decide
from consumer.window.records import AppendResult, ExactMatch, NearMatch, Position

THRESHOLD_L2 = 0.5
UPLOADED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def near(serial: int, l2: float) -> NearMatch:
    return NearMatch(f"image-{serial}", Position(1_000, serial), l2, UPLOADED_AT)


candidate_lists = st.lists(
    st.builds(near, st.integers(1, 50), st.floats(0, 2)), max_size=20, unique_by=lambda candidate: candidate.position
)


def test_nothing_before_it_is_unique() -> None:
    assert decide(AppendResult(Position(1, 1)), THRESHOLD_L2, 5) == Decision("unique")


def test_same_bytes_are_an_exact_duplicate() -> None:
    original = ExactMatch("a", Position(1, 1), UPLOADED_AT)
    decision = decide(AppendResult(None, original, (near(1, 0.1),)), THRESHOLD_L2, 5)
    assert decision == Decision("duplicate", "exact", original)
    assert original.l2 == 0.0


def test_the_threshold_itself_is_within() -> None:
    assert decide(AppendResult(near=(near(1, THRESHOLD_L2),)), THRESHOLD_L2, 0).verdict == "duplicate"
    assert decide(AppendResult(near=(near(1, 0.500001),)), THRESHOLD_L2, 0).verdict == "unique"


def test_the_earliest_is_named_though_others_are_nearer() -> None:
    first, second, third = near(1, 0.4), near(2, 0.1), near(3, 0.2)
    decision = decide(AppendResult(near=(third, first, second)), THRESHOLD_L2, 1)
    assert (decision.match, decision.others) == (first, (second,))


@given(candidate_lists, st.floats(0, 2), st.integers(0, 10))
def test_a_decision_rests_on_what_is_within_the_threshold(
    candidates: list[NearMatch], threshold_l2: float, others: int
) -> None:
    decision = decide(AppendResult(near=tuple(candidates)), threshold_l2, others)
    within = {one for one in candidates if one.l2 <= threshold_l2}
    assert (decision.verdict == "duplicate") == bool(within) == (decision.kind == "near")
    named = [decision.match, *decision.others] if decision.match else []
    assert len(set(named)) == len(named) == min(len(within), 1 + others)
    assert within.issuperset(named)
    if decision.match:
        assert all(decision.match.position <= one.position for one in within)
        left_out = [one.l2 for one in within.difference(named)]
        distances = [one.l2 for one in decision.others]
        assert distances == sorted(distances)
        assert not others or not left_out or distances[-1] <= min(left_out)


@given(candidate_lists, st.randoms())
def test_the_order_candidates_come_in_does_not_matter(candidates: list[NearMatch], chance: random.Random) -> None:
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert decide(AppendResult(near=tuple(candidates)), 1.0, 5) == decide(AppendResult(near=tuple(shuffled)), 1.0, 5)
