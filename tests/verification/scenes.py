"""Scenes made of numbers, in place of pictures: fields of descriptors and of grey, and features are their samples."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.views import Features
from consumer.images.region import WHOLE_IMAGE
from consumer.images.thumbnail import SIDE, Thumbnail
from consumer.verdicts import Edit

CHANNELS, GRID = 24, 10
CENTRES = (np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2) + 0.5) / GRID
WAVES = 60  # that a scene's greys are made of
SUPERSAMPLES = 3  # along and across each pixel of a thumbnail

Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]
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


class Scene(NamedTuple):
    """What is seen at places [K, 2] of a scene: descriptors [K, C - 2], and greys [K] of about 0 and deviation 1."""

    descriptors: Field
    grey: Field


def scene(seed: int) -> Scene:
    """Make a scene whose descriptors change as much from cell to cell as features do, and with grain to its greys."""
    rng = np.random.default_rng(seed)
    frequencies, phases = rng.normal(0, 7, (2, CHANNELS - 2)), rng.uniform(0, 2 * np.pi, CHANNELS - 2)
    waves, shifts = rng.normal(0, 30, (2, WAVES)), rng.uniform(0, 2 * np.pi, WAVES)
    return Scene(
        lambda places: np.sin(places @ frequencies + phases),
        lambda places: np.sin(places @ waves + shifts).sum(axis=1) / np.sqrt(WAVES / 2),
    )


def patches(of: Scene, affine: Affine = IDENTITY, around: Scene | None = None, noise: float = 0.0) -> NDArray[np.int8]:
    """Sample int8 [1, 64, C] of an edit of the scene; outside of it the scene `around` shows, or nothing at all."""
    rng = np.random.default_rng(len(str(affine)))
    matrix = np.array(affine)
    source = CENTRES @ matrix[:, :2].T + matrix[:, 2]
    inside = ((source >= 0) & (source <= 1)).all(axis=1)
    values = np.where(inside[:, None], of.descriptors(source), around.descriptors(CENTRES) if around else 0)
    values = values + noise * rng.standard_normal(values.shape) * (values != 0)
    order = np.argsort(~values.any(axis=1), kind="stable")[:64] if not inside.all() else rng.permutation(100)[:64]
    descriptors = np.clip(values[order] / 2 * 127, -127, 127)
    return np.concatenate([descriptors, CENTRES[order] * 256 - 128], axis=1).round().astype(np.int8)[None]


def pixels(of: Scene, affine: Affine = IDENTITY, around: Scene | None = None, noise: float = 0.0) -> NDArray[np.uint8]:
    """Draw an edit of the scene as uint8 [SIDE, SIDE, 3], with what is `around` it, or black."""
    rng, count = np.random.default_rng(len(str(affine))), SIDE * SUPERSAMPLES
    x, y = np.meshgrid(*[(np.arange(count) + 0.5) / count] * 2)
    places = np.stack([x, y], axis=-1).reshape(-1, 2)
    matrix = np.array(affine)
    source = places @ matrix[:, :2].T + matrix[:, 2]
    inside = ((source > 0) & (source < 1)).all(axis=1)
    grey = np.where(inside, of.grey(source), around.grey(places) if around else -3)
    grey = grey.reshape(SIDE, SUPERSAMPLES, SIDE, SUPERSAMPLES).mean(axis=(1, 3))
    values = 128 + 40 * (grey + noise * rng.standard_normal(grey.shape))
    return np.repeat(values.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def features(of: Scene, affine: Affine = IDENTITY, around: Scene | None = None, noise: float = 0.0) -> Features:
    """Make the features of a square picture of an edit of the scene."""
    thumbnail = Thumbnail.of(pixels(of, affine, around, noise), WHOLE_IMAGE, 1.0)
    return Features(patches(of, affine, around, noise)[0], thumbnail)


def check_edit(edit: Edit) -> None:
    """Check that an edit is one that a verdict may carry: boxes within the pictures, and nothing turned inside out."""
    assert edit.zoom > 0
    assert 0 <= edit.overlap <= 1
    for box in (edit.box_in_match, edit.box_in_upload):
        assert 0 <= box.left <= box.right <= 1
        assert 0 <= box.top <= box.bottom <= 1
