"""Which of the pictures near an upload get a second look, and what `verify` finds on them."""

from collections.abc import Sequence

import numpy as np

from consumer.encode import ModelInfo
from consumer.events import Evidence
from consumer.recent import Near, Placed, Position, RecentWindow
from consumer.verify import verify

LOOKS = 4  # candidates of an upload that get a second look, the nearest first; beyond the threshold only one


class Verifier:
    """Second looks at the candidates that the window reports."""

    def __init__(self, window: RecentWindow, model: ModelInfo) -> None:
        self._window = window
        self._model = model

    def look(self, placed: Sequence[tuple[str, Placed]]) -> list[dict[Position, Evidence]]:
        """What is found on candidates of each (tenant, where its upload was placed), by the candidates' positions.

        Both sides are read back from the window, in one round trip, so that a repeat is judged by what was judged at
        first. Candidates deleted meanwhile are left out. Raises Unavailable("redis", ...).
        """
        found: list[dict[Position, Evidence]] = [{} for _ in placed]
        rule, shape = self._model.second_look, self._model.patches
        if rule is None or shape is None:
            return found
        pairs = [
            (index, (tenant, place.position), (tenant, near.position), near)
            for index, (tenant, place) in enumerate(placed)
            if place.position is not None
            for near in _worth_a_look(place, self._model.threshold_l2)
        ]
        rows = list({row: None for _, upload, candidate, _ in pairs for row in (upload, candidate)})
        stored = {
            row: np.frombuffer(patches, np.int8).reshape(shape)
            for row, patches in zip(rows, self._window.patches(rows), strict=True)
            if patches is not None and len(patches) == shape[0] * shape[1]
        }
        pairs = [pair for pair in pairs if pair[1] in stored and pair[2] in stored]
        if pairs:
            uploads = np.stack([stored[upload] for _, upload, _, _ in pairs])
            candidates = np.stack([stored[candidate] for _, _, candidate, _ in pairs])
            for (index, _, _, near), look in zip(pairs, verify(uploads, candidates, rule.turns), strict=True):
                found[index][near.position] = look.evidence(rule.accepts(near.l2, look.score))
        return found


def _worth_a_look(place: Placed, threshold_l2: float) -> list[Near]:
    """The nearest candidate; others that count by distance alone, for their evidence, with the one that will be named.

    Beyond the threshold the nearest alone can be verified. Looking at more finds no more copies at the same rate of
    false ones, since each is one more chance for a stranger.
    """
    nearest = sorted(place.near, key=lambda near: (near.l2, near.position))[:LOOKS]
    chosen = [near for near in nearest if near is nearest[0] or near.l2 <= threshold_l2]
    within = [near for near in place.near if near.l2 <= threshold_l2]
    named = min(within, key=lambda near: near.position, default=None)
    return chosen if named is None or named in chosen else [*chosen, named]
