"""The decision: what is a match, which one is named, and in what order the others stand."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.decide import Decision, decide, least_as_good
from consumer.window.records import AppendResult, ExactMatch, NearMatch, Position

THRESHOLD_L2 = 0.5
UPLOADED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def near(serial: int, l2: float) -> NearMatch:
    return NearMatch(f"image-{serial}", Position(1_000, serial), l2, UPLOADED_AT)


def decide_verified(candidates: list[NearMatch], scores: Mapping[int, float], others: int = 5) -> Decision:
    """Decide by the second look alone: the scores of verified candidates by serial."""
    verified = {(1_000, serial): score for serial, score in scores.items()}
    return decide(AppendResult(near=tuple(candidates)), None, others, verified)


candidate_lists = st.lists(
    st.builds(near, st.integers(1, 50), st.floats(0, 2)), max_size=20, unique_by=lambda candidate: candidate.position
)
serial_scores = st.dictionaries(st.integers(1, 60), st.floats(0.2, 1), max_size=30)


def test_nothing_before_it_is_unique() -> None:
    assert decide(AppendResult(Position(1, 1)), THRESHOLD_L2, 5) == Decision("unique")
    assert decide_verified([], {}) == Decision("unique")


def test_same_bytes_are_an_exact_duplicate() -> None:
    original = ExactMatch("a", Position(1, 1), UPLOADED_AT)
    decision = decide(AppendResult(None, original, (near(1, 0.1),)), THRESHOLD_L2, 5, {(1_000, 1): 1.0})
    assert decision == Decision("duplicate", "exact", original)
    assert original.l2 == 0.0


def test_the_threshold_itself_is_within() -> None:
    assert decide(AppendResult(near=(near(1, THRESHOLD_L2),)), THRESHOLD_L2, 0).verdict == "duplicate"
    assert decide(AppendResult(near=(near(1, 0.500001),)), THRESHOLD_L2, 0).verdict == "unique"


def test_within_the_threshold_the_earliest_is_named_though_others_are_nearer() -> None:
    first, second, third = near(1, 0.4), near(2, 0.1), near(3, 0.2)
    decision = decide(AppendResult(near=(third, first, second)), THRESHOLD_L2, 1)
    assert (decision.match, decision.others) == (first, (second,))


def test_without_a_threshold_only_what_is_verified_is_a_match_however_near_the_rest_is() -> None:
    stranger, original = near(1, 0.0), near(2, 1.1)
    assert decide_verified([stranger, original], {}) == Decision("unique")
    assert decide_verified([stranger, original], {2: 0.6}) == Decision("duplicate", "near", original)


def test_a_stranger_that_is_verified_with_less_is_not_named_before_the_original() -> None:
    stranger, original = near(1, 0.3), near(2, 0.4)
    decision = decide_verified([stranger, original], {1: 0.89 * 0.95, 2: 0.95})
    assert (decision.match, decision.others) == (original, (stranger,))


def test_of_originals_that_are_about_as_good_the_earliest_is_named() -> None:
    candidates = [near(serial, 0.9 - serial / 10) for serial in range(1, 5)]
    decision = decide_verified(candidates, {1: 0.6, 2: 0.975, 3: 0.99, 4: 0.95})
    assert decision.match == candidates[1]
    assert decision.others == (candidates[3], candidates[2], candidates[0])


@settings(deadline=None)
@given(candidate_lists, st.floats(0, 2), st.integers(0, 10))
def test_a_decision_rests_on_what_is_within_the_threshold(
    candidates: list[NearMatch], threshold_l2: float, others: int
) -> None:
    decision = decide(AppendResult(near=tuple(candidates)), threshold_l2, others)
    within = {one for one in candidates if one.l2 <= threshold_l2}
    check_matches(decision, within, others)
    assert decision.match is None or all(decision.match.position <= one.position for one in within)


@settings(deadline=None)
@given(candidate_lists, serial_scores, st.integers(0, 10))
def test_a_decision_rests_on_what_is_verified(
    candidates: list[NearMatch], scores: Mapping[int, float], others: int
) -> None:
    decision = decide_verified(candidates, scores, others)
    verified = {one: scores[one.position.serial] for one in candidates if one.position.serial in scores}
    check_matches(decision, set(verified), others)
    if decision.match is not None:
        least = least_as_good(max(verified.values()))
        as_good = [one for one, score in verified.items() if score >= least]
        assert decision.match == min(as_good, key=lambda one: one.position)


def check_matches(decision: Decision, matches: set[NearMatch], others: int) -> None:
    """Check that only matches are named, each once, as many as were asked for, the nearest first."""
    assert (decision.verdict == "duplicate") == bool(matches) == (decision.kind == "near")
    named = [decision.match, *decision.others] if decision.match else []
    assert len(set(named)) == len(named) == min(len(matches), 1 + others)
    assert matches.issuperset(named)
    left_out = [one.l2 for one in matches.difference(named)]
    distances = [one.l2 for one in decision.others]
    assert distances == sorted(distances)
    assert not others or not left_out or distances[-1] <= min(left_out)


@settings(deadline=None)
@given(candidate_lists, serial_scores, st.randoms())
def test_the_order_candidates_come_in_does_not_matter(
    candidates: list[NearMatch], scores: Mapping[int, float], chance: random.Random
) -> None:
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert decide(AppendResult(near=tuple(candidates)), 1.0, 5) == decide(AppendResult(near=tuple(shuffled)), 1.0, 5)
    assert decide_verified(candidates, scores) == decide_verified(shuffled, scores)
