"""The least scores of the three strictnesses, from what people decided about matches.

Each decision is on a match that was named, at the score that it had. Of the matches at or above a score, a share was
wrong: `balanced` is proposed to have at most the wanted share of these, `strict` a third of it and `eager` three times
as many. What was never named has no decision: below the lowest score that people saw nothing is known, and nothing is
proposed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor

from consumer.encoder.contract import ModelInfo, Strictness
from consumer.moderation.decisions import Decision
from triton_models.training.calibrate_rule import FACTORS
from triton_models.training.growth import wilson_interval

MOST_DECISIONS = 1_000_000  # that are worth asking for


@dataclass(frozen=True, slots=True)
class Matches:
    """The matches at or above a score that people decided about, how many were wrong, and their share (95%)."""

    min_score: float
    decided: int
    wrong: int

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.wrong, self.decided) if self.decided else (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Proposal:
    """The least score of a strictness; None where even the surest matches are wrong too often, or nobody decided.

    `missing` is how many decisions more, with as many wrong among them, would show that the share is kept; None where
    no number would.
    """

    strictness: Strictness
    wanted_share: float
    matches: Matches | None
    missing: int | None


def usable(decisions: Iterable[Decision], model: ModelInfo) -> list[Decision]:
    """The decisions on near matches that this model had a score for."""
    return [
        each
        for each in decisions
        if each.match_kind == "near"
        and each.score is not None
        and each.model is not None
        and (each.model.name, each.model.version) == (model.name, model.version)
    ]


def propose(decisions: Sequence[Decision], wrong_share: float) -> list[Proposal]:
    """Propose the least score of each strictness, the lowest that keeps its share of wrong matches."""
    scores = sorted({each.score for each in decisions if each.score is not None})
    points = [matches_from(decisions, floor(score * 1e4) / 1e4) for score in scores]
    proposals = []
    for strictness, factor in FACTORS.items():
        share = wrong_share * factor
        chosen = next((point for point in points if point.wrong <= share * point.decided), None)
        proposals.append(Proposal(strictness, share, chosen, missing_decisions(chosen, share)))
    return proposals


def matches_from(decisions: Iterable[Decision], min_score: float) -> Matches:
    """Count the matches that have this score or more."""
    named = [each for each in decisions if each.score is not None and each.score >= min_score]
    return Matches(min_score, len(named), sum(each.decision == "reject" for each in named))


def missing_decisions(matches: Matches | None, share: float) -> int | None:
    """How many decisions more would show that no more than a share is wrong, if that goes on as it began."""
    decided, rate = (0, 0.0) if matches is None else (matches.decided, matches.wrong / matches.decided)

    def shows(total: int) -> bool:
        return wilson_interval(round(rate * total), total)[1] <= share

    low, high = max(decided, 1), MOST_DECISIONS
    if not shows(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle + 1, high)
    return low - decided if low > decided else 0


def describe(proposals: Iterable[Proposal]) -> str:
    """Put proposals into words, a line for each."""
    return "\n".join(map(_line, proposals))


def _line(proposal: Proposal) -> str:
    name, matches = proposal.strictness, proposal.matches
    if proposal.missing is None:
        more = "no number of decisions would show it: ask for a larger share"
    elif proposal.missing:
        more = f"{proposal.missing:,} decisions more, with as many wrong among them, make it firm"
    else:
        more = "firm"
    wanted = f"wanted at most {proposal.wanted_share:.4f}"
    if matches is None:
        return f"{name}: nothing to propose, {wanted}; {more}"
    low, high = matches.interval
    return (
        f"{name}: min_score_{name} {matches.min_score:.4f}, {matches.wrong} of {matches.decided} such matches wrong "
        f"(95%: {low:.4f} to {high:.4f}), {wanted}; {more}"
    )
