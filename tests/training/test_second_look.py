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
from triton_models.training.second_look import (
    Looks,
    Parts,
    Rule,
    alone,
    fit,
    intersection,
    look_at,
    parameters,
    truth,
)


def looks(seed: int = 0, others: int = 5_000, pairs: int = 10_000_000, parts: int = 400) -> Looks:
    """Copies that are near or score well, and others that are near at times and score badly.

    Those of the first kind have an original that is not the nearest, and a part that shows it.
    """
    rng = np.random.default_rng(seed)
    score = rng.beta(6, 3, (4, 200)).astype(np.float32)
    score[0] = -np.inf
    return Looks(
        pairs=pairs,
        copies_l2=rng.uniform(0.05, 0.8, (4, 200)).astype(np.float32),
        copies_score=score,
        others_l2=(0.7 - 0.1 * rng.exponential(1, others)).clip(0.02).astype(np.float32),
        others_score=rng.beta(2, 6, others).astype(np.float32),
        of=np.zeros(others, np.int64),
        to=np.zeros(others, np.int64),
        own=[],
        ms_a_look=0.3,
        parts=Parts(
            of=np.arange(parts) % 200,
            l2=rng.uniform(0.05, 0.8, parts).astype(np.float32),
            score=rng.beta(6, 3, parts).astype(np.float32),
            to=np.zeros(parts, np.int64),
            other_l2=(0.9 - 0.1 * rng.exponential(1, parts)).clip(0.02).astype(np.float32),
            other_score=rng.beta(2, 6, parts).astype(np.float32),
        ),
    )


@pytest.mark.parametrize("rate", [1e-4, 1e-5, 1e-6])
def test_the_rule_keeps_the_rate_and_finds_more_than_distance_alone(rate: float) -> None:
    seen = looks()
    rule = fit(seen, rate)
    wrong = rule.accepts(seen.others_l2, seen.others_score).sum()
    wrong_parts = rule.verifies(seen.parts.other_l2, seen.parts.other_score).sum()
    assert wrong + wrong_parts <= rate * seen.pairs
    found = rule.accepts(seen.copies_l2, seen.copies_score)
    assert found.mean() > (seen.copies_l2 <= alone(seen, rate)).mean() + 0.1
    # What was never looked at is accepted by distance alone.
    assert (found[0] == (seen.copies_l2[0] <= rule.threshold_l2)).all()


def test_parts_find_copies_and_make_their_share_of_false_positives() -> None:
    seen, without = looks(), looks(parts=0)
    rule, stricter = fit(without, 1e-5), fit(seen, 1e-5)
    assert stricter.look.min_score >= rule.look.min_score
    assert stricter.finds(seen)[0].mean() > stricter.finds(without)[0].mean() + 0.1
    # Parts have to be verified: distance alone, for which there is no look, is no evidence of a part.
    assert not Rule(2.0, stricter.look).verifies(np.array([0.0], np.float32), np.array([-np.inf], np.float32)).any()


def test_where_a_stranger_is_within_the_threshold_the_original_has_to_be_too() -> None:
    seen = looks()
    rule = fit(seen, 1e-5)
    taken = np.argmax((seen.copies_l2 > rule.threshold_l2).ravel() & rule.finds(seen).ravel())
    near = replace(seen, of=np.full_like(seen.of, taken))
    assert seen.others_l2.min() <= rule.threshold_l2
    assert rule.finds(seen).ravel()[taken]
    alone = replace(near, parts=looks(parts=0).parts)
    assert not rule.finds(alone).ravel()[taken]


class Table:
    """An encoder whose local features are numbers; what those of two pictures promise stands in a table."""

    def __init__(self, promises: dict[tuple[int, int], float]) -> None:
        self.promises = promises

    def candidate_scores(self, uploads: Patches, candidates: Patches, l2: NDArray[np.float32]) -> NDArray[np.float32]:
        pairs = zip(uploads.ravel().tolist(), candidates.ravel().tolist(), strict=True)
        return np.array([self.promises.get(pair, -1.0) for pair in pairs], np.float32)

    def verify(self, uploads: Patches, candidates: Patches) -> list[Verification]:
        pairs = zip(uploads.ravel().tolist(), candidates.ravel().tolist(), strict=True)
        return [
            Verification(a + b / 100, 0, np.zeros((2, 3), np.float32), np.zeros((0, 4), np.float32)) for a, b in pairs
        ]


def test_the_most_promising_of_the_nearest_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight references at right angles, two of which are originals; 2 is nearest to all copies, then 3, 4, 5, 6."""
    monkeypatch.setattr("triton_models.training.second_look.CANDIDATE_RATE", 1.0)
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
        parts=copies[2:],
        part_patches=numbers[2:],
        part_of=np.array([0, 0, 0]),
    )
    table = Table(
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
            (4, 2): 2,  # of two alike the nearer one
        }
    )
    originals = np.array([0, 1])
    seen = look_at(vectors, originals, {}, originals.reshape(1, 2), cast("OnnxEncoder", table))
    assert seen.copies_score.tolist() == [[0.0, -np.inf]]
    looked_at = np.isfinite(seen.others_score)
    assert [seen.of[looked_at].tolist(), seen.to[looked_at].tolist()] == [[0, 1], [5, 4]]
    assert seen.others_score[looked_at] == pytest.approx([0.05, 1.04])
    assert seen.parts.score.tolist() == [-np.inf, 3.0, -np.inf]
    assert seen.parts.to.tolist() == [3, 3, 2]
    assert seen.parts.other_score == pytest.approx([2.03, 3.03, 4.02])
    # What is beyond the radius is no candidate, however promising.
    monkeypatch.setattr("triton_models.training.second_look.CANDIDATE_RATE", 3 / seen.pairs)
    near = look_at(vectors, originals, {}, originals.reshape(1, 2), cast("OnnxEncoder", table))
    looked_at = np.isfinite(near.others_score)
    assert near.to[looked_at].tolist() == [3, 2]


def test_a_rate_that_the_pairs_cannot_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="more pictures"):
        fit(looks(pairs=1_000_000), 1e-6)


def test_the_served_configuration_says_what_was_fitted(tmp_path: Path) -> None:
    rule = fit(looks(), 1e-5)
    for source in (MODEL_FOLDER, tmp_path):  # the second time over itself
        set_second_look(source, tmp_path, (64, 24), parameters(rule))
    infos = []
    for name in CONFIGS:
        info = read_model_info(text_format.Parse((tmp_path / name).read_text(), ModelConfig()))
        assert info.patches == (64, 24)
        assert info.verification_rule is not None
        infos.append(info)
        served = Rule(info.threshold_l2, info.verification_rule)
        assert parameters(served) == parameters(rule)
    assert infos[0] == infos[1]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_true_box_of_a_crop_is_read_from_the_edit_itself(strength: float) -> None:
    edit = truth(EDITS["zoom"], (300, 200), strength, np.random.default_rng(3)).edit
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
    assert intersection(box, box) == 1
    assert intersection(box, edit.box_in_upload) == pytest.approx((box.right - box.left) * (box.bottom - box.top), 0.02)
