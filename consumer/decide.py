"""The decision on one upload, from the pictures that stand before it in the window. Pure.

The match named is the best verified original, the earliest of those that are about as good: copies of copies all point
at one original, and none at a stranger. Further matches are listed nearest first, each with its own distance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

# How unsure, 1 - score, a match may be to count as good as the best: so many times as unsure, or no more than this.
DOUBT_RATIO, SURE_DOUBT = 3.0, 0.004


class Candidate(Protocol):
    """An earlier picture: `position` orders pictures by arrival, `l2` is its distance from the upload."""

    @property
    def image_id(self) -> str: ...
    @property
    def position(self) -> tuple[int, int]: ...
    @property
    def l2(self) -> float: ...
    @property
    def uploaded_at(self) -> datetime: ...


class CandidateSet(Protocol):
    """What stands before an upload: the earliest picture of the same bytes, and pictures that may be near."""

    @property
    def exact(self) -> Candidate | None: ...
    @property
    def near(self) -> Sequence[Candidate]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on one upload and the pictures it rests on."""

    verdict: Literal["unique", "duplicate"]
    kind: Literal["exact", "near"] | None = None
    match: Candidate | None = None
    others: tuple[Candidate, ...] = ()


def least_as_good(best_score: float) -> float:
    """Return the score from which a match is about as good as the best one."""
    return 1 - max(DOUBT_RATIO * (1 - best_score), SURE_DOUBT)


def decide(
    candidates: CandidateSet,
    threshold_l2: float | None,
    max_others: int,
    verified: Mapping[tuple[int, int], float] | None = None,
) -> Decision:
    """Decide on an upload, and name up to `max_others` matches beside the one, nearest first, then by arrival.

    The same bytes settle it. Otherwise the upload is a duplicate when the second look `verified` candidates: their
    scores by position. Encoders without a rule for that have a threshold: all candidates within it, inclusive, are
    matches, and as good.
    """
    if candidates.exact is not None:
        return Decision("duplicate", "exact", candidates.exact)
    scores = verified or {}
    if threshold_l2 is not None:
        scores = {each.position: 1.0 for each in candidates.near if each.l2 <= threshold_l2}
    matches = [each for each in candidates.near if each.position in scores]
    if not matches:
        return Decision("unique")
    least_score = least_as_good(max(scores[each.position] for each in matches))
    match = min((each for each in matches if scores[each.position] >= least_score), key=lambda each: each.position)
    matches.remove(match)
    matches.sort(key=lambda each: (each.l2, each.position))
    return Decision("duplicate", "near", match, tuple(matches[:max_others]))
