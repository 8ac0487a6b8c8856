"""Calibration of the second look: the rule keeps its false positive rate, and reaches the served configuration."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig

from consumer.encoder.model_config import read_model_info
from consumer.verification.result import Verification
from triton_models.training.bench import Patches, Vectors
from triton_models.training.edits import EDITS
from triton_models.training.encoders import OnnxEncoder
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, set_second_look
from triton_models.training.scores import PairScores, RegionScores, score_pairs
from triton_models.training.second_look import (
    DecisionRule,
    fit_rule,
    ideal_verification,
    intersection_over_union,
    rule_parameters,
    vector_threshold,
)


def pair_scores(seed: int = 0, others: int = 5_000, pairs: int = 10_000_000, regions: int = 400) -> PairScores:
    """Scores of copies that are near or score well, and of others that are near at times and score badly.

    Copies of the first kind have an original that is not the nearest, and a region that shows it.
    """
    rng = np.random.default_rng(seed)
    score = rng.beta(6, 3, (4, 200)).astype(np.float32)
    score[0] = -np.inf
    return PairScores(
        pair_count=pairs,
        copies_l2=rng.uniform(0.05, 0.8, (4, 200)).astype(np.float32),
        copies_score=score,
        others_l2=(0.7 - 0.1 * rng.exponential(1, others)).clip(0.02).astype(np.float32),
        others_score=rng.beta(2, 6, others).astype(np.float32),
        others_copy=np.zeros(others, np.int64),
        others_reference=np.zeros(others, np.int64),
        original_verifications=[],
        ms_per_verification=0.3,
        regions=RegionScores(
            copy=np.arange(regions) % 200,
            original_l2=rng.uniform(0.05, 0.8, regions).astype(np.float32),
            original_score=rng.beta(6, 3, regions).astype(np.float32),
            other_reference=np.zeros(regions, np.int64),
            other_l2=(0.9 - 0.1 * rng.exponential(1, regions)).clip(0.02).astype(np.float32),
            other_score=rng.beta(2, 6, regions).astype(np.float32),
        ),
    )


@pytest.mark.parametrize("rate", [1e-4, 1e-5, 1e-6])
def test_the_rule_keeps_the_rate_and_finds_more_than_distance_alone(rate: float) -> None:
    scores = pair_scores()
    rule = fit_rule(scores, rate)
    wrong = rule.accepts(scores.others_l2, scores.others_score).sum()
    wrong_regions = rule.verification.accepts(scores.regions.other_l2, scores.regions.other_score).sum()
    assert wrong + wrong_regions <= rate * scores.pair_count
    accepted = rule.accepts(scores.copies_l2, scores.copies_score)
    assert accepted.mean() > (scores.copies_l2 <= vector_threshold(scores, rate)).mean() + 0.1
    # What was never verified is accepted by distance alone.
    assert (accepted[0] == (scores.copies_l2[0] <= rule.threshold_l2)).all()


def test_regions_find_copies_and_make_their_share_of_false_positives() -> None:
    scores, without = pair_scores(), pair_scores(regions=0)
    rule, stricter = fit_rule(without, 1e-5), fit_rule(scores, 1e-5)
    assert stricter.verification.min_score >= rule.verification.min_score
    assert stricter.detects(scores)[0].mean() > stricter.detects(without)[0].mean() + 0.1
    # Regions have to be verified: distance alone, without a verification, is no evidence of a region.
    never_verified = np.array([0.0], np.float32), np.array([-np.inf], np.float32)
    assert not DecisionRule(2.0, stricter.verification).verification.accepts(*never_verified).any()


def test_where_a_stranger_is_within_the_threshold_the_original_has_to_be_too() -> None:
    scores = pair_scores()
    rule = fit_rule(scores, 1e-5)
    copy = np.argmax((scores.copies_l2 > rule.threshold_l2).ravel() & rule.detects(scores).ravel())
    near_strangers = replace(scores, others_copy=np.full_like(scores.others_copy, copy))
    assert scores.others_l2.min() <= rule.threshold_l2
    assert rule.detects(scores).ravel()[copy]
    without_regions = replace(near_strangers, regions=pair_scores(regions=0).regions)
    assert not rule.detects(without_regions).ravel()[copy]


class ScoreTable:
    """An encoder whose local features are numbers; the candidate score of two pictures stands in a table."""

    def __init__(self, scores: dict[tuple[int, int], float]) -> None:
        self.scores = scores

    def candidate_scores(self, uploads: Patches, candidates: Patches, l2: NDArray[np.float32]) -> NDArray[np.float32]:
        pairs = zip(uploads.ravel().tolist(), candidates.ravel().tolist(), strict=True)
        return np.array([self.scores.get(pair, -1.0) for pair in pairs], np.float32)

    def verify(self, uploads: Patches, candidates: Patches) -> list[Verification]:
        pairs = zip(uploads.ravel().tolist(), candidates.ravel().tolist(), strict=True)
        return [
            Verification(a + b / 100, 0, np.zeros((2, 3), np.float32), np.zeros((0, 4), np.float32)) for a, b in pairs
        ]


def test_the_most_likely_of_the_nearest_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight references at right angles, two of which are originals; 2 is nearest to all copies, then 3, 4, 5, 6."""
    monkeypatch.setattr("triton_models.training.scores.CANDIDATE_RATE", 1.0)
    cosines = np.array([0.0, 0.0, 0.5, 0.45, 0.35, 0.3, 0.1, 0.0, 0.0])
    copies = np.stack([cosines] * 5)
    copies[[0, 1, 2, 3, 4], [0, 1, 0, 0, 0]] = 0.4, 0.2, 0.4, 0.4, 0.4  # the second of them is the fifth nearest
    copies[:, -1] = np.sqrt(1 - (copies**2).sum(axis=1))
    copies = copies.astype(np.float32)
    numbers = np.arange(5, dtype=np.int8).reshape(5, 1, 1)
    vectors = Vectors(
        references=np.eye(8, 9, dtype=np.float32),
        copies=copies[:2].reshape(1, 2, 9),
        reference_patches=np.arange(8, dtype=np.int8).reshape(8, 1, 1),
        copy_patches=numbers[:2].reshape(1, 2, 1, 1),
        region_vectors=copies[2:],
        region_patches=numbers[2:],
        region_copy=np.array([0, 0, 0]),
    )
    table = ScoreTable(
        {
            (0, 0): 5,
            (0, 2): 1,
            (0, 3): 4,
            (0, 4): 2,
            (0, 5): 9,  # 5 has to give way to the original
            (1, 1): 9,
            (1, 4): 3,  # the original is not among the nearest
            (2, 0): 1,
            (2, 3): 2,
            (3, 0): 2,
            (3, 3): 1,
            (4, 0): 2,
            (4, 2): 2,  # of two equal scores the nearer one
        }
    )
    originals = np.array([0, 1])
    scores = score_pairs(vectors, originals, {}, originals.reshape(1, 2), cast("OnnxEncoder", table))
    assert scores.copies_score.tolist() == [[0.0, -np.inf]]
    verified = np.isfinite(scores.others_score)
    assert [scores.others_copy[verified].tolist(), scores.others_reference[verified].tolist()] == [[0, 1], [5, 4]]
    assert scores.others_score[verified] == pytest.approx([0.05, 1.04])
    assert scores.regions.original_score.tolist() == [-np.inf, 3.0, -np.inf]
    assert scores.regions.other_reference.tolist() == [3, 3, 2]
    assert scores.regions.other_score == pytest.approx([2.03, 3.03, 4.02])
    # What is beyond the radius is no candidate, however likely.
    monkeypatch.setattr("triton_models.training.scores.CANDIDATE_RATE", 3 / scores.pair_count)
    near = score_pairs(vectors, originals, {}, originals.reshape(1, 2), cast("OnnxEncoder", table))
    verified = np.isfinite(near.others_score)
    assert near.others_reference[verified].tolist() == [3, 2]


def test_a_rate_that_the_pairs_cannot_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="more pictures"):
        fit_rule(pair_scores(pairs=1_000_000), 1e-6)


def test_the_served_configuration_says_what_was_fitted(tmp_path: Path) -> None:
    rule = fit_rule(pair_scores(), 1e-5)
    for source in (MODEL_FOLDER, tmp_path):  # the second time over itself
        set_second_look(source, tmp_path, (64, 24), rule_parameters(rule))
    infos = []
    for name in CONFIGS:
        info = read_model_info(text_format.Parse((tmp_path / name).read_text(), ModelConfig()))
        assert info.patches == (64, 24)
        assert info.verification_rule is not None
        infos.append(info)
        served = DecisionRule(info.threshold_l2, info.verification_rule)
        assert rule_parameters(served) == rule_parameters(rule)
    assert infos[0] == infos[1]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_true_box_of_a_crop_is_read_from_the_edit_itself(strength: float) -> None:
    edit = ideal_verification(EDITS["zoom"], (300, 200), strength, np.random.default_rng(3)).edit
    assert edit is not None
    assert edit.zoom == pytest.approx(1.05 + 0.45 * strength, rel=0.02)
    box = edit.box_in_match
    # The same draw on a picture that is white within this box and black around it gives a white copy.
    picture = Image.new("RGB", (300, 200))
    picture.paste(
        (255, 255, 255), (round(box.left * 300), round(box.top * 200), round(box.right * 300), round(box.bottom * 200))
    )
    copy = EDITS["zoom"].apply(picture, strength, np.random.default_rng(3), picture)
    assert np.asarray(copy).mean() > 250
    assert intersection_over_union(box, box) == 1
    area = (box.right - box.left) * (box.bottom - box.top)
    assert intersection_over_union(box, edit.box_in_upload) == pytest.approx(area, 0.02)
