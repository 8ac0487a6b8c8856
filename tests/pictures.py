"""Pictures that several tests upload."""

import io

import numpy as np
from PIL import Image


def noise(random: np.random.Generator) -> bytes:
    """A small picture unlike all others: coarse random colours."""
    out = io.BytesIO()
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
    coarse.resize((96, 96), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()
