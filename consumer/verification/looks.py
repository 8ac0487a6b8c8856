"""Look at candidates: at the one of each view that promises most, and only where that is an original, at others.

Looks cost time, and each one at a stranger is a chance of an error.
"""

from collections.abc import Callable, Sequence
from itertools import chain, groupby, islice
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from consumer.encoder.contract import Strictness, VerificationRule
from consumer.encoder.views import Features, PackedFeatures
from consumer.verification.features import candidate_scores
from consumer.verification.look import verify
from consumer.verification.result import Verification

MAX_CANDIDATES = 8  # nearest ones of a view that are considered
MAX_LOOKS = 1  # at those of a view that promise most: two or three find no more copies for as many strangers

Picture = TypeVar("Picture")


class Candidate(NamedTuple, Generic[Picture]):
    """A picture near a view of an upload: `request` and `view` are indexes, and view 0 is the whole upload."""

    request: int
    view: int
    l2: float
    picture: Picture


class Comparison(NamedTuple, Generic[Picture]):
    """A candidate with what is compared of both pictures."""

    candidate: Candidate[Picture]
    upload: Features | PackedFeatures
    other: PackedFeatures


Looked = list[tuple[Candidate[Picture], Verification]]


class Asked(NamedTuple, Generic[Picture]):
    """Comparisons of which some get a look, those of a view together and the nearest first.

    Where one of a view is accepted at this strictness, its worthwhile others get one too.
    """

    comparisons: Sequence[Comparison[Picture]]
    strictness: Strictness
    is_worthwhile: Callable[[Candidate[Picture]], bool]


NOTHING_ASKED: Asked[Any] = Asked((), "strict", lambda _: False)


def look_at_best(asked: Sequence[Asked[Any]], rule: VerificationRule | None) -> list[Looked[Any]]:
    """Look, for each who asked, at the most promising candidate of each view, and where it is accepted, at others.

    All of them are looked at together, which costs less. Nothing is where there is no rule.
    """
    if rule is None:
        return [[] for _ in asked]
    first, rest = zip(*(_most_promising(each.comparisons) for each in asked), strict=True)
    looked, others = _look_at_each(first, rule), []
    for each, found, remaining in zip(asked, looked, rest, strict=True):
        shown = {
            (candidate.request, candidate.view)
            for candidate, verification in found
            if rule.accepts(candidate.l2, verification.score, each.strictness)
        }
        others.append(
            [
                one
                for one in remaining
                if (one.candidate.request, one.candidate.view) in shown and each.is_worthwhile(one.candidate)
            ]
        )
    return [found + more for found, more in zip(looked, _look_at_each(others, rule), strict=True)]


def _look_at_each(groups: Sequence[Sequence[Comparison[Any]]], rule: VerificationRule) -> list[Looked[Any]]:
    """Look at the candidates of all groups together: the looks of each."""
    looked = iter(look_at(list(chain.from_iterable(groups)), rule))
    return [list(islice(looked, len(group))) for group in groups]


def look_at(comparisons: Sequence[Comparison[Picture]], rule: VerificationRule) -> Looked[Picture]:
    """Look at each of these candidates."""
    if not comparisons:
        return []
    l2 = np.array([each.candidate.l2 for each in comparisons], np.float32)
    uploads = [each.upload.unpacked() for each in comparisons]
    found = verify(uploads, [each.other.unpacked() for each in comparisons], l2, rule)
    return list(zip([each.candidate for each in comparisons], found, strict=True))


def _most_promising(
    comparisons: Sequence[Comparison[Picture]],
) -> tuple[list[Comparison[Picture]], list[Comparison[Picture]]]:
    """Divide the candidates of each view into those of the highest candidate scores and the others."""
    if not comparisons:
        return [], []
    scores = candidate_scores(
        np.stack([each.upload.patches for each in comparisons]),
        np.stack([each.other.patches for each in comparisons]),
        np.array([each.candidate.l2 for each in comparisons], np.float32),
    )
    first, rest = [], []
    scored = zip(comparisons, scores.tolist(), strict=True)
    for _, group in groupby(scored, lambda each: (each[0].candidate.request, each[0].candidate.view)):
        # Of two with the same score the nearer.
        ranked = [comparison for comparison, _ in sorted(group, key=lambda each: -each[1])]
        first += ranked[:MAX_LOOKS]
        rest += ranked[MAX_LOOKS:]
    return first, rest
