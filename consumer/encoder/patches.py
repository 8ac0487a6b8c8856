"""The byte layout of `patches`, the encoder's second output: int8 [P, C] a picture.

The first rows are local features. The first C - 2 channels of a feature are a descriptor of any scale, all zero for a
feature that shows too little; the last two are its place (x, y), in 1/128 of half the side from the middle. The last
rows are a thumbnail of `thumbnail_side` x `thumbnail_side` pixels; models without that parameter have none (0).

Rotation maps are linear maps from the descriptors of a picture turned by one, two and three quarters to the descriptors
of the picture upright.
"""

import math

import numpy as np
from numpy.typing import NDArray

MIN_FEATURES, MIN_CHANNELS = 2, 3  # two places define a transformation; two of the channels are the place
ROTATIONS = 3  # T: by one, two and three quarters
_ROTATION_SCALE = 64  # rotation maps are stored as int8 in 1/64


def thumbnail_bytes(side: int) -> int:
    """Return the bytes that a thumbnail of `side` x `side` pixels takes: half a byte a pixel."""
    return side * side // 2


def split_features(patches: NDArray[np.int8], thumbnail_side: int) -> NDArray[np.int8]:
    """Return the local features, int8 [M, P - R, C], in `patches` [M, P, C], whose last R rows are a thumbnail."""
    return patches[:, : patches.shape[1] - thumbnail_bytes(thumbnail_side) // patches.shape[2]]


def unpack_thumbnails(patches: NDArray[np.int8], side: int) -> NDArray[np.float32]:
    """Unpack the thumbnails, float32 [M, side, side], in `patches` [M, P, C], in levels of 0 to 15.

    They are stored row by row, two pixels a byte, the first in its higher half, less 128. Level 7.5 is the mean, and
    3.75 levels are one standard deviation of the picture's grey.
    """
    pairs = patches[:, split_features(patches, side).shape[1] :].astype(np.int16) + 128
    return np.stack([pairs >> 4, pairs & 15], axis=-1).reshape(len(patches), side, side).astype(np.float32)


def encode_rotation_maps(maps: NDArray[np.float32]) -> bytes:
    """Encode rotation maps, float32 [T, C - 2, C - 2], for the model's parameter `turns`: int8, row by row."""
    return np.clip(np.round(maps * _ROTATION_SCALE), -128, 127).astype(np.int8).tobytes()


def decode_rotation_maps(data: bytes) -> NDArray[np.float32] | None:
    """Decode rotation maps, float32 [T, C - 2, C - 2]; None when there are none."""
    side = math.isqrt(len(data) // ROTATIONS)
    if not side:
        return None
    stored = np.frombuffer(data, np.int8).astype(np.float32)
    return stored.reshape(ROTATIONS, side, side) / np.float32(_ROTATION_SCALE)
