"""Choose which candidates near an upload, or near a region of it, get a second look, and collect the evidence.

Every near match is verified: the candidate that promises most, and where that is an original, the others that are near.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from consumer.encoder.contract import ModelInfo, Strictness
from consumer.encoder.views import EncodedViews, Features, PackedFeatures
from consumer.verdicts import Evidence
from consumer.verification.looks import MAX_CANDIDATES, Asked, Candidate, Comparison, Looked, look_at, look_at_best
from consumer.verification.measures import columns_of
from consumer.window.contract import Window
from consumer.window.records import AppendResult, NearMatch, Position, decode_record

_Candidate = Candidate[NearMatch]
_Comparison = Comparison[NearMatch]


class VerificationRequest(NamedTuple):
    """Asks for a second look at what is near an appended upload, and at what is near the pictures within it."""

    tenant: str
    appended: AppendResult
    views: EncodedViews | None


class VerificationOutcome(NamedTuple):
    """Holds the evidence on candidates that were looked at, by their positions, and the candidates `near` the upload.

    The latter are the near matches of the whole upload and those of its regions that are verified. Evidence and
    distance of each candidate are of one view: of those that verify it the nearest, else the whole.
    """

    evidence: dict[Position, Evidence]
    near: tuple[NearMatch, ...]


class Verifier:
    """Takes a second look at the candidates that the window reports."""

    def __init__(self, window: Window, model: ModelInfo, strictness: Strictness) -> None:
        """Raises Misconfigured for a model whose rule asks for what is not measured."""
        if model.verification_rule is not None:
            columns_of(model.verification_rule.measures)
        self._window = window
        self._model = model
        self._strictness = strictness

    def verify(self, requests: Sequence[VerificationRequest]) -> list[VerificationOutcome]:
        """Verify the candidates of each upload, and of each region of it, that are worth it.

        Uploads and candidates are read back from the window, in one round trip, so that a repeat is judged by what was
        judged at first. Regions are not stored, nor are pictures that are only looked up, so their features are those
        of the request. Candidates deleted meanwhile are left out. Raises Unavailable("redis", ...).
        """
        [looked] = look_at_best([self.ask(requests)], self._model.verification_rule)
        return self.outcomes(requests, looked)

    def ask(self, requests: Sequence[VerificationRequest]) -> Asked[NearMatch]:
        """Read what `verify` looks at, for whoever has more to look at. Raises Unavailable("redis", ...)."""
        rule, shape = self._model.verification_rule, self._model.patches
        comparisons = [] if rule is None or shape is None else self._comparisons(requests, shape)
        # Copies of copies: each of them is a match.
        return Asked(comparisons, self._strictness, lambda each: each.view == 0 and each.l2 <= self._model.threshold_l2)

    def confirm(self, pairs: Sequence[tuple[str, Position | None, Position]]) -> list[bool]:
        """Tell whether each pair of stored pictures (tenant, upload, earlier picture) is verified by a look of its own.

        False where one of them is not stored, or where there is no second look. Raises Unavailable("redis", ...).
        """
        rule, shape = self._model.verification_rule, self._model.patches
        if rule is None or shape is None:
            return [False] * len(pairs)
        requests = []
        for tenant, upload, match in pairs:
            l2 = self._distance(tenant, upload, match)
            near = () if l2 is None else (NearMatch("", match, l2, datetime.min),)
            requests.append(VerificationRequest(tenant, AppendResult(upload, near=near), None))
        comparisons = self._comparisons(requests, shape)
        verified = {
            candidate.request
            for candidate, verification in look_at(comparisons, rule)
            if rule.accepts(candidate.l2, verification.score, self._strictness)
        }
        return [index in verified for index in range(len(pairs))]

    def _distance(self, tenant: str, upload: Position | None, match: Position) -> float | None:
        """The distance of the vectors of two stored pictures; None beyond what a match may have, or if one is gone."""
        if upload is None:
            return None
        records = self._window.read_records([(tenant, upload), (tenant, match)])
        one, other = (decode_record(record).vector if record else b"" for record in records)
        if not one or not other:
            return None
        l2 = float(np.linalg.norm(np.frombuffer(one, "<f2").astype(np.float32) - np.frombuffer(other, "<f2")))
        return l2 if l2 <= self._model.match_radius_l2 else None

    def _comparisons(self, requests: Sequence[VerificationRequest], shape: tuple[int, int]) -> list[_Comparison]:
        """List the candidates of all requests, in order, whose features, of local ones `shape` (P, C), are known."""
        candidates = [
            _Candidate(index, view, match.l2, match)
            for index, request in enumerate(requests)
            for view, match in _candidates(request.appended, self._model.threshold_l2)
        ]
        stored = self._read_features(requests, candidates, shape)
        comparisons = []
        for candidate in candidates:
            tenant, appended, views = requests[candidate.request]
            if candidate.view == 0 and appended.position is not None:
                upload: Features | PackedFeatures | None = stored.get((tenant, appended.position))
            else:
                upload = None if views is None or views.features is None else views.features[candidate.view]
            match = stored.get((tenant, candidate.picture.position))
            if upload is not None and match is not None:
                comparisons.append(_Comparison(candidate, upload, match))
        return comparisons

    def _read_features(
        self, requests: Sequence[VerificationRequest], candidates: Sequence[_Candidate], shape: tuple[int, int]
    ) -> dict[tuple[str, Position | None], PackedFeatures]:
        """Read the features of uploads and candidates from the window, by tenant and position."""
        wanted: dict[tuple[str, Position], None] = {}
        for index, view, _, match in candidates:
            tenant, appended, _ = requests[index]
            if view == 0 and appended.position is not None:
                wanted[tenant, appended.position] = None
            wanted[tenant, match.position] = None
        read = {
            record: None if data is None else PackedFeatures.of(data, shape)
            for record, data in zip(wanted, self._window.read_patches(list(wanted)), strict=True)
        }
        return {record: features for record, features in read.items() if features is not None}

    def outcomes(self, requests: Sequence[VerificationRequest], looked: Looked[NearMatch]) -> list[VerificationOutcome]:
        """Collect for each request its evidence and its near matches, those of its regions among them."""
        rule = self._model.verification_rule
        if rule is None:
            return [VerificationOutcome({}, request.appended.near) for request in requests]
        evidence: list[dict[Position, Evidence]] = [{} for _ in requests]
        near = [{match.position: match for match in request.appended.near} for request in requests]
        for candidate, verification in sorted(looked, key=lambda each: each[0].view):  # what the whole shows first
            index, view, l2, match = candidate
            position, previous = match.position, evidence[index].get(match.position)
            accepted = rule.accepts(l2, verification.score, self._strictness)
            views = requests[index].views
            if view == 0:
                evidence[index][position] = verification.to_evidence(accepted)
                continue
            is_better = previous is None or not previous.verified or l2 < near[index][position].l2
            if accepted and is_better and views is not None:
                whole = verification.in_whole_image(views.regions[view])
                evidence[index][position] = whole.to_evidence(True)
                near[index][position] = match
        return [
            VerificationOutcome(of_request, tuple(matches.values()))
            for of_request, matches in zip(evidence, near, strict=True)
        ]


def _candidates(appended: AppendResult, threshold_l2: float) -> list[tuple[int, NearMatch]]:
    """Choose the near matches of an upload, and of each region of it, that may be looked at, with their view.

    These are the nearest of each view and, of the whole upload, the earliest within the threshold: the first of many
    copies is named, however many are nearer.
    """
    chosen = sorted(appended.near, key=_nearness)[:MAX_CANDIDATES]
    within_threshold = [match for match in appended.near if match.l2 <= threshold_l2]
    earliest = min(within_threshold, key=lambda match: match.position, default=None)
    if earliest is not None and earliest not in chosen:
        chosen.append(earliest)
    candidates = [(0, match) for match in chosen]
    for view, matches in enumerate(appended.region_matches, 1):
        candidates += [(view, match) for match in sorted(matches, key=_nearness)[:MAX_CANDIDATES]]
    return candidates


def _nearness(match: NearMatch) -> tuple[float, Position]:
    return match.l2, match.position
