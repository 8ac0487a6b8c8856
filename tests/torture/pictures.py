"""Cheap pictures: smooth random textures, so unlike each other that copies and strangers are never in doubt."""

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

GRID = 8  # the encoder of the torture test sees a picture as so many cells a side
SIDE = 6 * GRID
THRESHOLD_L2 = 0.35


def texture(rng: np.random.Generator) -> Pixels:
    """A new picture, uint8 [SIDE, SIDE, 3]."""
    cells = rng.integers(32, 224, (GRID, GRID, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def variant(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A near copy: other lighting and some noise."""
    lit = pixels * rng.uniform(0.85, 1.1) + rng.uniform(-15, 15) + rng.normal(0, 4, pixels.shape)
    return lit.clip(0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int = 90) -> bytes:
    """The picture as a file of one or two kilobytes."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def vector(data: bytes) -> npt.NDArray[np.float32]:
    """What the encoder of `encoder.py` makes of a file, nearly: unit vector of the cells less their mean."""
    cells = np.asarray(Image.open(BytesIO(data)).resize((GRID, GRID), Image.Resampling.BOX), np.float32).ravel()
    centred = cells - cells.mean()
    return np.asarray(centred / np.linalg.norm(centred), np.float32)
