"""Rotation maps: fitted ones equal those that were applied, and those of the served model undo quarter turns."""

import base64

import numpy as np
import pytest

from consumer.encoder.patches import decode_rotation_maps, encode_rotation_maps
from consumer.verification.features import match_features
from tests.training.drawings import draw_picture
from triton_models.training.encoders import OnnxEncoder
from triton_models.training.parameters import MODEL_FOLDER
from triton_models.training.rotation_maps import QUARTERS, fit_rotation_map

CELLS = 12
CENTRES = np.round((np.arange(CELLS) + 0.5) / CELLS * 256 - 128).clip(-128, 127)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_fitted_map_undoes_the_one_that_was_applied(quarters: int) -> None:
    rng = np.random.default_rng(quarters)
    hidden = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    grid = rng.normal(0, 40, (30, CELLS, CELLS, 6))  # by row and column
    rotated = np.rot90(grid, quarters, axes=(1, 2)) @ hidden.T
    places = np.stack(np.meshgrid(CENTRES, CENTRES), axis=-1)

    def patches(values: np.ndarray) -> np.ndarray:
        cells = np.concatenate([values, np.broadcast_to(places, (*values.shape[:3], 2))], axis=3).reshape(30, -1, 8)
        order = rng.permutation(CELLS**2)[:100]  # encoders keep only some of the cells
        return cells[:, order].round().clip(-128, 127).astype(np.int8)

    assert fit_rotation_map(patches(grid), patches(rotated), quarters) == pytest.approx(hidden, abs=0.05)


def test_without_a_common_spot_nothing_is_made_up() -> None:
    blank = np.zeros((2, 5, 8), np.int8)
    with pytest.raises(ValueError, match="same spot"):
        fit_rotation_map(blank, blank, 1)


def test_the_parameter_holds_the_maps() -> None:
    maps = [np.random.default_rng(n).uniform(-1, 1, (22, 22)).astype(np.float32) for n in range(3)]
    decoded = decode_rotation_maps(base64.b64decode(base64.b64encode(encode_rotation_maps(np.stack(maps)))))
    assert decoded is not None
    assert decoded == pytest.approx(np.stack(maps), abs=1 / 128 + 1e-6)


@pytest.mark.parametrize("quarter", range(3))
def test_the_served_model_sees_through_quarter_turns(quarter: int) -> None:
    encoder = OnnxEncoder(MODEL_FOLDER / "1" / "model.int8.onnx")
    pictures = [draw_picture(seed, 240) for seed in range(12)]
    _, upright = encoder.features(pictures)
    _, rotated = encoder.features([picture.transpose(QUARTERS[quarter]) for picture in pictures])
    assert upright is not None
    assert rotated is not None
    without_maps = match_features(rotated, upright)
    with_maps = match_features(rotated, upright, encoder.rotation_maps)
    scores, higher = (each.similarity * each.trust for each in (without_maps, with_maps))
    assert (higher >= scores).all()
    assert np.median(higher) > np.median(scores) + 0.07
