"""Cheap pictures: smooth random textures, so unlike each other that no pair is a doubtful case."""

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

GRID = 8  # cells along each side of a picture, as the encoder of the torture test divides it
SIDE = 6 * GRID
THRESHOLD_L2 = 0.35


def texture(rng: np.random.Generator) -> Pixels:
    """Make a new picture, uint8 [SIDE, SIDE, 3]."""
    cells = rng.integers(32, 224, (GRID, GRID, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def variant(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Make a near copy, with other lighting and some noise."""
    lit = pixels * rng.uniform(0.85, 1.1) + rng.uniform(-15, 15) + rng.normal(0, 4, pixels.shape)
    return lit.clip(0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int = 90) -> bytes:
    """Encode the picture as a file of one or two kilobytes."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def vector(data: bytes) -> npt.NDArray[np.float32]:
    """Compute nearly the vector that `encoder.py` would give a file: the cells less their mean, at unit length."""
    cells = np.asarray(Image.open(BytesIO(data)).resize((GRID, GRID), Image.Resampling.BOX), np.float32).ravel()
    centred = cells - cells.mean()
    return np.asarray(centred / np.linalg.norm(centred), np.float32)
