"""Fit the rotation maps, which undo what quarter turns do to descriptors, on pictures, and put them into the model.

    python -m triton_models.training.rotation_maps --images FOLDER

The same spot of a picture and of the rotated picture has two different descriptors. A matrix for each rotation takes
one to the other as well as least squares can; `consumer.verification` tries uploads through these as well. Only
pictures of the training teach them. They come before `second_look`, whose rule rests on them.
"""

import argparse
import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from consumer.encoder.patches import ROTATIONS, encode_rotation_maps
from triton_models.training.data import is_validation, list_pictures
from triton_models.training.encoders import Floats, OnnxEncoder
from triton_models.training.parameters import MODEL_FOLDER, set_metadata, set_parameters
from triton_models.training.uploads import BATCH, open_picture

Patches = NDArray[np.int8]

QUARTERS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
PICTURES = 1500  # give some 95,000 spots, for 484 numbers a rotation
RIDGE = 0.1


def fit_rotation_map(upright: Patches, rotated: Patches, quarters: int) -> Floats:
    """Fit the map float32 [C - 2, C - 2] from descriptors of pictures rotated anticlockwise to upright ones.

    Both are local features int8 [N, P, C] of the same pictures. Raises ValueError when no spot has a feature in both.
    """
    sources, targets = [], []
    for upright_features, rotated_features in zip(upright, rotated, strict=True):
        expected = _rotate(upright_features[:, -2:].astype(np.int64), quarters)
        actual = rotated_features[:, -2:].astype(np.int64)
        # Centres of cells are rounded, and not the same way on both sides of the middle.
        same = np.abs(expected[:, None] - actual).max(axis=2) <= 1
        same &= upright_features[:, None, :-2].any(axis=2) & rotated_features[:, :-2].any(axis=1)
        of_upright, of_rotated = np.nonzero(same)
        sources.append(_unit(rotated_features[of_rotated, :-2]))
        targets.append(_unit(upright_features[of_upright, :-2]))
    source, target = np.concatenate(sources), np.concatenate(targets)
    if not len(source):
        raise ValueError("Pictures and turned pictures have no local feature at the same spot")
    channels = source.shape[1]
    solved: Floats = np.linalg.solve(source.T @ source + RIDGE * np.eye(channels, dtype=np.float32), source.T @ target)
    return solved


def _rotate(places: NDArray[np.int64], quarters: int) -> NDArray[np.int64]:
    """Rotate places (x, y), from the middle and y downwards, by quarter turns anticlockwise."""
    for _ in range(quarters):
        places = np.stack([places[:, 1], -places[:, 0]], axis=1)
    return places


def _unit(descriptors: NDArray[np.int8]) -> Floats:
    """Scale descriptors to unit length."""
    floats = descriptors.astype(np.float32)
    unit: Floats = floats / np.maximum(np.linalg.norm(floats, axis=1, keepdims=True), 1)
    return unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="folder of the served model, which is changed")
    parser.add_argument("--encoder", type=Path, help="ONNX file; the model's own in 8 bits if not given")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    paths = [path for path in list_pictures(arguments.images) if not is_validation(path.name)]
    chosen = np.random.default_rng(arguments.seed).permutation(len(paths))[:PICTURES]
    encoder = OnnxEncoder(arguments.encoder or arguments.model / "1" / "model.int8.onnx")
    batches: list[list[Patches]] = [[] for _ in range(ROTATIONS + 1)]  # upright, then by rotation
    for start in tqdm(range(0, len(chosen), BATCH), mininterval=10):
        pictures = [open_picture(paths[index]) for index in chosen[start : start + BATCH]]
        for of_rotation, quarter in zip(batches, (None, *QUARTERS), strict=True):
            rotated = pictures if quarter is None else [picture.transpose(quarter) for picture in pictures]
            patches = encoder.features(rotated)[1]
            if patches is None:
                raise SystemExit("The encoder gives no local features, so there is nothing to turn")
            of_rotation.append(patches)
    upright, *rotated_features = (np.concatenate(of_rotation) for of_rotation in batches)
    maps = [fit_rotation_map(upright, features, quarters) for quarters, features in enumerate(rotated_features, 1)]
    parameters = {"turns": base64.b64encode(encode_rotation_maps(np.stack(maps))).decode()}
    set_parameters(arguments.model, arguments.model, parameters)
    set_metadata(arguments.model / "1", parameters)


if __name__ == "__main__":
    main()
