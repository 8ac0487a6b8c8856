"""Calibration by a served model file, from pictures to the configuration that puts the threshold in force."""

import json
import re
from pathlib import Path

import pytest

from triton_models.training.calibrate import calibrate, write
from triton_models.training.data import list_pictures
from triton_models.training.encoders import make_encoder
from triton_models.training.parameters import MODEL_FOLDER

ENCODER = str(MODEL_FOLDER / "1" / "model.onnx")


def test_calibration_writes_what_puts_its_threshold_in_force(folder: Path, tmp_path: Path) -> None:
    calibration, measured = calibrate(list_pictures(folder), make_encoder(ENCODER), 1e-3, pictures=12)
    assert 0 < calibration.threshold_l2 < 1.5
    assert (measured.others <= calibration.threshold_l2 + 1e-4).sum() >= int(1e-3 * calibration.pairs)
    assert calibration.recall_by_kind["lighting"] > 0.5
    files = write(calibration, measured, tmp_path)
    assert all(path.stat().st_size > 0 for path in files)
    assert json.loads((tmp_path / "calibration.json").read_text())["threshold_l2"] == calibration.threshold_l2
    for name in ("config.pbtxt", "configs/cpu.pbtxt"):
        for key in ("threshold_l2", "candidate_l2"):  # the vector decides alone
            value = re.search(rf'"{key}".*?"([\d.]+)"', (tmp_path / name).read_text())
            assert value is not None
            assert float(value[1]) == calibration.threshold_l2


def test_too_few_pictures_for_the_rate_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="more pictures"):
        calibrate(list_pictures(folder), make_encoder(ENCODER), 1e-7, pictures=2)
