"""Which of the pictures near an upload, and near a picture within it, get a second look, and what `verify` finds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encode import ModelInfo
from consumer.events import Evidence
from consumer.frames import Frame
from consumer.recent import Near, Placed, Position, RecentWindow
from consumer.verify import verify

LOOKS = 4  # candidates of an upload that get a second look, the nearest first; beyond the threshold only one


class Asked(NamedTuple):
    """An upload to look at: where it was placed, and what was encoded of it, the whole and the pictures within.

    `patches` are the local features in each of `frames`, int8 [N, P, C].
    """

    tenant: str
    placed: Placed
    frames: Sequence[Frame]
    patches: NDArray[np.int8] | None


class Seen(NamedTuple):
    """What was found: evidence on candidates that count, by their positions, and the candidates `near` the upload.

    The latter are where it was placed, and what a picture within it was verified to show. Evidence and distance of each
    are of one view: of those that verify it the nearest, else the whole.
    """

    evidence: dict[Position, Evidence]
    near: tuple[Near, ...]


class _Pair(NamedTuple):
    """An upload and a candidate, by which of what was encoded of the upload: 0 is all of it."""

    upload: int
    view: int
    near: Near


class Verifier:
    """Second looks at the candidates that the window reports."""

    def __init__(self, window: RecentWindow, model: ModelInfo) -> None:
        self._window = window
        self._model = model

    def look(self, asked: Sequence[Asked]) -> list[Seen]:
        """Look twice at the candidates of each upload, and at the nearest of each picture within it.

        Uploads and candidates are read back from the window, in one round trip, so that a repeat is judged by what was
        judged at first; what is within an upload is not kept there. Candidates deleted meanwhile are left out. Raises
        Unavailable("redis", ...).
        """
        rule, shape = self._model.second_look, self._model.patches
        if rule is None or shape is None:
            return [Seen({}, each.placed.near) for each in asked]
        pairs = [
            _Pair(index, view, near)
            for index, each in enumerate(asked)
            for view, near in _worth_a_look(each.placed, self._model.threshold_l2)
        ]
        stored = self._stored(asked, pairs, shape)
        known = []
        for pair in pairs:
            tenant, placed, _, patches = asked[pair.upload]
            whole = stored.get((tenant, placed.position))
            upload = whole if pair.view == 0 else None if patches is None else patches[pair.view]
            candidate = stored.get((tenant, pair.near.position))
            if upload is not None and candidate is not None:
                known.append((pair, upload, candidate))
        evidence: list[dict[Position, Evidence]] = [{} for _ in asked]
        candidates = [{near.position: near for near in each.placed.near} for each in asked]
        if known:
            uploads, others = np.stack([upload for _, upload, _ in known]), np.stack([other for _, _, other in known])
            looks = verify(uploads, others, rule.turns, rule.thumbnail_side)
            for ((index, view, near), _, _), look in zip(known, looks, strict=True):
                said, at = evidence[index], near.position
                accepted = rule.accepts(near.l2, look.score)
                nearer = at not in said or not said[at].verified or near.l2 < candidates[index][at].l2
                if view == 0:
                    if accepted or near.l2 <= self._model.threshold_l2:
                        said[at] = look.evidence(accepted)
                elif accepted and nearer:
                    said[at] = look.of_whole(asked[index].frames[view]).evidence(True)
                    candidates[index][at] = near
        return [Seen(said, tuple(each.values())) for said, each in zip(evidence, candidates, strict=True)]

    def _stored(
        self, asked: Sequence[Asked], pairs: Sequence[_Pair], shape: tuple[int, int]
    ) -> dict[tuple[str, Position | None], NDArray[np.int8]]:
        """Local features that the window holds of uploads and candidates, int8 [P, C], by tenant and position."""
        wanted: dict[tuple[str, Position], None] = {}
        for index, view, near in pairs:
            tenant, placed, _, _ = asked[index]
            if view == 0 and placed.position is not None:
                wanted[tenant, placed.position] = None
            wanted[tenant, near.position] = None
        return {
            row: np.frombuffer(patches, np.int8).reshape(shape)
            for row, patches in zip(wanted, self._window.patches(list(wanted)), strict=True)
            if patches is not None and len(patches) == shape[0] * shape[1]
        }


def _worth_a_look(placed: Placed, threshold_l2: float) -> list[tuple[int, Near]]:
    """The nearest candidate; others that count by distance alone, for their evidence, with the one that will be named.

    Beyond the threshold the nearest alone can be verified. Looking at more finds no more copies at the same rate of
    false ones, since each is one more chance for a stranger. Of a picture within the upload, the nearest alone.
    """
    nearest = sorted(placed.near, key=_nearness)[:LOOKS]
    chosen = [near for near in nearest if near is nearest[0] or near.l2 <= threshold_l2]
    counting = [near for near in placed.near if near.l2 <= threshold_l2]
    named = min(counting, key=lambda near: near.position, default=None)
    if named is not None and named not in chosen:
        chosen.append(named)
    within = [(view, min(near, key=_nearness)) for view, near in enumerate(placed.within, 1) if near]
    return [*((0, near) for near in chosen), *within]


def _nearness(near: Near) -> tuple[float, Position]:
    return near.l2, near.position
