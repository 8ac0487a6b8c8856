"""Which of the pictures near an upload, and near a picture within it, get a second look, and what `verify` finds."""

from collections.abc import Sequence
from itertools import compress, groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import ModelInfo
from consumer.events import Evidence
from consumer.images.regions import Region
from consumer.verification.features import candidate_scores, verify
from consumer.window.records import AppendResult, NearMatch, Position
from consumer.window.window import RedisWindow

MAX_CANDIDATES = (
    4  # candidates of an upload, or a picture within it, the nearest; beyond the threshold one of them is looked at
)


class VerificationRequest(NamedTuple):
    """An upload to look at: where it was placed, and what was encoded of it, the whole and the pictures within.

    `patches` are the local features in each of `regions`, int8 [N, P, C].
    """

    tenant: str
    appended: AppendResult
    regions: Sequence[Region]
    patches: NDArray[np.int8] | None


class VerificationOutcome(NamedTuple):
    """What was found: evidence on candidates that count, by their positions, and the candidates `near` the upload.

    The latter are where it was placed, and what a picture within it was verified to show. Evidence and distance of each
    are of one view: of those that verify it the nearest, else the whole.
    """

    evidence: dict[Position, Evidence]
    near: tuple[NearMatch, ...]


class _Pair(NamedTuple):
    """An upload and a candidate, by which of what was encoded of the upload: 0 is all of it."""

    upload: int
    view: int
    near: NearMatch


class _Known(NamedTuple):
    """The same with the local features of both, int8 [P, C]."""

    pair: _Pair
    upload: NDArray[np.int8]
    candidate: NDArray[np.int8]


class Verifier:
    """Second looks at the candidates that the window reports."""

    def __init__(self, window: RedisWindow, model: ModelInfo) -> None:
        self._window = window
        self._model = model

    def verify(self, asked: Sequence[VerificationRequest]) -> list[VerificationOutcome]:
        """Look twice at those candidates of each upload, and of each picture within it, that are worth it.

        Uploads and candidates are read back from the window, in one round trip, so that a repeat is judged by what was
        judged at first; what is within an upload is not kept there. Candidates deleted meanwhile are left out. Raises
        Unavailable("redis", ...).
        """
        rule, shape = self._model.verification_rule, self._model.patches
        if rule is None or shape is None:
            return [VerificationOutcome({}, each.appended.near) for each in asked]
        pairs = [
            _Pair(index, view, near)
            for index, each in enumerate(asked)
            for view, near in _candidates(each.appended, self._model.threshold_l2)
        ]
        stored = self._stored(asked, pairs, shape)
        known = []
        for pair in pairs:
            tenant, placed, _, patches = asked[pair.upload]
            whole = stored.get((tenant, placed.position))
            upload = whole if pair.view == 0 else None if patches is None else patches[pair.view]
            candidate = stored.get((tenant, pair.near.position))
            if upload is not None and candidate is not None:
                known.append(_Known(pair, upload, candidate))
        evidence: list[dict[Position, Evidence]] = [{} for _ in asked]
        candidates = [{near.position: near for near in each.appended.near} for each in asked]
        known = _most_promising(known, self._model.threshold_l2, rule.thumbnail_side)
        if known:
            looks = verify(*_stacked(known), rule.rotation_maps, rule.thumbnail_side)
            for ((index, view, near), _, _), look in zip(known, looks, strict=True):
                said, at = evidence[index], near.position
                accepted = rule.accepts(near.l2, look.score)
                nearer = at not in said or not said[at].verified or near.l2 < candidates[index][at].l2
                if view == 0 and (accepted or near.l2 <= self._model.threshold_l2):
                    said[at] = look.to_evidence(accepted)
                elif accepted and nearer:
                    said[at] = look.in_whole_image(asked[index].regions[view]).to_evidence(True)
                    candidates[index][at] = near
        return [
            VerificationOutcome(said, tuple(each.values())) for said, each in zip(evidence, candidates, strict=True)
        ]

    def _stored(
        self, asked: Sequence[VerificationRequest], pairs: Sequence[_Pair], shape: tuple[int, int]
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
            for row, patches in zip(wanted, self._window.read_patches(list(wanted)), strict=True)
            if patches is not None and len(patches) == shape[0] * shape[1]
        }


def _candidates(placed: AppendResult, threshold_l2: float) -> list[tuple[int, NearMatch]]:
    """Those near an upload that may get a look, and those near each picture within it.

    The nearest that count by distance alone, for their evidence, with the one that will be named; of a picture within
    the upload only one. Where none counts so, the nearest ones.
    """
    counting = [near for near in placed.near if near.l2 <= threshold_l2]
    named = min(counting, key=lambda near: near.position, default=None)
    chosen = sorted(counting or placed.near, key=_nearness)[:MAX_CANDIDATES]
    if named is not None and named not in chosen:
        chosen.append(named)
    found = [(0, near) for near in chosen]
    for view, within in enumerate(placed.region_matches, 1):
        nearest = sorted(within, key=_nearness)[:MAX_CANDIDATES]
        found += [(view, near) for near in nearest if near is nearest[0] or nearest[0].l2 > threshold_l2]
    return found


def _most_promising(known: list[_Known], threshold_l2: float, thumbnail_side: int) -> list[_Known]:
    """Of what is near a view but beyond the threshold, the one that promises most; all of what is within it.

    One look each: each is one more chance for a stranger. But the original is not always the nearest.
    """
    views = [list(view) for _, view in groupby(known, lambda each: (each.pair.upload, each.pair.view))]
    contested = [len(view) > 1 and view[0].pair.near.l2 > threshold_l2 for view in views]
    rivals = [each for view in compress(views, contested) for each in view]
    if not rivals:
        return known
    l2 = np.array([each.pair.near.l2 for each in rivals], np.float32)
    promised = iter(candidate_scores(*_stacked(rivals), l2, thumbnail_side).tolist())
    chosen: list[_Known] = []
    for view, several in zip(views, contested, strict=True):
        chosen += [max(view, key=lambda _: next(promised))] if several else view  # of two alike the nearer
    return chosen


def _stacked(known: list[_Known]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    return np.stack([each.upload for each in known]), np.stack([each.candidate for each in known])


def _nearness(near: NearMatch) -> tuple[float, Position]:
    return near.l2, near.position
