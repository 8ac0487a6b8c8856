"""Calibration, from pictures to the configuration that puts it in force: of a rule's least scores, or of a distance."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consumer.encoder.model_config import STRICTNESSES
from triton_models.training import calibrate as calibration
from triton_models.training.calibrate import calibrate, write
from triton_models.training.calibrate_rule import LEAST_SCORE, calibrate_rule, min_score_for
from triton_models.training.data import list_pictures
from triton_models.training.encoders import OnnxEncoder, make_encoder
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of

ENCODER = str(MODEL_FOLDER / "1" / "model.int8.onnx")


@pytest.fixture
def without_rule(tmp_path: Path) -> Path:
    """A model that decides by distance alone."""
    for name in CONFIGS:
        text = re.sub(r"parameters .*rule_trees.*\n", "", (MODEL_FOLDER / name).read_text())
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(text)
    return tmp_path / "model"


def test_the_command_puts_least_scores_in_force(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("triton_models.training.calibrate_rule.EDITS", ("lighting", "zoom", "blur", "collage"))
    arguments = ["--images", str(folder), "--encoder", ENCODER, "--pictures", "6", "--output", str(tmp_path)]
    calibration.main([*arguments, "--accused-share", "0.05"])
    figures = json.loads((tmp_path / "calibration.json").read_text())
    assert (tmp_path / "calibration.md").read_text() in capsys.readouterr().out
    for name in CONFIGS:
        rule = model_of(tmp_path / name).verification_rule
        assert rule is not None
        assert rule.min_scores == {name: figures["points"][name]["min_score"] for name in STRICTNESSES}
    falling = [figures["points"][name]["min_score"] for name in STRICTNESSES]
    assert falling == sorted(falling, reverse=True)
    called = {name: figures["points"][name]["called"] for name in STRICTNESSES}
    for name, share in (("strict", 0.05 / 3), ("balanced", 0.05), ("eager", 0.15)):
        least_possible = figures["points"][name]["min_score"] == LEAST_SCORE
        assert called[name] <= share + 1e-9
        assert called[name] == pytest.approx(share, abs=1 / 60) or least_possible
    assert figures["points"]["eager"]["found"] > 0.6
    assert figures["found_by_kind"].keys() == {"lighting", "zoom", "blur", "collage"}
    for name in ("calibration.png", "accused.png", "missed.png"):
        with Image.open(tmp_path / name) as picture:
            picture.verify()


def test_a_picture_that_is_there_twice_accuses_nobody(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triton_models.training.calibrate_rule.EDITS", ("lighting", "zoom"))
    for number in range(12):
        for copy in ("a", "b"):
            (tmp_path / f"{copy}-{number}.png").symlink_to(folder / f"drawn-{number:03d}.png")
    model = model_of(MODEL_FOLDER / CONFIGS[0])
    calibrated, _ = calibrate_rule(list_pictures(tmp_path), OnnxEncoder(Path(ENCODER)), model, 0.2, copied=2)
    assert (calibrated.pictures, calibrated.left_out, calibrated.copies) == (12, 12, 4)
    assert calibrated.points["balanced"].called <= 0.2


def test_too_few_pictures_for_the_share_are_refused(folder: Path) -> None:
    model = model_of(MODEL_FOLDER / CONFIGS[0])
    with pytest.raises(ValueError, match="more pictures"):
        calibrate_rule(list_pictures(folder), OnnxEncoder(Path(ENCODER)), model, 0.001)


def test_a_least_score_lets_no_more_than_the_share_through() -> None:
    falling = np.sort(np.random.default_rng(0).random(300).astype(np.float32))[::-1]
    for share in (0.0, 0.01, 0.02, 0.5):
        assert (falling >= min_score_for(falling, share)).mean() == pytest.approx(share, abs=0.01)
        assert (falling >= min_score_for(falling, share)).mean() <= share
    assert min_score_for(np.zeros(10, np.float32), 0.3) == LEAST_SCORE
    assert min_score_for(np.ones(10, np.float32), 0.3) == 1


def test_without_a_rule_the_threshold_of_distance_is_put_in_force(
    folder: Path, without_rule: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", str(folder), "--encoder", ENCODER, "--model", str(without_rule), "--fpr", "1e-3"]
    calibration.main([*arguments, "--pictures", "12", "--output", str(tmp_path / "out")])
    threshold = json.loads((tmp_path / "out" / "calibration.json").read_text())["threshold_l2"]
    assert f"threshold_l2 {threshold:.4f}" in capsys.readouterr().out
    for name in CONFIGS:
        assert model_of(tmp_path / "out" / name).threshold_l2 == threshold


def test_the_threshold_lets_the_wanted_share_of_pairs_through(folder: Path, tmp_path: Path) -> None:
    calibrated, measured = calibrate(list_pictures(folder), make_encoder(ENCODER), 1e-3, pictures=12)
    assert 0 < calibrated.threshold_l2 < 1.5
    assert (measured.others <= calibrated.threshold_l2 + 1e-4).sum() >= int(1e-3 * calibrated.pairs)
    assert calibrated.recall_by_kind["lighting"] > 0.5
    assert all(path.stat().st_size > 0 for path in write(calibrated, measured, tmp_path))
    with pytest.raises(ValueError, match="more pictures"):
        calibrate(list_pictures(folder), make_encoder(ENCODER), 1e-7, pictures=2)
