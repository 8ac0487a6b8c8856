"""The match stage and the verdict, on whatever evidence a second look may give. Encoder, window and look are fakes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from consumer.encoder.contract import ModelInfo
from consumer.events import Event, ImageUpload, Record
from consumer.kafka.leases import Lease
from consumer.pipeline.batch import Batch, Item
from consumer.pipeline.match import Match
from consumer.pipeline.publish import Publish
from consumer.settings import KafkaSettings
from consumer.telemetry.metrics import Metrics
from consumer.verdicts import Evidence, Verdict
from consumer.verification.looks import NOTHING_ASKED, Asked
from consumer.verification.rerank import VerificationOutcome, VerificationRequest
from consumer.window.records import AppendResult, NearMatch, NewRecord, Position
from consumer.window.redo_log import RedoLog
from tests.fakes.encoder import FakeEncoder, FakeEncoderWithFeatures
from tests.fakes.moderation import no_campaigns, no_rejections
from tests.fakes.window import FakeWindow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = Metrics(CollectorRegistry())

positions = st.builds(Position, st.integers(1, 2), st.integers(1, 12))
near_matches = st.lists(
    st.builds(NearMatch, st.sampled_from("abcdefghij"), positions, st.floats(0, 2), st.just(NOW)),
    max_size=12,
    unique_by=lambda match: match.position,
)
evidences = st.dictionaries(
    positions, st.builds(Evidence, verified=st.booleans(), score=st.floats(0, 1), inliers=st.integers(0, 32))
)


class FakeVerifier:
    """Gives each upload the outcome that was drawn for it."""

    def __init__(self, outcomes: Sequence[VerificationOutcome]) -> None:
        self._outcomes = outcomes

    def ask(self, requests: Sequence[VerificationRequest]) -> Asked[NearMatch]:
        assert len(requests) == len(self._outcomes)
        return NOTHING_ASKED

    def outcomes(self, requests: Sequence[VerificationRequest], looked: object) -> list[VerificationOutcome]:
        return list(self._outcomes)


class NearWindow(FakeWindow):
    """Finds for each upload the near matches that were drawn for it."""

    def __init__(self, outcomes: Sequence[VerificationOutcome]) -> None:
        super().__init__()
        self._near = [outcome.near for outcome in outcomes]

    def append(self, records: Sequence[NewRecord]) -> list[AppendResult]:
        return [AppendResult(Position(3, n), near=near) for n, near in enumerate(self._near)]


def verdicts(model: ModelInfo, outcomes: Sequence[VerificationOutcome], max_others: int) -> list[Verdict]:
    """Run the match stage on uploads of these outcomes; return what is published."""
    window, unused = cast(Any, NearWindow(outcomes)), cast(Any, None)
    encode = cast(Any, SimpleNamespace(await_encoded=lambda _: None, encode_again=None))
    verifier, redo_log, rejections = cast(Any, FakeVerifier(outcomes)), RedoLog(window), no_rejections(window)
    match = Match(model, max_others, encode, window, verifier, redo_log, rejections, no_campaigns())
    items = []
    for number in range(len(outcomes)):
        upload = ImageUpload(image_id=f"upload {number}", data_base64=b"a")
        record = Record("t", 0, number, None, b"", (), 1)
        item = Item(record, Lease(0, 1), Event(str(number), upload.image_id, upload.tenant, upload, NOW))
        item.content.digest = sha256(b"%d" % number).digest()
        items.append(item)
    match.run(Batch(items, NOW))
    messages = list(Publish(KafkaSettings(), model, unused, unused, METRICS, unused).messages(items, NOW, {}))
    return [Verdict.model_validate_json(cast(bytes, message.value)) for message in messages]


@settings(deadline=None)
@given(st.lists(st.builds(VerificationOutcome, evidences, near_matches.map(tuple)), max_size=4), st.integers(0, 5))
def test_a_match_is_never_one_that_the_second_look_does_not_verify(
    outcomes: list[VerificationOutcome], max_others: int
) -> None:
    model = FakeEncoderWithFeatures.info
    for outcome, verdict in zip(outcomes, verdicts(model, outcomes, max_others), strict=True):
        matches = [each for each in (verdict.match, *verdict.others) if each is not None]
        assert all(each.evidence is not None and each.evidence.verified for each in matches)
        verified = {match for match in outcome.near if match.position in verified_positions(outcome)}
        assert (verdict.verdict, verdict.kind) == (("duplicate", "near") if verified else ("unique", None))
        assert len(matches) == min(len(verified), 1 + max_others)
        assert {(each.image_id, each.l2) for each in matches} <= {(each.image_id, each.l2) for each in verified}
        assert verdict.threshold_l2 == model.match_radius_l2


def verified_positions(outcome: VerificationOutcome) -> set[Position]:
    return {position for position, evidence in outcome.evidence.items() if evidence.verified}


@settings(deadline=None)
@given(near_matches)
def test_without_a_rule_distance_alone_decides(near: list[NearMatch]) -> None:
    model = FakeEncoder.info
    [verdict] = verdicts(model, [VerificationOutcome({}, tuple(near))], 20)
    matches = [each for each in (verdict.match, *verdict.others) if each is not None]
    assert len(matches) == sum(each.l2 <= model.threshold_l2 for each in near)
    assert all(each.evidence is None and each.l2 <= verdict.threshold_l2 for each in matches)
