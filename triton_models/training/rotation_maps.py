"""What quarter turns do to local features: the linear maps that undo it, fitted on pictures and put into the model.

    python -m triton_models.training.turns --images FOLDER

The same spot of a picture and of the picture turned has two descriptors. A matrix by turn takes one to the other as
well as least squares can; `verification` looks at uploads through these as well. Only pictures of the training teach
them. They come before `second_look`, whose rule rests on them.
"""

import argparse
import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from consumer.encoder.patches import ROTATIONS, encode_rotation_maps, split_features
from triton_models.training.bench import BATCH, Patches, open_picture
from triton_models.training.data import is_validation, list_pictures
from triton_models.training.encoders import Floats, OnnxEncoder
from triton_models.training.parameters import MODEL_FOLDER, set_metadata, set_parameters

QUARTERS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
PICTURES = 1500  # give some 95,000 spots, for 484 numbers a turn
RIDGE = 0.1


def undoing(upright: Patches, turned: Patches, quarters: int) -> Floats:
    """The map float32 [C - 2, C - 2] from descriptors of pictures turned anticlockwise to those of them upright.

    Both int8 [N, P, C], of the same pictures. Raises ValueError when they have no spot in common.
    """
    before, after = [], []
    for one, other in zip(upright, turned, strict=True):
        here, there = _turn(one[:, -2:].astype(np.int64), quarters), other[:, -2:].astype(np.int64)
        # Centres of cells are rounded, and not the same way on both sides of the middle.
        same = np.abs(here[:, None] - there).max(axis=2) <= 1
        same &= one[:, None, :-2].any(axis=2) & other[:, :-2].any(axis=1)
        first, second = np.nonzero(same)
        before.append(_unit(other[second, :-2]))
        after.append(_unit(one[first, :-2]))
    source, target = np.concatenate(before), np.concatenate(after)
    if not len(source):
        raise ValueError("Pictures and turned pictures have no local feature at the same spot")
    channels = source.shape[1]
    solved: Floats = np.linalg.solve(source.T @ source + RIDGE * np.eye(channels, dtype=np.float32), source.T @ target)
    return solved


def _turn(places: NDArray[np.int64], quarters: int) -> NDArray[np.int64]:
    """Where places (x, y), from the middle, y downwards, are after quarter turns anticlockwise."""
    for _ in range(quarters):
        places = np.stack([places[:, 1], -places[:, 0]], axis=1)
    return places


def _unit(descriptors: NDArray[np.int8]) -> Floats:
    floats = descriptors.astype(np.float32)
    unit: Floats = floats / np.maximum(np.linalg.norm(floats, axis=1, keepdims=True), 1)
    return unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--encoder", type=Path, default=MODEL_FOLDER / "1" / "model.int8.onnx")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    paths = [path for path in list_pictures(arguments.images) if not is_validation(path.name)]
    chosen = np.random.default_rng(arguments.seed).permutation(len(paths))[:PICTURES]
    encoder = OnnxEncoder(arguments.encoder)
    found: list[list[Patches]] = [[] for _ in range(ROTATIONS + 1)]
    for start in tqdm(range(0, len(chosen), BATCH), mininterval=10):
        pictures = [open_picture(paths[index]) for index in chosen[start : start + BATCH]]
        for kept, quarter in zip(found, (None, *QUARTERS), strict=True):
            turned = pictures if quarter is None else [picture.transpose(quarter) for picture in pictures]
            patches = encoder.features(turned)[1]
            if patches is None:
                raise SystemExit("The encoder gives no local features, so there is nothing to turn")
            kept.append(split_features(patches, encoder.thumbnail_side))
    upright, *turned_patches = (np.concatenate(kept) for kept in found)
    maps = [undoing(upright, turned, quarters) for quarters, turned in enumerate(turned_patches, 1)]
    parameters = {"turns": base64.b64encode(encode_rotation_maps(np.stack(maps))).decode()}
    set_parameters(MODEL_FOLDER, MODEL_FOLDER, parameters)
    set_metadata(MODEL_FOLDER / "1", parameters)


if __name__ == "__main__":
    main()
