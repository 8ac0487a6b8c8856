"""The bench looks at what the service looks at, and reads thresholds from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.encoder.contract import ModelInfo, VerificationRule
from consumer.encoder.trees import BoostedTrees
from consumer.encoder.views import EncodedViews, Features
from consumer.images.region import WHOLE_IMAGE, Region
from consumer.images.thumbnail import Thumbnail
from consumer.verification.measures import MEASURES
from consumer.verification.rerank import VerificationRequest, Verifier
from consumer.verification.result import Verification
from consumer.window.contract import Window
from consumer.window.records import AppendResult, NearMatch, Position
from triton_models.training.bench import Vectors
from triton_models.training.scores import PairScores, score_pairs
from triton_models.training.uploads import Stored, Uploads

DIM, SHAPE, REFERENCES, KINDS, MIN_SCORE = 6, (64, 24), 60, 30, 0.7
ORIGINALS = np.array([7, 19])
UPLOAD = Position(1, REFERENCES)
QUARTER = Region(0.0, 0.0, 0.5, 0.5)


@dataclass(frozen=True)
class Storage:
    """A window of references, by the serial of their positions, and of an upload."""

    features: dict[int, Features]

    def read_patches(self, positions: Sequence[tuple[str, Position]]) -> list[bytes]:
        return [self.features[position.serial].to_bytes() for _, position in positions]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def vectors(rng: np.random.Generator) -> Vectors:
    """References and copies at random, each copy rather near its original and with one region."""

    def unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)
        return scaled

    def stored(vectors: NDArray[np.float32], first: int = 0) -> Stored:
        """Make features at random, with a number for the aspect, by which a picture is known."""
        levels, numbers = np.zeros((48, 48), np.uint8), range(first, first + len(vectors))
        thumbnails = [Thumbnail(levels, WHOLE_IMAGE, float(number)).to_bytes() for number in numbers]
        small_bytes = np.stack([np.frombuffer(each, np.uint8) for each in thumbnails])
        return Stored(vectors, rng.integers(-128, 128, (len(vectors), *SHAPE), np.int8), small_bytes)

    references = unit(rng.normal(size=(REFERENCES, DIM)))
    noise = rng.normal(size=(2, KINDS, 2, DIM)) * rng.uniform(0.1, 0.6, (2, KINDS, 2, 1))
    count = KINDS * 2
    copies, regions = unit(references[ORIGINALS] + noise).reshape(2, count, DIM)
    return Vectors(stored(references), Uploads(stored(copies), stored(regions, count), np.arange(count)))


@pytest.fixture
def model(vectors: Vectors) -> ModelInfo:
    """A model within whose radius are at most seven others of each copy, and within its threshold some of them."""
    copies = np.concatenate([vectors.copies.wholes.vectors, vectors.copies.regions.vectors])
    l2 = np.sort(np.linalg.norm(copies[:, None] - vectors.references.vectors, axis=2), axis=1)
    trees = BoostedTrees(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.float16), np.zeros((1, 2), np.float16), 0.0)
    rule = VerificationRule(
        float(l2[:, 7].min()) - 1e-3, ("l2",), trees, {"strict": 0.9, "balanced": MIN_SCORE, "eager": 0.1}
    )
    return ModelInfo("encoder", "7", 192, DIM, rule.candidate_l2 - 0.1, 32, SHAPE, rule)


@pytest.fixture(autouse=True)
def score_table(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let looks score pairs by a table of random numbers, in the bench and in the service."""
    table = rng.random((4 * KINDS, REFERENCES))

    def verify(uploads: Sequence[Features], candidates: Sequence[Features], *_: object) -> list[Verification]:
        measures = dict.fromkeys(MEASURES, 0.0)
        transform, links = np.eye(2, 3, dtype=np.float32), np.zeros((0, 4), np.float32)
        return [
            Verification(float(table[int(a.thumbnail.aspect), int(b.thumbnail.aspect)]), 0, transform, links, measures)
            for a, b in zip(uploads, candidates, strict=True)
        ]

    for module in ("triton_models.training.scores", "consumer.verification.looks"):
        monkeypatch.setattr(f"{module}.verify", verify)


def accepted_by_service(vectors: Vectors, model: ModelInfo, copy: int, without: set[int]) -> set[int]:
    """Ask the service's own verifier which references it accepts of a copy, in a window without some of them."""
    references, copies = vectors
    assert model.verification_rule is not None
    kept = [index for index in range(REFERENCES) if index not in without]

    def near(vector: NDArray[np.float32]) -> tuple[NearMatch, ...]:
        l2 = np.linalg.norm(references.vectors - vector, axis=1)
        return tuple(
            NearMatch(str(index), Position(0, index), float(l2[index]), datetime.now(UTC))
            for index in kept
            if l2[index] <= model.match_radius_l2
        )

    (upload,), (region,) = copies.wholes.features([copy]), copies.regions.features([copy])
    whole_vector, region_vector = copies.wholes.vectors[copy], copies.regions.vectors[copy]
    stored = dict(zip(kept, references.features(kept), strict=True)) | {UPLOAD.serial: upload}
    appended = AppendResult(UPLOAD, near=near(whole_vector), region_matches=(near(region_vector),))
    views = EncodedViews([WHOLE_IMAGE, QUARTER], np.stack([whole_vector, region_vector]), [upload, region])
    verifier = Verifier(cast("Window", Storage(stored)), model, "balanced")
    (outcome,) = verifier.verify([VerificationRequest("tenant", appended, views)])
    return {position.serial for position, evidence in outcome.evidence.items() if evidence.verified}


def test_the_bench_accepts_what_the_service_accepts(vectors: Vectors, model: ModelInfo) -> None:
    mixed_in = np.full((KINDS, 2), 3)
    duplicates = {7: {8}, 8: {7}}
    scores = score_pairs(vectors, ORIGINALS, duplicates, mixed_in, model)
    detected, false_pairs = scores.detected(MIN_SCORE).ravel(), scores.false_pairs(MIN_SCORE)
    opened = 0
    for copy in range(KINDS * 2):
        original = int(ORIGINALS[copy % 2])
        left_out = {3} | duplicates.get(original, set())
        with_original = accepted_by_service(vectors, model, copy, left_out)
        without = accepted_by_service(vectors, model, copy, left_out | {original})
        assert detected[copy] == (original in with_original)
        accepted = set(scores.others_reference[false_pairs & (scores.others_copy == copy)].tolist())
        assert accepted == without | (with_original - {original})
        opened += bool(with_original - without - {original})
    assert 0.2 < detected.mean() < 0.9
    assert opened > 0  # others near an accepted original
    assert len(scores.others_score) + len(scores.verifications) <= scores.look_count
    assert scores.pair_count == KINDS * (REFERENCES - 3 + REFERENCES - 2)


def test_an_original_takes_the_place_of_the_farthest_of_the_others(vectors: Vectors, model: ModelInfo) -> None:
    """Copies show less of their originals, which are about the eighth nearest, than of what is the ninth."""
    assert model.verification_rule is not None
    rule = replace(model.verification_rule, candidate_l2=2.0, min_scores={"balanced": 0.0})  # whatever gets a look
    wide = replace(model, threshold_l2=0.1, verification_rule=rule)
    references, wholes = vectors.references, vectors.copies.wholes
    originals = np.argsort(-(references.vectors[ORIGINALS] @ references.vectors.T), axis=1)[:, 6]
    ninth = np.argsort(-(wholes.vectors @ references.vectors.T), axis=1)[:, 8]
    patches = np.concatenate(
        [references.patches[np.tile(originals, KINDS), :24], references.patches[ninth, 24:]], axis=1
    )
    given = vectors._replace(copies=vectors.copies._replace(wholes=wholes._replace(patches=patches)))
    scores = score_pairs(given, originals, {}, np.full((KINDS, 2), 3), wide)
    detected, displaced = scores.detected(0.0).ravel(), set()
    for copy in range(KINDS * 2):
        original = int(originals[copy % 2])
        with_original, without = (accepted_by_service(given, wide, copy, gone) for gone in ({3}, {3, original}))
        assert detected[copy] == (original in with_original)
        assert set(scores.others_reference[scores.others_copy == copy].tolist()) == without
        displaced |= without - with_original
    assert 0.2 < detected.mean() < 0.9
    assert displaced


def test_thresholds_let_through_the_rate_asked_for(vectors: Vectors, model: ModelInfo) -> None:
    scores = score_pairs(vectors, ORIGINALS, {}, np.full((KINDS, 2), 3), model)
    for rate in (0.002, 0.01):
        allowed = int(rate * scores.pair_count)
        assert scores.false_pairs(scores.min_score(rate)).sum() == allowed
        assert (scores.nearest_l2 <= scores.max_l2(rate)).sum() == allowed
    assert scores.min_score(1.0) == 0.0
    with pytest.raises(ValueError, match="more pictures"):
        scores.min_score(1e-6)


def test_without_local_features_or_a_rule_there_is_nothing_to_look_at(vectors: Vectors, model: ModelInfo) -> None:
    def score(vectors: Vectors, model: ModelInfo) -> PairScores:
        return score_pairs(vectors, ORIGINALS, {}, np.full((KINDS, 2), 3), model)

    without = vectors.references._replace(patches=np.zeros((REFERENCES, 0, 0), np.int8))
    with pytest.raises(ValueError, match=r"of shape \(0, 0\)"):
        score(vectors._replace(references=without), model)
    with pytest.raises(ValueError, match="no rule"):
        score(vectors, replace(model, verification_rule=None))
    with pytest.raises(ValueError, match=r"of shape \(60, 24\)"):
        score(vectors, replace(model, patches=(60, 24)))
