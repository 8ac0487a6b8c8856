"""The second look at what a window holds: which candidates it verifies, and that it compares what is stored."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray
from redis import Redis

from consumer.encoder.contract import ModelInfo, VerificationRule
from consumer.images.regions import WHOLE_IMAGE, Region
from consumer.settings import WindowSettings
from consumer.verification import rerank
from consumer.verification.features import verify
from consumer.verification.rerank import MAX_CANDIDATES, VerificationOutcome, VerificationRequest, Verifier
from consumer.window.records import AppendResult, NewRecord
from consumer.window.window import RedisWindow
from tests.verification.scenes import EDITS, features, scene

DIM = 32
MODEL = ModelInfo(
    "encoder",
    "1",
    144,
    DIM,
    0.3,
    32,
    patches=(64, 24),
    verification_rule=VerificationRule(1.2, min_score=0.25, score_per_l2=0.01),
)
UPLOADED_AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def window(redis_server: str, request: pytest.FixtureRequest) -> Iterator[RedisWindow]:
    with Redis.from_url(redis_server) as client:
        yield RedisWindow(client, MODEL, WindowSettings(), f"verify-{request.node.name}", radius_l2=1.2)


def record(image_id: str, patches: NDArray[np.int8] | None, angle: float = 0.0, tenant: str = "t") -> NewRecord:
    """Make an upload at a distance of about `angle` from all others of angle 0."""
    vector = np.zeros(DIM, np.float32)
    vector[:2] = np.cos(angle), np.sin(angle)
    digest = image_id.encode() + b"#" + str(angle).encode()
    return NewRecord(tenant, image_id, digest, vector, UPLOADED_AT, None if patches is None else patches.tobytes())


def request_for(appended: AppendResult, tenant: str = "t") -> VerificationRequest:
    """Make the request for an upload without regions."""
    return VerificationRequest(tenant, appended, [WHOLE_IMAGE], None)


def named(appended: AppendResult, outcome: VerificationOutcome) -> list[str]:
    """Name the candidates with evidence."""
    names = {match.position: match.image_id for match in appended.near}
    return [names[position] for position in outcome.evidence]


def test_a_copy_far_away_is_verified_and_a_stranger_is_not(window: RedisWindow) -> None:
    records = [
        record("original", features(scene(1))),
        record("copy", features(scene(1), EDITS["zoom"], noise=0.1), 0.8),
        record("stranger", features(scene(2)), 0.1),
        record("without features", None, 0.2),
        record("original", features(scene(1)), tenant="another"),
    ]
    appended = window.append(records)
    requests = [request_for(result, each.tenant) for each, result in zip(records, appended, strict=True)]
    evidence = [each.evidence for each in Verifier(window, MODEL).verify(requests)]
    original, of_copy = appended[0].position, evidence[1]
    assert original is not None
    assert of_copy[original].verified
    assert of_copy[original].edit is not None
    assert of_copy[original].edit.zoom == pytest.approx(1 / 0.7, rel=0.1)
    assert not evidence[2][original].verified
    assert evidence[3] == {}
    assert evidence[0] == evidence[4] == {}


def test_a_repeat_is_judged_by_what_was_stored_at_first(window: RedisWindow) -> None:
    verifier = Verifier(window, MODEL)
    window.append([record("original", features(scene(3)))])
    copy = record("copy", features(scene(3), EDITS["mirrored"], noise=0.1), 0.5)
    [first] = window.append([copy])
    before = verifier.verify([request_for(first)])
    # An encoder that computes a little differently in another batch, here much differently.
    [again] = window.append([copy._replace(patches=features(scene(9)).tobytes())])
    assert again == first
    assert verifier.verify([request_for(again)]) == before
    assert any(evidence.verified for evidence in before[0].evidence.values())


def test_a_candidate_deleted_meanwhile_is_left_out(window: RedisWindow) -> None:
    verifier = Verifier(window, MODEL)
    window.append([record("original", features(scene(4))), record("other", features(scene(5)))])
    [appended] = window.append([record("copy", features(scene(4)), 0.2)])
    assert len(verifier.verify([request_for(appended)])[0].evidence) == 2
    window.delete("t", "original")
    assert len(verifier.verify([request_for(appended)])[0].evidence) == 1


def test_verifications_are_bounded_and_cover_what_distance_alone_would_name(window: RedisWindow) -> None:
    count = MAX_CANDIDATES + 4
    # The first stands farthest from the copy, though within the threshold.
    window.append([record(str(n), features(scene(n)), 0.28 - n * 0.02) for n in range(count)])
    [appended] = window.append([record("copy", features(scene(0)))])
    assert len(appended.near) == count
    [(evidence, _)] = Verifier(window, MODEL).verify([request_for(appended)])
    assert len(evidence) == MAX_CANDIDATES + 1
    assert evidence[appended.near[0].position].verified


@pytest.mark.parametrize(
    ("copied", "verified"), [(2, "2"), (0, "0"), (9, None)], ids=["the nearest", "a farther one", "none"]
)
def test_beyond_the_threshold_only_the_most_likely_is_verified(
    copied: int, verified: str | None, window: RedisWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.append([record(str(n), features(scene(n)), 0.1 * n) for n in range(3)])
    [appended] = window.append([record("copy", features(scene(copied), EDITS["zoom"], noise=0.1), 0.7)])
    assert len(appended.near) == 3
    assert min(match.l2 for match in appended.near) > MODEL.threshold_l2
    batch_sizes: list[int] = []
    monkeypatch.setattr(
        rerank, "verify", lambda *arguments: batch_sizes.append(len(arguments[0])) or verify(*arguments)
    )
    [outcome] = Verifier(window, MODEL).verify([request_for(appended)])
    assert batch_sizes == [1]
    assert named(appended, outcome) == ([] if verified is None else [verified])


def test_only_the_nearest_few_are_compared(window: RedisWindow) -> None:
    # The first is the farthest from the copies, by one too many.
    count = MAX_CANDIDATES + 1
    window.append([record(str(n), features(scene(n)), 0.02 * (count - n)) for n in range(count)])
    verified = []
    for n in (0, 1):
        [appended] = window.append([record(f"copy of {n}", features(scene(n), EDITS["zoom"], noise=0.1), -0.5)])
        near = [match for match in appended.near if not match.image_id.startswith("copy")]
        assert len(near) == count
        [outcome] = Verifier(window, MODEL).verify([request_for(replace(appended, near=tuple(near)))])
        verified.append(named(appended, outcome))
    assert verified == [[], ["1"]]


def directions(*angles: float) -> tuple[NDArray[np.float32], ...]:
    """Make the vectors of regions at these angles, see `record`."""
    vectors = np.zeros((len(angles), DIM), np.float32)
    vectors[:, :2] = [(np.cos(angle), np.sin(angle)) for angle in angles]
    return tuple(vectors)


def test_candidates_are_chosen_for_each_upload_of_each_tenant_and_for_each_view(window: RedisWindow) -> None:
    """Each tenant has three pictures near everything: every upload and every view shows another of them."""
    for tenant, first in (("a", 0), ("b", 10)):
        window.append([record(str(first + n), features(scene(first + n)), 0.1 * n, tenant) for n in range(3)])
    copied = {"a": (0, 2), "b": (11, 10)}
    patches = {
        tenant: np.concatenate([features(scene(n), EDITS["zoom"], noise=0.1) for n in both])
        for tenant, both in copied.items()
    }
    records = [record("copy", patches[t][:1], 0.7, t)._replace(region_vectors=directions(0.75)) for t in copied]
    appended = window.append(records)
    regions = [WHOLE_IMAGE, Region(0, 0, 0.5, 1)]
    outcomes = Verifier(window, MODEL).verify(
        [
            VerificationRequest(tenant, result, regions, patches[tenant])
            for tenant, result in zip(copied, appended, strict=True)
        ]
    )
    outcomes += Verifier(window, MODEL).verify(
        [
            VerificationRequest(tenant, replace(result, region_matches=()), [WHOLE_IMAGE], patches[tenant][:1])
            for tenant, result in zip(copied, appended, strict=True)
        ]
    )
    verified = [sorted(named(result, outcome)) for result, outcome in zip(appended * 2, outcomes, strict=True)]
    assert verified == [["0", "2"], ["10", "11"], ["0"], ["11"]]


def test_where_something_is_within_the_threshold_nothing_beyond_it_is_verified(window: RedisWindow) -> None:
    window.append([record("copied", features(scene(1)), 0.5), record("within", features(scene(2)), 0.1)])
    [appended] = window.append([record("copy", features(scene(1)))])
    [outcome] = Verifier(window, MODEL).verify([request_for(appended)])
    assert named(appended, outcome) == ["within"]


def test_of_two_equal_candidates_the_nearer_is_verified(window: RedisWindow) -> None:
    window.append([record(name, features(scene(1)), angle) for name, angle in (("farther", 0.1), ("nearer", 0.2))])
    [appended] = window.append([record("copy", features(scene(1), EDITS["zoom"], noise=0.1), 0.7)])
    [outcome] = Verifier(window, MODEL).verify([request_for(appended)])
    assert named(appended, outcome) == ["nearer"]


def test_of_the_candidates_near_a_region_the_most_likely_is_verified(window: RedisWindow) -> None:
    records = [record("original", features(scene(1)), 0.9), record("stranger", features(scene(2)), 0.7)]
    original, _ = window.append(records)
    patches = np.concatenate([features(scene(5)), features(scene(1), EDITS["zoom"], noise=0.1)])
    [appended] = window.append([record("collage", patches[:1], 3.0)._replace(region_vectors=directions(0.2))])
    [outcome] = Verifier(window, MODEL).verify(
        [VerificationRequest("t", appended, [WHOLE_IMAGE, Region(0, 0, 0.5, 1)], patches)]
    )
    assert [match.position for match in outcome.near] == list(outcome.evidence) == [original.position]


def test_of_two_views_that_show_a_picture_the_nearer_counts(window: RedisWindow) -> None:
    [original] = window.append([record("original", features(scene(1)))])
    patches = np.concatenate([features(scene(1), EDITS["zoom"], noise=noise) for noise in (0.3, 0.1, 0.2)])
    [appended] = window.append([record("copy", patches[:1], 0.8)._replace(region_vectors=directions(0.6, 0.2))])
    regions = [WHOLE_IMAGE, Region(0, 0, 0.5, 0.5), Region(0.5, 0.5, 1, 1)]
    [outcome] = Verifier(window, MODEL).verify([VerificationRequest("t", appended, regions, patches)])
    assert original.position is not None
    edit = outcome.evidence[original.position].edit
    assert edit is not None
    assert (edit.box_in_upload.left, edit.box_in_upload.top) == pytest.approx((0.5, 0.5), abs=0.02)
    [match] = outcome.near
    assert match.l2 == pytest.approx(2 * np.sin(0.1), abs=1e-3)


@pytest.mark.parametrize("angle", [3.0, 0.5], ids=["the whole is far from it", "the whole is near it"])
def test_a_picture_within_the_upload_is_found_where_it_is(window: RedisWindow, angle: float) -> None:
    records = [record("original", features(scene(1))), record("stranger", features(scene(2)), 0.75)]
    original, stranger = window.append(records)
    patches = np.concatenate([features(scene(4)), features(scene(5)), features(scene(1), EDITS["zoom"], noise=0.1)])
    collage = record("collage", patches[:1], angle)._replace(region_vectors=directions(0.7, 0.1))
    [appended] = window.append([collage])
    assert len(appended.near) == (0 if angle == 3 else 2)
    assert [[match.image_id for match in each] for each in appended.region_matches] == [["original", "stranger"]] * 2
    regions = [WHOLE_IMAGE, Region(0, 0.5, 1, 1), Region(0.5, 0, 1, 0.5)]
    [outcome] = Verifier(window, MODEL).verify([VerificationRequest("t", appended, regions, patches)])
    assert original.position is not None
    assert [position for position, evidence in outcome.evidence.items() if evidence.verified] == [original.position]
    l2 = {match.position: match.l2 for match in outcome.near}
    assert l2[original.position] == pytest.approx(2 * np.sin(0.05), abs=1e-3)
    assert l2.keys() - {stranger.position} == {original.position}
    edit = outcome.evidence[original.position].edit
    assert edit is not None
    in_match, in_upload = edit.box_in_match, edit.box_in_upload
    assert (in_match.left, in_match.top, in_match.right, in_match.bottom) == pytest.approx(
        (0.2, 0.1, 0.9, 0.8), abs=0.08
    )
    assert (in_upload.left, in_upload.top, in_upload.right, in_upload.bottom) == pytest.approx(regions[2], abs=0.02)
    assert edit.zoom == pytest.approx(0.5 / 0.7, rel=0.1)


def test_without_a_rule_the_window_is_not_read() -> None:
    for model in (
        ModelInfo("encoder", "1", 144, DIM, 0.3, 32, patches=(64, 24)),
        ModelInfo("encoder", "1", 144, DIM, 0.3, 32, patches=None),
    ):
        # A window without a server: it would raise Unavailable if it were read.
        window = RedisWindow(Redis(port=1), model, WindowSettings(), "nowhere")
        assert Verifier(window, model).verify([request_for(AppendResult())]) == [VerificationOutcome({}, ())]
