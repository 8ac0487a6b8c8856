"""What the window has of pictures that are looked up: as for an upload, but that nothing of them is stored."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import NamedTuple, get_args

from consumer.decide import decide
from consumer.encoder.contract import ModelInfo, Strictness
from consumer.encoder.views import EncodedViews
from consumer.http.batching import Batcher
from consumer.moderation.candidates import BankRequest
from consumer.moderation.hits import NO_HITS, BankResult
from consumer.moderation.matching import Banks
from consumer.moderation.rejections import Rejections
from consumer.verdicts import Evidence
from consumer.verification.rerank import VerificationOutcome, VerificationRequest, Verifier
from consumer.window.contract import Window
from consumer.window.records import AppendResult, ExactMatch, Lookup, NearMatch

# As many pictures as the consumer's batches have.
MAX_BATCH = 32


class MatchRequest(NamedTuple):
    """A picture to look up in a tenant's window; `views` is None for one that matches only exactly.

    `pdq` is its PDQ hash, where a bank holds such hashes.
    """

    tenant: str
    digest: bytes
    views: EncodedViews | None
    strictness: Strictness
    pdq: str | None = None


class FoundMatch(NamedTuple):
    """A picture of the window of which the one that was looked up is a copy."""

    match: ExactMatch | NearMatch
    evidence: Evidence | None

    @property
    def is_exact(self) -> bool:
        """Whether the bytes are the same."""
        return isinstance(self.match, ExactMatch)


class Found(NamedTuple):
    """What is known of a picture: the exact match, if any, then the near ones, and what it shows of banks."""

    matches: Sequence[FoundMatch]
    banks: BankResult


class PictureMatcher:
    """Looks the pictures of many requests up at once. Thread-safe."""

    def __init__(self, window: Window, model: ModelInfo, banks: Banks | None, rejections: Rejections) -> None:
        """Raises Misconfigured for a model whose rule asks for what is not measured."""
        self._window = window
        self._rejections = rejections
        self._banks = banks
        self._threshold_l2 = model.threshold_l2 if model.verification_rule is None else None
        self._verifiers: dict[Strictness, Verifier] = {
            strictness: Verifier(window, model, strictness) for strictness in get_args(Strictness)
        }
        self._batcher = Batcher("match", self._match, MAX_BATCH)

    def match(self, request: MatchRequest) -> Future[Found]:
        """Find the matches of a picture, of the near ones the best first, the others nearest first.

        The future may fail with Unavailable.
        """
        return self._batcher.ask(request)

    def close(self) -> None:
        """Answer what waits, and take on nothing more."""
        self._batcher.close()

    def _match(self, requests: Sequence[MatchRequest]) -> list[Found]:
        lookups = [
            Lookup(each.tenant, each.digest, () if each.views is None else tuple(each.views.embeddings))
            for each in requests
        ]
        uploads = [(each.tenant, "", each.digest) for each in requests]
        results = self._rejections.leave_out(uploads, self._window.look_up(lookups))
        found = [_without_exact(result) for result in results]
        outcomes = self._verify(requests, found)
        matches = [self._choose(result, outcome) for result, outcome in zip(found, outcomes, strict=True)]
        return [Found(*each) for each in zip(matches, self._compare(requests), strict=True)]

    def _compare(self, requests: Sequence[MatchRequest]) -> list[BankResult]:
        """Compare the pictures with the banks."""
        if self._banks is None:
            return [NO_HITS] * len(requests)
        self._banks.sync()
        return self._banks.match([BankRequest(each.tenant, each.digest, each.views, each.pdq) for each in requests])

    def _verify(self, requests: Sequence[MatchRequest], found: Sequence[AppendResult]) -> list[VerificationOutcome]:
        """Take the second look, with the strictness that each request asks for."""
        outcomes = [VerificationOutcome({}, ())] * len(requests)
        for strictness, verifier in self._verifiers.items():
            indexes = [index for index, request in enumerate(requests) if request.strictness == strictness]
            asked = [VerificationRequest(requests[i].tenant, found[i], requests[i].views) for i in indexes]
            for index, outcome in zip(indexes, verifier.verify(asked) if asked else (), strict=True):
                outcomes[index] = outcome
        return outcomes

    def _choose(self, result: AppendResult, outcome: VerificationOutcome) -> list[FoundMatch]:
        scores = {(*position,): each.score for position, each in outcome.evidence.items() if each.verified}
        near = replace(result, exact=None, near=outcome.near)
        decision = decide(near, self._threshold_l2, len(near.near), scores)
        by_position: dict[tuple[int, int], NearMatch] = {match.position: match for match in near.near}
        chosen = [] if decision.match is None else [decision.match, *decision.others]
        matches = [by_position[each.position] for each in chosen]
        exact = [] if result.exact is None else [FoundMatch(result.exact, None)]
        return [*exact, *(FoundMatch(match, outcome.evidence.get(match.position)) for match in matches)]


def _without_exact(result: AppendResult) -> AppendResult:
    """Leave the exact match out of the near ones."""
    exact = result.exact
    if exact is None:
        return result
    near, *regions = (
        tuple(match for match in matches if match.position != exact.position)
        for matches in (result.near, *result.region_matches)
    )
    return replace(result, near=near, region_matches=tuple(regions))
