"""What is judged here in bulk is what the service would judge upload by upload."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pytest

from consumer.decide import decide
from consumer.encoder.views import EncodedViews, Features
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.verification.rerank import VerificationRequest, Verifier
from consumer.window.contract import Window
from consumer.window.records import AppendResult, ExactMatch, NearMatch, Position
from triton_models.training.data import list_pictures
from triton_models.training.encoders import OnnxEncoder
from triton_models.training.looks import find_near
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of
from triton_models.training.uploads import Floats, Set, Stored, encode_set
from triton_models.training.verdicts import Judge, judge_uploads

KINDS = ("lighting", "zoom", "pixelate", "collage", "picture in picture")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = model_of(MODEL_FOLDER / CONFIGS[1])


class Storage(NamedTuple):
    """A window of stored pictures, and an upload."""

    window: Stored
    upload: Features

    def read_patches(self, positions: Sequence[tuple[str, Position]]) -> list[bytes]:
        return [
            (self.upload if position.ms else self.window.features([position.serial])[0]).to_bytes()
            for _, position in positions
        ]


class Candidates(NamedTuple):
    near: tuple[NearMatch, ...]
    exact: ExactMatch | None = None


@pytest.fixture(scope="module")
def data(folder: Path) -> Set:
    encoder = OnnxEncoder(MODEL_FOLDER / "1" / "model.int8.onnx")
    return encode_set(encoder, list_pictures(folder)[:40], np.array([3, 17, 20]), KINDS)


def near_matches(vector: Floats, window: Floats, left_out: int) -> tuple[NearMatch, ...]:
    l2 = np.sqrt(np.maximum(0, 2 - 2 * (window @ vector)))
    return tuple(
        NearMatch(str(place), Position(0, place), float(l2[place]), NOW)
        for place in np.flatnonzero(l2 <= MODEL.match_radius_l2).tolist()
        if place != left_out
    )


def test_verdicts_are_those_of_the_service(data: Set) -> None:
    rule = MODEL.verification_rule
    assert rule is not None
    window, copies = data.stream.wholes, data.copies
    assert len(copies.region_of)
    looked = judge_uploads(
        copies,
        window,
        Judge(rule, MODEL.threshold_l2),
        left_out=data.mixed_in.reshape(-1, 1),
        follow_at=rule.min_scores["balanced"],
    )
    named = looked.named(len(data.owners), rule.min_scores["balanced"])
    assert (named >= 0).mean() > 0.5
    for copy, left_out in enumerate(data.mixed_in.ravel().tolist()):
        regions = np.flatnonzero(copies.region_of == copy)
        views = EncodedViews(
            [WHOLE_IMAGE, *(Region(0, 0, 0.5, 0.5) for _ in regions)],
            np.concatenate([copies.wholes.vectors[[copy]], copies.regions.vectors[regions]]),
            [*copies.wholes.features([copy]), *copies.regions.features(regions)],
        )
        assert views.features is not None
        near = [near_matches(vector, window.vectors, left_out) for vector in views.embeddings]
        request = VerificationRequest(
            "tenant", AppendResult(Position(1, 0), None, near[0], None, tuple(near[1:])), views
        )
        storage = cast("Window", Storage(window, views.features[0]))
        (outcome,) = Verifier(storage, MODEL, "balanced").verify([request])
        verified = {
            (position.ms, position.serial): each.score for position, each in outcome.evidence.items() if each.verified
        }
        decision = decide(Candidates(outcome.near), None, 5, verified)
        assert named[copy] == (-1 if decision.match is None else decision.match.position[1])


def test_near_are_the_nearest_before_and_the_earliest_within_the_threshold() -> None:
    angles = np.array([0.5, 0.1, 0.4, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = vectors[-1:]
    near = find_near(query, vectors, 0.6, before=np.array([10]))
    assert near.place[0].tolist() == [1, 3, 4, 5, 6, 7, 8, 9, 0]  # the earliest is the farthest, too
    assert near.l2[0, 0] == pytest.approx(0.1, rel=0.01)
    few = find_near(query, vectors, 0.6, before=np.array([3]), left_out=np.array([[1]]))
    assert few.place[0, :2].tolist() == [2, 0]
    assert np.isinf(few.l2[0, 2:]).all()
    assert np.isinf(find_near(query, vectors, 0.6, before=np.array([0])).l2).all()
