"""The second look at what a window holds: which candidates it verifies, and that it compares what is stored."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from redis import Redis

from consumer.encoder.contract import ModelInfo, Strictness, VerificationRule
from consumer.encoder.views import EncodedViews, Features
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.settings import WindowSettings
from consumer.verification import looks as looks_module
from consumer.verification.look import verify
from consumer.verification.looks import MAX_CANDIDATES, look_at_best
from consumer.verification.rerank import VerificationOutcome, VerificationRequest, Verifier
from consumer.verification.result import Verification
from consumer.window.records import AppendResult, NewRecord, Position
from consumer.window.window import RedisWindow
from tests.fakes.rule import make_rule
from tests.verification.scenes import EDITS, features, scene

DIM = 32
RADIUS_L2 = 1.2
MODEL = ModelInfo("encoder", "1", 144, DIM, 0.3, 32, patches=(64, 24), verification_rule=make_rule(RADIUS_L2))
UPLOADED_AT = datetime(2026, 1, 2, tzinfo=UTC)
REGIONS = [WHOLE_IMAGE, Region(0, 0.5, 1, 1), Region(0.5, 0, 1, 0.5)]


@pytest.fixture
def window(redis_server: str, request: pytest.FixtureRequest) -> Iterator[RedisWindow]:
    with Redis.from_url(redis_server) as client:
        prefix = f"verify-{request.node.name}"
        yield RedisWindow(client, MODEL, WindowSettings(), prefix)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the pairs of each look that is taken."""
    counts: list[int] = []

    def counted(
        uploads: Sequence[Features], candidates: Sequence[Features], l2: NDArray[np.float32], rule: VerificationRule
    ) -> list[Verification]:
        counts.append(len(uploads))
        return verify(uploads, candidates, l2, rule)

    monkeypatch.setattr(looks_module, "verify", counted)
    return counts


def original(number: int) -> Features:
    return features(scene(number))


def copy_of(number: int, noise: float = 0.1) -> Features:
    return features(scene(number), EDITS["zoom"], noise=noise)


def record(image_id: str, of: Features | None, angle: float = 0.0, tenant: str = "t") -> NewRecord:
    """Make an upload at a distance of about `angle` from all others of angle 0."""
    [vector] = directions(angle)
    digest = image_id.encode() + b"#" + str(angle).encode()
    return NewRecord(tenant, image_id, digest, vector, UPLOADED_AT, None if of is None else of.to_bytes())


def directions(*angles: float) -> tuple[NDArray[np.float32], ...]:
    """Make vectors at these angles."""
    vectors = np.zeros((len(angles), DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    return tuple(vectors)


def views(*of: Features) -> EncodedViews:
    """Make the views of an upload: the whole, then its regions. Their vectors are those of its record."""
    return EncodedViews(REGIONS[: len(of)], np.zeros((len(of), DIM), np.float32), of)


def request_for(appended: AppendResult, of: EncodedViews | None = None, tenant: str = "t") -> VerificationRequest:
    """Make the request for an upload, without regions unless views are given."""
    return VerificationRequest(tenant, appended, of)


def verify_one(
    window: RedisWindow, appended: AppendResult, of: EncodedViews | None = None, strictness: Strictness = "balanced"
) -> VerificationOutcome:
    [outcome] = Verifier(window, MODEL, strictness).verify([request_for(appended, of)])
    return outcome


def looked_at(appended: AppendResult, outcome: VerificationOutcome, verified: bool | None = None) -> list[str]:
    """Name the candidates with evidence, or those of which it says `verified`, in alphabetical order."""
    matches = (*appended.near, *(match for each in appended.region_matches for match in each))
    names = {match.position: match.image_id for match in matches}
    return sorted(names[position] for position, each in outcome.evidence.items() if verified in {None, each.verified})


def test_every_near_match_is_verified_whether_far_or_near(window: RedisWindow) -> None:
    records = [
        record("original", original(1)),
        record("copy", copy_of(1), 0.8),
        record("stranger", original(2), 0.1),
        record("without features", None, 0.2),
        record("original", original(1), tenant="another"),
    ]
    appended = window.append(records)
    requests = [request_for(result, tenant=each.tenant) for each, result in zip(records, appended, strict=True)]
    evidence = [each.evidence for each in Verifier(window, MODEL, "balanced").verify(requests)]
    first, of_copy = appended[0].position, evidence[1]
    assert first is not None
    assert of_copy[first].verified
    assert of_copy[first].edit is not None
    assert of_copy[first].edit.zoom == pytest.approx(1 / 0.7, rel=0.02)
    assert [each.verified for each in evidence[2].values()] == [False]
    assert evidence[3] == {}
    assert evidence[0] == evidence[4] == {}


def test_a_repeat_is_judged_by_what_was_stored_at_first(window: RedisWindow) -> None:
    window.append([record("original", original(3))])
    copy = record("copy", features(scene(3), EDITS["mirrored"], noise=0.1), 0.5)
    [first] = window.append([copy])
    before = verify_one(window, first)
    # An encoder that computes a little differently in another batch, here much differently.
    [again] = window.append([copy._replace(patches=original(9).to_bytes())])
    assert again == first
    assert verify_one(window, again) == before
    assert any(evidence.verified for evidence in before.evidence.values())


def test_a_candidate_deleted_meanwhile_is_left_out(window: RedisWindow) -> None:
    window.append([record("original", original(4)), record("other", original(5))])
    [appended] = window.append([record("copy", original(4), 0.2)])
    assert looked_at(appended, verify_one(window, appended)) == ["original", "other"]
    window.delete("t", "original")
    assert looked_at(appended, verify_one(window, appended)) == ["other"]


def test_an_upload_deleted_meanwhile_and_features_of_another_form_are_left_out(window: RedisWindow) -> None:
    cut_short = record("cut short", original(4))
    assert cut_short.patches is not None
    window.append([cut_short._replace(patches=cut_short.patches[:-1]), record("original", original(4), 0.01)])
    [appended] = window.append([record("copy", original(4), 0.2)])
    assert looked_at(appended, verify_one(window, appended)) == ["original"]
    window.delete("t", "copy")
    assert verify_one(window, appended) == VerificationOutcome({}, appended.near)


def test_one_look_is_taken_at_the_candidate_that_promises_most(window: RedisWindow, looks: list[int]) -> None:
    window.append([record(str(n), original(n), 0.02 * n) for n in range(5)])
    [appended] = window.append([record("stranger", original(9))])
    outcome = verify_one(window, appended)
    assert looks == [1]
    assert (len(outcome.evidence), looked_at(appended, outcome, verified=True)) == (1, [])
    assert outcome.near == appended.near


@pytest.mark.parametrize("copied", [4, 2, 0], ids=["the nearest", "a farther one", "the farthest"])
def test_a_copy_promises_more_than_strangers_that_are_nearer(
    copied: int, window: RedisWindow, looks: list[int]
) -> None:
    window.append([record(str(n), original(n), 0.1 * n) for n in range(5)])
    [appended] = window.append([record("copy", copy_of(copied), 0.8)])
    assert min(match.l2 for match in appended.near) > MODEL.threshold_l2
    outcome = verify_one(window, appended)
    assert looks == [1]  # the others are beyond the threshold
    assert looked_at(appended, outcome, verified=True) == [str(copied)]


def test_looks_are_bounded_and_cover_the_earliest_within_the_threshold(window: RedisWindow, looks: list[int]) -> None:
    count = MAX_CANDIDATES + 4
    # The first stands farthest from the copy, though within the threshold.
    window.append([record(str(n), original(n), 0.28 - n * 0.02) for n in range(count)])
    [appended] = window.append([record("copy", original(0))])
    assert len(appended.near) == count
    outcome = verify_one(window, appended)
    assert looks == [1, MAX_CANDIDATES]
    assert looked_at(appended, outcome, verified=True) == ["0"]


def test_only_the_nearest_few_are_considered(window: RedisWindow) -> None:
    # The first is the farthest from the copies, by one too many.
    count = MAX_CANDIDATES + 1
    window.append([record(str(n), original(n), 0.02 * (count - n)) for n in range(count)])
    verified = []
    for n in (0, 1):
        [appended] = window.append([record(f"copy of {n}", copy_of(n), -0.5)])
        near = [match for match in appended.near if not match.image_id.startswith("copy")]
        assert len(near) == count
        appended = replace(appended, near=tuple(near))
        verified.append(looked_at(appended, verify_one(window, appended), verified=True))
    assert verified == [[], ["1"]]


def test_copies_of_copies_are_all_verified(window: RedisWindow, looks: list[int]) -> None:
    window.append([record("original", original(1)), record("stranger", original(2), 0.01)])
    window.append([record(f"copy {n}", copy_of(1, noise=0.1 * n), 0.05 * n) for n in range(1, 5)])
    [appended] = window.append([record("copy 5", copy_of(1), 0.03)])
    outcome = verify_one(window, appended)
    assert looks == [1, 5]
    assert looked_at(appended, outcome, verified=True) == ["copy 1", "copy 2", "copy 3", "copy 4", "original"]
    assert looked_at(appended, outcome, verified=False) == ["stranger"]


def test_the_strictness_decides_on_doubtful_candidates(window: RedisWindow) -> None:
    window.append([record("original", original(1))])
    [appended] = window.append([record("copy", copy_of(1, noise=1.2), 0.2)])
    outcomes = {each: verify_one(window, appended, None, each) for each in ("strict", "balanced", "eager")}
    [score] = {each.score for outcome in outcomes.values() for each in outcome.evidence.values()}
    assert 0.5 < score < 0.8
    verified = {each: looked_at(appended, outcome, verified=True) for each, outcome in outcomes.items()}
    assert verified == {"strict": [], "balanced": ["original"], "eager": ["original"]}


def test_of_equal_candidates_the_nearest_is_looked_at(window: RedisWindow) -> None:
    angles = {"far": 0.1, "nearest": 0.2, "near": 0.15}
    window.append([record(name, original(1), angle) for name, angle in angles.items()])
    [appended] = window.append([record("copy", copy_of(1), 0.7)])
    assert looked_at(appended, verify_one(window, appended)) == ["nearest"]


def test_requests_do_not_depend_on_each_other_nor_on_their_order(window: RedisWindow) -> None:
    window.append([record(str(n), original(n), 0.1 * n) for n in range(5)])
    parts = {"a": (0, 2), "b": (1,), "c": (9, 3, 4)}
    of = {name: views(*(copy_of(n) for n in numbers)) for name, numbers in parts.items()}
    records = [
        record(name, copy_of(numbers[0]), -0.5)._replace(region_vectors=directions(*[-0.4] * (len(numbers) - 1)))
        for name, numbers in parts.items()
    ]
    appended = dict(zip(parts, window.append(records), strict=True))
    alone = {name: verify_one(window, appended[name], of[name]) for name in parts}
    assert [looked_at(appended[name], alone[name], verified=True) for name in parts] == [["0", "2"], ["1"], ["3", "4"]]
    for order in permutations(parts):
        outcomes = Verifier(window, MODEL, "balanced").verify([request_for(appended[n], of[n]) for n in order])
        assert dict(zip(order, outcomes, strict=True)) == alone


def test_two_who_ask_together_get_the_looks_that_each_gets_alone(window: RedisWindow) -> None:
    """One of them has a match, and so looks at others near it; the other has none, for the same requests and views."""
    window.append([record(str(n), original(n), 0.1 * n) for n in range(3)])
    copy, stranger = window.append([record("copy", copy_of(1), -0.1), record("stranger", copy_of(9), -0.1)])
    verifier, rule = Verifier(window, MODEL, "balanced"), MODEL.verification_rule
    asked = [verifier.ask([request_for(appended)]) for appended in (copy, stranger)]
    alone = [look_at_best([each], rule)[0] for each in asked]
    assert [len(each) for each in alone] == [3, 1]
    for order in ((0, 1), (1, 0)):
        together = look_at_best([asked[each] for each in order], rule)
        for each, looked in zip(order, together, strict=True):
            expected = [(candidate, verification.score) for candidate, verification in alone[each]]
            assert [(candidate, verification.score) for candidate, verification in looked] == expected


def test_candidates_are_chosen_for_each_upload_of_each_tenant_and_for_each_view(window: RedisWindow) -> None:
    """Each tenant has three pictures near everything: every upload and every view shows another of them."""
    for tenant, first in (("a", 0), ("b", 10)):
        window.append([record(str(first + n), original(first + n), 0.1 * n, tenant) for n in range(3)])
    copied = {"a": (0, 2), "b": (11, 10)}
    records = [
        record("copy", copy_of(numbers[0]), 0.7, t)._replace(region_vectors=directions(0.75))
        for t, numbers in copied.items()
    ]
    appended = window.append(records)
    of = [views(*(copy_of(n) for n in numbers)) for numbers in copied.values()]
    pairs = list(zip(copied, appended, of, strict=True))
    requests = [request_for(result, each, tenant) for tenant, result, each in pairs]
    requests += [request_for(replace(result, region_matches=()), None, tenant) for tenant, result, _ in pairs]
    outcomes = Verifier(window, MODEL, "balanced").verify(requests)
    verified = [
        looked_at(result, outcome, verified=True) for result, outcome in zip(appended * 2, outcomes, strict=True)
    ]
    assert verified == [["0", "2"], ["10", "11"], ["0"], ["11"]]


def test_of_the_candidates_near_a_region_the_one_that_promises_most_is_verified(
    window: RedisWindow, looks: list[int]
) -> None:
    records = [record("original", original(1), 0.9), record("stranger", original(2), 0.7)]
    first, _ = window.append(records)
    [appended] = window.append([record("collage", original(5), 3.0)._replace(region_vectors=directions(0.2))])
    outcome = verify_one(window, appended, views(original(5), copy_of(1)))
    assert looks == [1]
    assert [match.position for match in outcome.near] == list(outcome.evidence) == [first.position]


def test_strangers_near_a_region_are_no_matches(window: RedisWindow) -> None:
    window.append([record(str(n), original(n), 0.1 * n) for n in range(3)])
    [appended] = window.append([record("collage", original(5), 3.0)._replace(region_vectors=directions(0.1))])
    assert [len(each) for each in appended.region_matches] == [3]
    assert verify_one(window, appended, views(original(5), original(6))) == VerificationOutcome({}, ())


def test_without_the_features_of_regions_only_the_whole_is_verified(window: RedisWindow) -> None:
    window.append([record("original", original(1))])
    [appended] = window.append([record("copy", copy_of(1), 0.3)._replace(region_vectors=directions(0.1))])
    expected = verify_one(window, replace(appended, region_matches=()))
    assert looked_at(appended, expected, verified=True) == ["original"]
    for of in (None, EncodedViews(REGIONS[:2], np.zeros((2, DIM), np.float32), None)):
        assert verify_one(window, appended, of) == expected


def test_of_two_views_that_show_a_picture_the_nearer_counts(window: RedisWindow) -> None:
    [first] = window.append([record("original", original(1))])
    of = views(*(copy_of(1, noise) for noise in (0.3, 0.1, 0.2)))
    whole = record("copy", copy_of(1, 0.3), 0.8)._replace(region_vectors=directions(0.6, 0.2))
    [appended] = window.append([whole])
    outcome = verify_one(window, appended, of)
    assert_within(outcome, first.position, REGIONS[2])
    [match] = outcome.near
    assert match.l2 == pytest.approx(2 * np.sin(0.1), abs=1e-3)


def assert_within(outcome: VerificationOutcome, position: Position | None, region: Region) -> None:
    """Check that the upload shows the picture at this position in a region of it."""
    assert position is not None
    edit = outcome.evidence[position].edit
    assert edit is not None
    box = edit.box_in_upload
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(region, abs=0.02)


@pytest.mark.parametrize("angle", [3.0, 0.5], ids=["the whole is far from it", "the whole is near it"])
def test_a_picture_within_the_upload_is_found_where_it_is(window: RedisWindow, angle: float) -> None:
    records = [record("original", original(1)), record("stranger", original(2), 0.75)]
    first, stranger = window.append(records)
    collage = record("collage", original(4), angle)._replace(region_vectors=directions(0.7, 0.1))
    [appended] = window.append([collage])
    assert len(appended.near) == (0 if angle == 3 else 2)
    assert [[match.image_id for match in each] for each in appended.region_matches] == [["original", "stranger"]] * 2
    outcome = verify_one(window, appended, views(original(4), original(5), copy_of(1)))
    assert looked_at(appended, outcome, verified=True) == ["original"]
    assert_within(outcome, first.position, REGIONS[2])
    l2 = {match.position: match.l2 for match in outcome.near}
    assert first.position is not None
    assert l2[first.position] == pytest.approx(2 * np.sin(0.05), abs=1e-3)
    assert l2.keys() - {stranger.position} == {first.position}
    edit = outcome.evidence[first.position].edit
    assert edit is not None
    box = edit.box_in_match
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0.2, 0.1, 0.9, 0.8), abs=0.02)
    assert edit.zoom == pytest.approx(0.5 / 0.7, rel=0.02)


def test_a_match_that_a_region_verifies_stays_verified_where_the_whole_does_not_show_it(window: RedisWindow) -> None:
    """The whole shows one original, so all others near it are looked at too; a region of it shows one of those."""
    window.append([record(str(n), original(n), 0.02 * n) for n in range(4)])
    [appended] = window.append([record("both", copy_of(0), 0.01)._replace(region_vectors=directions(0.07))])
    of = views(copy_of(0), copy_of(3))
    whole = verify_one(window, replace(appended, region_matches=()))
    assert looked_at(appended, whole) == ["0", "1", "2", "3"]
    [third] = [match.position for match in appended.near if match.image_id == "3"]
    outcome = verify_one(window, appended, of)
    assert outcome.evidence[third].verified
    assert_within(outcome, third, REGIONS[1])


def test_without_a_rule_the_window_is_not_read() -> None:
    for model in (
        ModelInfo("encoder", "1", 144, DIM, 0.3, 32, patches=(64, 24)),
        ModelInfo("encoder", "1", 144, DIM, 0.3, 32, patches=None),
    ):
        # A window without a server: it would raise Unavailable if it were read.
        window = RedisWindow(Redis(port=1), model, WindowSettings(), "nowhere")
        assert Verifier(window, model, "balanced").verify([request_for(AppendResult())]) == [
            VerificationOutcome({}, ())
        ]
