"""Least scores from what people decided, and how many decisions are missing."""

from datetime import UTC, datetime
from typing import Literal

import pytest

from consumer.moderation.decisions import Decision
from consumer.verdicts import Model
from tests.window.examples import MODEL
from triton_models.training.feedback import describe, matches_from, propose, usable


def decision(score: float | None, wrong: bool = False, kind: str = "near", version: str = MODEL.version) -> Decision:
    decided: Literal["confirm", "reject"] = "reject" if wrong else "confirm"
    model = Model(name=MODEL.name, version=version)
    now = datetime.now(UTC)
    more = {"match_kind": kind, "score": score, "model": model}
    return Decision.model_validate(
        {"tenant": "t", "image_id": "b", "match_id": "a", "decision": decided, "by": "ann", "decided_at": now, **more}
    )


def test_the_lowest_score_is_proposed_that_keeps_the_share() -> None:
    sure = [decision(0.9) for _ in range(600)]
    doubtful = [decision(0.5, wrong=number < 20) for number in range(100)]
    by_name = {each.strictness: each for each in propose(sure + doubtful, 0.01)}
    scores = {name: each.matches and each.matches.min_score for name, each in by_name.items()}
    assert scores == {"strict": 0.9, "balanced": 0.9, "eager": 0.5}
    matches = by_name["eager"].matches
    assert matches is not None
    assert (matches.wrong, matches.decided) == (20, 700)
    low, high = matches.interval
    assert 0.018 < low < 20 / 700 < high < 0.045


@pytest.mark.parametrize(("right", "missing"), [(0, 381), (100, 281), (381, 0), (5000, 0)])
def test_it_says_how_many_decisions_are_missing(right: int, missing: int) -> None:
    [_, balanced, _] = propose([decision(0.9)] * right, 0.01)
    assert balanced.missing == missing
    assert describe([balanced]).endswith("; firm") is (missing == 0)


def test_a_share_on_the_border_never_becomes_firm() -> None:
    [_, balanced, _] = propose([decision(0.9, wrong=number == 0) for number in range(100)], 0.01)
    assert balanced.missing is None
    assert "ask for a larger share" in describe([balanced])


def test_where_all_is_wrong_nothing_is_proposed() -> None:
    [strict, *_] = propose([decision(0.9, wrong=True)] * 5, 0.01)
    assert strict.matches is None
    assert "nothing to propose" in describe([strict])


def test_only_scores_of_the_served_model_count() -> None:
    decisions = [decision(0.9), decision(None), decision(0.0, kind="exact"), decision(0.9, version="0")]
    assert usable(decisions, MODEL) == decisions[:1]
    assert matches_from(decisions[:1], 0.95).decided == 0
