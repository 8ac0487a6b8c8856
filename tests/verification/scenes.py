"""Scenes made of numbers, in place of pictures: a scene is a field of descriptors, and features are its samples."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CHANNELS, GRID = 24, 10
CENTRES = (np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2) + 0.5) / GRID

Scene = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Affine = list[list[float]]

IDENTITY: Affine = [[1, 0, 0], [0, 1, 0]]
# From places in the upload to places in the match.
EDITS: dict[str, Affine] = {
    "same frame": IDENTITY,
    "zoom": [[0.7, 0, 0.2], [0, 0.7, 0.1]],
    "strong crop": [[0.5, 0, 0.45], [0, 0.5, 0.3]],
    "another aspect": [[0.6, 0, 0.3], [0, 1, 0]],
    "mirrored": [[-1, 0, 1], [0, 1, 0]],
    "upside down": [[-1, 0, 1], [0, -1, 1]],
    "quarter turn": [[0, 1, 0], [-1, 0, 1]],
    "mirrored quarter turn": [[0, 1, 0], [1, 0, 0]],
    "rotated": [[0.866, 0.5, -0.183], [-0.5, 0.866, 0.317]],
    "in a bigger picture": [[2, 0, -0.2], [0, 2, -0.9]],
    "mirrored zoom": [[-0.7, 0, 0.9], [0, 0.7, 0.1]],
}


def scene(seed: int) -> Scene:
    """Make a field that changes as much from cell to cell as features do."""
    rng = np.random.default_rng(seed)
    frequencies, phases = rng.normal(0, 7, (2, CHANNELS - 2)), rng.uniform(0, 2 * np.pi, CHANNELS - 2)
    return lambda places: np.sin(places @ frequencies + phases)


def features(
    field: Scene, affine: Affine = IDENTITY, around: Scene | None = None, noise: float = 0.0
) -> NDArray[np.int8]:
    """Sample int8 [1, 64, C] of an edit of the scene; outside of it the scene `around` shows, or nothing at all."""
    rng = np.random.default_rng(len(str(affine)))
    matrix = np.array(affine)
    source = CENTRES @ matrix[:, :2].T + matrix[:, 2]
    inside = ((source >= 0) & (source <= 1)).all(axis=1)
    values = np.where(inside[:, None], field(source), around(CENTRES) if around else 0)
    values = values + noise * rng.standard_normal(values.shape) * (values != 0)
    order = np.argsort(~values.any(axis=1), kind="stable")[:64] if not inside.all() else rng.permutation(100)[:64]
    descriptors = np.clip(values[order] / 2 * 127, -127, 127)
    return np.concatenate([descriptors, CENTRES[order] * 256 - 128], axis=1).round().astype(np.int8)[None]
