"""Look at candidates: at the one of each view that promises most, and only where that is an original, at others.

Looks cost time, and each one at a stranger is a chance of an error.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

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


def look_at_best(
    comparisons: Sequence[Comparison[Picture]],
    rule: VerificationRule,
    strictness: Strictness,
    is_worthwhile: Callable[[Candidate[Picture]], bool],
) -> Looked[Picture]:
    """Look at the most promising candidate of each view, and where one is accepted, at the worthwhile others.

    The comparisons of a view stand together, the nearest first.
    """
    first, rest = _most_promising(comparisons)
    looked = look_at(first, rule)
    shown = {
        (candidate.request, candidate.view)
        for candidate, verification in looked
        if rule.accepts(candidate.l2, verification.score, strictness)
    }
    others = [
        each
        for each in rest
        if (each.candidate.request, each.candidate.view) in shown and is_worthwhile(each.candidate)
    ]
    return looked + look_at(others, rule)


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
