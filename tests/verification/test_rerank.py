"""The second look on real servers: what is stored is what is compared, and the verdict carries the evidence."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from redis import Redis

from consumer.encoder.contract import ModelInfo, VerificationRule
from consumer.events import Match
from consumer.images.regions import WHOLE_IMAGE, Region
from consumer.local.binaries import Binaries
from consumer.local.pictures import photographs
from consumer.local.servers import TritonServer
from consumer.local.stack import REPOSITORY
from consumer.settings import WindowSettings
from consumer.verification import rerank
from consumer.verification.features import verify
from consumer.verification.rerank import MAX_CANDIDATES, VerificationOutcome, VerificationRequest, Verifier
from consumer.window.records import AppendResult, NewRecord
from consumer.window.window import RedisWindow
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import serving
from tests.verification.test_features import EDITS, features, scene

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
AT = datetime(2026, 1, 2, tzinfo=UTC)
PHOTOGRAPHS = dict(photographs())


@pytest.fixture
def window(redis_server: str, request: pytest.FixtureRequest) -> Iterator[RedisWindow]:
    with Redis.from_url(redis_server) as client:
        yield RedisWindow(client, MODEL, WindowSettings(), f"verify-{request.node.name}", radius_l2=1.2)


def row(image_id: str, patches: NDArray[np.int8] | None, away: float = 0.0, tenant: str = "t") -> NewRecord:
    """An upload at a distance of about `away` from all others that are given 0."""
    vector = np.zeros(DIM, np.float32)
    vector[:2] = np.cos(away), np.sin(away)
    digest = image_id.encode() + b"#" + str(away).encode()
    return NewRecord(tenant, image_id, digest, vector, AT, None if patches is None else patches.tobytes())


def asked(placed: AppendResult, tenant: str = "t") -> VerificationRequest:
    """With nothing within the upload."""
    return VerificationRequest(tenant, placed, [WHOLE_IMAGE], None)


def named(placed: AppendResult, seen: VerificationOutcome) -> list[str]:
    """The candidates with evidence."""
    names = {near.position: near.image_id for near in placed.near}
    return [names[position] for position in seen.evidence]


def test_a_copy_far_away_is_verified_and_a_stranger_is_not(window: RedisWindow) -> None:
    rows = [
        row("original", features(scene(1))),
        row("copy", features(scene(1), EDITS["zoom"], noise=0.1), 0.8),
        row("stranger", features(scene(2)), 0.1),
        row("without features", None, 0.2),
        row("original", features(scene(1)), tenant="another"),
    ]
    placed = window.append(rows)
    seen = Verifier(window, MODEL).verify([asked(place, each.tenant) for each, place in zip(rows, placed, strict=True)])
    looks = [each.evidence for each in seen]
    original, copy = placed[0].position, looks[1]
    assert original is not None
    assert copy[original].verified
    assert copy[original].edit is not None
    assert copy[original].edit.zoom == pytest.approx(1 / 0.7, rel=0.1)
    assert not looks[2][original].verified
    assert looks[3] == {}
    assert looks[0] == looks[4] == {}


def test_a_repeat_is_judged_by_what_was_stored_at_first(window: RedisWindow) -> None:
    verifier = Verifier(window, MODEL)
    window.append([row("original", features(scene(3)))])
    copy = row("copy", features(scene(3), EDITS["mirrored"], noise=0.1), 0.5)
    [first] = window.append([copy])
    before = verifier.verify([asked(first)])
    # An encoder that computes a little differently in another batch, here much differently.
    [again] = window.append([copy._replace(patches=features(scene(9)).tobytes())])
    assert again == first
    assert verifier.verify([asked(again)]) == before
    assert any(evidence.verified for evidence in before[0].evidence.values())


def test_a_candidate_deleted_meanwhile_is_left_out(window: RedisWindow) -> None:
    verifier = Verifier(window, MODEL)
    window.append([row("original", features(scene(4))), row("other", features(scene(5)))])
    [placed] = window.append([row("copy", features(scene(4)), 0.2)])
    assert len(verifier.verify([asked(placed)])[0].evidence) == 2
    window.delete("t", "original")
    assert len(verifier.verify([asked(placed)])[0].evidence) == 1


def test_looks_are_bounded_and_see_what_distance_alone_would_name(window: RedisWindow) -> None:
    count = MAX_CANDIDATES + 4
    # The first stands farthest from the copy, though within the threshold.
    window.append([row(str(n), features(scene(n)), 0.28 - n * 0.02) for n in range(count)])
    [placed] = window.append([row("copy", features(scene(0)))])
    assert len(placed.near) == count
    [(looks, _)] = Verifier(window, MODEL).verify([asked(placed)])
    assert len(looks) == MAX_CANDIDATES + 1
    assert looks[placed.near[0].position].verified


@pytest.mark.parametrize(
    ("shown", "found"), [(2, "2"), (0, "0"), (9, None)], ids=["the nearest", "a farther one", "none"]
)
def test_beyond_the_threshold_the_most_promising_alone_is_looked_at(
    shown: int, found: str | None, window: RedisWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.append([row(str(n), features(scene(n)), 0.1 * n) for n in range(3)])
    [placed] = window.append([row("copy", features(scene(shown), EDITS["zoom"], noise=0.1), 0.7)])
    assert len(placed.near) == 3
    assert min(near.l2 for near in placed.near) > MODEL.threshold_l2
    looks: list[int] = []
    monkeypatch.setattr(rerank, "verify", lambda *asked: looks.append(len(asked[0])) or verify(*asked))
    [seen] = Verifier(window, MODEL).verify([asked(placed)])
    assert looks == [1]
    assert named(placed, seen) == ([] if found is None else [found])


def test_only_the_nearest_few_are_compared(window: RedisWindow) -> None:
    # The first is the farthest from the copies, by one too many.
    count = MAX_CANDIDATES + 1
    window.append([row(str(n), features(scene(n)), 0.02 * (count - n)) for n in range(count)])
    seen = []
    for n in (0, 1):
        [placed] = window.append([row(f"copy of {n}", features(scene(n), EDITS["zoom"], noise=0.1), -0.5)])
        near = [each for each in placed.near if not each.image_id.startswith("copy")]
        assert len(near) == count
        [found] = Verifier(window, MODEL).verify([asked(replace(placed, near=tuple(near)))])
        seen.append(named(placed, found))
    assert seen == [[], ["1"]]


def test_uploads_of_several_tenants_and_their_views_are_chosen_for_by_themselves(window: RedisWindow) -> None:
    """In each window three pictures near all that is asked: every upload and every view shows another of them."""
    for tenant, first in (("a", 0), ("b", 10)):
        window.append([row(str(first + n), features(scene(first + n)), 0.1 * n, tenant) for n in range(3)])
    within = np.zeros((1, DIM), np.float32)
    within[0, :2] = np.cos(0.75), np.sin(0.75)
    shown = {"a": (0, 2), "b": (11, 10)}
    patches = {
        tenant: np.concatenate([features(scene(n), EDITS["zoom"], noise=0.1) for n in both])
        for tenant, both in shown.items()
    }
    rows = [row("copy", patches[t][:1], 0.7, t)._replace(region_vectors=tuple(within)) for t in shown]
    placed = window.append(rows)
    frames = [WHOLE_IMAGE, Region(0, 0, 0.5, 1)]
    seen = Verifier(window, MODEL).verify(
        [
            VerificationRequest(tenant, place, frames, patches[tenant])
            for tenant, place in zip(shown, placed, strict=True)
        ]
    )
    seen += Verifier(window, MODEL).verify(
        [
            VerificationRequest(tenant, replace(place, region_matches=()), [WHOLE_IMAGE], patches[tenant][:1])
            for tenant, place in zip(shown, placed, strict=True)
        ]
    )
    found = [sorted(named(place, each)) for place, each in zip(placed * 2, seen, strict=True)]
    assert found == [["0", "2"], ["10", "11"], ["0"], ["11"]]


def test_where_something_is_within_the_threshold_nothing_beyond_it_is_looked_at(window: RedisWindow) -> None:
    window.append([row("shown", features(scene(1)), 0.5), row("within", features(scene(2)), 0.1)])
    [placed] = window.append([row("copy", features(scene(1)))])
    [seen] = Verifier(window, MODEL).verify([asked(placed)])
    assert named(placed, seen) == ["within"]


def test_of_two_alike_the_nearer_is_looked_at(window: RedisWindow) -> None:
    window.append([row(name, features(scene(1)), away) for name, away in (("farther", 0.1), ("nearer", 0.2))])
    [placed] = window.append([row("copy", features(scene(1), EDITS["zoom"], noise=0.1), 0.7)])
    [seen] = Verifier(window, MODEL).verify([asked(placed)])
    assert named(placed, seen) == ["nearer"]


def test_of_what_is_near_a_picture_within_the_most_promising_is_looked_at(window: RedisWindow) -> None:
    original, _ = window.append([row("original", features(scene(1)), 0.9), row("stranger", features(scene(2)), 0.7)])
    within = np.zeros((1, DIM), np.float32)
    within[0, :2] = np.cos(0.2), np.sin(0.2)
    patches = np.concatenate([features(scene(5)), features(scene(1), EDITS["zoom"], noise=0.1)])
    [placed] = window.append([row("collage", patches[:1], 3.0)._replace(region_vectors=tuple(within))])
    [seen] = Verifier(window, MODEL).verify(
        [VerificationRequest("t", placed, [WHOLE_IMAGE, Region(0, 0, 0.5, 1)], patches)]
    )
    assert [near.position for near in seen.near] == list(seen.evidence) == [original.position]


def test_of_two_views_that_show_a_picture_the_nearer_counts(window: RedisWindow) -> None:
    [original] = window.append([row("original", features(scene(1)))])
    within = np.zeros((2, DIM), np.float32)
    within[:, :2] = [(np.cos(0.6), np.sin(0.6)), (np.cos(0.2), np.sin(0.2))]
    patches = np.concatenate([features(scene(1), EDITS["zoom"], noise=noise) for noise in (0.3, 0.1, 0.2)])
    [placed] = window.append([row("copy", patches[:1], 0.8)._replace(region_vectors=tuple(within))])
    frames = [WHOLE_IMAGE, Region(0, 0, 0.5, 0.5), Region(0.5, 0.5, 1, 1)]
    [seen] = Verifier(window, MODEL).verify([VerificationRequest("t", placed, frames, patches)])
    assert original.position is not None
    edit = seen.evidence[original.position].edit
    assert edit is not None
    assert (edit.box_in_upload.left, edit.box_in_upload.top) == pytest.approx((0.5, 0.5), abs=0.02)
    [near] = seen.near
    assert near.l2 == pytest.approx(2 * np.sin(0.1), abs=1e-3)


@pytest.mark.parametrize("away", [3.0, 0.5], ids=["the whole is far from it", "the whole is near it"])
def test_a_picture_within_the_upload_is_found_where_it_is(window: RedisWindow, away: float) -> None:
    original, stranger = window.append([row("original", features(scene(1))), row("stranger", features(scene(2)), 0.75)])
    within = np.zeros((2, DIM), np.float32)
    within[:, :2] = [(np.cos(0.7), np.sin(0.7)), (np.cos(0.1), np.sin(0.1))]
    collage = np.concatenate([features(scene(4)), features(scene(5)), features(scene(1), EDITS["zoom"], noise=0.1)])
    [placed] = window.append([row("collage", collage[:1], away)._replace(region_vectors=tuple(within))])
    assert len(placed.near) == (0 if away == 3 else 2)
    assert [[near.image_id for near in each] for each in placed.region_matches] == [["original", "stranger"]] * 2
    frames = [WHOLE_IMAGE, Region(0, 0.5, 1, 1), Region(0.5, 0, 1, 0.5)]
    [seen] = Verifier(window, MODEL).verify([VerificationRequest("t", placed, frames, collage)])
    assert original.position is not None
    assert [position for position, evidence in seen.evidence.items() if evidence.verified] == [original.position]
    l2 = {near.position: near.l2 for near in seen.near}
    assert l2[original.position] == pytest.approx(2 * np.sin(0.05), abs=1e-3)
    assert l2.keys() - {stranger.position} == {original.position}
    edit = seen.evidence[original.position].edit
    assert edit is not None
    shown, frame = edit.box_in_match, edit.box_in_upload
    assert (shown.left, shown.top, shown.right, shown.bottom) == pytest.approx((0.2, 0.1, 0.9, 0.8), abs=0.08)
    assert (frame.left, frame.top, frame.right, frame.bottom) == pytest.approx(frames[2], abs=0.02)
    assert edit.zoom == pytest.approx(0.5 / 0.7, rel=0.1)


def test_without_a_rule_nothing_is_asked() -> None:
    for model in (
        ModelInfo("encoder", "1", 144, DIM, 0.3, 32, patches=(64, 24)),
        ModelInfo("encoder", "1", 144, DIM, 0.3, 32, patches=None),
    ):
        # A window without a server: it would raise Unavailable if it were asked.
        window = RedisWindow(Redis(port=1), model, WindowSettings(), "nowhere")
        assert Verifier(window, model).verify([asked(AppendResult())]) == [VerificationOutcome({}, ())]


def cropped(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        part = image.convert("RGB").resize(image.size, box=(0.1 * width, 0.15 * height, 0.8 * width, 0.85 * height))
    out = io.BytesIO()
    part.save(out, "JPEG", quality=90)
    return out.getvalue()


def test_the_verdict_carries_the_evidence(broker: str, redis_server: str, triton: str, tmp_path: Path) -> None:
    with new_service(broker, redis_server, triton, tmp_path) as service:
        service.consumer()
        service.picture("original", PHOTOGRAPHS["china.jpg"])
        assert service.await_verdict("original").verdict == "unique"
        service.picture("crop", cropped(PHOTOGRAPHS["china.jpg"]))
        match = _near(service, "crop")
        assert match.evidence is not None
        assert match.evidence.verified
        edit = match.evidence.edit
        assert edit is not None
        assert edit.zoom == pytest.approx(1 / 0.7, rel=0.15)
        box = edit.box_in_match
        assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0.1, 0.15, 0.8, 0.85), abs=0.1)
        assert not edit.mirrored


def collage() -> bytes:
    """Four photographs in a square, china.jpg at the lower left."""
    canvas = Image.new("RGB", (800, 600))
    for place, name in enumerate(("rocket.jpg", "coffee.png", "china.jpg", "text.png")):
        with Image.open(io.BytesIO(PHOTOGRAPHS[name])) as image:
            canvas.paste(image.convert("RGB").resize((400, 300)), (place % 2 * 400, place // 2 * 300))
    out = io.BytesIO()
    canvas.save(out, "JPEG", quality=85)
    return out.getvalue()


@pytest.mark.parametrize("frames", [True, False])
def test_a_copy_within_a_collage_is_found(
    frames: bool, broker: str, redis_server: str, triton: str, tmp_path: Path
) -> None:
    with new_service(broker, redis_server, triton, tmp_path) as service:
        service.consumer({"SEENIT_DECODE_FRAMES": str(frames)})
        service.picture("flower", PHOTOGRAPHS["flower.jpg"])
        service.picture("china", PHOTOGRAPHS["china.jpg"])
        assert service.await_verdict("china").verdict == "unique"
        service.picture("collage", collage())
        if not frames:
            assert service.await_verdict("collage").verdict == "unique"
            return
        match = _near(service, "collage")
        assert match.image_id == "china"
        assert match.evidence is not None
        assert match.evidence.verified
        assert match.evidence.edit is not None
        box = match.evidence.edit.box_in_upload
        assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0, 0.5, 0.5, 1), abs=0.08)
        assert match.evidence.edit.zoom == pytest.approx(0.5, rel=0.1)


def test_an_encoder_without_local_features_decides_on_distance_alone(
    broker: str, redis_server: str, binaries: Binaries, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORY, repository)
    configuration = repository / "image_encoder" / "configs" / "cpu.pbtxt"
    text = re.sub(r',\s*\{ name: "patches"[^}]*\}', "", configuration.read_text())
    assert "patches" not in text
    configuration.write_text(text)
    with serving(TritonServer(binaries, tmp_path, repository=repository)) as server:
        triton = f"127.0.0.1:{server.ports[0]}"
        with new_service(broker, redis_server, triton, tmp_path) as service:
            service.consumer()
            service.picture("original", PHOTOGRAPHS["china.jpg"])
            assert service.await_verdict("original").verdict == "unique"
            out = io.BytesIO()
            with Image.open(io.BytesIO(PHOTOGRAPHS["china.jpg"])) as image:
                image.save(out, "JPEG", quality=40)
            service.picture("smaller file", out.getvalue())
            match = _near(service, "smaller file")
            assert match.evidence is None
            assert match.l2 <= service.await_verdict("smaller file").threshold_l2


def test_compare_says_and_draws_the_edit(triton: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTOGRAPHS["china.jpg"])
    (tmp_path / "b.jpg").write_bytes(cropped(PHOTOGRAPHS["china.jpg"]))
    command = [sys.executable, "-m", "consumer", "compare", "a.jpg", "b.jpg", "--draw", "both.png"]
    environment = {**os.environ, "SEENIT_TRITON_URL": triton}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    zoom = re.search(r"zoomed ([\d.]+) times, turned by -?[0-3] degrees", " ".join(done.stdout.split()))
    assert zoom is not None, done.stdout
    assert float(zoom[1]) == pytest.approx(1 / 0.7, rel=0.15)
    with Image.open(tmp_path / "both.png") as drawing:
        assert drawing.width > 2 * drawing.height
    (tmp_path / "c.jpg").write_bytes(collage())
    for a, b, status in (("a.jpg", "c.jpg", 0), ("c.jpg", "a.jpg", 1)):
        command = [sys.executable, "-m", "consumer", "compare", a, b]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        assert ("of a picture within B" in done.stdout) == (status == 0)


def _near(service: Service, image_id: str) -> Match:
    verdict = service.await_verdict(image_id)
    assert (verdict.verdict, verdict.kind) == ("duplicate", "near")
    assert verdict.match is not None
    return verdict.match
