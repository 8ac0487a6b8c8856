"""The decision on one upload, from the pictures that stand before it in the window. Pure.

The match named is the earliest picture within the threshold, or verified by a second look: copies of copies all point
at one original. Further matches are listed nearest first, each with its own distance.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol


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


def decide(
    candidates: CandidateSet, threshold_l2: float, max_others: int, verified: Collection[tuple[int, int]] = ()
) -> Decision:
    """Decide on an upload, and name up to `max_others` matches beside the earliest, nearest first, then by arrival.

    The same bytes settle it. Otherwise the upload is a duplicate when a candidate is within `threshold_l2`, inclusive,
    or stands at a position that the second look `verified`.
    """
    if candidates.exact is not None:
        return Decision("duplicate", "exact", candidates.exact)
    matches = [each for each in candidates.near if each.l2 <= threshold_l2 or each.position in verified]
    if not matches:
        return Decision("unique")
    earliest = min(matches, key=lambda match: match.position)
    matches.remove(earliest)
    matches.sort(key=lambda match: (match.l2, match.position))
    return Decision("duplicate", "near", earliest, tuple(matches[:max_others]))
