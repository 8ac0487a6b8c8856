"""What is known of quarter turns: found again where it was put in, and true of the served model."""

import base64

import numpy as np
import pytest

from consumer.encoder.patches import decode_rotation_maps, encode_rotation_maps, split_features
from consumer.verification.features import verify
from tests.training.conftest import draw_picture
from triton_models.training.encoders import OnnxEncoder
from triton_models.training.parameters import MODEL_FOLDER
from triton_models.training.turns import QUARTERS, undoing

CELLS = 12
CENTRES = np.round((np.arange(CELLS) + 0.5) / CELLS * 256 - 128).clip(-128, 127)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_map_that_was_applied_is_undone(quarters: int) -> None:
    rng = np.random.default_rng(quarters)
    hidden = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    grid = rng.normal(0, 40, (30, CELLS, CELLS, 6))  # by row and column
    turned = np.rot90(grid, quarters, axes=(1, 2)) @ hidden.T
    places = np.stack(np.meshgrid(CENTRES, CENTRES), axis=-1)

    def patches(values: np.ndarray) -> np.ndarray:
        cells = np.concatenate([values, np.broadcast_to(places, (*values.shape[:3], 2))], axis=3).reshape(30, -1, 8)
        order = rng.permutation(CELLS**2)[:100]  # encoders keep only some of the cells
        return cells[:, order].round().clip(-128, 127).astype(np.int8)

    assert undoing(patches(grid), patches(turned), quarters) == pytest.approx(hidden, abs=0.05)


def test_without_a_common_spot_nothing_is_made_up() -> None:
    blank = np.zeros((2, 5, 8), np.int8)
    with pytest.raises(ValueError, match="same spot"):
        undoing(blank, blank, 1)


def test_the_parameter_holds_the_maps() -> None:
    maps = [np.random.default_rng(n).uniform(-1, 1, (22, 22)).astype(np.float32) for n in range(3)]
    read = decode_rotation_maps(base64.b64decode(base64.b64encode(encode_rotation_maps(np.stack(maps)))))
    assert read is not None
    assert read == pytest.approx(np.stack(maps), abs=1 / 128 + 1e-6)


@pytest.mark.parametrize("quarter", range(3))
def test_the_served_model_sees_through_quarter_turns(quarter: int) -> None:
    encoder = OnnxEncoder(MODEL_FOLDER / "1" / "model.int8.onnx")
    pictures = [draw_picture(seed, 240) for seed in range(12)]
    _, upright = encoder.features(pictures)
    _, turned = encoder.features([picture.transpose(QUARTERS[quarter]) for picture in pictures])
    assert upright is not None
    assert turned is not None
    upright, turned = (split_features(patches, encoder.thumbnail_side) for patches in (upright, turned))
    blind = np.array([look.score for look in verify(turned, upright)])
    seeing = np.array([look.score for look in verify(turned, upright, encoder.turns)])
    assert (seeing >= blind).all()
    assert np.median(seeing) > np.median(blind) + 0.07
