"""The decision on one upload, from what stands before it in the window. Pure.

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
    placed: CandidateSet, threshold_l2: float, others: int, verified: Collection[tuple[int, int]] = ()
) -> Decision:
    """Decide on an upload; name up to `others` matches beside the earliest, nearest first, then by arrival.

    The same bytes settle it. Otherwise the upload is a duplicate when a candidate is within `threshold_l2`, inclusive,
    or stands at a position that the second look `verified`.
    """
    if placed.exact is not None:
        return Decision("duplicate", "exact", placed.exact)
    within = [near for near in placed.near if near.l2 <= threshold_l2 or near.position in verified]
    if not within:
        return Decision("unique")
    earliest = min(within, key=lambda near: near.position)
    within.remove(earliest)
    within.sort(key=lambda near: (near.l2, near.position))
    return Decision("duplicate", "near", earliest, tuple(within[:others]))
