"""The byte layout of `patches`, the encoder's second output: int8 [P, C] a picture.

Each row is a local feature. The first C - 2 channels are a descriptor of any scale, all zero for a feature that shows
too little; the last two are its place (x, y), in 1/128 of half the side from the middle.

Rotation maps are linear maps from the descriptors of a picture turned by one, two and three quarters to the descriptors
of the picture upright.
"""

import math

import numpy as np
from numpy.typing import NDArray

MIN_FEATURES, MIN_CHANNELS = 2, 3  # two places define a transformation; two of the channels are the place
ROTATIONS = 3  # T: by one, two and three quarters
_ROTATION_SCALE = 64  # rotation maps are stored as int8 in 1/64


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
