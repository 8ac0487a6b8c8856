"""The third stage: append uploads to the window, compare them with what stands before, decide; carry out deletions."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from consumer.decide import Decision, decide
from consumer.encoder.contract import ModelInfo
from consumer.errors import Unprocessable
from consumer.events import ImageDeleted
from consumer.moderation.campaigns import Campaigns, Duplicate, MatchDetails
from consumer.moderation.rejections import Rejections
from consumer.pipeline.bank_step import NO_BANKS, BankStep
from consumer.pipeline.batch import Batch, Item, Outcome
from consumer.pipeline.encode import Encode
from consumer.verdicts import Evidence
from consumer.verification.looks import NOTHING_ASKED, look_at_best
from consumer.verification.rerank import VerificationRequest, Verifier
from consumer.window.contract import Window
from consumer.window.records import AppendResult, NewRecord, Position
from consumer.window.redo_log import BatchWrites, RedoLog, Write


class Match:
    """Decides on each upload of a batch by what stands before it in its tenant's window."""

    def __init__(
        self,
        model: ModelInfo,
        max_others: int,
        encode: Encode,
        window: Window,
        verifier: Verifier,
        redo_log: RedoLog,
        rejections: Rejections,
        campaigns: Campaigns,
        banks: BankStep = NO_BANKS,
    ) -> None:
        """`max_others` is how many matches a verdict lists beside the one it names."""
        self._model = model
        self._threshold_l2 = model.threshold_l2 if model.verification_rule is None else None
        self._max_others = max_others
        self._encode = encode
        self._window = window
        self._verifier = verifier
        self._redo_log = redo_log
        self._rejections = rejections
        self._campaigns = campaigns
        self._banks = banks

    def run(self, batch: Batch) -> None:
        """Give each item its outcome, in the order of the batch: a copy behind a deletion finds nothing."""
        self._encode.await_encoded(batch)
        self._redo_log.replay()
        self._redo_log.record(batch.writes, partial(self._match_again, batch))
        undecided = [item for item in batch.items if item.outcome is None and not item.is_ignored]
        self._match(undecided, batch.writes)

    def _match_again(self, batch: Batch) -> None:
        """Decide again what was decided in a window that was lost."""
        batch.writes.writes.clear()
        self._match([item for item in batch.items if item.outcome is not None], batch.writes)

    def _match(self, items: list[Item], writes: BatchWrites) -> None:
        processable = (item for item in items if item.failure is None)
        for deletions, segment in groupby(processable, lambda item: item.is_deletion):
            alike = list(segment)
            outcomes = self._delete(alike) if deletions else self._decide(alike)
            for item, outcome in zip(alike, outcomes, strict=True):
                item.outcome = outcome
                if outcome.stored_record is not None or deletions:
                    event = item.event
                    writes.writes.append(Write(event.tenant, event.image_id, item.source, outcome.stored_record))

    def refresh(self) -> None:
        """Keep the window current while no batch comes: deletions and other processes' rows reach an idle one too."""
        self._redo_log.replay()
        self._window.refresh()
        self._banks.refresh()

    def _delete(self, items: list[Item]) -> list[Outcome]:
        """Delete from the window what each item names."""
        results = [self._window.delete(item.event.tenant, item.event.image_id, item.source) for item in items]
        tombstones = self._rejections.tombstones([_deletion_of(item) for item in items])
        return [
            Outcome(
                datetime.now(UTC),
                deleted_at=result.position,
                messages=(*messages, *self._banks.removals(item, self._window)),
            )
            for item, result, messages in zip(items, results, tombstones, strict=True)
        ]

    def _decide(self, items: list[Item]) -> list[Outcome]:
        """Append uploads to the window and decide on each. An item may fail meanwhile; it then has no decision."""
        self._confirm_exact_matches([item for item in items if item.content.exact_match is not None])
        new = [item for item in items if item.failure is None and item.content.exact_match is None]
        appended = self._leave_out(new, self._window.append([self._new_record(item) for item in new]))
        requests = _requests(new, appended)
        asked = self._verifier.ask(requests)
        # After the uploads were appended: an entry that is written later finds them in the window.
        found, asked_of_banks = self._banks.search(items, self._encode.encode_again) or (None, NOTHING_ASKED)
        looked, looked_of_banks = look_at_best([asked, asked_of_banks], self._model.verification_rule)
        verified = iter(zip(appended, self._verifier.outcomes(requests, looked), strict=True))
        of_banks = self._banks.results(items, found, looked_of_banks)
        outcomes: list[Outcome] = []
        duplicates: dict[int, Duplicate] = {}
        for index, (item, banks) in enumerate(zip(items, of_banks, strict=True)):
            match, evidence = item.content.exact_match, dict[Position, Evidence]()
            if item.failure is not None:
                outcomes.append(Outcome(datetime.now(UTC)))
                continue
            if match is not None:  # the same bytes need no second look
                [result] = self._leave_out([item], [AppendResult(exact=match, own_record=match.own_record)])
            else:
                result, verification = next(verified)
                result, evidence = replace(result, near=verification.near), verification.evidence
            scores = {(*position,): each.score for position, each in evidence.items() if each.verified}
            decision = decide(result, self._threshold_l2, self._max_others, scores)
            outcomes.append(Outcome(datetime.now(UTC), decision, evidence, result.own_record, banks=banks))
            if decision.match is not None:
                duplicates[index] = self._duplicate(item, result, decision, evidence)
        for index, joined in zip(duplicates, self._campaigns.join(list(duplicates.values())), strict=True):
            outcomes[index] = replace(outcomes[index], joined=joined)
        return outcomes

    def _leave_out(self, items: list[Item], results: list[AppendResult]) -> list[AppendResult]:
        """Leave out of what stands before uploads the pictures that people said are no originals of theirs."""
        return self._rejections.leave_out([_content_of(item) for item in items], results)

    def _duplicate(
        self, item: Item, result: AppendResult, decision: Decision, evidence: dict[Position, Evidence]
    ) -> Duplicate:
        """The upload as it joins a campaign."""
        assert decision.match is not None and decision.kind is not None  # noqa: S101, PT018 (narrows the types)
        if result.exact is not None:
            matches = [result.exact.position]
        elif self._threshold_l2 is not None:
            matches = [each.position for each in result.near if each.l2 <= self._threshold_l2]
        else:
            matches = [position for position, each in evidence.items() if each.verified]
        match = decision.match
        found = evidence.get(Position(*match.position))
        return Duplicate(
            *_content_of(item),
            item.uploaded_at,
            item.source,
            item.event.id,
            result.position,
            sorted(matches),
            [position for position, each in evidence.items() if not each.verified],
            MatchDetails(Position(*match.position), decision.kind, match.l2, None if found is None else found.score),
            self._rejections.partners(*_content_of(item)),
        )

    def _confirm_exact_matches(self, items: list[Item]) -> None:
        """Look exact matches up again: one may have been deleted since, and then its copy is new and is encoded."""
        if not items:
            return
        matches = self._window.find_exact([item.content_key for item in items])
        for item, match in zip(items, matches, strict=True):
            if match is None:
                try:
                    self._encode.encode_again(item)
                except Unprocessable as error:
                    item.failure = error
                    continue
            # Last: until its vector is there, a repeat of this stage has to find this item unconfirmed.
            item.content.exact_match = match

    def _new_record(self, item: Item) -> NewRecord:
        vector = patches = None
        region_vectors: list[NDArray[np.float32]] = []
        views = item.encoding.views
        if views is not None:
            vector, *region_vectors = views.embeddings
            if views.features is not None and self._model.verification_rule is not None:
                patches = views.features[0].to_bytes()
        return NewRecord(
            item.event.tenant,
            item.event.image_id,
            item.content.digest,
            vector,
            item.uploaded_at,
            patches,
            item.source,
            tuple(region_vectors),
        )


def _content_of(item: Item) -> tuple[str, str, bytes]:
    """Tenant, image id and digest of an upload."""
    return item.event.tenant, item.event.image_id, item.content.digest


def _deletion_of(item: Item) -> tuple[str, str, datetime | None]:
    """Tenant and image id of a deletion, and when it took place, if it tells."""
    body = item.event.body
    return item.event.tenant, item.event.image_id, body.deleted_at if isinstance(body, ImageDeleted) else None


def _requests(items: list[Item], appended: list[AppendResult]) -> list[VerificationRequest]:
    """What the second look is asked about each upload that was appended."""
    requests = []
    for item, result in zip(items, appended, strict=True):
        requests.append(VerificationRequest(item.event.tenant, result, item.encoding.views))
    return requests
