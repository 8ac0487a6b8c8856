"""Choose which candidates near an upload, or near a region of it, get a second look, and collect the evidence."""

from collections.abc import Sequence
from itertools import compress, groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import ModelInfo, VerificationRule
from consumer.events import Evidence
from consumer.images.regions import Region
from consumer.verification.features import candidate_scores, verify
from consumer.verification.result import Verification
from consumer.window.contract import Window
from consumer.window.records import AppendResult, NearMatch, Position

Patches = NDArray[np.int8]

# Nearest candidates of a view that are considered. Beyond the threshold only one of them is verified.
MAX_CANDIDATES = 4


class VerificationRequest(NamedTuple):
    """Asks for a second look at what is near an appended upload.

    `patches` int8 [N, P, C] are the local features of each of the N views `regions`: the whole upload, then the regions
    in it.
    """

    tenant: str
    appended: AppendResult
    regions: Sequence[Region]
    patches: Patches | None


class VerificationOutcome(NamedTuple):
    """Holds the evidence on candidates that count, by their positions, and the candidates `near` the upload.

    The latter are the near matches of the whole upload and those of its regions that are verified. Evidence and
    distance of each candidate are of one view: of those that verify it the nearest, else the whole.
    """

    evidence: dict[Position, Evidence]
    near: tuple[NearMatch, ...]


class _Candidate(NamedTuple):
    """A near match of one view of an upload: `request` and `view` are indexes, and view 0 is the whole upload."""

    request: int
    view: int
    match: NearMatch


class _Comparison(NamedTuple):
    """A candidate with the local features to compare, int8 [P, C] each."""

    candidate: _Candidate
    upload_patches: Patches
    match_patches: Patches


class Verifier:
    """Takes a second look at the candidates that the window reports."""

    def __init__(self, window: Window, model: ModelInfo) -> None:
        self._window = window
        self._model = model

    def verify(self, requests: Sequence[VerificationRequest]) -> list[VerificationOutcome]:
        """Verify the candidates of each upload, and of each region of it, that are worth it.

        Uploads and candidates are read back from the window, in one round trip, so that a repeat is judged by what was
        judged at first; regions are not stored, so their local features are those of the request. Candidates deleted
        meanwhile are left out. Raises Unavailable("redis", ...).
        """
        rule, shape = self._model.verification_rule, self._model.patches
        if rule is None or shape is None:
            return [VerificationOutcome({}, request.appended.near) for request in requests]
        comparisons = _most_likely(self._comparisons(requests, shape), self._model.threshold_l2, rule.thumbnail_side)
        verifications: list[Verification] = []
        if comparisons:
            verifications = verify(*_stack_patches(comparisons), rule.rotation_maps, rule.thumbnail_side)
        verified = [
            (comparison.candidate, verification)
            for comparison, verification in zip(comparisons, verifications, strict=True)
        ]
        return self._outcomes(requests, verified, rule)

    def _comparisons(self, requests: Sequence[VerificationRequest], shape: tuple[int, int]) -> list[_Comparison]:
        """List the candidates of all requests, in order, whose local features int8 `shape` (P, C) are known."""
        candidates = [
            _Candidate(index, view, match)
            for index, request in enumerate(requests)
            for view, match in _candidates(request.appended, self._model.threshold_l2)
        ]
        stored = self._read_patches(requests, candidates, shape)
        comparisons = []
        for candidate in candidates:
            tenant, appended, _, patches = requests[candidate.request]
            whole = stored.get((tenant, appended.position))
            upload = whole if candidate.view == 0 else None if patches is None else patches[candidate.view]
            match = stored.get((tenant, candidate.match.position))
            if upload is not None and match is not None:
                comparisons.append(_Comparison(candidate, upload, match))
        return comparisons

    def _read_patches(
        self, requests: Sequence[VerificationRequest], candidates: Sequence[_Candidate], shape: tuple[int, int]
    ) -> dict[tuple[str, Position | None], Patches]:
        """Read local features of uploads and candidates from the window: int8 [P, C], by tenant and position."""
        wanted: dict[tuple[str, Position], None] = {}
        for index, view, match in candidates:
            tenant, appended, _, _ = requests[index]
            if view == 0 and appended.position is not None:
                wanted[tenant, appended.position] = None
            wanted[tenant, match.position] = None
        return {
            record: np.frombuffer(patches, np.int8).reshape(shape)
            for record, patches in zip(wanted, self._window.read_patches(list(wanted)), strict=True)
            if patches is not None and len(patches) == shape[0] * shape[1]
        }

    def _outcomes(
        self,
        requests: Sequence[VerificationRequest],
        verified: Sequence[tuple[_Candidate, Verification]],
        rule: VerificationRule,
    ) -> list[VerificationOutcome]:
        """Collect for each request its evidence and its near matches, those of its regions among them."""
        evidence: list[dict[Position, Evidence]] = [{} for _ in requests]
        near = [{match.position: match for match in request.appended.near} for request in requests]
        for (index, view, match), verification in verified:
            position, previous = match.position, evidence[index].get(match.position)
            accepted = rule.accepts(match.l2, verification.score)
            if view == 0 and (accepted or match.l2 <= self._model.threshold_l2):
                evidence[index][position] = verification.to_evidence(accepted)
            elif accepted and (previous is None or not previous.verified or match.l2 < near[index][position].l2):
                region = requests[index].regions[view]
                evidence[index][position] = verification.in_whole_image(region).to_evidence(True)
                near[index][position] = match
        return [
            VerificationOutcome(of_request, tuple(matches.values()))
            for of_request, matches in zip(evidence, near, strict=True)
        ]


def _candidates(appended: AppendResult, threshold_l2: float) -> list[tuple[int, NearMatch]]:
    """Choose the near matches of an upload, and of each region of it, that may be verified, with their view.

    Of the whole upload these are the nearest within the threshold, for their evidence, and the oldest of them, which
    the verdict will name; if there is none within the threshold, the nearest ones. Of a region it is the nearest one if
    that is within the threshold, else the nearest ones.
    """
    within_threshold = [match for match in appended.near if match.l2 <= threshold_l2]
    oldest = min(within_threshold, key=lambda match: match.position, default=None)
    chosen = sorted(within_threshold or appended.near, key=_nearness)[:MAX_CANDIDATES]
    if oldest is not None and oldest not in chosen:
        chosen.append(oldest)
    candidates = [(0, match) for match in chosen]
    for view, matches in enumerate(appended.region_matches, 1):
        nearest = sorted(matches, key=_nearness)[:MAX_CANDIDATES]
        candidates += [(view, match) for match in nearest if match is nearest[0] or nearest[0].l2 > threshold_l2]
    return candidates


def _most_likely(comparisons: list[_Comparison], threshold_l2: float, thumbnail_side: int) -> list[_Comparison]:
    """Leave of each view whose candidates are beyond the threshold only the one of the highest candidate score.

    Each further one would be one more chance for a stranger. But the original is not always the nearest.
    """
    views = [list(view) for _, view in groupby(comparisons, lambda each: (each.candidate.request, each.candidate.view))]
    contested = [len(view) > 1 and view[0].candidate.match.l2 > threshold_l2 for view in views]
    rivals = [comparison for view in compress(views, contested) for comparison in view]
    if not rivals:
        return comparisons
    l2 = np.array([rival.candidate.match.l2 for rival in rivals], np.float32)
    scores = iter(candidate_scores(*_stack_patches(rivals), l2, thumbnail_side).tolist())
    chosen: list[_Comparison] = []
    for view, is_contested in zip(views, contested, strict=True):
        # Of two with the same score the nearer.
        chosen += [max(view, key=lambda _: next(scores))] if is_contested else view
    return chosen


def _stack_patches(comparisons: list[_Comparison]) -> tuple[Patches, Patches]:
    """Stack the local features of uploads and of candidates, int8 [M, P, C] each."""
    return (
        np.stack([comparison.upload_patches for comparison in comparisons]),
        np.stack([comparison.match_patches for comparison in comparisons]),
    )


def _nearness(match: NearMatch) -> tuple[float, Position]:
    return match.l2, match.position
